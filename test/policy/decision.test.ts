import { describe, expect, it } from 'vitest'
import { digestJson, digestOf } from '../../src/digest.ts'
import { newId } from '../../src/id.ts'
import { failed, hostSentence, makeDecision, replayText } from '../../src/policy/decision.ts'
import type { Merged } from '../../src/policy/decision.ts'
import type { Requirement } from '../../src/policy/policy.ts'
import { forgedPack, generation } from './fixtures/pack.ts'
import { forge } from './fixtures/wasm.ts'

const requirement: Requirement = {
  stages: [{ id: 'owner', roles: ['approver'], min: 1 }],
  exclude: ['agent'],
  evidence: ['key'],
  request_ttl_s: 60,
  execute_within_s: 60,
}
const pending: Merged = {
  effect: 'pending',
  error: null,
  findings: [],
  grants: ['starter/G-1'],
  requirement,
  limits: { wall_s: 60 },
  credentials: ['vault-token'],
  sentences: [{ code: 'approval_required', message: 'Production needs an owner', remedy: 'Wait for it.' }],
}
const packs = [forgedPack({ pack: 'starter', layer: 'team', kind: 'grant' }, forge())]

function decide(merged: Merged, number = 4) {
  return makeDecision({
    id: newId('dec'),
    atMs: Date.now(),
    phase: 'execution',
    merged,
    generation: generation(number, packs),
    inputDigest: digestOf('input'),
  })
}

describe('a decision', () => {
  it('names its requirement by digest, its modules by digest, and itself as ref of each reason', () => {
    const decision = decide(pending)
    expect(decision).toMatchObject({ schema: 'writ.decision/v1', effect: 'pending', generation: 4, requirement })
    expect(decision.requirement_digest).toBe(digestJson(requirement))
    expect(decision.modules).toEqual([{ pack: 'starter', layer: 'team', digest: packs[0]?.digest }])
    expect(decision.reasons).toEqual([{ ...pending.sentences[0], ref: decision.id }])
  })

  it('keeps the reasons a caller reads to a few', () => {
    const many = Array.from({ length: 50 }, (_, at) => ({ code: `c${at}`, message: 'm', remedy: 'r' }))
    expect(decide({ ...pending, sentences: many }).reasons).toHaveLength(8)
  })

  it('has the same replay text at any time and in any generation with these modules, and another when anything else differs', () => {
    const text = replayText(decide(pending))
    expect(replayText(decide(pending, 9))).toBe(text)
    expect(replayText(decide({ ...pending, limits: {} }))).not.toBe(text)
    expect(replayText(decide({ ...pending, effect: 'allow' }))).not.toBe(text)
    expect(replayText(decide({ ...pending, sentences: [hostSentence('not_granted')] }))).not.toBe(text)
  })

  it('of an error allows, grants and leases nothing', () => {
    for (const code of [
      'policy_undefined',
      'policy_throw',
      'builtin_error',
      'output_schema',
      'input_rejected',
      'deadline',
      'no_generation',
    ] as const) {
      expect(decide(failed(code))).toMatchObject({
        effect: 'error',
        error: code,
        grants: [],
        credentials: [],
        requirement: null,
        requirement_digest: null,
        reasons: [{ code }],
      })
    }
  })
})

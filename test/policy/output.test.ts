import { describe, expect, it } from 'vitest'
import { parseOutput } from '../../src/policy/output.ts'
import { emptyOutput, grantRule as rule } from './fixtures/wasm.ts'

const stage = { id: 'owner', roles: ['approver'], min: 1 }
const demand = {
  rule,
  stages: [stage],
  exclude: ['agent'],
  evidence: ['key'],
  request_ttl_s: 60,
  execute_within_s: 60,
  message: null,
}
const good = {
  grant: [{ rule }],
  deny: [
    { rule, message: null },
    { rule, message: 'no' },
  ],
  require_approval: [demand],
  limit: [{ rule, wall_s: 60 }],
  credential: [{ rule, name: 'vault-token', lane: null, exposure: 'workload' }],
  sandbox: [{ rule, isolation: 'container', egress: null }],
  obligation: [{ rule, type: 'record', properties: { level: ['full', 1, null, true] } }],
  warn: [{ rule, message: 'mind this' }],
}

describe("a pack's output", () => {
  it('is taken as it is when it has every set with elements of the right shape', () => {
    expect(parseOutput(good)).toEqual(good)
    expect(parseOutput(emptyOutput)).toEqual(emptyOutput)
    expect(parseOutput({ ...good, limit: [{ rule, wall_s: 60, cpu_s: null }] })?.limit).toEqual([{ rule, wall_s: 60 }])
  })

  it.each(Object.keys(good))('is refused when the set %s is missing, no array, or holds what it may not', (set) => {
    const { [set as keyof typeof good]: elements, ...rest } = good
    expect(parseOutput(rest)).toBeNull()
    const first = elements[0]
    for (const bad of [
      null,
      {},
      'x',
      [null],
      [[]],
      [{}],
      [{ ...first, also: 1 }],
      [{ ...first, rule: 'T-1' }],
      [{ ...first, rule: { id: 'T-1' } }],
    ]) {
      expect(parseOutput({ ...good, [set]: bad })).toBeNull()
    }
    expect(parseOutput({ ...good, [set]: Array.from({ length: 201 }, () => first) })).toBeNull()
  })

  it('[G-policy-bounded] is refused where it asks more people than anybody could mean, or the same stage twice in one rule', () => {
    const many = <T>(count: number, one: (at: number) => T): readonly T[] =>
      Array.from({ length: count }, (_, at) => one(at))
    const stages = (count: number) => many(count, (at) => ({ ...stage, id: `s${at}` }))
    const roles = (count: number) => many(count, (at) => `r${at}`)
    const asking = (...demands: readonly unknown[]) => parseOutput({ ...good, require_approval: demands })
    expect(asking(...many(16, () => demand))).not.toBeNull()
    expect(asking(...many(17, () => demand))).toBeNull()
    expect(asking({ ...demand, stages: stages(16) })).not.toBeNull()
    expect(asking({ ...demand, stages: stages(17) })).toBeNull()
    expect(asking({ ...demand, stages: [{ ...stage, roles: roles(32) }] })).not.toBeNull()
    expect(asking({ ...demand, stages: [{ ...stage, roles: roles(33) }] })).toBeNull()
    expect(asking({ ...demand, stages: [stage, { ...stage, roles: ['lead'] }] })).toBeNull()
  })

  it('is refused where it gives people more time than a date can hold, or a stage a name that no statement has room for', () => {
    const asking = (over: object) => parseOutput({ ...good, require_approval: [{ ...demand, ...over }] })
    for (const time of ['request_ttl_s', 'execute_within_s']) {
      expect(asking({ [time]: 315_360_000 })).not.toBeNull()
      for (const seconds of [315_360_001, 9_000_000_000_000, Number.MAX_SAFE_INTEGER])
        expect(asking({ [time]: seconds })).toBeNull()
    }
    expect(asking({ stages: [{ ...stage, id: 's'.repeat(128) }] })).not.toBeNull()
    expect(asking({ stages: [{ ...stage, id: 's'.repeat(129) }] })).toBeNull()
  })

  it('is refused for one set more, and when it is no object', () => {
    expect(parseOutput({ ...good, allow: [] })).toBeNull()
    expect(parseOutput(JSON.parse(`{"__proto__":[],${JSON.stringify(good).slice(1)}`))).toBeNull()
    for (const bad of [undefined, null, true, [], 'x', 1]) expect(parseOutput(bad)).toBeNull()
  })

  it.each([
    ['limit', { rule }],
    ['limit', { rule, wall_s: '60' }],
    ['limit', { rule, wall_s: 0 }],
    ['limit', { rule, wal_s: 60 }],
    ['credential', { rule, name: '', lane: null, exposure: null }],
    ['credential', { rule, name: 'x', lane: 'tunnel', exposure: null }],
    ['credential', { rule, name: 'x', lane: null, exposure: 'everyone' }],
    ['sandbox', { rule, isolation: null, egress: null }],
    ['sandbox', { rule, isolation: 'strong', egress: null }],
    ['sandbox', { rule, isolation: null, egress: 'some' }],
    ['obligation', { rule, type: '', properties: {} }],
    ['obligation', { rule, type: 'x', properties: { deep: { d: { d: { d: { d: { d: { d: { d: 1 } } } } } } } } }],
    ['obligation', { rule, type: 'x', properties: Number.NaN }],
    ['warn', { rule, message: null }],
    ['warn', { rule, message: '\ud800' }],
    ['deny', { rule, message: 'x'.repeat(2001) }],
    ['grant', { rule: { ...rule, id: '' } }],
    ['grant', { rule: { ...rule, remedy: null } }],
    ['require_approval', { ...demand, stages: [] }],
    ['require_approval', { ...demand, stages: [{ ...stage, min: 101 }] }],
    ['require_approval', { ...demand, stages: [{ ...stage, roles: [''] }] }],
    ['require_approval', { ...demand, exclude: ['nobody'] }],
    ['require_approval', { ...demand, exclude: null }],
    ['require_approval', { ...demand, evidence: ['word'] }],
    ['require_approval', { ...demand, execute_within_s: 1.5 }],
  ])('is refused for the %s %j', (set, element) => {
    expect(parseOutput({ ...good, [set]: [element] })).toBeNull()
  })
})

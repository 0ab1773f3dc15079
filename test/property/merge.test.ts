import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { canonical } from '../../src/digest.ts'
import { egressModes, isolationLevels } from '../../src/plan/plan.ts'
import type { Merged } from '../../src/policy/decision.ts'
import { merge } from '../../src/policy/merge.ts'
import type { PackAnswer } from '../../src/policy/merge.ts'
import { limitNames } from '../../src/policy/output.ts'
import type { InputApproval, PackOutput, PolicyInput, Requirement, RuleRef } from '../../src/policy/policy.ts'
import { satisfied } from '../../src/policy/requirement.ts'
import { approvalOf, input, plan } from '../policy/fixtures/input.ts'
import { emptyOutput } from '../policy/fixtures/wasm.ts'

const ids = ['R-1', 'R-2', 'R-3']
const credentials = ['vault-token', 'db', 'mail']
const roles = ['approver', 'lead', 'security']
const people = ['alice@acme.example', 'bob', 'carol', 'dave', 'ci-agent']
const stages = ['a', 'b', 'c']

const rule: fc.Arbitrary<RuleRef> = fc
  .constantFrom(...ids)
  .map((id) => ({ id, title: `Title ${id}`, code: '', remedy: '' }))

function few<T>(arbitrary: fc.Arbitrary<T>, most = 2): fc.Arbitrary<T[]> {
  return fc.array(arbitrary, { maxLength: most })
}

function rarely<T>(arbitrary: fc.Arbitrary<T>): fc.Arbitrary<T[]> {
  return fc.oneof({ weight: 6, arbitrary: fc.constant<T[]>([]) }, { weight: 1, arbitrary: few(arbitrary) })
}

const amount = fc.integer({ min: 1, max: 400 })

const demand: fc.Arbitrary<PackOutput['require_approval'][number]> = fc.record({
  rule,
  stages: fc.uniqueArray(
    fc.record({
      id: fc.constantFrom(...stages),
      roles: fc.subarray(roles, { minLength: 1 }),
      min: fc.integer({ min: 1, max: 2 }),
    }),
    { minLength: 1, maxLength: 2, selector: ({ id }) => id },
  ),
  exclude: fc.subarray(['agent', 'subject'] as const),
  evidence: fc.subarray(['passkey', 'key', 'bearer'] as const, { minLength: 1 }),
  request_ttl_s: amount,
  execute_within_s: amount,
  message: fc.constant(null),
})

const limit: fc.Arbitrary<PackOutput['limit'][number]> = fc
  .tuple(
    rule,
    fc.constantFrom(...limitNames),
    fc.oneof({ weight: 20, arbitrary: amount }, { weight: 1, arbitrary: fc.constantFrom(0, -5, Number.NaN) }),
  )
  .map(([named, name, value]) => ({ rule: named, [name]: value }))

const sandbox: fc.Arbitrary<PackOutput['sandbox'][number]> = fc.record({
  rule,
  isolation: fc.constantFrom(null, ...isolationLevels),
  egress: fc.constantFrom(null, ...egressModes),
})

const narrowing = {
  deny: rarely(fc.record({ rule, message: fc.constant(null) })),
  require_approval: fc.oneof({ weight: 1, arbitrary: fc.constant([]) }, { weight: 1, arbitrary: few(demand) }),
  limit: few(limit),
  sandbox: rarely(sandbox),
  obligation: rarely(fc.record({ rule, type: fc.constantFrom('record', 'notify'), properties: fc.constant({}) })),
  warn: few(fc.record({ rule, message: fc.constant('mind this') })),
}

const guardOutput: fc.Arbitrary<PackOutput> = fc.record({
  ...narrowing,
  grant: fc.constant([]),
  credential: fc.constant([]),
})
const grantOutput: fc.Arbitrary<PackOutput> = fc.record({
  ...narrowing,
  grant: fc.oneof({ weight: 1, arbitrary: fc.constant([]) }, { weight: 4, arbitrary: few(fc.record({ rule })) }),
  credential: few(
    fc.record({
      rule,
      name: fc.constantFrom(...credentials),
      lane: fc.constantFrom(null, 'placeholder', 'exposed'),
      exposure: fc.constantFrom(null, 'none', 'workload'),
    }),
    4,
  ),
})

type Layer = 'org' | 'team'
const rules = Object.fromEntries(ids.map((id) => [id, { at: '', title: '', code: '', remedy: '' }]))

function answer(layer: Layer, kind: 'guard' | 'grant'): fc.Arbitrary<PackAnswer> {
  const output = kind === 'guard' ? guardOutput : grantOutput
  const result: fc.Arbitrary<PackAnswer['result']> = fc.oneof(
    { weight: 30, arbitrary: output.map((ok) => ({ ok })) },
    { weight: 1, arbitrary: fc.constantFrom({ error: 'deadline' }, { error: 'policy_throw' }) },
  )
  return fc.record({
    attachment: fc.record({
      pack: fc.stringMatching(/^[a-z]{8}$/),
      layer: fc.constant(layer),
      kind: fc.constant(kind),
      rules: fc.constant(rules),
    }),
    result,
  })
}

function answers(layer: Layer, most: number): fc.Arbitrary<PackAnswer[]> {
  return fc.array(fc.oneof(answer(layer, 'guard'), answer(layer, 'grant')), { maxLength: most })
}

const approval: fc.Arbitrary<InputApproval> = fc
  .record({
    stage: fc.constantFrom(...stages),
    verdict: fc.oneof(
      { weight: 30, arbitrary: fc.constant('approve' as const) },
      { weight: 1, arbitrary: fc.constant('reject' as const) },
    ),
    by: fc.constantFrom(...people),
    roles: fc.subarray(roles),
    evidence: fc.constantFrom('passkey', 'key', 'bearer'),
  })
  .map(approvalOf)

const situations: fc.Arbitrary<PolicyInput> = fc
  .record({
    approvals: fc.array(approval, { maxLength: 10 }),
    isolation: fc.constantFrom(...isolationLevels),
    egress: fc.constantFrom(...egressModes),
    asked: fc.subarray(credentials),
    lane: fc.constantFrom('placeholder', 'exposed'),
    exposure: fc.constantFrom('none', 'workload'),
    phase: fc.oneof(
      { weight: 6, arbitrary: fc.constant('execution' as const) },
      { weight: 1, arbitrary: fc.constantFrom('request', 'approval', 'egress') },
    ),
  })
  .map(({ approvals, isolation, egress, asked, lane, exposure, phase }) => {
    const base = input({ approvals, phase })
    if (base.context.plan === null) throw new Error('no plan')
    const facts = {
      ...base.context.plan,
      isolation,
      egress,
      credentials: asked.map((name) => ({ name, lane, exposure })),
    }
    return { ...base, context: { ...base.context, plan: facts } }
  })

const weight = { error: 0, deny: 0, pending: 1, allow: 2 } as const

/** Every approval that satisfies `strict` is at least what `loose` asks for. */
function atLeast(strict: Requirement, loose: Requirement): boolean {
  return (
    loose.stages.every((stage) => {
      const same = strict.stages.find(({ id }) => id === stage.id)
      return same !== undefined && same.min >= stage.min && same.roles.every((role) => stage.roles.includes(role))
    }) &&
    loose.exclude.every((who) => strict.exclude.includes(who)) &&
    strict.evidence.every((kind) => loose.evidence.includes(kind)) &&
    strict.request_ttl_s <= loose.request_ttl_s &&
    strict.execute_within_s <= loose.execute_within_s
  )
}

/** `narrow` ⊑ `wide`: it lets nothing be that `wide` does not. */
function within(narrow: Merged, wide: Merged): string | null {
  if (weight[narrow.effect] > weight[wide.effect]) return `${wide.effect} became ${narrow.effect}`
  if (weight[narrow.effect] === 0) return null
  const more = narrow.credentials.find((name) => !wide.credentials.includes(name))
  if (more !== undefined) return `credential ${more} was added`
  const raised = limitNames.find(
    (name) => (narrow.limits[name] ?? plan.limits[name]) > (wide.limits[name] ?? plan.limits[name]),
  )
  if (raised !== undefined) return `limit ${raised} was raised`
  if (wide.requirement !== null && (narrow.requirement === null || !atLeast(narrow.requirement, wide.requirement))) {
    return 'the approval got weaker'
  }
  return null
}

/** ⊤ of a layer: grants and names everything, in the widest lane. */
const top: PackAnswer = {
  attachment: { pack: 'top', layer: 'team', kind: 'grant', rules },
  result: {
    ok: {
      ...emptyOutput,
      grant: [{ rule: { id: 'R-1', title: '', code: '', remedy: '' } }],
      credential: credentials.map((name) => ({
        rule: { id: 'R-1', title: '', code: '', remedy: '' },
        name,
        lane: 'exposed',
        exposure: 'workload',
      })),
    },
  },
}

const runs = { numRuns: 3000 }

describe('the merge', () => {
  it('[G-layers-narrow] lets no team pack widen what the organisation allows', () => {
    fc.assert(
      fc.property(answers('org', 3), answers('team', 3), situations, (org, team, at) => {
        expect(within(merge([...org, ...team], at), merge([...org, top], at))).toBeNull()
      }),
      runs,
    )
  })

  it('[G-layers-narrow] lets no team pack widen what an organisation that grants by itself allows', () => {
    fc.assert(
      fc.property(answers('org', 2), answer('org', 'grant'), answers('team', 3), situations, (org, base, team, at) => {
        expect(within(merge([...org, base, ...team], at), merge([...org, base], at))).toBeNull()
      }),
      runs,
    )
  })

  it('[G-layers-narrow] lets no guard of any layer widen anything', () => {
    fc.assert(
      fc.property(
        answers('org', 2),
        answers('team', 2),
        fc.oneof(answer('org', 'guard'), answer('team', 'guard')),
        situations,
        (org, team, guard, at) => {
          const without = [...org, ...team]
          expect(within(merge([...without, guard], at), merge(without, at))).toBeNull()
        },
      ),
      runs,
    )
  })

  it('[G-quorum] finds who fills which seat whenever there is a way, and each person fills one', () => {
    const small = fc.array(fc.record({ id: fc.constantFrom(...stages), min: fc.integer({ min: 1, max: 2 }) }), {
      minLength: 1,
      maxLength: 3,
    })
    const said = fc.array(fc.tuple(fc.constantFrom(...people.slice(1, 4)), fc.constantFrom(...stages)), {
      maxLength: 7,
    })
    fc.assert(
      fc.property(small, said, (asked, pairs) => {
        const unique = [...new Map(asked.map((stage) => [stage.id, { ...stage, roles: ['approver'] }])).values()]
        const requirement: Requirement = {
          stages: unique,
          exclude: ['agent'],
          evidence: ['key'],
          request_ttl_s: 1,
          execute_within_s: 1,
        }
        const seats = unique.flatMap(({ id, min }) => Array.from({ length: min }, () => id))
        const fill = (seat: number, free: readonly string[]): boolean =>
          seat === seats.length ||
          free.some(
            (person) =>
              pairs.some(([by, stage]) => by === person && stage === seats[seat]) &&
              fill(
                seat + 1,
                free.filter((other) => other !== person),
              ),
          )
        const approvals = pairs.map(([by, stage]) => approvalOf({ by, stage }))
        expect(satisfied(requirement, input({ approvals }))).toBe(fill(0, people.slice(1, 4)))
      }),
      { numRuns: 2000 },
    )
  })

  it('does not depend on the order of packs', () => {
    fc.assert(
      fc.property(answers('org', 3), answers('team', 3), situations, fc.nat(), (org, team, at, turn) => {
        const all = [...org, ...team]
        const cut = all.length === 0 ? 0 : turn % all.length
        const turned = [...all.slice(cut), ...all.slice(0, cut)].toReversed()
        const named = new Set(all.map(({ attachment }) => attachment.pack))
        fc.pre(named.size === all.length)
        expect(canonical(merge(turned, at))).toBe(canonical(merge(all, at)))
      }),
      { numRuns: 1000 },
    )
  })

  it('lets no verdict but a needed approval change anything for the better, and no reject', () => {
    fc.assert(
      fc.property(answers('org', 2), answers('team', 2), situations, approval, (org, team, at, more) => {
        const all = [...org, ...team]
        const after = merge(all, {
          ...at,
          context: { ...at.context, approvals: [...at.context.approvals, { ...more, verdict: 'reject' }] },
        })
        expect(weight[after.effect]).toBe(0)
        const again = merge(all, {
          ...at,
          context: { ...at.context, approvals: [...at.context.approvals, ...at.context.approvals] },
        })
        expect(again.effect).toBe(merge(all, at).effect)
      }),
      { numRuns: 1000 },
    )
  })

  it('is tried on answers that allow, wait, deny and fail alike', () => {
    const seen = { allow: 0, pending: 0, deny: 0, error: 0 }
    const satisfied = { allow: 0 }
    fc.assert(
      fc.property(answers('org', 2), answers('team', 2), situations, (org, team, at) => {
        const { effect, requirement } = merge([...org, ...team], at)
        seen[effect]++
        if (effect === 'allow' && requirement !== null) satisfied.allow++
      }),
      { numRuns: 3000, seed: 7 },
    )
    expect(Math.min(...Object.values(seen))).toBeGreaterThan(50)
    expect(satisfied.allow).toBeGreaterThan(5)
  })
})

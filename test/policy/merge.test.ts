import { describe, expect, it } from 'vitest'
import { merge } from '../../src/policy/merge.ts'
import type { PackAnswer } from '../../src/policy/merge.ts'
import type { InputApproval, PackOutput, PolicyInput, RuleRef } from '../../src/policy/policy.ts'
import { effort } from '../cost.ts'
import { approvalOf, input, requestInput } from './fixtures/input.ts'
import { emptyOutput } from './fixtures/wasm.ts'

const rule = (id: string, more: Partial<RuleRef> = {}): RuleRef => ({
  id,
  title: `Title ${id}`,
  code: 'a_code',
  remedy: `Remedy ${id}`,
  ...more,
})

type Given = Partial<PackOutput> | { readonly error: 'deadline' | 'policy_throw' }

function pack(name: string, layer: 'org' | 'team', kind: 'guard' | 'grant', given: Given): PackAnswer {
  const sets = 'error' in given ? {} : given
  const ids = Object.values(sets).flatMap((set) => set.map((element) => element.rule.id))
  return {
    attachment: {
      pack: name,
      layer,
      kind,
      rules: Object.fromEntries(ids.map((id) => [id, { at: `${id}.rego:1`, title: '', code: '', remedy: '' }])),
    },
    result: 'error' in given ? { error: given.error } : { ok: { ...emptyOutput, ...given } },
  }
}

const guard = (given: Given, name = 'org'): PackAnswer => pack(name, 'org', 'guard', given)
const team = (given: Given, name = 'starter'): PackAnswer => pack(name, 'team', 'grant', given)
const grant = { grant: [{ rule: rule('G-1') }] }

type Demand = PackOutput['require_approval'][number]
const demand = (parts: Partial<Demand> = {}): Demand => ({
  rule: rule('A-1'),
  stages: [{ id: 'owner', roles: ['approver'], min: 1 }],
  exclude: [],
  evidence: ['key', 'passkey'],
  request_ttl_s: 3600,
  execute_within_s: 600,
  message: null,
  ...parts,
})

function approved(approvals: readonly InputApproval[]): PolicyInput {
  return input({ approvals })
}

const asks = (demands: readonly Demand[], at: PolicyInput = input()) =>
  merge([guard({ require_approval: demands }), team(grant)], at)

describe('grants', () => {
  it('are needed, and no pack at all denies', () => {
    expect(merge([], input())).toMatchObject({ effect: 'deny', sentences: [{ code: 'not_granted' }] })
    expect(merge([guard({})], input())).toMatchObject({ effect: 'deny' })
    expect(merge([team({})], input())).toMatchObject({ effect: 'deny' })
    expect(merge([team(grant)], input())).toMatchObject({ effect: 'allow', grants: ['starter/G-1'], sentences: [] })
  })

  it('are needed from every layer that has a pack which may grant', () => {
    const orgGrant = pack('base', 'org', 'grant', {})
    expect(merge([orgGrant, team(grant)], input())).toMatchObject({ effect: 'deny' })
    expect(merge([pack('base', 'org', 'grant', grant), team(grant)], input())).toMatchObject({ effect: 'allow' })
    expect(merge([team({}), team(grant, 'more')], input())).toMatchObject({ effect: 'allow' })
  })

  it('and credentials from a guard are an error', () => {
    expect(merge([guard(grant), team(grant)], input())).toMatchObject({ effect: 'error', error: 'output_schema' })
    const credential = [{ rule: rule('C-1'), name: 'vault-token', lane: null, exposure: null }]
    expect(merge([guard({ credential }), team(grant)], input())).toMatchObject({
      effect: 'error',
      error: 'output_schema',
    })
  })
})

describe('refusals', () => {
  it('of one pack deny, with its own title and remedy and nothing it computed', () => {
    const merged = merge(
      [guard({ deny: [{ rule: rule('D-1'), message: '10.0.0.7 is not in ^10\\.1\\.' }] }), team(grant)],
      input(),
    )
    expect(merged).toMatchObject({ effect: 'deny', grants: [], credentials: [], limits: {}, requirement: null })
    expect(merged.sentences).toEqual([{ code: 'a_code', message: 'Title D-1.', remedy: 'Remedy D-1.' }])
    expect(merged.findings).toContainEqual({
      id: 'org/D-1',
      layer: 'org',
      kind: 'deny',
      code: 'a_code',
      title: 'Title D-1',
      at: 'D-1.rego:1',
      message: '10.0.0.7 is not in ^10\\.1\\.',
    })
  })

  it('get fixed words where a rule has none', () => {
    const bare = rule('D-1', { code: '', title: '', remedy: '' })
    const { sentences } = merge([guard({ deny: [{ rule: bare, message: null }] }), team(grant)], input())
    expect(sentences).toEqual([
      { code: 'denied', message: 'Policy refuses this.', remedy: 'Quote the ref to the operator of this Writ.' },
    ])
  })

  it('are outdone by an error of any pack, which says nothing of the others', () => {
    const merged = merge(
      [guard({ deny: [{ rule: rule('D-1'), message: null }] }), team({ error: 'deadline' })],
      input(),
    )
    expect(merged).toMatchObject({ effect: 'error', error: 'deadline' })
    expect(merged.sentences.map(({ code }) => code)).toEqual(['deadline'])
    expect(merged.findings.map(({ id }) => id)).toEqual(['org/D-1', 'starter/deadline'])
  })

  it('come from an obligation that Writ does not support', () => {
    const obligation = [{ rule: rule('O-1'), type: 'record', properties: {} }]
    expect(merge([guard({ obligation }), team(grant)], input())).toMatchObject({
      effect: 'deny',
      sentences: [{ code: 'unsupported_obligation' }],
    })
  })

  it('come from a rule that the compiler did not list', () => {
    const forged = team(grant)
    expect(merge([{ ...forged, attachment: { ...forged.attachment, rules: {} } }], input())).toMatchObject({
      effect: 'error',
      error: 'output_schema',
    })
    for (const id of ['constructor', '__proto__']) {
      const named = {
        ...forged,
        attachment: { ...forged.attachment, rules: {} },
        result: { ok: { ...emptyOutput, grant: [{ rule: rule(id) }] } },
      }
      expect(merge([named], input())).toMatchObject({ effect: 'error', error: 'output_schema' })
    }
  })
})

describe('limits', () => {
  it('are the lowest of all packs, and only where the plan has more', () => {
    const merged = merge(
      [
        guard({ limit: [{ rule: rule('L-1'), wall_s: 200, memory_mb: 4096 }] }),
        team({
          ...grant,
          limit: [
            { rule: rule('L-2'), wall_s: 60 },
            { rule: rule('L-3'), wall_s: 90, output_kb: 64 },
          ],
        }),
      ],
      input(),
    )
    expect(merged.limits).toEqual({ wall_s: 60, output_kb: 64 })
  })

  it('that are zero, negative, fractional or no number are an error', () => {
    for (const wall_s of [0, -1, 1.5, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 53]) {
      const merged = merge([team({ ...grant, limit: [{ rule: rule('L-1'), wall_s }] })], input())
      expect(merged).toMatchObject({ effect: 'error', error: 'output_schema' })
    }
    expect(merge([team({ ...grant, limit: [{ rule: rule('L-1') }] })], input())).toMatchObject({ effect: 'error' })
  })
})

describe('credentials', () => {
  const named = (name: string, lane: string | null = null, exposure: string | null = null) => ({
    credential: [{ rule: rule('C-1'), name, lane, exposure }],
  })

  it('are leased when every layer that grants names them and the plan asks for them', () => {
    const orgGrant = (given: Given): PackAnswer => pack('base', 'org', 'grant', given)
    expect(merge([team({ ...grant, ...named('vault-token') })], input()).credentials).toEqual(['vault-token'])
    expect(merge([guard({}), team({ ...grant, ...named('vault-token') })], input()).credentials).toEqual([
      'vault-token',
    ])
    expect(merge([orgGrant(grant), team({ ...grant, ...named('vault-token') })], input()).credentials).toEqual([])
    expect(
      merge([orgGrant({ ...grant, ...named('vault-token') }), team({ ...grant, ...named('vault-token') })], input())
        .credentials,
    ).toEqual(['vault-token'])
    expect(merge([team({ ...grant, ...named('other') })], input()).credentials).toEqual([])
    expect(merge([team({ ...grant, ...named('vault-token') })], requestInput()).credentials).toEqual([])
  })

  it('of a wider lane or exposure than the rule names are not leased', () => {
    const at = (lane: string, exposure: string): PolicyInput => {
      const base = input()
      const { plan } = base.context
      if (plan === null) throw new Error('no plan')
      return {
        ...base,
        context: { ...base.context, plan: { ...plan, credentials: [{ name: 'key', lane, exposure }] } },
      }
    }
    const leased = (asked: readonly [string, string], given: readonly [string | null, string | null]) =>
      merge([team({ ...grant, ...named('key', ...given) })], at(...asked)).credentials.length
    expect(leased(['exposed', 'workload'], [null, null])).toBe(0)
    expect(leased(['placeholder', 'workload'], [null, null])).toBe(0)
    expect(leased(['exposed', 'workload'], ['exposed', null])).toBe(0)
    expect(leased(['exposed', 'workload'], ['exposed', 'workload'])).toBe(1)
    expect(leased(['placeholder', 'none'], ['exposed', 'workload'])).toBe(1)
    expect(leased(['tunnel', 'none'], ['exposed', 'workload'])).toBe(0)
  })
})

describe('a demanded sandbox', () => {
  const demands = (
    isolation: 'namespaces' | 'process' | 'vm' | null,
    egress: 'closed' | 'gateway' | null,
    at = input(),
  ) => merge([guard({ sandbox: [{ rule: rule('S-1'), isolation, egress }] }), team(grant)], at)

  it('stronger than the target denies, in the words of the rule', () => {
    expect(demands('process', 'gateway')).toMatchObject({ effect: 'allow' })
    const said = [{ code: 'a_code', message: 'Title S-1.', remedy: 'Remedy S-1.' }]
    for (const [refused, id] of [
      [demands('namespaces', null), 'writ/isolation_too_weak'],
      [demands(null, 'closed'), 'writ/egress_too_open'],
    ] as const) {
      expect(refused).toMatchObject({ effect: 'deny', sentences: said })
      expect(refused.findings.map((one) => one.id)).toContain(id)
    }
  })

  it('gets fixed words where its rule has none, and one code for each kind', () => {
    const silent = (isolation: 'vm' | null, egress: 'closed' | null) =>
      merge(
        [
          guard({ sandbox: [{ rule: rule('S-1', { title: '', code: 'sandbox', remedy: '' }), isolation, egress }] }),
          team(grant),
        ],
        input(),
      ).sentences
    expect(silent('vm', null)).toMatchObject([
      { code: 'isolation_too_weak', message: 'Policy asks for a stronger sandbox than this target has.' },
    ])
    expect(silent(null, 'closed')).toMatchObject([
      { code: 'egress_too_open', message: 'Policy asks for a more closed network than this target has.' },
    ])
  })

  it('denies where the plan is not known, but not in phase request, which runs nothing', () => {
    expect(demands('process', null, input({ plan: null }))).toMatchObject({ effect: 'deny' })
    expect(demands('vm', 'closed', requestInput())).toMatchObject({ effect: 'allow' })
  })
})

describe('an approval', () => {
  it('is pending until somebody eligible approved, then allows with the same requirement', () => {
    const pending = asks([demand()])
    expect(pending).toMatchObject({
      effect: 'pending',
      sentences: [{ code: 'a_code', message: 'Title A-1.', remedy: 'Remedy A-1.' }],
      requirement: { exclude: ['agent'], evidence: ['key', 'passkey'], request_ttl_s: 3600 },
    })
    const allowed = asks([demand()], approved([approvalOf({})]))
    expect(allowed).toMatchObject({ effect: 'allow', sentences: [] })
    expect(allowed.requirement).toEqual(pending.requirement)
  })

  it('is merged to the strictest of all demands', () => {
    const merged = merge(
      [
        guard({
          require_approval: [
            demand({ stages: [{ id: 'owner', roles: ['approver', 'lead'], min: 2 }], exclude: ['subject'] }),
          ],
        }),
        team({
          ...grant,
          require_approval: [
            demand({
              rule: rule('A-2'),
              stages: [
                { id: 'security', roles: ['security'], min: 1 },
                { id: 'owner', roles: ['lead', 'boss'], min: 1 },
              ],
              evidence: ['key', 'bearer'],
              request_ttl_s: 60,
              execute_within_s: 900,
            }),
          ],
        }),
      ],
      input(),
    )
    expect(merged.requirement).toEqual({
      stages: [
        { id: 'owner', roles: ['lead'], min: 2 },
        { id: 'security', roles: ['security'], min: 1 },
      ],
      exclude: ['agent', 'subject'],
      evidence: ['key'],
      request_ttl_s: 60,
      execute_within_s: 600,
    })
  })

  it('that nobody could give denies', () => {
    const other = demand({ rule: rule('A-2'), stages: [{ id: 'owner', roles: ['lead'], min: 1 }] })
    expect(asks([demand(), other])).toMatchObject({ effect: 'deny', sentences: [{ code: 'approval_impossible' }] })
    expect(asks([demand({ evidence: ['key'] }), demand({ rule: rule('A-2'), evidence: ['passkey'] })])).toMatchObject({
      effect: 'deny',
    })
  })

  it('does not count from the wrong stage, role, evidence, person or time', () => {
    const wrong: readonly Partial<InputApproval>[] = [
      { stage: 'security' },
      { roles: ['developer'] },
      { roles: [] },
      { evidence: 'bearer' },
      { by: 'ci-agent' },
      { until_s: 1795462199 },
    ]
    for (const parts of wrong)
      expect([parts, asks([demand()], approved([approvalOf(parts)])).effect]).toEqual([parts, 'pending'])
    const own = approved([approvalOf({ by: 'alice@acme.example' })])
    expect(asks([demand()], own).effect).toBe('allow')
    expect(asks([demand({ exclude: ['subject'] })], own).effect).toBe('pending')
  })

  it('[G-quorum] needs as many different people as it says', () => {
    const two = [demand({ stages: [{ id: 'owner', roles: ['approver'], min: 2 }] })]
    expect(asks(two, approved([approvalOf({}), approvalOf({ id: 'apr_bbbbbbbbbb' })])).effect).toBe('pending')
    expect(asks(two, approved([approvalOf({}), approvalOf({ by: 'carol' })])).effect).toBe('allow')
  })

  it('[G-quorum] counts a person in one stage only, in the one where that helps', () => {
    const stages = ['a', 'b'].map((id) => ({ id, roles: ['approver'], min: 1 }))
    const both = ['a', 'b'].map((stage) => approvalOf({ stage }))
    expect(asks([demand({ stages })], approved(both)).effect).toBe('pending')
    expect(asks([demand({ stages })], approved([...both, approvalOf({ stage: 'a', by: 'carol' })])).effect).toBe(
      'allow',
    )
    expect(asks([demand({ stages })], approved([...both, approvalOf({ stage: 'b', by: 'carol' })])).effect).toBe(
      'allow',
    )
  })

  it('ends with one reject, whatever else there is', () => {
    const rejected = approved([approvalOf({}), approvalOf({ by: 'carol', verdict: 'reject' })])
    expect(asks([demand()], rejected)).toMatchObject({ effect: 'deny', sentences: [{ code: 'rejected' }] })
    expect(merge([team(grant)], rejected)).toMatchObject({ effect: 'deny' })
  })

  it('[G-policy-bounded] costs the broker time in proportion to what packs say, and at the most they may say little of it', async () => {
    // Each at its limits: 16 rules that ask, of 16 stages with 32 roles, half of them everybody's and half of their own.
    const full = (name: string): PackAnswer =>
      team(
        {
          ...grant,
          require_approval: Array.from({ length: 16 }, (_, at) =>
            demand({
              message: `${name} ${at}`,
              stages: Array.from({ length: 16 }, (_unused, nth) => ({
                id: nth % 2 === 0 ? `stage ${nth}` : `${name} ${at} ${nth}`,
                roles: Array.from({ length: 32 }, (_more, role) => `role ${role}`),
                min: 100,
              })),
            }),
          ),
          warn: Array.from({ length: 200 }, (_, at) => ({
            rule: rule('W-1'),
            message: `${name} ${at}`.padEnd(500, 'x'),
          })),
        },
        name,
      )
    const packs = Array.from({ length: 16 }, (_, at) => full(`pack${at}`))
    expect(merge(packs, input())).toMatchObject({ effect: 'pending' })
    const cost = async (count: number): Promise<number> =>
      await effort(() => {
        for (let go = 0; go < 16 / count; go++) merge(packs.slice(0, count), input())
      })
    await cost(16)
    // The same number of packs in all, in one merge or in eight.
    expect(await cost(16)).toBeLessThan(4 * (await cost(2)))
  })

  it('cannot be asked for outside phase execution', () => {
    expect(asks([demand()], requestInput())).toMatchObject({ effect: 'deny', sentences: [{ code: 'a_code' }] })
  })

  it('without stages, roles, evidence or with a quorum of none is an error', () => {
    const broken: readonly Partial<Demand>[] = [
      { stages: [] },
      { stages: [{ id: 'owner', roles: [], min: 1 }] },
      { stages: [{ id: 'owner', roles: ['approver'], min: 0 }] },
      { evidence: [] },
      { request_ttl_s: 0 },
      { execute_within_s: -1 },
    ]
    for (const parts of broken) expect([parts, asks([demand(parts)]).error]).toEqual([parts, 'output_schema'])
  })
})

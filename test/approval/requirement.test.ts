import { describe, expect, it } from 'vitest'
import type { Approval, Verdict } from '../../src/approval/approval.ts'
import { permitLifeMs, settle, spend } from '../../src/approval/permit.ts'
import {
  answerable,
  countable,
  openApproval,
  refuseVerdict,
  stageFor,
  standing,
} from '../../src/approval/requirement.ts'
import { digestJson } from '../../src/digest.ts'
import { newId } from '../../src/id.ts'
import type { Decision } from '../../src/policy/policy.ts'
import { approvalOf, person, planWith, requirement, startMs, verdict } from './sample.ts'

const stages = [
  { id: 'lead', roles: ['lead'], min: 1 },
  { id: 'security', roles: ['security'], min: 2 },
]

function answered(approval: Approval, ...verdicts: readonly Verdict[]): Approval {
  return { ...approval, verdicts }
}

describe('an approval', () => {
  it('excludes the agent and the subject of its plan as the requirement says, and ends at the first clock', () => {
    const plan = planWith()
    const approval = approvalOf(plan)
    expect(approval.excluded).toEqual({ subjects: ['alice'], agents: ['local-agent'] })
    expect(approval.expires_at_ms).toBe(startMs + 86_400_000)
    expect(approvalOf(plan, { exclude: ['agent'] }).excluded).toEqual({ subjects: [], agents: ['local-agent'] })
    expect(approval.nonce).toMatch(/^[0-9a-f]{32}$/)
    expect(approvalOf(plan).nonce).not.toBe(approval.nonce)
  })

  it('[G-quorum] stands when every stage has its number of different people', () => {
    const approval = approvalOf(planWith(), { stages })
    const lead = verdict(approval, 'lena', 'lead')
    const one = verdict(approval, 'sam', 'security')
    const two = verdict(approval, 'sue', 'security')
    expect(standing(approval).outcome).toBe('open')
    expect(standing(answered(approval, lead, one)).outcome).toBe('open')
    expect(standing(answered(approval, one, two)).outcome).toBe('open')
    expect(standing(answered(approval, lead, one, one)).outcome).toBe('open')
    expect(standing(answered(approval, lead, one, two))).toEqual({
      outcome: 'satisfied',
      stages: [
        { id: 'lead', roles: ['lead'], needed: 1, have: 1 },
        { id: 'security', roles: ['security'], needed: 2, have: 2 },
      ],
    })
  })

  it('is ended by one rejection, however many said yes', () => {
    const approval = approvalOf(planWith(), { stages })
    const all = [
      verdict(approval, 'lena', 'lead'),
      verdict(approval, 'sam', 'security'),
      verdict(approval, 'sue', 'security'),
    ]
    expect(standing(answered(approval, ...all, verdict(approval, 'tom', 'security', 'reject'))).outcome).toBe(
      'rejected',
    )
  })

  it('without a stage, or with one that needs nobody, is never satisfied', () => {
    expect(standing(approvalOf(planWith(), { stages: [] })).outcome).toBe('open')
    expect(standing(approvalOf(planWith(), { stages: [{ id: 'x', roles: ['x'], min: 0 }] })).outcome).toBe('open')
  })
})

describe('a verdict', () => {
  const approval = approvalOf(planWith(), { stages })
  const refused = (
    state: Approval,
    by: string,
    stage: string,
    word: 'approve' | 'reject' = 'approve',
    nowMs = startMs,
  ): string => {
    try {
      refuseVerdict(state, by, stage, word, nowMs)
      return 'taken'
    } catch (error) {
      return error instanceof Error ? error.message : 'unknown'
    }
  }

  it('[G-quorum] counts once for one person, whatever the stage', () => {
    const after = answered(approval, verdict(approval, 'ben', 'lead'))
    expect(refused(approval, 'ben', 'lead')).toBe('taken')
    expect(refused(after, 'ben', 'lead')).toMatch(/answered this approval already/)
    expect(refused(after, 'ben', 'security')).toMatch(/answered this approval already/)
    expect(refused(after, 'sue', 'security')).toBe('taken')
  })

  it('is not taken by a stage that is full, unless it is a rejection', () => {
    const after = answered(approval, verdict(approval, 'lena', 'lead'))
    expect(refused(after, 'leo', 'lead')).toMatch(/has all the approvals it needs/)
    expect(refused(after, 'leo', 'lead', 'reject')).toBe('taken')
  })

  it('[G-approval-time] is not taken after the end, in whatever state it ended', () => {
    expect(refused(approval, 'sue', 'security', 'approve', approval.expires_at_ms)).toMatch(/expired/)
    for (const state of ['satisfied', 'rejected', 'expired', 'superseded'] as const)
      expect(refused({ ...approval, state }, 'sue', 'security')).toBe(
        `This approval is ${state}; it takes no more verdicts.`,
      )
  })

  it('for a stage there is not is refused', () => {
    expect(refused(approval, 'sue', 'legal')).toMatch(/no such stage/)
  })
})

describe('whether people can answer', () => {
  const lena = person('lena', 'lead')
  const sam = person('sam', 'security')
  const sue = person('sue', 'security')
  const both = person('both', 'lead', 'security')

  it('is known beforehand: enough different people, each for one stage', () => {
    const approval = approvalOf(planWith(), { stages })
    expect(answerable(approval, [lena, sam, sue])).toBe(true)
    expect(answerable(approval, [both, sam, sue])).toBe(true)
    expect(answerable(approval, [lena, both, sam])).toBe(true)
    expect(answerable(approval, [lena, sam])).toBe(false)
    expect(answerable(approval, [both, sam])).toBe(false)
    expect(answerable(approval, [])).toBe(false)
  })

  it('is not, when the same person would have to fill two stages, however many others there are', () => {
    const approval = approvalOf(planWith(), {
      stages: [
        { id: 'a', roles: ['a'], min: 1 },
        { id: 'b', roles: ['b'], min: 1 },
        { id: 'c', roles: ['c'], min: 1 },
      ],
    })
    const only = person('only', 'a', 'b')
    expect(answerable(approval, [only, person('c1', 'c'), person('c2', 'c'), person('c3', 'c')])).toBe(false)
    expect(answerable(approval, [only, person('b', 'b'), person('c1', 'c')])).toBe(true)
  })

  it('counts nobody who is excluded, and only evidence there is', () => {
    const alice = person('alice', 'approver')
    expect(answerable(approvalOf(planWith()), [alice])).toBe(false)
    expect(answerable(approvalOf(planWith(), { exclude: ['agent'] }), [alice])).toBe(true)
    expect(answerable(approvalOf(planWith(), { evidence: ['passkey'] }), [person('bob', 'approver')])).toBe(false)
    expect(answerable(approvalOf(planWith(), { evidence: [] }), [person('bob', 'approver')])).toBe(false)
    expect(answerable(approvalOf(planWith(), { stages: [] }), [person('bob', 'approver')])).toBe(false)
    expect(answerable(approvalOf(planWith(), { evidence: ['bearer'] }), [])).toBe(true)
  })

  it('finds the stage in which a yes leaves the others answerable', () => {
    const approval = approvalOf(planWith(), {
      stages: [
        { id: 'lead', roles: ['lead'], min: 1 },
        { id: 'security', roles: ['security'], min: 1 },
      ],
    })
    // Taken as lead, nobody would be left for security.
    expect(stageFor(approval, both, [both, lena])).toBe('security')
    expect(stageFor(approval, both, [both, sam])).toBe('lead')
    expect(stageFor(approval, lena, [lena])).toBe('lead')
    expect(stageFor(answered(approval, verdict(approval, 'lena', 'lead')), both, [both, lena])).toBe('security')
    expect(stageFor(answered(approval, verdict(approval, 'lena', 'lead')), person('leo', 'lead'), [both])).toBeNull()
    expect(stageFor(approval, person('nobody', 'clerk'), [both])).toBeNull()
  })
})

describe('what policy is shown of verdicts', () => {
  const plan = planWith()
  const approval = approvalOf(plan)
  const given = verdict(approval, 'ada', 'approver')

  it('is a person with the role at the verdict and at the run', () => {
    const state: Approval = { ...answered(approval, given), execute_by_ms: startMs + 10_000 }
    const shown = (rolesOf: () => readonly string[]) => countable(state, rolesOf).map((one) => one.shown)
    expect(shown(() => ['approver'])).toEqual([
      {
        id: approval.id,
        stage: 'approver',
        verdict: 'approve',
        by: 'ada',
        roles: ['approver'],
        evidence: 'key',
        at_s: startMs / 1000,
        until_s: startMs / 1000 + 10,
      },
    ])
    expect(shown(() => [])).toEqual([])
    expect(shown(() => ['clerk'])).toEqual([])
    expect(countable(state, () => ['approver']).map((one) => one.verdict)).toEqual([given])
  })

  it('[G-approval-bound] is nothing bound to another approval, another plan, another requirement, a stage or an evidence that is not asked for', () => {
    const of = (other: Verdict): number => countable(answered(approval, other), () => ['approver']).length
    const statement = given.statement
    expect(of(given)).toBe(1)
    expect(of({ ...given, statement: { ...statement, approval_id: newId('apr') } })).toBe(0)
    expect(of({ ...given, statement: { ...statement, plan: digestJson('another') } })).toBe(0)
    expect(of({ ...given, statement: { ...statement, requirement: digestJson('another') } })).toBe(0)
    expect(of({ ...given, statement: { ...statement, stage: 'other' } })).toBe(0)
    expect(of({ ...given, evidence: 'bearer' })).toBe(0)
  })
})

describe('a permit', () => {
  const plan = planWith()
  const digest = digestJson(plan)
  const execution = newId('exec')
  const allowed = { effect: 'allow', error: null, phase: 'execution' } as unknown as Decision

  it('[G-single-use] is made by a clean allow on an execution only, spent once, and dies', () => {
    const permit = settle(execution, plan, digest, allowed, 1000)
    if (permit === null) throw new Error('no permit')
    spend(permit, 1000 + permitLifeMs)
    expect(() => spend(permit, 1000)).toThrow(/spent before/)
    const late = settle(execution, plan, digest, allowed, 1000)
    if (late === null) throw new Error('no permit')
    expect(() => spend(late, 1001 + permitLifeMs)).toThrow(/died/)
    expect(() => spend(late, 1001)).toThrow(/spent before/)
    for (const over of [
      { effect: 'pending' },
      { effect: 'deny' },
      { effect: 'error' },
      { error: 'policy_throw' },
      { phase: 'request' },
      { phase: 'approval' },
    ] as const)
      expect(settle(execution, plan, digest, { ...allowed, ...over }, 1000)).toBeNull()
  })

  it('[G-single-use] cannot be written by hand, nor copied', () => {
    const permit = settle(execution, plan, digest, allowed, 1000)
    if (permit === null) throw new Error('no permit')
    expect(() => spend({ ...permit }, 1000)).toThrow(/never given/)
    expect(() => spend(structuredClone(permit), 1000)).toThrow(/never given/)
    expect(Object.isFrozen(permit)).toBe(true)
  })
})

it('a requirement of nobody in particular still opens with a life', () => {
  const plan = planWith()
  const asked = { ...requirement, request_ttl_s: 0 }
  const approval = openApproval({
    execution: newId('exec'),
    plan,
    digest: digestJson(plan),
    requirement: asked,
    requirement_digest: digestJson(asked),
    asking: { subject: { id: plan.task.owner }, agent: { id: plan.task.agent } },
    nowMs: startMs,
  })
  expect(() => refuseVerdict(approval, 'ada', 'approver', 'approve', startMs)).toThrow(/expired/)
})

import { randomBytes } from 'node:crypto'
import type { Digest } from '../digest.ts'
import { WritError } from '../error.ts'
import { type ExecutionId, newId } from '../id.ts'
import type { Plan } from '../plan/plan.ts'
import type { InputApproval, Requirement, Stage } from '../policy/policy.ts'
import type { Approval, Approver, Verdict, VerdictWord } from './approval.ts'
import { visibleLine } from './visible.ts'

interface Asking {
  readonly subject: { readonly id: string }
  readonly agent: { readonly id: string }
}

/** Puts a requirement to people, bound to one plan and one execution. */
export function openApproval(options: {
  readonly execution: ExecutionId
  readonly plan: Plan
  readonly digest: Digest
  readonly requirement: Requirement
  readonly requirement_digest: Digest
  /** Who starts the run; it may be another agent, or person, than the one that submitted the task. */
  readonly asking: Asking
  readonly nowMs: number
}): Approval {
  const { requirement, plan, asking } = options
  const excludes = (who: 'subject' | 'agent', ...ids: readonly string[]): readonly string[] =>
    requirement.exclude.includes(who) ? [...new Set(ids)] : []
  return {
    id: newId('apr'),
    execution: options.execution,
    tenant: plan.tenant,
    plan: options.digest,
    requirement,
    requirement_digest: options.requirement_digest,
    excluded: {
      subjects: excludes('subject', plan.task.owner, asking.subject.id),
      agents: excludes('agent', plan.task.agent, asking.agent.id),
    },
    nonce: randomBytes(16).toString('hex'),
    opened_at_ms: options.nowMs,
    expires_at_ms: options.nowMs + requirement.request_ttl_s * 1000,
    execute_by_ms: null,
    state: 'open',
    verdicts: [],
  }
}

type Person = Pick<Approver, 'subject' | 'roles'>

/** The people who may answer a stage: they hold one of its roles and are not excluded. */
export function eligible<P extends Person>(
  approval: Pick<Approval, 'excluded'>,
  stage: Stage,
  people: readonly P[],
): readonly P[] {
  return people.filter(
    (person) =>
      person.roles.some((role) => stage.roles.includes(role)) &&
      !approval.excluded.subjects.includes(person.subject) &&
      !approval.excluded.agents.includes(person.subject),
  )
}

/**
 * Whether enough different people could ever answer, each in one stage only. Only `key` evidence can be counted
 * beforehand; where the requirement takes `bearer` as well, somebody with a token may come.
 */
export function answerable(
  approval: Pick<Approval, 'excluded' | 'requirement' | 'verdicts'>,
  approvers: readonly Approver[],
): boolean {
  const { stages, evidence } = approval.requirement
  if (stages.length === 0 || evidence.length === 0) return false
  if (evidence.includes('bearer')) return true
  return evidence.includes('key') && seatable(approval, approvers)
}

/** Whether people who have not answered yet can fill every seat still empty (an augmenting path per seat). */
function seatable(
  approval: Pick<Approval, 'excluded' | 'requirement' | 'verdicts'>,
  approvers: readonly Approver[],
): boolean {
  const fresh = approvers.filter((approver) => !approval.verdicts.some((verdict) => verdict.by === approver.subject))
  const seats = approval.requirement.stages.flatMap((stage) => {
    const people = eligible(approval, stage, fresh).map((approver) => approver.subject)
    return Array.from({ length: Math.max(0, stage.min - haveOf(approval, stage.id)) }, () => people)
  })
  const seatOf = new Map<string, number>()
  const place = (seat: number, tried: Set<string>): boolean =>
    (seats[seat] ?? []).some((person) => {
      if (tried.has(person)) return false
      tried.add(person)
      const held = seatOf.get(person)
      if (held !== undefined && !place(held, tried)) return false
      seatOf.set(person, seat)
      return true
    })
  return seats.every((_, seat) => place(seat, new Set()))
}

/**
 * The stage an approver's yes is best given for: one that still needs people, and such that the others can still be
 * filled by those who are left. Null where no stage waits for this person.
 */
export function stageFor(approval: Approval, approver: Person, approvers: readonly Approver[]): string | null {
  const open = approval.requirement.stages.filter(
    (stage) => haveOf(approval, stage.id) < stage.min && eligible(approval, stage, [approver]).length === 1,
  )
  const others = approvers.filter((other) => other.subject !== approver.subject)
  const good = open.find((stage) => {
    const stages = approval.requirement.stages.map((one) => (one.id === stage.id ? { ...one, min: one.min - 1 } : one))
    return seatable({ ...approval, requirement: { ...approval.requirement, stages } }, others)
  })
  return (good ?? open[0])?.id ?? null
}

/** Different people who said yes in a stage. */
function haveOf(approval: Pick<Approval, 'verdicts'>, stage: string): number {
  return new Set(
    approval.verdicts.filter((v) => v.statement.stage === stage && v.statement.verdict === 'approve').map((v) => v.by),
  ).size
}

/**
 * Refuses a verdict that cannot count, whichever channel it came by: the approval is no longer open or its time is over,
 * this person has answered it, or the stage has all the approvals it needs. `nowMs` is the newer of wall clock and ledger.
 * Rejects `approval_refused`.
 */
export function refuseVerdict(
  approval: Approval,
  by: string,
  stage: string,
  verdict: VerdictWord,
  nowMs: number,
): void {
  if (approval.state !== 'open')
    throw new WritError('approval_refused', `This approval is ${approval.state}; it takes no more verdicts.`)
  if (nowMs >= approval.expires_at_ms) throw new WritError('approval_refused', 'This approval has expired.')
  if (approval.verdicts.some((earlier) => earlier.by === by))
    throw new WritError('approval_refused', 'You have answered this approval already; one person fills one stage.')
  const asked = approval.requirement.stages.find((candidate) => candidate.id === stage)
  if (asked === undefined) throw new WritError('approval_refused', 'This approval has no such stage.')
  if (verdict === 'approve' && haveOf(approval, stage) >= asked.min)
    throw new WritError('approval_refused', `Stage "${visibleLine(stage)}" has all the approvals it needs.`)
}

export interface StageStanding {
  readonly id: string
  readonly roles: readonly string[]
  readonly needed: number
  readonly have: number
}

export interface Standing {
  readonly stages: readonly StageStanding[]
  readonly outcome: 'open' | 'satisfied' | 'rejected'
}

/** Counts distinct people per stage. One rejection ends it. */
export function standing(approval: Approval): Standing {
  const stages = approval.requirement.stages.map((stage) => ({
    id: stage.id,
    roles: stage.roles,
    needed: stage.min,
    have: haveOf(approval, stage.id),
  }))
  if (approval.verdicts.some((verdict) => verdict.statement.verdict === 'reject'))
    return { stages, outcome: 'rejected' }
  const full = stages.length > 0 && stages.every((stage) => stage.needed > 0 && stage.have >= stage.needed)
  return { stages, outcome: full ? 'satisfied' : 'open' }
}

/** A verdict that counts now, and as policy is shown it. */
interface Countable {
  readonly verdict: Verdict
  readonly shown: InputApproval
}

/**
 * The verdicts policy is shown: bound to this approval, plan and requirement, and given by people who still hold a role
 * of their stage. Roles are read again here, so a person who lost the role between verdict and run no longer counts.
 */
export function countable(approval: Approval, rolesOf: (verdict: Verdict) => readonly string[]): readonly Countable[] {
  const counting: Countable[] = []
  for (const verdict of approval.verdicts) {
    const { statement } = verdict
    const stage = approval.requirement.stages.find((candidate) => candidate.id === statement.stage)
    if (
      stage === undefined ||
      statement.approval_id !== approval.id ||
      statement.plan !== approval.plan ||
      statement.requirement !== approval.requirement_digest
    )
      continue
    const roles = rolesOf(verdict)
    if (!roles.some((role) => stage.roles.includes(role))) continue
    if (!approval.requirement.evidence.includes(verdict.evidence)) continue
    const shown: InputApproval = {
      id: approval.id,
      stage: stage.id,
      verdict: statement.verdict,
      by: verdict.by,
      roles,
      evidence: verdict.evidence,
      at_s: Math.floor(verdict.at_ms / 1000),
      until_s: Math.floor((approval.execute_by_ms ?? verdict.at_ms) / 1000),
    }
    counting.push({ verdict, shown })
  }
  return counting
}

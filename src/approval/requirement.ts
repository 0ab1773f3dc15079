import { randomBytes } from 'node:crypto'
import type { Digest } from '../digest.ts'
import { type ExecutionId, newId } from '../id.ts'
import type { Plan } from '../plan/plan.ts'
import type { InputApproval, Requirement, Stage } from '../policy/policy.ts'
import type { Approval, Approver, Verdict } from './approval.ts'

/** Puts a requirement to people, bound to one plan and one execution. */
export function openApproval(options: {
  readonly execution: ExecutionId
  readonly plan: Plan
  readonly digest: Digest
  readonly requirement: Requirement
  readonly requirement_digest: Digest
  readonly nowMs: number
}): Approval {
  const { requirement, plan } = options
  return {
    id: newId('apr'),
    execution: options.execution,
    tenant: plan.tenant,
    plan: options.digest,
    requirement,
    requirement_digest: options.requirement_digest,
    excluded: {
      subjects: requirement.exclude.includes('subject') ? [plan.task.owner] : [],
      agents: requirement.exclude.includes('agent') ? [plan.task.agent] : [],
    },
    nonce: randomBytes(16).toString('hex'),
    opened_at_ms: options.nowMs,
    expires_at_ms: options.nowMs + requirement.request_ttl_s * 1000,
    execute_by_ms: null,
    state: 'open',
    verdicts: [],
  }
}

/** The enrolled approvers who may answer a stage: they hold one of its roles and are not excluded. */
export function eligible(approval: Pick<Approval, 'excluded'>, stage: Stage, approvers: readonly Approver[]): readonly Approver[] {
  return approvers.filter(
    (approver) =>
      approver.roles.some((role) => stage.roles.includes(role)) &&
      !approval.excluded.subjects.includes(approver.subject) &&
      !approval.excluded.agents.includes(approver.subject),
  )
}

/**
 * Whether enough different people could ever answer. Only `key` evidence can be counted beforehand; where the
 * requirement takes another kind as well, somebody with a token or a passkey may come.
 */
export function answerable(approval: Pick<Approval, 'excluded' | 'requirement'>, approvers: readonly Approver[]): boolean {
  const { stages, evidence } = approval.requirement
  if (stages.length === 0 || evidence.length === 0) return false
  if (evidence.includes('bearer')) return true
  if (!evidence.includes('key')) return false
  // One person fills one stage: the people who can fill any of the stages have to be at least the sum of what they need.
  const needed = stages.reduce((sum, stage) => sum + stage.min, 0)
  const people = new Set(stages.flatMap((stage) => eligible(approval, stage, approvers).map((approver) => approver.subject)))
  return people.size >= needed && stages.every((stage) => eligible(approval, stage, approvers).length >= stage.min)
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
    have: new Set(approval.verdicts.filter((v) => v.statement.stage === stage.id && v.statement.verdict === 'approve').map((v) => v.by)).size,
  }))
  if (approval.verdicts.some((verdict) => verdict.statement.verdict === 'reject')) return { stages, outcome: 'rejected' }
  const full = stages.length > 0 && stages.every((stage) => stage.needed > 0 && stage.have >= stage.needed)
  return { stages, outcome: full ? 'satisfied' : 'open' }
}

/**
 * The verdicts policy is shown: bound to this plan and requirement, and given by people who still hold a role of their
 * stage. Roles are read again here, so a person who lost the role between verdict and run no longer counts.
 */
export function inputApprovals(approval: Approval, rolesOf: (verdict: Verdict) => readonly string[]): readonly InputApproval[] {
  const shown: InputApproval[] = []
  for (const verdict of approval.verdicts) {
    const { statement } = verdict
    const stage = approval.requirement.stages.find((candidate) => candidate.id === statement.stage)
    if (stage === undefined || statement.plan !== approval.plan || statement.requirement !== approval.requirement_digest) continue
    const roles = rolesOf(verdict)
    if (!roles.some((role) => stage.roles.includes(role))) continue
    if (!approval.requirement.evidence.includes(verdict.evidence)) continue
    shown.push({
      id: approval.id,
      stage: stage.id,
      verdict: statement.verdict,
      by: verdict.by,
      roles,
      evidence: verdict.evidence,
      at_s: Math.floor(verdict.at_ms / 1000),
      until_s: Math.floor((approval.execute_by_ms ?? verdict.at_ms) / 1000),
    })
  }
  return shown
}

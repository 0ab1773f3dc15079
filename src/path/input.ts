import type { Approval, Verdict } from '../approval/approval.ts'
import { countable } from '../approval/requirement.ts'
import { signedBy } from '../approval/statement.ts'
import type { Digest } from '../digest.ts'
import type { Plan } from '../plan/plan.ts'
import { buildInput } from '../policy/input.ts'
import type { PolicyInput } from '../policy/policy.ts'
import { statementDigest } from '../receipt/account.ts'
import type { Caller } from '../request/caller.ts'
import type { Task } from '../request/task.ts'
import type { Parts } from './parts.ts'
import { targetResource } from './resource.ts'
import { startsOf } from './underway.ts'

/** What policy is asked whether a plan may run, and what stands behind it. */
export interface ExecutionInput {
  readonly input: PolicyInput
  /** Digests of the statements that were given to policy as approvals. */
  readonly statements: ReadonlySet<Digest>
  /** Whether the people in it hold now what they held when it was made: roles are lost while policy is waited for. */
  stillHeld(): boolean
}

/** The one input of phase `execution`: where a run is foreseen, when it is started, and right before it begins. */
export function executionInput(
  parts: Parts,
  caller: Caller,
  of: { readonly task: Task; readonly plan: Plan; readonly digest: Digest; readonly approval?: Approval | null },
): ExecutionInput {
  const { task, plan, digest } = of
  const approval = of.approval ?? null
  const given = () =>
    approval === null ? [] : countable(approval, (verdict) => approverRoles(parts, plan.tenant, verdict))
  const held = (): string =>
    JSON.stringify([
      parts.rolesOf(caller.tenant, caller.subject.id, caller.agent.id).toSorted(),
      given().map(({ shown }) => [shown.by, shown.stage, shown.roles]),
    ])
  const before = held()
  const approvals = given()
  const nowMs = parts.clock.now()
  const input = buildInput({
    phase: 'execution',
    caller,
    action: { name: 'start_execution', arguments: {} },
    resource: targetResource(parts.catalog(), caller, plan.target.ref),
    nowMs,
    counters: counted(parts, caller, nowMs),
    // The task as the plan has it: what would run, whatever became of the task since.
    task: { ...task, inputs: plan.task.inputs, files: plan.files },
    plan: { plan, digest },
    approvals: approvals.map(({ shown }) => shown),
  })
  return {
    input,
    statements: new Set(approvals.map(({ verdict }) => statementDigest(verdict))),
    stillHeld: () => held() === before,
  }
}

/** With what is being decided on at this moment: of many starts at once each sees those that came before it. */
function counted(parts: Parts, { tenant, subject }: Caller, nowMs: number): PolicyInput['context']['counters'] {
  const counters = parts.ledger.views.counters(tenant, subject.id, nowMs)
  const { fresh, all } = startsOf(parts.ledger, tenant, subject.id)
  return { ...counters, executions_60m: counters.executions_60m + fresh, running: counters.running + all }
}

/** A verdict by key counts as long as that very key is enrolled: one that was replaced may have been stolen before. */
function approverRoles(parts: Parts, tenant: string, verdict: Verdict): readonly string[] {
  const { by, evidence } = verdict
  if (evidence === 'bearer') return parts.rolesOf(tenant, by)
  const approver = parts.approvers().find(({ subject }) => subject === by)
  return approver !== undefined && signedBy(verdict, approver) ? approver.roles : []
}

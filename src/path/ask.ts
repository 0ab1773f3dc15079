import type { Approval } from '../approval/approval.ts'
import { answerable, openApproval } from '../approval/requirement.ts'
import { canonical, type Digest, digestOf } from '../digest.ts'
import { WritError } from '../error.ts'
import type { ExecutionId } from '../id.ts'
import type { Entry } from '../ledger/ledger.ts'
import type { Plan } from '../plan/plan.ts'
import { withoutApprovers } from '../policy/decision.ts'
import type { Decision } from '../policy/policy.ts'
import { approvalsUsed, decisionAccount } from '../receipt/account.ts'
import type { Caller } from '../request/caller.ts'
import type { ExecutionInput } from './input.ts'
import type { Parts } from './parts.ts'

/** A decision on an execution as it is recorded, and the steps it leaves: all of them, but where it allows those of the run. */
export interface Settled {
  readonly decision: Decision
  readonly entries: readonly Entry[]
}

/** Names the policy of a decision that no generation made. */
const nothingInForce = digestOf('')

/**
 * Puts what policy answered on record: the answer, its exact input for replay and its receipt; where it asks people, the
 * approval that is put to them. Where nobody enrolled may answer that, it is a denial before it is recorded, so that the
 * decision, its receipt and the state say one thing.
 */
export function settled(
  parts: Parts,
  asking: Caller,
  run: { readonly execution: ExecutionId; readonly plan: Plan; readonly digest: Digest },
  answer: Decision,
  by: ExecutionInput,
): Settled {
  const { execution, plan, digest } = run
  const approval = answer.effect === 'pending' ? opened(parts, asking, run, answer) : null
  const decision = answer.effect === 'pending' && approval === null ? withoutApprovers(answer) : answer
  const { effect, reasons } = decision
  return {
    decision,
    entries: [
      { kind: 'decided', execution, decision, input: canonical(by.input) },
      {
        kind: 'sign',
        execution,
        account: decisionAccount(
          { execution, plan, plan_digest: digest, asserted: asking.agent.asserted },
          decision,
          decision.policy ?? nothingInForce,
          effect === 'allow' ? approvalsUsed(parts.ledger.views.receiptsOf(execution), by.statements) : [],
        ),
      },
      ...(approval === null ? [] : [{ kind: 'approval_opened' as const, approval }]),
      ...(effect === 'allow'
        ? []
        : [
            {
              kind: 'state' as const,
              execution,
              state: effect === 'pending' ? ('awaiting_approval' as const) : ('denied' as const),
              ran: false,
              reasons,
            },
          ]),
    ],
  }
}

/** The approval a pending decision asks for; null where nobody who is enrolled could give it. */
function opened(
  parts: Parts,
  asking: Caller,
  { execution, plan, digest }: { readonly execution: ExecutionId; readonly plan: Plan; readonly digest: Digest },
  { requirement, requirement_digest }: Decision,
): Approval | null {
  if (requirement === null || requirement_digest === null)
    throw new WritError('internal', 'a pending decision without a requirement')
  const nowMs = parts.clock.now()
  const approval = openApproval({ execution, plan, digest, requirement, requirement_digest, asking, nowMs })
  return answerable(approval, parts.approvers()) ? approval : null
}

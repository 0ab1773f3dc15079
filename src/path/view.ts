import { standing } from '../approval/requirement.ts'
import type { Approval } from '../approval/approval.ts'
import { isFinal, type Execution } from '../execution/execution.ts'
import type { TestReport } from '../execution/report/report.ts'
import { type ApprovalView, type ExecutionView, type Next, sentences, type TestsView } from '../execution/result.ts'
import type { Parts } from './parts.ts'

export function approvalView(approval: Approval): ApprovalView {
  return {
    approval_id: approval.id,
    plan_digest: approval.plan,
    stages: standing(approval).stages.map((stage) => ({
      who: stage.roles.join(' or '),
      needed: stage.needed,
      have: stage.have,
    })),
    expires_at: new Date(approval.expires_at_ms).toISOString(),
    how: `${who(approval)} ${approval.requirement.evidence.includes('bearer') ? 'answers with respond_to_approval, or runs' : 'runs'}: writ approvals approve ${approval.id}`,
  }
}

/** The people asked for, by role: the operator's own words for them, which name nobody. */
function who(approval: Approval): string {
  const roles = [...new Set(approval.requirement.stages.flatMap((stage) => stage.roles))]
  return `A person with the role ${roles.join(' or ')}`
}

/** An execution in the words of the tools, without its log. */
export function executionView(parts: Parts, execution: Execution): ExecutionView {
  const approval =
    execution.state === 'awaiting_approval'
      ? (parts.ledger.views.approvals({ execution: execution.id, state: 'open' }, 1)[0] ?? null)
      : null
  const progress = parts.changes.progressOf(execution.id)
  const tests = execution.report?.tests ?? null
  return {
    execution_id: execution.id,
    task_id: execution.task,
    state: execution.state,
    final: isFinal(execution.state),
    ran: execution.ran,
    ...(execution.reasons.length > 0 ? { reasons: execution.reasons } : {}),
    ...(approval === null ? {} : { approval: approvalView(approval) }),
    ...(progress === null || execution.state !== 'running' ? {} : { progress }),
    ...(tests === null ? {} : { tests: testsView(tests) }),
  }
}

const shownFailures = 10

function testsView({ truncated, ...report }: TestReport): TestsView {
  const more = truncated || report.failures.length > shownFailures
  return { ...report, failures: report.failures.slice(0, shownFailures), more }
}

/** What the caller does next, and from which cursor on where it was given output. */
export function nextOf(execution: Execution, view: ExecutionView, cursor?: string): Next {
  switch (execution.state) {
    case 'awaiting_approval':
      return {
        tell_user: `Waiting for approval ${view.approval?.approval_id ?? ''}. ${view.approval?.how ?? ''}. It runs by itself once approved; do not poll.`,
      }
    case 'queued':
    case 'running':
      return {
        tool: 'get_status',
        arguments: { execution_id: execution.id, wait_ms: 20_000, ...(cursor === undefined ? {} : { cursor }) },
        after_ms: 0,
      }
    case 'denied':
    case 'rejected':
    case 'expired':
    case 'superseded': {
      const reason = execution.reasons[0]
      return {
        tell_user:
          reason === undefined ? 'It did not run.' : `It did not run: ${sentences(reason)} (ref ${reason.ref})`,
      }
    }
    case 'succeeded':
    case 'failed':
    case 'timed_out':
    case 'cancelled':
    case 'unknown':
      return { tool: 'get_result', arguments: { execution_id: execution.id } }
  }
}

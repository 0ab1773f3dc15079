import { visibleLine } from '../approval/visible.ts'
import { WritError } from '../error.ts'
import { type Execution, isFinal } from '../execution/execution.ts'
import { parseId } from '../id.ts'
import { askStarted } from './broker.ts'
import { type Context, folderFor, no, withViews, yes } from './context.ts'
import { ago, show, table, testLines, told } from './print.ts'

export function executionsList(context: Context, limit: number): number {
  const { folder } = folderFor(context)
  const now = Date.now()
  const rows = withViews(folder, [], (views) =>
    views.executions({}, limit).map((execution) => ({
      ...execution,
      target: views.plan(execution.plan)?.target.ref ?? '',
      project: views.task(execution.task)?.project_name ?? '',
    })),
  )
  show(context, { executions: rows }, () =>
    table(
      ['execution', 'state', 'target', 'project', 'owner', 'changed'],
      rows.map((r) => [r.id, r.state, r.target, r.project, r.owner, ago(r.changed_at_ms, now)]),
    ),
  )
  return yes
}

export function executionsShow(context: Context, text: string): number {
  const { folder } = folderFor(context)
  const id = parseId('exec', text)
  const found = withViews(folder, null, (views) => {
    const execution = id === null ? null : views.execution(id)
    if (execution === null || id === null) return null
    return {
      execution,
      plan: views.plan(execution.plan),
      decisions: views.decisions(id).map(({ decision }) => decision),
      approvals: views.approvals({ execution: id }, 100),
      receipts: views
        .receiptsOf(id)
        .map(({ id: receipt, kind, index, digest }) => ({ receipt_id: receipt, kind, index, digest })),
    }
  })
  if (found === null)
    throw new WritError('not_found', `There is no execution ${text} in this ledger.`, {
      remedy: '"writ executions list" shows what there is.',
    })
  const { execution, plan } = found
  show(context, found, () =>
    [
      `${execution.id}  ${execution.state}${execution.ran ? '' : '  (nothing ran)'}`,
      `  task       ${execution.task} of ${visibleLine(execution.owner)}`,
      `  target     ${plan?.target.ref ?? '?'}  intent ${plan?.intent ?? '?'}`,
      `  plan       ${execution.plan}`,
      ...execution.reasons.map((reason) => `  reason     ${visibleLine(told(reason))}`),
      ...found.decisions.map(
        (decision) =>
          `  decision   ${decision.id} ${decision.phase}: ${decision.effect}${decision.findings.map((finding) => `\n               ${visibleLine(`${finding.kind} ${finding.id} ${finding.at} ${finding.title}`)}`).join('')}`,
      ),
      ...found.approvals.map(
        (approval) =>
          `  approval   ${approval.id} ${approval.state}${approval.verdicts.map((v) => `\n               ${visibleLine(`${v.statement.verdict} by ${v.by} (${v.evidence}): ${v.statement.reason}`)}`).join('')}`,
      ),
      ...(execution.report?.steps ?? []).map(
        (step) => `  step       ${visibleLine(step.title)}: exit ${String(step.exit)} in ${String(step.ms)} ms`,
      ),
      ...testsOf(execution),
      ...(execution.report?.files ?? []).map(
        (file) => `  file       ${visibleLine(file.path)} ${String(file.size)} bytes ${file.sha256}`,
      ),
      ...found.receipts.map(
        (receipt) => `  receipt    ${receipt.receipt_id} ${receipt.kind} at index ${String(receipt.index)}`,
      ),
    ].join('\n'),
  )
  return yes
}

function testsOf({ report }: Execution): readonly string[] {
  const tests = report?.tests ?? null
  return tests === null ? [] : testLines(tests, '  tests     ', '             ')
}

/** Exits 1 where there was nothing to cancel: it had ended, or ended by itself meanwhile. */
export async function executionsCancel(
  context: Context,
  text: string,
  { reason = '' }: { readonly reason?: string },
): Promise<number> {
  if (reason.length > 1000) throw new WritError('invalid_arguments', '"--reason" takes at most 1,000 characters.')
  const { folder } = folderFor(context)
  const id = parseId('exec', text)
  const before = id === null ? null : withViews(folder, null, (views) => views.execution(id)?.state ?? null)
  const answer = await askStarted(context, 'cancel', { execution_id: text, reason })
  const { state } = answer
  const ended = before !== null && isFinal(before)
  const cancelled = !ended && (state === 'cancelled' || !answer.final)
  show(context, { ...answer, cancelled }, () =>
    cancelled
      ? `${text} is ${state === 'cancelled' ? state : `${state}, and was told to end`}`
      : `${text} ${ended ? 'had ended already' : 'ended before it could be cancelled'}: ${state}`,
  )
  return cancelled ? yes : no
}

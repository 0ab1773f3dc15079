import type { Approval } from '../approval/approval.ts'
import { standing } from '../approval/requirement.ts'
import { visible } from '../approval/visible.ts'
import { WritError } from '../error.ts'
import { askStarted } from './broker.ts'
import { type Context, folderFor, withViews, yes } from './context.ts'
import { ago, show, table } from './print.ts'

export function approvalsList(context: Context, all: boolean): number {
  const { folder } = folderFor(context)
  const now = Date.now()
  const rows = withViews(folder, [], (views) =>
    views.approvals(all ? {} : { state: 'open' }, 200).map((approval) => ({
      approval_id: approval.id,
      state: approval.state,
      execution_id: approval.execution,
      target: views.plan(approval.plan)?.target.ref ?? '',
      project: views.plan(approval.plan)?.task.project_name ?? '',
      asked_by: views.plan(approval.plan)?.task.owner ?? '',
      stages: standing(approval).stages,
      opened_at_ms: approval.opened_at_ms,
      expires_at_ms: approval.expires_at_ms,
    })),
  )
  show(context, { approvals: rows }, () =>
    table(
      ['approval', 'state', 'target', 'project', 'asked by', 'needs', 'asked', 'expires'],
      rows.map((row) => [
        row.approval_id,
        row.state,
        row.target,
        row.project,
        row.asked_by,
        row.stages.map((s) => `${s.roles.join('|')} ${String(s.have)}/${String(s.needed)}`).join(', '),
        ago(row.opened_at_ms, now),
        new Date(row.expires_at_ms).toISOString(),
      ]),
    ),
  )
  return yes
}

interface Shown {
  readonly approval: Approval
  readonly payload: string
  readonly origin: string
}

/** The approval and the text that is shown and signed for, from the broker. */
export async function fetchApproval(context: Context, id: string): Promise<Shown> {
  const shown = (await askStarted(context, 'approval', id)) as unknown as Shown
  // What is signed for is the text as it is displayed, so it has to be one that a terminal shows as it is.
  if (visible(shown.payload) !== shown.payload)
    throw new WritError('approval_refused', 'The broker gave a text that cannot be shown as it is.')
  return shown
}

export async function approvalsShow(context: Context, id: string): Promise<number> {
  const shown = await fetchApproval(context, id)
  show(context, shown, () => `${shown.payload}\nState         ${shown.approval.state}`)
  return yes
}

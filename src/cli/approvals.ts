import { isUtf8 } from 'node:buffer'
import { quoted } from '../approval/files.ts'
import { standing } from '../approval/requirement.ts'
import { visible } from '../approval/visible.ts'
import { inOrder, marked, wrapped } from '../approval/wrap.ts'
import { digestOf } from '../digest.ts'
import { WritError } from '../error.ts'
import type { Answered } from '../control/protocol.ts'
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

/** The approval and the text that is shown and signed for, from the broker. */
export async function fetchApproval(context: Context, id: string): Promise<Answered<'approval'>> {
  const shown = await askStarted(context, 'approval', { approval_id: id })
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

/** Bytes of a file that a terminal is given. */
const maxShown = 64 * 1024 * 1024

/** One file of the plan, whole: its text, or where it is none its bytes. */
export async function approvalsFile(context: Context, id: string, path: string): Promise<number> {
  const pieces: Buffer[] = []
  let whole: Pick<Answered<'approval_file'>, 'size' | 'sha256'>
  for (let from = 0; ;) {
    const answer = await askStarted(context, 'approval_file', { approval_id: id, path, from })
    whole = answer
    if (answer.size > maxShown) throw new WritError('too_large', 'a file of more than 64 MiB is not for a terminal')
    const piece = Buffer.from(answer.bytes, 'base64')
    pieces.push(piece)
    from += piece.length
    if (from >= answer.size || piece.length === 0) break
  }
  const { size, sha256 } = whole
  const bytes = Buffer.concat(pieces)
  if (digestOf(bytes) !== sha256)
    throw new WritError('ledger_corrupt', 'a file of the plan is not what its digest says')
  show(context, { path, size, sha256, content_base64: bytes.toString('base64') }, () =>
    [
      ...inOrder(wrapped(`${quoted(path)}: ${String(size)} bytes`)),
      `  ${digestOf(bytes)}`,
      ...(isText(bytes) ? inOrder(marked(bytes.toString('utf8'))) : dumped(bytes)),
    ].join('\n'),
  )
  return yes
}

function isText(bytes: Buffer): boolean {
  return isUtf8(bytes) && !bytes.includes(0)
}

/** Offset, bytes and what of them is printable ASCII. */
function dumped(bytes: Buffer): readonly string[] {
  const perLine = 16
  return Array.from({ length: Math.ceil(bytes.length / perLine) }, (_, at) => {
    const row = bytes.subarray(at * perLine, (at + 1) * perLine)
    const offset = (at * perLine).toString(16).padStart(8, '0')
    const ascii = row.toString('latin1').replaceAll(/[^ -~]/g, '.')
    return `  | ${offset} ${row.toString('hex').padEnd(2 * perLine)}  ${ascii}`
  })
}

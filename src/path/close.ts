import { WritError } from '../error.ts'
import type { Execution, FinalState, RunReport } from '../execution/execution.ts'
import { nothingCounted } from '../execution/job.ts'
import { newId } from '../id.ts'
import type { Entry } from '../ledger/ledger.ts'
import type { Reason } from '../policy/policy.ts'
import { outcomeAccount } from '../receipt/account.ts'
import type { Account } from '../receipt/receipt.ts'
import { nowOf, type Parts, reasonOf } from './parts.ts'

const sentences = {
  task_changed: [
    'The files of the task changed before this run began.',
    'Start again: the next run takes the files as they are now.',
  ],
  catalog_changed: [
    'The operator changed something this run was made from.',
    'Start again: a new plan is made from what is in force now.',
  ],
  request_expired: ['Nobody approved in time.', 'Start again when an approver is there.'],
  expired_before_use: ['It was approved, and the time to begin ran out.', 'Start again and have it approved anew.'],
  clock_behind: [
    'The clock of Writ is behind what it has recorded, and by its records the time is over.',
    'Ask the operator of this Writ, whom "writ doctor" tells by how much.',
  ],
  rejected: ['An approver rejected this run.', 'Ask the approver why, change the task, and start again.'],
  cancelled: ['It was cancelled before it began.', 'Start again when you want it to run.'],
} as const satisfies Record<string, readonly [string, string]>

export type ClosingCode = keyof typeof sentences

function closingReason(code: ClosingCode, said?: string): Reason {
  const [message, remedy] = sentences[code]
  return { code, message: withSaid(message, said), remedy, ref: newId('dec') }
}

/** A sentence with what whoever caused it said of it. */
export function withSaid(sentence: string, said: string | undefined): string {
  return said === undefined || said === '' ? sentence : `${sentence.replace(/\.$/, '')}: ${JSON.stringify(said)}.`
}

/**
 * Ends an execution of which nothing has started: its approval, its state and its receipt in one transaction.
 * @param said why, in the words of whoever ended it
 */
export async function closeWithoutRun(
  parts: Parts,
  execution: Execution,
  state: Extract<FinalState, 'denied' | 'rejected' | 'expired' | 'superseded' | 'cancelled'>,
  code: ClosingCode,
  said?: string,
): Promise<void> {
  await parts.ledger.append(...closingEntries(parts, execution, state, code, said))
  parts.changes.wake(execution.id)
}

export function closingEntries(
  parts: Parts,
  execution: Execution,
  state: Extract<FinalState, 'denied' | 'rejected' | 'expired' | 'superseded' | 'cancelled'>,
  code: ClosingCode,
  said?: string,
): readonly Entry[] {
  const entries: Entry[] = []
  for (const approval of parts.ledger.views.approvals({ execution: execution.id, state: 'open' }, 10)) {
    const closed = state === 'rejected' || state === 'expired' ? state : 'superseded'
    entries.push({ kind: 'approval_closed', approval: approval.id, state: closed, execute_by_ms: null })
  }
  entries.push({ kind: 'state', execution: execution.id, state, ran: false, reasons: [closingReason(code, said)] })
  entries.push({
    kind: 'sign',
    execution: execution.id,
    account: outcomeOf(parts, execution, { status: state, ran: false, report: null, revocation: 'done' }),
  })
  return entries
}

/** Ends what stands as running and was handed to no sandbox, because the commit of its start was told to have failed. */
export async function closeUnbegun(parts: Parts, execution: Execution): Promise<void> {
  const { egress, isolation_applied, withheld_files } = nothingCounted
  const { bytes, dropped_bytes, sha256 } = await parts.outputs.summary(execution.id)
  const output = { bytes, dropped_bytes, redactions: 0, sha256 }
  const reason = 'ledger_unavailable'
  const report: RunReport = { steps: [], files: [], output, egress, isolation_applied, reason, withheld_files }
  await parts.ledger.append(
    { kind: 'outcome', execution: execution.id, report },
    {
      kind: 'state',
      execution: execution.id,
      state: 'failed',
      ran: false,
      reasons: [reasonOf(parts, new WritError(reason, 'the start of a run was recorded by a commit that failed'))],
    },
    {
      kind: 'sign',
      execution: execution.id,
      account: outcomeOf(parts, execution, { status: 'failed', ran: false, report, revocation: 'done' }),
    },
  )
  parts.changes.wake(execution.id)
}

/** The account of how an execution ended, which is not before it was decided, whatever the clock does. `report` is null where nothing ran. */
export function outcomeOf(
  parts: Parts,
  execution: Execution,
  end: {
    readonly status: FinalState
    readonly ran: boolean
    readonly report: RunReport | null
    readonly revocation: 'done' | 'pending'
  },
): Account {
  const plan = parts.ledger.views.plan(execution.plan)
  const decision = parts.ledger.views.receiptsOf(execution.id).findLast((receipt) => receipt.kind === 'decision')
  if (plan === null || decision === undefined)
    throw new WritError('ledger_corrupt', 'an execution without its plan or its decision')
  return outcomeAccount(
    { execution: execution.id, plan, plan_digest: execution.plan, asserted: unasserted },
    { ...end, decision: { digest: decision.digest, index: decision.index }, at_ms: nowOf(parts) },
  )
}

/** What a client claimed stands in the decision's receipt; the later ones repeat nothing of it. */
export const unasserted = { client: '', version: '' } as const

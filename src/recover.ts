import type { Execution } from './execution/execution.ts'
import { nothingCounted } from './execution/job.ts'
import { closeWithoutRun, outcomeOf } from './path/close.ts'
import { nowOf, type Parts } from './path/parts.ts'
import { isOver, type Runner } from './path/run.ts'
import { inTurn } from './path/turn.ts'
import { newId } from './id.ts'
import type { Entry } from './ledger/ledger.ts'

export interface Recovered {
  /** Runs that may have started and whose end nobody saw. */
  readonly unknown: number
  /** Runs that wait as before. */
  readonly queued: number
  readonly leases: number
}

/**
 * What a restart closes, before anything new begins and only under the lock of the data folder: a run that may have
 * started ends `unknown` with its receipt and is never run again; its lease is given back; what had not started goes on
 * waiting (`resume`), and is decided anew before it runs.
 */
export async function recover(parts: Parts): Promise<Recovered> {
  const { views } = parts.ledger
  const lost = views.executions({ state: ['running'] }, 100_000)
  let leases = 0
  for (const execution of lost) {
    const entries: Entry[] = []
    for (const lease of views
      .leases(['intended', 'leased', 'pending'])
      .filter((row) => row.execution === execution.id)) {
      // Static sources hold nothing to take back; what a source could still hold is named until it confirms.
      entries.push({ kind: 'lease_ended', lease: lease.id, revocation: 'done' })
      leases++
    }
    const reason = {
      code: 'run_host_lost',
      message: 'Writ stopped while this ran and did not see how it ended.',
      remedy: 'Look at the target before you start it again.',
      ref: newId('dec'),
    }
    const output = await parts.outputs.summary(execution.id)
    const { egress, isolation_applied, withheld_files } = nothingCounted
    const report = {
      steps: [],
      files: [],
      output: { bytes: output.bytes, dropped_bytes: output.dropped_bytes, redactions: 0, sha256: output.sha256 },
      egress,
      isolation_applied,
      reason: 'run_host_lost',
      withheld_files,
    }
    await parts.ledger.append(
      ...entries,
      { kind: 'outcome', execution: execution.id, report },
      { kind: 'state', execution: execution.id, state: 'unknown', ran: true, reasons: [reason] },
      {
        kind: 'sign',
        execution: execution.id,
        account: outcomeOf(parts, execution, { status: 'unknown', ran: true, report, revocation: 'done' }),
      },
    )
  }
  // A source that holds something of its own would have to be asked here; those there are give copies.
  for (const lease of views.leases(['intended', 'leased', 'pending'])) {
    await parts.ledger.append({ kind: 'lease_ended', lease: lease.id, revocation: 'done' })
    leases++
  }
  return { unknown: lost.length, queued: waitingIn(parts).length, leases }
}

/** What waited goes on waiting for its turn. Only a broker that is up may: one that ends instead would leave it begun, and lost. */
export function resume(parts: Parts, runner: Runner): void {
  for (const execution of waitingIn(parts)) runner.enqueue(execution.id)
}

function waitingIn({ ledger }: Parts): readonly Execution[] {
  return ledger.views.executions({ state: ['queued'] }, 100_000).toReversed()
}

/**
 * Ends what nobody approved in time, and what was approved and did not begin in time. Expiries compare with the newer of
 * the wall clock and the newest ledger time.
 */
export async function expire(parts: Parts): Promise<void> {
  const now = nowOf(parts)
  const { views } = parts.ledger
  for (const approval of views.approvals({ state: 'open' }, 100_000)) {
    if (approval.expires_at_ms > now) continue
    const execution = views.execution(approval.execution)
    if (execution === null || execution.state !== 'awaiting_approval') continue
    const code = approval.expires_at_ms > parts.clock.now() ? 'clock_behind' : 'request_expired'
    await closed(parts, execution, async () => await closeWithoutRun(parts, execution, 'expired', code))
  }
  for (const execution of views.executions({ state: ['queued'] }, 100_000)) {
    if (!isOver(parts, execution)) continue
    await closed(parts, execution, async () => {
      // Its turn may have come meanwhile.
      await inTurn(`execution ${execution.id}`, async () => {
        if (views.execution(execution.id)?.state === 'queued')
          await closeWithoutRun(parts, execution, 'expired', 'expired_before_use')
      })
    })
  }
}

async function closed(parts: Parts, execution: Execution, close: () => Promise<void>): Promise<void> {
  try {
    await close()
  } catch (failure) {
    // Answered or cancelled meanwhile, or no room: it is looked at again, and holds up no other.
    parts.log.warn({ err: failure, execution: execution.id }, 'an approval that ran out could not be closed yet')
  }
}

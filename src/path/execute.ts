import type { Permit } from '../approval/permit.ts'
import type { Lease } from '../credential/credential.ts'
import { endLease, leaseCredentials } from '../credential/lease.ts'
import { newPlaceholder } from '../credential/placeholder.ts'
import { digestOf } from '../digest.ts'
import { WritError } from '../error.ts'
import { isFinal, type OutputFile, type RunReport } from '../execution/execution.ts'
import { nothingCounted, type RunEnd } from '../execution/job.ts'
import type { OutputSummary, OutputWriter } from '../execution/output.ts'
import { type ExecutionId, type LeaseId, newId } from '../id.ts'
import type { Entry } from '../ledger/ledger.ts'
import { narrowLimits } from '../plan/limits.ts'
import type { Generation, PolicyInput } from '../policy/policy.ts'
import { outcomeOf } from './close.ts'
import { endingOf } from './ending.ts'
import type { Parts } from './parts.ts'
import type { RunShare } from './storage.ts'
import { bytesOf } from './submit.ts'

/** What the final decision was made of: its input, and the generation that phase `egress` is asked of too. */
interface DecidedBy {
  readonly input: PolicyInput
  readonly generation: Generation
}

/** Steps 3 to 6 of the order of effects. Whatever happens in between, an outcome receipt is committed before any result is. */
export async function execute(parts: Parts, permit: Permit, by: DecidedBy, cancelled: AbortSignal): Promise<void> {
  const kept: Kept = { files: [], noRoom: 0, began: false, share: null }
  try {
    await carryOut(parts, permit, by, cancelled, kept)
  } finally {
    kept.share?.end()
  }
}

async function carryOut(
  parts: Parts,
  permit: Permit,
  by: DecidedBy,
  cancelled: AbortSignal,
  kept: Kept,
): Promise<void> {
  const { execution, plan, decision } = permit
  const mostPrinted = plan.limits.output_kb * 1024
  let writer: OutputWriter | null = null
  let lease: Lease | null = null
  let end: RunEnd
  try {
    kept.share = await parts.storage.begin(plan.tenant)
    writer = parts.outputs.writer(execution, Math.min(mostPrinted, kept.share.left))
    lease = await leaseFor(parts, permit)
    if (cancelled.aborted) {
      end = { outcome: { end: 'stopped', by: 'cancel', steps: [] }, counts: nothingCounted }
    } else {
      end = await dispatch(parts, permit, by, lease, writer, kept)
    }
  } catch (failure) {
    const error =
      failure instanceof WritError
        ? failure
        : new WritError('internal', 'the run could not be prepared', { cause: failure })
    end = { outcome: { end: 'not_started', error }, counts: nothingCounted }
  }
  const output = await closed(parts, execution, writer)
  // What was not leased leaves nothing to take back.
  const revocation = lease === null ? 'done' : await endLease(lease)
  const overQuota = kept.noRoom > 0 || (output.dropped_bytes > 0 && (kept.share?.left ?? 0) < mostPrinted)
  const said = typeof cancelled.reason === 'string' ? cancelled.reason : ''
  const ending = endingOf(parts, end.outcome, { plan, decision, began: kept.began, overQuota, said })
  const { state, ran, steps, reason } = ending
  const report: RunReport = {
    steps,
    files: kept.files.toSorted((a, b) => (a.path < b.path ? -1 : 1)),
    output: {
      bytes: output.bytes,
      dropped_bytes: output.dropped_bytes + end.counts.dropped_bytes,
      redactions: end.counts.redactions,
      sha256: output.sha256,
    },
    egress: end.counts.egress,
    isolation_applied: end.counts.isolation_applied,
    reason,
    withheld_files: end.counts.withheld_files + kept.noRoom,
    tests: end.tests ?? null,
  }
  const row = parts.ledger.views.execution(execution)
  if (row === null || isFinal(row.state)) return
  await committed(parts, [
    ...(lease === null ? [] : [{ kind: 'lease_ended' as const, lease: lease.id, revocation }]),
    { kind: 'outcome', execution, report },
    { kind: 'state', execution, state, ran, reasons: ending.reasons },
    {
      kind: 'sign',
      execution,
      account: outcomeOf(parts, row, { status: state, ran, report, revocation }),
    },
  ])
  parts.changes.wake(execution)
  if (lease !== null && revocation === 'pending') void revokeAgain(parts, lease)
}

/** Milliseconds between two tries to give a lease back: the first pause, and the longest. */
const [firstTryMs, longestTryMs] = [1000, 300_000]

/** What a source did not confirm is asked of it until it does; a run waits for it no longer. */
async function revokeAgain(parts: Parts, lease: Lease): Promise<void> {
  for (let pause = firstTryMs; ; pause = Math.min(pause * 2, longestTryMs)) {
    await new Promise((resolve) => setTimeout(resolve, pause).unref())
    if ((await endLease(lease)) === 'pending') {
      parts.log.warn(
        { lease: lease.id, execution: lease.execution },
        'a lease could not be given back; it is tried again',
      )
      continue
    }
    try {
      await retried(
        parts,
        async () => await parts.ledger.append({ kind: 'lease_ended', lease: lease.id, revocation: 'done' }),
      )
    } catch (failure) {
      // A broker that stops notes it at its next start.
      parts.log.warn({ err: failure, lease: lease.id }, 'a lease that was given back could not be recorded as such')
    }
    return
  }
}

/** What a run leaves: the files there was room for, and how many there was none for. */
interface Kept {
  readonly files: OutputFile[]
  noRoom: number
  /** True once the run host said that the first step may start. */
  began: boolean
  share: RunShare | null
}

/** What was printed, on disk: a disk that refuses that is waited for, as no outcome is told without its digest. */
async function closed(parts: Parts, execution: ExecutionId, writer: OutputWriter | null): Promise<OutputSummary> {
  try {
    if (writer !== null) return await writer.close()
  } catch (failure) {
    parts.log.error({ err: failure, execution }, 'the output of a run could not be closed')
  }
  return await retried(parts, async () => await parts.outputs.summary(execution))
}

async function leaseFor(parts: Parts, permit: Permit): Promise<Lease | null> {
  const asked = permit.plan.credentials.map((credential) => credential.name)
  const names = asked.filter((name) => permit.decision.credentials.includes(name))
  if (names.length === 0) return null
  const id: LeaseId = newId('lease')
  await parts.ledger.append({ kind: 'lease_intended', lease: id, execution: permit.execution, credentials: names })
  let lease: Lease | null = null
  try {
    lease = await leaseCredentials(permit.plan, names, parts.sources, permit.execution, {
      id,
      wallS: permit.plan.limits.wall_s,
      signal: AbortSignal.timeout(30_000),
    })
    const ends = lease.secrets.map((secret) => secret.expires_at_ms).filter((at) => at !== null)
    await parts.ledger.append({
      kind: 'leased',
      lease: id,
      expires_at_ms: ends.length === 0 ? null : Math.min(...ends),
    })
    return lease
  } catch (failure) {
    // All or nothing: what a source gave before another failed has been given back by then.
    const revocation = lease === null ? 'done' : await endLease(lease)
    await retried(parts, async () => await parts.ledger.append({ kind: 'lease_ended', lease: id, revocation }))
    throw failure
  }
}

async function dispatch(
  parts: Parts,
  permit: Permit,
  { input, generation }: DecidedBy,
  lease: Lease | null,
  writer: OutputWriter,
  kept: Kept,
): Promise<RunEnd> {
  const { execution, plan, digest, decision } = permit
  const placeholders = Object.fromEntries((lease?.secrets ?? []).map((secret) => [secret.name, newPlaceholder()]))
  const limits = narrowLimits(plan.limits, decision.limits)
  return await parts.host.run(
    {
      job: { execution, plan: { ...plan, limits }, plan_digest: digest, placeholders },
      secrets: lease?.secrets.map((secret) => secret.value) ?? [],
      generation,
      egress_input: { ...input, phase: 'egress', action: { name: 'fetch', properties: { arguments: {} } } },
    },
    bytesOf(parts),
    {
      started(step) {
        kept.began = true
        parts.changes.progress(execution, {
          step: step + 1,
          of: plan.steps.length,
          title: plan.steps[step]?.title ?? '',
        })
      },
      output(step, stream, bytes) {
        writer.write(step, stream, bytes)
        parts.changes.wake(execution)
      },
      async file(path, bytes) {
        if (kept.share?.take(digestOf(bytes), bytes.length) === false) {
          kept.noRoom++
          return
        }
        const stored = await parts.artifacts.put(chunk(bytes), limits.artifact_kb * 1024)
        kept.files.push({ path, sha256: stored.sha256, size: stored.size })
      },
    },
  )
}

// eslint-disable-next-line typescript/require-await -- the store takes an asynchronous stream
async function* chunk(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes
}

/** No receipt, no result: an outcome that cannot be written now is tried again until it can be. */
async function committed(parts: Parts, entries: readonly Entry[]): Promise<void> {
  await retried(parts, async () => await parts.ledger.append(...entries))
}

async function retried<T>(parts: Parts, work: () => Promise<T>): Promise<T> {
  for (let pause = 100; ; pause = Math.min(pause * 2, 10_000)) {
    try {
      return await work()
    } catch (failure) {
      if (!(failure instanceof WritError) || (failure.code !== 'no_space' && failure.code !== 'ledger_unavailable'))
        throw failure
      parts.log.error({ err: failure }, 'an outcome waits for the ledger')
      await new Promise((resolve) => setTimeout(resolve, pause))
    }
  }
}

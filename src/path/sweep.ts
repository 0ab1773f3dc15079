import type { ArtifactStore } from '../artifact/artifact.ts'
import type { Digest } from '../digest.ts'
import type { Parts } from './parts.ts'
import type { Holdings } from './holdings.ts'

/** What is stored and not yet referred to has this long to be: the time between a `put` and the step that follows it. */
const graceMs = 3_600_000
const page = 256

/** Everything stored before this moment and referred to by nothing is nobody's. Outputs of a run have its outcome to wait for. */
export function orphansBefore(parts: Pick<Parts, 'ledger'>, nowMs: number): number {
  const running = parts.ledger.views.executions({ state: ['running'] }, 100_000)
  return Math.min(nowMs - graceMs, ...running.map((execution) => execution.changed_at_ms))
}

/**
 * Removes artifacts that no task at its revision in force, no plan, no result and no live ticket refers to.
 * @param beforeMs Unix milliseconds; what was stored or held since stays
 * @param spared what else is in use: files of the operator's intents, of live tickets
 * @returns how many were removed
 */
export async function sweepOrphans(
  artifacts: Pick<ArtifactStore, 'list' | 'removeStoredBefore'>,
  holdings: Holdings,
  spared: (digest: Digest) => boolean,
  beforeMs: number,
): Promise<number> {
  const found: Digest[] = []
  for await (const digest of artifacts.list()) found.push(digest)
  let removed = 0
  for (let at = 0; at < found.length; at += page) {
    // A reference made after this comes with a `put` or a `hold`, and then the moment tells it from an orphan.
    await holdings.refresh()
    for (const digest of found.slice(at, at + page))
      if (!holdings.refers(digest) && !spared(digest) && artifacts.removeStoredBefore(digest, beforeMs)) removed++
    await new Promise((resolve) => setImmediate(resolve))
  }
  return removed
}

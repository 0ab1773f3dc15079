import { type Folder, keep, turnLog } from './folder.ts'
import type { Live } from './live.ts'
import type { Parts } from './path/parts.ts'
import type { Refusals } from './path/refusals.ts'
import type { openTransfers } from './path/transfer.ts'
import { expire } from './recover.ts'

/** What a broker does by the clock and not because it was asked. */
export interface Clockwork {
  /** Somebody came or went: idle time begins anew. */
  busy(): void
  /** What each tenant stores, noted down: without it the next start reads all steps. */
  keepHoldings(): Promise<void>
  stop(): void
}

const tickMs = 1000
const flushMs = 60_000
const sweepMs = 3_600_000

export function startClockwork(options: {
  readonly parts: Parts
  readonly folder: Folder
  readonly live: Live
  readonly transfers: Pick<ReturnType<typeof openTransfers>, 'tick' | 'sweep'>
  readonly refusals: Refusals
  /** Milliseconds since the epoch at which this broker began. */
  readonly started: number
  /** How much is going on beside what waits for people; 0 is none. */
  work(): number
  /** What to do once nothing has gone on for long enough; null where it goes on all the same. */
  readonly idle: (() => Promise<void>) | null
}): Clockwork {
  const { parts, folder, live, transfers, refusals } = options
  const { clock, log, ledger, storage } = parts
  let stopped = false
  // Not by the wall clock: one that is set back by a day must not put off for a day what is done every minute.
  const now = (): number => clock.monotonic()
  let [busyAt, flushedAt, sweptAt] = [now(), now(), now()]

  async function keepHoldings(): Promise<void> {
    try {
      keep(folder.holdings, await storage.save())
    } catch (failure) {
      log.warn({ err: failure }, 'what each tenant stores could not be noted down: the next start reads all steps')
    }
  }

  async function sweep(before?: number): Promise<void> {
    try {
      const removed = await transfers.sweep(before)
      if (removed > 0) log.info({ removed }, 'artifacts that belong to nobody were removed')
      await keepHoldings()
    } catch (failure) {
      if (!stopped) log.error({ err: failure }, 'the artifacts could not be swept')
    }
  }

  async function tick(): Promise<void> {
    // The log first: what fails below is written to it once a second. Standard output is the log of a detached broker.
    turnLog(folder.log, 1)
    await expire(parts)
    await live.settle()
    await transfers.tick()
    if (now() - sweptAt >= sweepMs) {
      sweptAt = now()
      await sweep()
    }
    if (now() - flushedAt >= flushMs) {
      flushedAt = now()
      await refusals.flush()
    }
    if (options.work() > 0 || ledger.views.approvals({ state: 'open' }, 1).length > 0) busyAt = now()
    if (options.idle !== null && now() - busyAt > live.config().idle_stop_s * 1000) {
      log.info('idle with nothing pending: stopping')
      await options.idle()
    }
  }

  const ticker = setInterval(() => {
    void tick().catch((failure: unknown) => log.error({ err: failure }, 'the broker’s clockwork failed'))
  }, tickMs)
  // What an earlier broker stored and nothing refers to is nobody's: no request of now can be about to name it.
  void sweep(options.started)

  return {
    busy: () => void (busyAt = now()),
    keepHoldings,
    stop() {
      stopped = true
      clearInterval(ticker)
    },
  }
}

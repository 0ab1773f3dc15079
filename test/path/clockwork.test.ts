import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, expect, it, vi } from 'vitest'
import { systemClock } from '../../src/clock.ts'
import { startClockwork } from '../../src/clockwork.ts'
import { folderOf } from '../../src/folder.ts'

const data = mkdtempSync(join(tmpdir(), 'writ-clockwork-'))
afterEach(() => {
  vi.useRealTimers()
  rmSync(data, { recursive: true, force: true })
})

it('[G-flood] accounts every minute, sweeps every hour and ends an idle broker when the clock was set back by a day', async () => {
  vi.useFakeTimers()
  const count = { flushed: 0, swept: 0, stopped: 0 }
  const none = (): readonly never[] => []
  const clockwork = startClockwork({
    parts: {
      clock: systemClock,
      ledger: { views: { approvals: none, executions: none, newestTimeMs: () => 0 } },
      storage: { save: async () => await Promise.resolve('') },
      log: { info: () => undefined, warn: () => undefined, error: () => undefined },
    } as never,
    folder: folderOf(data),
    live: { settle: async () => await Promise.resolve(), config: () => ({ idle_stop_s: 7200 }) } as never,
    transfers: {
      tick: async () => await Promise.resolve(),
      sweep: async () => await Promise.resolve(count.swept++),
    },
    refusals: { flush: async () => await Promise.resolve(void count.flushed++) } as never,
    started: Date.now(),
    work: () => 0,
    idle: async () => await Promise.resolve(void count.stopped++),
  })
  vi.setSystemTime(Date.now() - 86_400_000)
  await vi.advanceTimersByTimeAsync(3_700_000)
  // The sweep of what an earlier broker left is one more.
  expect(count).toEqual({ flushed: 61, swept: 2, stopped: 0 })
  await vi.advanceTimersByTimeAsync(3_600_000)
  expect(count.stopped).toBeGreaterThan(0)
  clockwork.stop()
})

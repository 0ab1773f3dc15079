import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

/**
 * Milliseconds of processor that this process spends on some work, the least of three goes: on a busy machine the clock
 * runs on, this hardly. Only ever for comparison with other work, as no number of milliseconds is right for all machines.
 */
export async function effort(work: () => unknown): Promise<number> {
  let least = Infinity
  for (let go = 0; go < 3; go++) {
    const before = process.cpuUsage()
    await work()
    const { user, system } = process.cpuUsage(before)
    least = Math.min(least, (user + system) / 1000)
  }
  return least
}

/** The least milliseconds of some goes, each of which measures itself: what a machine that is busy elsewhere adds is not all of them. */
export async function quickest(goes: number, go: () => Promise<number>): Promise<number> {
  let least = Infinity
  for (let done = 0; done < goes; done++) least = Math.min(least, await go())
  return least
}

let collect: (() => void) | null = null

/** What this process still holds: what only waits to be collected is no measure of anything. */
export function held(): NodeJS.MemoryUsage {
  if (collect === null) {
    setFlagsFromString('--expose-gc')
    collect = runInNewContext('gc') as () => void
  }
  collect()
  return process.memoryUsage()
}

/** Bytes of buffers that something still holds. */
export function bytesHeld(): number {
  return held().arrayBuffers
}

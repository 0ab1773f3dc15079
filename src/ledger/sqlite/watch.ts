import type { Position } from '../ledger.ts'

/** Wakes who waits for commits. A commit costs one call per watcher that is waiting; a slow one skips to the newest. */
export interface Watchers {
  watch(signal: AbortSignal): AsyncIterable<Position>
  wake(): void
  /** Ends every watch. */
  end(): void
}

export function createWatchers(newest: () => Position): Watchers {
  const waiting = new Set<() => void>()
  const over = new AbortController()

  function wake(): void {
    const woken = [...waiting]
    waiting.clear()
    for (const go of woken) go()
  }

  async function commit(signal: AbortSignal): Promise<void> {
    await new Promise<void>((resolve) => {
      const go = () => {
        // A watcher that gives up must not leave its listener behind: a quiet broker is polled for days.
        waiting.delete(go)
        signal.removeEventListener('abort', go)
        resolve()
      }
      waiting.add(go)
      signal.addEventListener('abort', go, { once: true })
    })
  }

  return {
    wake,
    end() {
      over.abort()
      wake()
    },
    watch(signal) {
      // Counted from the call, not from the first `next`: what commits in between is not missed.
      let seen = newest()
      return {
        [Symbol.asyncIterator]: () => ({
          async next(): Promise<IteratorResult<Position>> {
            while (!over.signal.aborted && !signal.aborted) {
              const position = newest()
              if (position > seen) {
                seen = position
                return { done: false, value: position }
              }
              await commit(signal)
            }
            return { done: true, value: undefined }
          },
          async return(): Promise<IteratorResult<Position>> {
            return { done: true, value: undefined }
          },
        }),
      }
    },
  }
}

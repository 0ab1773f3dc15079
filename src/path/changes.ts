import type { ExecutionId } from '../id.ts'

interface Progress {
  readonly step: number
  readonly of: number
  readonly title: string
}

/**
 * Wakes those who wait for one execution, and holds what is worth showing only while it is alive. One listener a
 * waiting call; no polling of the ledger.
 */
export interface Changes {
  wake(execution: ExecutionId): void
  /**
   * Resolves on the next `wake` of this execution, after `ms`, or when the signal aborts: true where there is something to
   * look at, false where only time went by. Never rejects.
   */
  wait(execution: ExecutionId, ms: number, signal: AbortSignal): Promise<boolean>
  progress(execution: ExecutionId, progress: Progress | null): void
  progressOf(execution: ExecutionId): Progress | null
  readonly waiting: number
}

export function openChanges(): Changes {
  const listeners = new Map<ExecutionId, Set<() => void>>()
  const running = new Map<ExecutionId, Progress>()
  let waiting = 0
  const wake = (execution: ExecutionId): void => {
    for (const listener of Array.from(listeners.get(execution) ?? [])) listener()
  }
  return {
    wake,
    async wait(execution, ms, signal) {
      if (signal.aborted || ms <= 0) return signal.aborted
      return await new Promise<boolean>((resolve) => {
        const set = listeners.get(execution) ?? new Set()
        listeners.set(execution, set)
        waiting++
        const end = (woken: boolean): void => {
          if (!set.delete(done)) return
          if (set.size === 0) listeners.delete(execution)
          waiting--
          clearTimeout(timer)
          signal.removeEventListener('abort', done)
          resolve(woken)
        }
        const done = (): void => end(true)
        const timer = setTimeout(() => end(false), ms)
        signal.addEventListener('abort', done, { once: true })
        set.add(done)
      })
    },
    progress(execution, progress) {
      if (progress === null) running.delete(execution)
      else running.set(execution, progress)
      wake(execution)
    },
    progressOf: (execution) => running.get(execution) ?? null,
    get waiting() {
      return waiting
    },
  }
}

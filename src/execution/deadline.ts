import type { ExecutionId } from '../id.ts'

/** Seconds. */
export interface Patience {
  /** Beyond its wall time, before the end of a run is asked for. */
  readonly late: number
  /** From asking for an end to the run host's word that it heard. */
  readonly answer: number
  /** From that word to the end: an engine is asked for a while before an end counts as unknown. */
  readonly ending: number
}

const usual: Patience = { late: 5, answer: 4, ending: 120 }

interface Run {
  /** Seconds until its end is asked for. */
  left: number
  /** Seconds left for the run host to hear, or null while nothing was asked or once it has. */
  hearing: number | null
  /** Seconds left to end, or null while nothing was asked. */
  ending: number | null
}

/** What the broker itself holds of time and cancels, whether or not its run host still does. */
export interface Deadlines {
  begin(execution: ExecutionId, wallS: number): void
  /** The end of a run is asked for: from now on it is owed. */
  asked(execution: ExecutionId): void
  /** The run host has heard. */
  heard(execution: ExecutionId): void
  end(execution: ExecutionId): void
  close(): void
}

/**
 * Watches the runs of one run host. `ask` is called for a run that passes its wall time, `give up` once the run host
 * does not answer or does not end a run: whatever it is busy with, foreign code may be the cause.
 */
export function openDeadlines(options: {
  readonly ask: (execution: ExecutionId) => void
  readonly giveUp: (why: string) => void
  readonly patience?: Patience | undefined
}): Deadlines {
  const patience = options.patience ?? usual
  const runs = new Map<ExecutionId, Run>()
  let ticking: NodeJS.Timeout | null = null

  function asked(execution: ExecutionId): void {
    const run = runs.get(execution)
    if (run === undefined || run.ending !== null) return
    run.hearing = patience.answer
    run.ending = patience.answer + patience.ending
  }

  /** Seconds are counted, not read from a clock: a broker that was itself held up has not waited meanwhile. */
  function tick(): void {
    for (const [execution, run] of runs) {
      run.left--
      if (run.left < 0 && run.ending === null) {
        asked(execution)
        options.ask(execution)
        continue
      }
      if (run.hearing !== null && --run.hearing < 0) return options.giveUp('the run host did not answer')
      if (run.ending !== null && --run.ending < 0) return options.giveUp('the run host did not end a run')
    }
  }

  return {
    begin(execution, wallS) {
      runs.set(execution, { left: wallS + patience.late, hearing: null, ending: null })
      ticking ??= setInterval(tick, 1000).unref()
    },
    asked,
    heard(execution) {
      const run = runs.get(execution)
      if (run !== undefined) run.hearing = null
    },
    end(execution) {
      runs.delete(execution)
      if (runs.size > 0 || ticking === null) return
      clearInterval(ticking)
      ticking = null
    },
    close() {
      runs.clear()
      if (ticking !== null) clearInterval(ticking)
      ticking = null
    },
  }
}

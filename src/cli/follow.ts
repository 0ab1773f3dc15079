import { visibleLine } from '../approval/visible.ts'
import type { ExecutionView, Results } from '../execution/result.ts'
import type { ToolClient } from './client.ts'
import type { Context } from './context.ts'
import { onInterrupt } from './terminal.ts'

/** New output is asked for this often while a run goes on; else the broker is left to say when something changes. */
const whileRunningMs = 1000
const whileWaitingMs = 20_000
/** Characters of a line that is not ended after which it is shown all the same. */
const longestHeld = 8192

type Told = Partial<ExecutionView>

/** Says what becomes of an execution as it comes, on standard error, until it is final; then gives its last status. */
export async function follow(
  context: Context,
  client: ToolClient,
  started: Results['start_execution'],
): Promise<Results['get_status']> {
  const id = started.execution_id ?? ''
  const output = linesTo(context)
  const progress = progressOf(context, id)
  progress.say(started)
  using _interrupted = onInterrupt(() =>
    context.note(
      `${id} goes on without this command: "writ executions show ${id}" shows it, "writ executions cancel ${id}" stops it.`,
    ),
  )
  let status: Results['get_status'] = started
  for (let cursor = 'start'; ;) {
    const wait_ms = status.state === 'running' ? whileRunningMs : whileWaitingMs
    status = await client.call('get_status', { execution_id: id, cursor, wait_ms })
    if (status.error !== undefined) return status
    if (status.log !== undefined) {
      output.add(status.log)
      cursor = status.log.cursor
    }
    if (status.final === true && status.log?.more === true) continue
    // What it printed before it ended stands before its end.
    if (status.final === true) output.flush()
    progress.say(status)
    if (status.final === true) return status
  }
}

/** A state, and whom it waits for, once each. */
function progressOf(context: Context, id: string): { say(status: Told): void } {
  const told = new Set<string>()
  const once = (line: string): void => {
    if (told.has(line)) return
    told.add(line)
    context.note(line)
  }
  return {
    say({ state, approval, progress }) {
      if (state !== undefined) once(`${id}: ${state}`)
      if (approval !== undefined) once(`  ${visibleLine(approval.how)}`)
      if (progress !== undefined && progress.of > 1)
        once(`  step ${String(progress.step)} of ${String(progress.of)}: ${visibleLine(progress.title)}`)
    },
  }
}

/** Output in whole lines, whatever pieces it comes in; with `--json` it stands in the result alone. */
function linesTo(context: Context): { add(log: NonNullable<Told['log']>): void; flush(): void } {
  let held = ''
  const flush = (): void => {
    if (held !== '') context.note(held)
    held = ''
  }
  return {
    add({ text, dropped_bytes = 0 }) {
      if (context.json) return
      if (dropped_bytes > 0) {
        flush()
        context.note(`(${String(dropped_bytes)} bytes of output are not kept)`)
      }
      held += text
      const end = held.lastIndexOf('\n')
      if (end >= 0) context.note(held.slice(0, end))
      held = held.slice(end + 1)
      if (held.length > longestHeld) flush()
    },
    flush,
  }
}

import { visibleLine } from '../approval/visible.ts'
import { countsText } from '../execution/report/report.ts'
import type { TestReport } from '../execution/report/report.ts'
import { sentences } from '../execution/result.ts'
import type { Context } from './context.ts'

/** Rows under a head, in columns; the last column is not padded. Cells are made safe for a terminal. */
export function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const safe = rows.map((row) => row.map((cell) => visibleLine(cell)))
  const widths = head.map((title, column) => Math.max(title.length, ...safe.map((row) => (row[column] ?? '').length)))
  const line = (cells: readonly string[]): string =>
    cells
      .map((cell, column) => (column === cells.length - 1 ? cell : cell.padEnd(widths[column] ?? 0)))
      .join('  ')
      .trimEnd()
  return [line(head.map((title) => title.toUpperCase())), ...safe.map(line)].join('\n')
}

/** Data for machines with `--json`, a table or text for people else. */
export function show(context: Context, data: unknown, text: () => string): void {
  if (context.json) context.data(data)
  else context.say(text())
}

/** A word as one types it to a shell. */
export function forShell(word: string): string {
  return /^[\w./+,:@%-]+$/.test(word) && !word.startsWith('-') ? word : `'${word.replaceAll("'", "'\\''")}'`
}

/** How many there are of something, in words. */
export function counted(count: number, one: string, more = `${one}s`): string {
  return `${String(count)} ${count === 1 ? one : more}`
}

/** A reason as one reads it. */
export function told(reason: { readonly code: string; readonly message: string; readonly remedy: string }): string {
  return `${reason.code}: ${sentences(reason)}`
}

/** A test report: one line of counts, one for each failure with the first line of its message. */
export function testLines(
  tests: Pick<TestReport, 'source' | 'passed' | 'failed' | 'skipped' | 'failures'>,
  head: string,
  margin: string,
): readonly string[] {
  return [
    `${head} ${countsText(tests)} (${tests.source}, as the workload reported them)`,
    ...tests.failures.map(({ name, message }) => {
      const [first = ''] = message.split('\n')
      return `${margin}failed  ${visibleLine(first === '' ? name : `${name}: ${first}`)}`
    }),
  ]
}

/** How far the newest record is ahead of the clock. */
export function aheadText(seconds: number): string {
  return `the newest record is ${counted(Math.ceil(seconds / 60), 'minute')} ahead of this machine's clock`
}

export function ago(thenMs: number, nowMs: number): string {
  const seconds = Math.max(0, Math.round((nowMs - thenMs) / 1000))
  if (seconds < 60) return `${String(seconds)} s ago`
  if (seconds < 3600) return `${String(Math.round(seconds / 60))} min ago`
  if (seconds < 172_800) return `${String(Math.round(seconds / 3600))} h ago`
  return `${String(Math.round(seconds / 86_400))} d ago`
}

import { openTally } from './report.ts'
import type { Clean, TestReport } from './report.ts'
import { atOnce } from './slices.ts'

/** Reads a stream line by line and keeps counts, never the stream. */
export interface LineReader {
  line(text: string): void
  /** What the lines said, or null where they were no report. */
  end(): TestReport | null
}

interface Point {
  readonly ok: boolean
  readonly skip: boolean
  readonly level: number
  readonly parent: boolean
  readonly name: string
  message: string
}

/** What stands between `---` and `...` under a result. */
interface Block {
  readonly indent: number
  /** Indentation of a text of several lines that is being read, or -1. */
  reading: number
}

const maxLevel = 16
/** Characters of a message that are kept; lines beyond are left out whole. */
const maxKept = 8192

/**
 * TAP 12 to 14, results of subtests counted instead of those of their parents (a parent that fails alone counts).
 * `versioned` demands a version line before anything counts: what a step prints is a report only where it says so.
 */
export function openTap(clean: Clean, { versioned }: { readonly versioned: boolean }): LineReader {
  const tally = openTally('tap', clean)
  /** Results seen at each level since the last result one level up, and whether one of them failed. */
  const below: { seen: number; failed: boolean }[] = []
  let begun = !versioned
  let announced = false
  let expected: number | null = null
  let roots = 0
  let points = 0
  let lawful = true
  let last: Point | null = null
  let block: Block | null = null

  function settle(): void {
    const point = last
    last = null
    block = null
    if (point === null) return
    if (point.parent && point.ok) return
    if (point.skip) tally.skip()
    else if (point.ok) tally.pass()
    else tally.fail(point.name, point.message)
  }
  function close(): void {
    settle()
    if (expected !== null && roots < expected) tally.cut()
    below.length = 0
    expected = null
    roots = 0
  }
  function take(indent: number, text: string, ok: boolean): void {
    const level = indent >> 2
    if (level > maxLevel) {
      lawful = false
      return
    }
    const children = below[level + 1]
    // Settled only now: what a parent's own result means depends on those before it.
    settle()
    const { name, directive } = described(text)
    const skip = directive !== null
    const parent = (children?.seen ?? 0) > 0
    const failedBelow = parent && children?.failed === true
    below.length = Math.min(below.length, level + 1)
    while (below.length <= level) below.push({ seen: 0, failed: false })
    const here = below[level]
    if (here !== undefined) {
      here.seen++
      if (!ok && !skip) here.failed = true
    }
    points++
    if (level === 0) roots++
    last = { ok: ok || failedBelow, skip: skip && !failedBelow, level, parent, name, message: '' }
  }
  function detail(line: string, indent: number, own: Block): void {
    if (indent === own.indent && line.trim() === '...') {
      block = null
      return
    }
    if (own.reading >= 0) {
      if (indent > own.indent || line.trim() === '') return keep(line.slice(own.indent))
      own.reading = -1
    }
    if (indent !== own.indent || last === null) return
    const field = /^(error|message|duration_ms):(?: (.*))?$/.exec(line.slice(indent))
    const value = field?.[2]?.trim() ?? ''
    if (field?.[1] === 'duration_ms') {
      if (last.level === 0 && /^[0-9]{1,12}(?:\.[0-9]{1,20})?$/.test(value)) tally.took(Number(value))
    } else if (field !== null && last.message === '') {
      if (/^[|>][+-]?$/.test(value)) own.reading = indent
      else keep(unquoted(value))
    }
  }
  function keep(text: string): void {
    if (last === null || last.message.length + text.length > maxKept) return
    last.message += last.message === '' ? text.trimStart() : `\n${text}`
  }

  return {
    line(line) {
      if (/^TAP version 1[234]\s*$/.test(line)) {
        close()
        begun = true
        announced = true
        return
      }
      if (!begun) return
      const indent = leading(line)
      if (block !== null) return detail(line, indent, block)
      const rest = line.slice(indent)
      if (rest === '---' && last !== null && indent === last.level * 4 + 2) block = { indent, reading: -1 }
      else if (/^ok(?![\w])/.test(rest)) take(indent, rest.slice(2), true)
      else if (/^not ok(?![\w])/.test(rest)) take(indent, rest.slice(6), false)
      else if (indent === 0 && rest.startsWith('Bail out!')) {
        settle()
        tally.fail('Bail out!', rest.slice(9))
        points++
      } else if (indent === 0) {
        const plan = /^1\.\.([0-9]{1,7})(?![\w.])/.exec(rest)
        if (plan !== null) {
          expected = Number(plan[1])
          announced = true
        }
      }
    },
    end() {
      const planned = expected
      close()
      return lawful && announced && (points > 0 || planned === 0) ? atOnce(tally.report()) : null
    },
  }
}

function leading(line: string): number {
  let at = 0
  while (line.charCodeAt(at) === 0x20) at++
  return at
}

/** What stands after `ok`: number, description, directive. */
function described(text: string): { readonly name: string; readonly directive: 'skip' | 'todo' | null } {
  let rest = text.trimStart()
  const number = /^[0-9]{1,9}(?![\w])/.exec(rest)
  if (number !== null) rest = rest.slice(number[0].length).trimStart()
  if (rest.startsWith('-')) rest = rest.slice(1).trimStart()
  const at = rest.startsWith('# ') ? 0 : rest.lastIndexOf(' # ')
  const word = at < 0 ? null : /^ ?# {1,8}(skip|todo)/i.exec(rest.slice(at, at + 16))
  const directive = word === null ? null : word[1]?.toLowerCase() === 'skip' ? 'skip' : 'todo'
  const name = directive === null ? rest : rest.slice(0, at)
  return { name: name.trim().replaceAll('\\#', '#').replaceAll('\\\\', '\\'), directive }
}

function unquoted(value: string): string {
  const quote = value[0]
  if (value.length < 2 || (quote !== "'" && quote !== '"') || value.at(-1) !== quote) return value
  const inner = value.slice(1, -1)
  return quote === "'" ? inner.replaceAll("''", "'") : inner.replaceAll('\\n', '\n').replaceAll('\\"', '"')
}

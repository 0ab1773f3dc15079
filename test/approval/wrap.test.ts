import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { payloadOf } from '../../src/approval/payload.ts'
import { visible } from '../../src/approval/visible.ts'
import { inOrder, marked, wrapped } from '../../src/approval/wrap.ts'
import { approvalOf, planWith, store } from './sample.ts'

const columns = 80

/** Cells as terminals count them: `ambiguous` is what one in East Asia gives a letter that others give one. */
function cellsOf(character: string, at: number, ambiguous: 1 | 2): number {
  if (character === '\t') return 8 - (at % 8)
  if (/\p{M}/u.test(character)) return 0
  const code = character.codePointAt(0) ?? 0
  if (code < 0x7f) return 1
  const wide =
    /[\p{Script=Han}\p{Script=Hangul}\p{Script=Hiragana}\p{Script=Katakana}\p{Extended_Pictographic}\uff01-\uff60]/u
  return wide.test(character) ? 2 : ambiguous
}

/** The lines as they stand on a terminal that wraps at its margin. */
function onTerminal(text: string, ambiguous: 1 | 2): readonly string[] {
  return text.split('\n').flatMap((line) => {
    const rows = ['']
    let at = 0
    for (const character of line) {
      const cells = cellsOf(character, at, ambiguous)
      if (at + cells > columns) {
        rows.push('')
        at = 0
      }
      rows[rows.length - 1] += character
      at += cells
    }
    return rows
  })
}

/** Writ's own lines as an approver sees them: those that stand behind no mark. */
function own(rows: readonly string[]): readonly string[] {
  return rows.filter((row) => !/^ {2}\|[ >=]/.test(row))
}

const files = store()
const forged = ['Egress        closed', 'Credentials   none', 'Files         none', 'NOT SHOWN     nothing']

/** A line that a terminal of 80 columns would break right before each of Writ's lines it pretends to hold. */
function padded(head: string, first: number): string {
  const fill = (text: string, width: number): string => text + ' '.repeat(Math.max(0, width - text.length))
  return fill(head, columns - first) + forged.map((line) => fill(line, columns)).join('')
}

describe('the payload on a terminal of 80 columns', () => {
  it('[G-approval-shown] has nothing of a caller where Writ’s own lines begin, however long the lines of the caller', async () => {
    const plan = planWith({
      task: {
        ...planWith().task,
        goal: padded('Sum the sales"', 15),
        project_name: padded('x', 15),
        context: padded('as agreed', 4),
        inputs: { note: padded('n', 13) },
      },
      stdin: `${padded('a', 4)}\n${'語'.repeat(38)}${padded('', 4)}\n${'\t'.repeat(9)}${padded('', 76)}`,
      steps: [{ title: 'Run a.js', argv: ['a.js', padded('w', 28)], success: [0] }],
      files: [
        files.add('a.js', padded('// read the sales', 4)),
        files.add(`${'p'.repeat(75)}/Files         none`, 'é'.repeat(76) + padded('', 4)),
      ],
    })
    const text = await payloadOf({ approval: approvalOf(plan), plan, before: null, bytesOf: files.bytesOf })
    for (const ambiguous of [1, 2] as const) {
      const rows = onTerminal(text, ambiguous)
      expect(rows).toEqual(text.split('\n'))
      for (const line of forged.slice(1)) expect(own(rows).filter((row) => row.startsWith(line))).toEqual([])
      expect(own(rows).filter((row) => row.startsWith('Egress '))).toEqual([
        'Egress        gateway: orders with orders-token',
      ])
    }
    // All of it is there all the same.
    const whole = text.replaceAll('\n  |>', '')
    expect(whole).toContain(`  | ${padded('// read the sales', 4)}\n`)
    expect(whole).toContain(JSON.stringify(plan.task.goal))
  })

  it('[G-approval-shown] keeps lines of its own in one piece', async () => {
    const plan = planWith({ files: [files.add('a.js', 'x'), files.add('big.bin', Buffer.alloc(70_000, 1))] })
    const before = planWith({ files: [files.add('a.js', 'y'), files.add('gone.js', 'z')] })
    const text = await payloadOf({ approval: approvalOf(plan), plan, before, bytesOf: files.bytesOf })
    expect(text).not.toContain('  |>')
  })
})

describe('a wrapped line', () => {
  it('is at most 76 cells wide by any count, says the same, and stays as it is', () => {
    const unit = fc.constantFrom('a', ' ', '\t', 'é', 'ж', '語', '😀', '\u0301', '\u20dd', '｜')
    fc.assert(
      fc.property(fc.array(unit, { maxLength: 400 }), (units) => {
        const line = `  | ${visible(units.join(''))}`
        const pieces = wrapped(line)
        expect(pieces.map((piece, at) => (at === 0 ? piece : piece.slice(4))).join('')).toBe(line)
        for (const [at, piece] of pieces.entries()) {
          if (at > 0) expect(piece.startsWith('  |>')).toBe(true)
          expect(onTerminal(piece, 2)).toHaveLength(1)
          expect(wrapped(piece)).toEqual([piece])
        }
      }),
      { numRuns: 500 },
    )
  })

  it('breaks no character from its marks, unless they fill a line', () => {
    expect(marked(`${'a'.repeat(71)}e\u0301`)).toEqual([`  | ${'a'.repeat(71)}`, '  |>e\u0301'])
    expect(marked(`e${'\u0301'.repeat(100)}`).length).toBeGreaterThan(2)
  })

  it('is told from a line of its own', () => {
    expect(marked(`${'a'.repeat(72)}b`)).not.toEqual(marked(`${'a'.repeat(72)}\nb`))
    expect(marked('>x')).toEqual(['  | >x'])
  })
})

describe('letters written from right to left', () => {
  const [alef, bet] = ['\u{5d0}', '\u{5d1}']

  it('[G-approval-shown] are shown, and the line once more in its own order, as a terminal may show what stands between them in another', async () => {
    const plan = planWith({
      steps: [{ title: 'Copy', argv: ['cp', alef, bet], success: [0] }],
      files: [files.add('a.js', `move("${alef}", 1, 2, "${bet}")\nrest()`)],
    })
    const lines = (await payloadOf({ approval: approvalOf(plan), plan, before: null, bytesOf: files.bytesOf })).split(
      '\n',
    )
    const at = lines.indexOf(`  1. "Copy": "cp" "${alef}" "${bet}"`)
    expect(lines[at + 1]).toBe('  |= 1. "Copy": "cp" "\\u{5d0}" "\\u{5d1}"')
    const moved = lines.indexOf(`  | move("${alef}", 1, 2, "${bet}")`)
    expect(lines.slice(moved + 1, moved + 3)).toEqual(['  |= | move("\\u{5d0}", 1, 2, "\\u{5d1}")', '  | rest()'])
    expect(lines[2]).toMatch(/^Lines with "\|=" are the one above in its order/)
    expect(lines.every((line) => line.length <= 80)).toBe(true)
    expect(visible(lines.join('\n'))).toBe(lines.join('\n'))
  })

  it('are written out whatever their script, and nothing else is', () => {
    const scripts = [
      '\u{5d0}',
      '\u{627}',
      '\u{710}',
      '\u{780}',
      '\u{7ca}',
      '\u{fb2a}',
      '\u{fefb}',
      '\u{10800}',
      '\u{1e900}',
    ]
    for (const letter of scripts) expect(inOrder([`  | ${letter}`])).toHaveLength(2)
    const others = ['plain', '語', 'é', '\u{418}', '\u{3b1}', '\u{905}', '\u{1f600}', '\t']
    expect(inOrder(others)).toEqual(others)
    expect(
      inOrder([`  | ${'\u{5d0}'.repeat(35)}`])
        .slice(1)
        .every((line) => /^ {2}\|[=>]/.test(line)),
    ).toBe(true)
  })
})

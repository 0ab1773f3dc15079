import { escaped, visible } from './visible.ts'

/** Cells a line may fill. A terminal of 80 columns, and any wider one, shows such a line as one. */
const width = 76
/** Before each line of what somebody else wrote. */
const mark = '  | '
/** Before what goes on with the line above it: no terminal wraps it there, so nothing stands at the margin that is not ours. */
const onward = '  |>'
const tab = 8

/**
 * A line in pieces that no terminal wraps, each after the first behind a mark of its own. Cells are counted at the most
 * any terminal gives: one for printable ASCII, two for every other character, up to the next stop for a tab.
 */
export function wrapped(line: string): readonly string[] {
  if (line.length <= width && /^[ -~]*$/.test(line)) return [line]
  const pieces: string[] = []
  let piece = ''
  let cells = 0
  // A mark of combining stays with what it is set on, as long as there is room for both.
  for (const cluster of line.match(/\P{M}\p{M}*|\p{M}+/gsu) ?? []) {
    const whole = cellsOf(cluster, cells) <= width - onward.length
    for (const character of whole ? [cluster] : cluster) {
      if (cells + cellsOf(character, cells) > width) {
        pieces.push(piece)
        piece = onward
        cells = onward.length
      }
      piece += character
      cells += cellsOf(character, cells)
    }
  }
  return [...pieces, piece]
}

function cellsOf(text: string, at: number): number {
  let cells = 0
  for (const character of text) cells += character === '\t' ? tab - ((at + cells) % tab) : isAscii(character) ? 1 : 2
  return cells
}

function isAscii(character: string): boolean {
  return character >= ' ' && character <= '~'
}

/** What somebody else wrote, each line behind the mark, and each piece of a long one behind its own. */
export function marked(text: string): readonly string[] {
  return visible(text)
    .split('\n')
    .flatMap((line) => wrapped(mark + line))
}

/** Before a line once more, with its right-to-left letters written out. */
const again = '  |= '

// Letters and digits of scripts written from right to left, and what Unicode keeps for more of them.
const rightToLeft = /[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufeff\u{10800}-\u{10fff}\u{1e800}-\u{1efff}]/gu

/**
 * The same lines, and below each that holds letters written from right to left that line once more, in the order it has: a
 * terminal that knows of such scripts shows them, and whatever stands between them, in another.
 */
export function inOrder(lines: readonly string[]): readonly string[] {
  return lines.flatMap((line) => {
    const written = line.replace(rightToLeft, escaped)
    return written === line ? [line] : [line, ...wrapped(again + written.trimStart())]
  })
}

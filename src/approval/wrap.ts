import { visible } from './visible.ts'

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

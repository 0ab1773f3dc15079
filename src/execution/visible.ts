import { isUnseen } from '../approval/visible.ts'

/** Foreign bytes made safe to show: to a person's terminal, and to a model that reads what the terminal would hide. */

interface Character {
  readonly text: string
  /** Bytes it took in the source. */
  readonly length: number
}

/** The UTF-8 character at `at`, or U+FFFD for one byte that begins none. Never reads past the end. */
function characterAt(bytes: Uint8Array, at: number): Character {
  const first = bytes[at] ?? 0
  if (first < 0x80) return { text: visible(first), length: 1 }
  const length = sequenceLength(first)
  let code = length === 4 ? first & 0x07 : length === 3 ? first & 0x0f : first & 0x1f
  for (let i = 1; i < length; i++) {
    const next = bytes[at + i]
    if (next === undefined || (next & 0xc0) !== 0x80) return { text: '\ufffd', length: 1 }
    code = (code << 6) | (next & 0x3f)
  }
  const least = [0, 0, 0x80, 0x800, 0x10000][length] ?? 0
  const legal = length > 0 && code >= least && code <= 0x10ffff && (code < 0xd800 || code > 0xdfff)
  return legal ? { text: visible(code), length } : { text: '\ufffd', length: 1 }
}

/** 2, 3 or 4 by the first byte; 0 for a byte that begins no character. */
function sequenceLength(first: number): number {
  if (first >= 0xc2 && first <= 0xdf) return 2
  if (first >= 0xe0 && first <= 0xef) return 3
  return first >= 0xf0 && first <= 0xf4 ? 4 : 0
}

/** How many bytes at the end of `bytes` begin a character, or a line end, that is not whole yet: 0 to 3. */
export function unfinished(bytes: Uint8Array): number {
  if (bytes.at(-1) === 0x0d) return 1
  for (let back = 1; back <= 3 && back <= bytes.length; back++) {
    const byte = bytes[bytes.length - back] ?? 0
    if ((byte & 0xc0) === 0x80) continue
    return sequenceLength(byte) > back ? back : 0
  }
  return 0
}

/** As approvals show text, but a U+FE0F stays: output is read, not approved, and there it is half of an emoji. */
function visible(code: number): string {
  if (code === 0x0a || code === 0x09 || code === 0xfe0f || !isUnseen(code)) return String.fromCodePoint(code)
  return `\\u{${code.toString(16)}}`
}

/**
 * The text of the first bytes that fit: at most `budget` bytes of UTF-8 come out, whole characters only, with control,
 * escape and hiding characters made visible. `used` bytes of the source stand in it; at least one character is taken.
 */
export function showFrom(bytes: Uint8Array, budget: number): { readonly text: string; readonly used: number } {
  let text = ''
  let size = 0
  let at = 0
  while (at < bytes.length) {
    const character = shown(bytes, at)
    const grown = Buffer.byteLength(character.text)
    if (at > 0 && size + grown > budget) break
    text += character.text
    size += grown
    at += character.length
  }
  return { text, used: at }
}

/** The same for the last bytes that fit. */
export function showTail(bytes: Uint8Array, budget: number): string {
  const pieces: string[] = []
  for (let at = 0; at < bytes.length;) {
    const character = shown(bytes, at)
    pieces.push(character.text)
    at += character.length
  }
  let size = 0
  let from = pieces.length
  while (from > 0) {
    size += Buffer.byteLength(pieces[from - 1] ?? '')
    if (size > budget) break
    from--
  }
  return pieces.slice(from).join('')
}

/** A line end of Windows is a line end; any other carriage return would overwrite what stands before it. */
function shown(bytes: Uint8Array, at: number): Character {
  return bytes[at] === 0x0d && bytes[at + 1] === 0x0a ? { text: '\n', length: 2 } : characterAt(bytes, at)
}

/** The offset of the first character at or after `from`: skips what is left of one that began before. */
export function characterStart(bytes: Uint8Array, from: number): number {
  for (let at = from; at < bytes.length && at < from + 3; at++) if (((bytes[at] ?? 0) & 0xc0) !== 0x80) return at
  return Math.min(from, bytes.length)
}

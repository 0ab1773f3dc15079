import { sliceSize } from './slices.ts'
import type { Work } from './slices.ts'

/** What a reader of a document is told, in the order of the document. */
export interface XmlReader {
  open(name: string, attributes: ReadonlyMap<string, string>, depth: number): void
  /** Character data, references resolved; one run of it may come in pieces. */
  text(text: string): void
  close(name: string, depth: number): void
}

const maxDepth = 32
/** Pieces of a document (tags, text between them) after which the work stops. */
const morePieces = 1024
const maxAttributes = 64

/**
 * Reads an XML 1.0 document that needs nothing beyond itself: no document type, no processing instruction, no entities
 * but the five predefined (and characters by number). False where it is not well-formed or holds any of those. Each
 * character is looked at a fixed number of times, so a document costs what it is long.
 */
export function* readXml(document: string, reader: XmlReader): Work<boolean> {
  const text = document.startsWith('\ufeff') ? document.slice(1) : document
  if (unlawful.test(text) || !text.isWellFormed()) return false
  const open: string[] = []
  let rooted = false
  let at = afterDeclaration(text)
  if (at < 0) return false
  for (let pieces = 1; at < text.length; pieces++) {
    if (pieces % morePieces === 0) yield
    const next = text.indexOf('<', at)
    const end = next < 0 ? text.length : next
    if (end > at) {
      const raw = text.slice(at, end)
      if (open.length === 0) {
        if (!isSpace(raw)) return false
      } else {
        const data = raw.includes(']]>') ? null : yield* resolved(raw)
        if (data === null) return false
        reader.text(data)
      }
    }
    if (next < 0) break
    if (text.startsWith('<!--', next)) {
      const close = text.indexOf('--', next + 4)
      if (close < 0 || text[close + 2] !== '>') return false
      at = close + 3
    } else if (text.startsWith('<![CDATA[', next)) {
      const close = text.indexOf(']]>', next + 9)
      if (close < 0 || open.length === 0) return false
      reader.text(text.slice(next + 9, close))
      at = close + 3
    } else if (text.startsWith('</', next)) {
      const name = nameAt(text, next + 2)
      at = afterSpace(text, next + 2 + name.length)
      if (name === '' || open.at(-1) !== name || text[at] !== '>') return false
      reader.close(name, open.length)
      open.pop()
      at++
    } else {
      // A document type, an entity or an instruction has no name where an element has one.
      const tag = tagAt(text, next)
      if (tag === null || (open.length === 0 && rooted) || open.length >= maxDepth) return false
      for (const [key, raw] of tag.long) {
        const value = yield* resolved(raw)
        if (value === null) return false
        tag.attributes.set(key, value)
      }
      rooted = true
      open.push(tag.name)
      reader.open(tag.name, tag.attributes, open.length)
      if (tag.empty) {
        reader.close(tag.name, open.length)
        open.pop()
      }
      at = tag.end
    }
  }
  return rooted && open.length === 0
}

/** Characters that no document may hold (XML 1.0 §2.2). */
// oxlint-disable-next-line no-control-regex -- control characters are what is looked for
const unlawful = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]/

const declaration =
  /<\?xml[ \t\r\n]{1,20}version=(?:"1\.[0-9]"|'1\.[0-9]')(?:[ \t\r\n]{1,20}encoding=(?:"utf-8"|'utf-8'|"us-ascii"|'us-ascii'))?(?:[ \t\r\n]{1,20}standalone=(?:"(?:yes|no)"|'(?:yes|no)'))?[ \t\r\n]{0,20}\?>/iy

function afterDeclaration(text: string): number {
  if (!text.startsWith('<?')) return 0
  declaration.lastIndex = 0
  return declaration.test(text) ? declaration.lastIndex : -1
}

interface Tag {
  readonly name: string
  readonly attributes: Map<string, string>
  /** Attributes too long for one slice, as they stand in the document. */
  readonly long: readonly (readonly [name: string, raw: string])[]
  readonly empty: boolean
  /** Where the document goes on. */
  readonly end: number
}

function tagAt(text: string, start: number): Tag | null {
  const name = nameAt(text, start + 1)
  if (name === '') return null
  const attributes = new Map<string, string>()
  const long: [string, string][] = []
  let at = start + 1 + name.length
  for (;;) {
    const before = at
    at = afterSpace(text, at)
    if (text[at] === '>') return { name, attributes, long, empty: false, end: at + 1 }
    if (text[at] === '/') return text[at + 1] === '>' ? { name, attributes, long, empty: true, end: at + 2 } : null
    const key = nameAt(text, at)
    if (key === '' || at === before || attributes.has(key) || attributes.size >= maxAttributes) return null
    at = afterSpace(text, at + key.length)
    if (text[at] !== '=') return null
    at = afterSpace(text, at + 1)
    const quote = text[at]
    if (quote !== '"' && quote !== "'") return null
    const close = text.indexOf(quote, at + 1)
    if (close < 0) return null
    const raw = text.slice(at + 1, close)
    const short = raw.length <= sliceSize
    const value = raw.includes('<') ? null : short ? resolvedSlice(raw) : ''
    if (value === null) return null
    attributes.set(key, value)
    if (!short) long.push([key, raw])
    at = close + 1
  }
}

const nameForm = /[A-Za-z_:][\w:.-]{0,255}(?![\w:.-])/y

/** The name at a place, or the empty text; reports name elements in ASCII. */
function nameAt(text: string, at: number): string {
  nameForm.lastIndex = at
  return nameForm.exec(text)?.[0] ?? ''
}

function afterSpace(text: string, from: number): number {
  let at = from
  while (isSpaceAt(text, at)) at++
  return at
}

function isSpaceAt(text: string, at: number): boolean {
  const code = text.charCodeAt(at)
  return code === 0x20 || code === 0x0a || code === 0x0d || code === 0x09
}

function isSpace(text: string): boolean {
  return afterSpace(text, 0) === text.length
}

const predefined = new Map([
  ['amp', '&'],
  ['lt', '<'],
  ['gt', '>'],
  ['quot', '"'],
  ['apos', "'"],
])
/** Characters of the longest reference, `&#x10FFFF;`. */
const longestReference = 10

/** The text with its references resolved, or null where one is none of those allowed. */
function* resolved(text: string): Work<string | null> {
  if (text.length <= sliceSize) return resolvedSlice(text)
  const parts: string[] = []
  for (let from = 0, to = 0; from < text.length; from = to) {
    to = Math.min(from + sliceSize, text.length)
    // No reference is cut in two.
    const last = to === text.length ? -1 : text.lastIndexOf('&', to - 1)
    if (last > from && last > to - longestReference) to = last
    const part = resolvedSlice(text.slice(from, to))
    if (part === null) return null
    parts.push(part)
    yield
  }
  return parts.join('')
}

function resolvedSlice(text: string): string | null {
  let at = text.indexOf('&')
  if (at < 0) return text
  let whole = ''
  let from = 0
  while (at >= 0) {
    const end = text.slice(at, at + longestReference).indexOf(';')
    const character = end < 0 ? undefined : referred(text.slice(at + 1, at + end))
    if (character === undefined) return null
    whole += text.slice(from, at) + character
    from = at + end + 1
    at = text.indexOf('&', from)
  }
  return whole + text.slice(from)
}

function referred(name: string): string | undefined {
  const number = /^#(?:x([0-9A-Fa-f]{1,6})|([0-9]{1,7}))$/.exec(name)
  if (number === null) return predefined.get(name)
  const code = number[1] === undefined ? Number(number[2]) : Number.parseInt(number[1], 16)
  if (code > 0x10ffff) return undefined
  const character = String.fromCodePoint(code)
  return unlawful.test(character) || !character.isWellFormed() ? undefined : character
}

import { isMap, isScalar, isSeq, Lexer, LineCounter, parseDocument } from 'yaml'
import type { Node, YAMLMap } from 'yaml'
import type { z } from 'zod'
import { WritError } from './error.ts'
import type { ErrorCode } from './error.ts'

/** A place in a document: names of keys and indexes of items from its root. */
export type Path = readonly (string | number)[]

/** A value and where each part of it stands, so that a check beyond the schema can name the line too. */
export interface Located<T> {
  readonly value: T
  /** The error for `path`, as `FILE:LINE:COLUMN: message`; the nearest enclosing place where `path` is not written. */
  readonly fail: (path: Path, message: string) => WritError
}

const maxBytes = 1024 * 1024
const maxDepth = 32

/**
 * Strict YAML 1.2 (core schema) checked against a zod schema. Refused: more than 1 MiB, aliases, anchors, tags,
 * directives, several documents, duplicate keys, keys that are not strings, `__proto__`, nesting deeper than 32 and
 * numbers JSON cannot hold. An unknown key is refused with the nearest known one.
 *
 * @param file the name shown in errors, not opened here
 * @throws WritError `code`, its message `FILE:LINE:COLUMN: …`; it quotes keys, never values (they may be secrets)
 */
export function loadYaml<S extends z.ZodType>(text: string, file: string, schema: S, code: ErrorCode): z.output<S> {
  return locateYaml(text, file, schema, code).value
}

/** `loadYaml` that also tells where each part of the value stands. */
export function locateYaml<S extends z.ZodType>(
  text: string,
  file: string,
  schema: S,
  code: ErrorCode,
): Located<z.output<S>> {
  const lines = new LineCounter()
  const at = (offset: number, message: string): WritError => {
    const { line, col } = lines.linePos(offset)
    return new WritError(code, `${file}:${Math.max(line, 1)}:${Math.max(col, 1)}: ${message}`)
  }
  lines.addNewLine(0)
  if (Buffer.byteLength(text) > maxBytes) throw at(0, 'the file is longer than 1 MiB')
  if (!text.isWellFormed()) throw at(0, 'the file is not UTF-8')
  for (let i = text.indexOf('\n'); i >= 0; i = text.indexOf('\n', i + 1)) lines.addNewLine(i + 1)
  refuseFeatures(text, at)
  const document = parseDocument(text, {
    version: '1.2',
    schema: 'core',
    strict: true,
    // Our own conversion refuses them: the library compares each key with every other.
    uniqueKeys: false,
    merge: false,
    prettyErrors: false,
    stringKeys: true,
  })
  const wrong = document.errors[0] ?? document.warnings[0]
  if (wrong !== undefined) throw at(wrong.pos[0], describeSyntax(wrong.code))
  const root: unknown = document.contents
  if (root === null || (isScalar(root) && root.value === null)) throw at(0, 'the file is empty')
  const raw = convert(root as Node, at, 0)
  const fail = (path: Path, message: string): WritError => at(offsetOf(root as Node, path, false), message)
  const parsed = schema.safeParse(raw)
  if (parsed.success) return { value: parsed.data, fail }
  // A misspelt key often shows as a missing one too; the misspelling is the better news.
  const issue = parsed.error.issues.find((one) => one.code === 'unrecognized_keys') ?? parsed.error.issues[0]
  if (issue === undefined) throw fail([], 'the file does not have the expected form')
  const path = issue.path.filter((part) => typeof part !== 'symbol')
  if (issue.code === 'unrecognized_keys') {
    const key = issue.keys[0] ?? ''
    throw at(offsetOf(root as Node, [...path, key], true), unknownKey(key, path, keysAt(schema, path)))
  }
  if (issue.code === 'invalid_key')
    throw at(offsetOf(root as Node, path, true), `${where(path)}: ${issue.issues[0]?.message ?? 'not a valid name'}`)
  if (path.length > 0 && valueAt(raw, path) === undefined)
    throw fail(path, `${where(path.slice(0, -1))} lacks ${quote(String(path.at(-1)))}`)
  throw fail(path, `${where(path)}: ${lowerFirst(issue.message)}`)
}

/** The word of `known` that `word` was most likely meant to be, or null when none is close. */
export function nearest(word: string, known: readonly string[]): string | null {
  let best: string | null = null
  let least = Math.max(2, Math.floor(word.length / 3)) + 1
  for (const candidate of known) {
    const distance = editDistance(word.slice(0, 64).toLowerCase(), candidate.toLowerCase())
    if (distance < least) {
      best = candidate
      least = distance
    }
  }
  return best
}

/** What is not data is refused on the tokens, before anything is built from it. */
function refuseFeatures(text: string, at: (offset: number, message: string) => WritError): void {
  let offset = 0
  let flow = 0
  let compact = 0
  let scalar = false
  for (const token of new Lexer().lex(text)) {
    const first = token[0] ?? ''
    // Document start, flow end and "a scalar follows" are marks of the lexer, not text of the file.
    if (token === '\u0002' || token === '\u0018' || token === '\u001f') {
      scalar = token === '\u001f'
      continue
    }
    if (!scalar) {
      if (first === '&' || first === '*') throw at(offset, 'anchors and aliases are not taken; write the value out')
      if (first === '!') throw at(offset, 'tags are not taken; quote a value to make it a string')
      if (first === '%') throw at(offset, 'directives are not taken')
      if (token === '[' || token === '{') flow++
      if (token === ']' || token === '}') flow--
      if (token === '-' || token === '?') compact++
      if (flow > maxDepth || compact > maxDepth) throw at(offset, `nesting deeper than ${maxDepth}`)
    }
    if (first === '\n' || first === '\r') compact = 0
    scalar = false
    offset += token.length
  }
}

function convert(node: Node | null, at: (offset: number, message: string) => WritError, depth: number): unknown {
  if (node === null) return null
  const offset = node.range?.[0] ?? 0
  if (depth > maxDepth) throw at(offset, `nesting deeper than ${maxDepth}`)
  if (isMap(node)) {
    const members = Object.create(null) as Record<string, unknown>
    for (const pair of node.items) {
      const key: unknown = isScalar(pair.key) ? pair.key.value : pair.key
      const place = isScalar(pair.key) ? (pair.key.range?.[0] ?? offset) : offset
      if (typeof key !== 'string') throw at(place, 'a key has to be a string')
      if (key === '__proto__') throw at(place, 'a key cannot be named "__proto__"')
      if (!key.isWellFormed()) throw at(place, 'a key is not well-formed Unicode')
      if (Object.hasOwn(members, key)) throw at(place, `the key ${quote(key)} stands here for the second time`)
      members[key] = convert(pair.value as Node | null, at, depth + 1)
    }
    // A plain object, because zod takes no other for a record; `__proto__` was refused above.
    return { ...members }
  }
  if (isSeq(node)) return node.items.map((item) => convert(item as Node | null, at, depth + 1))
  if (!isScalar(node)) throw at(offset, 'anchors and aliases are not taken; write the value out')
  const value = node.value
  if (typeof value === 'string' && !value.isWellFormed()) throw at(offset, 'a string is not well-formed Unicode')
  if (typeof value === 'number' && (!Number.isFinite(value) || Math.abs(value) > Number.MAX_SAFE_INTEGER))
    throw at(offset, 'a number beyond 2^53-1; quote it if it is a name')
  if (value === null || ['string', 'number', 'boolean'].includes(typeof value)) return value
  throw at(offset, 'a value that is not text, number, true, false or null')
}

function offsetOf(root: Node, path: Path, key: boolean): number {
  let node: Node | null = root
  let offset = root.range?.[0] ?? 0
  for (const [depth, part] of path.entries()) {
    if (isMap(node)) {
      const pair = findPair(node, String(part))
      if (pair === undefined) return offset
      const keyOffset = isScalar(pair.key) ? (pair.key.range?.[0] ?? offset) : offset
      node = pair.value as Node | null
      const wantKey = key && depth === path.length - 1
      offset = wantKey || node === null || isMap(node) || isSeq(node) ? keyOffset : (node.range?.[0] ?? keyOffset)
    } else if (isSeq(node)) {
      const item: unknown = node.items[Number(part)]
      if (item === undefined || item === null) return offset
      node = item as Node
      offset = node.range?.[0] ?? offset
    } else return offset
  }
  return offset
}

function valueAt(raw: unknown, path: Path): unknown {
  let current = raw
  for (const part of path) {
    if (typeof current !== 'object' || current === null || !Object.hasOwn(current, part)) return undefined
    current = (current as Record<string | number, unknown>)[part]
  }
  return current
}

function findPair(map: YAMLMap, key: string) {
  return map.items.find((pair) => isScalar(pair.key) && pair.key.value === key)
}

/** The members a schema knows at `path`, for the hint; none where it is not an object there. */
function keysAt(schema: unknown, path: Path): readonly string[] {
  let current: unknown = unwrap(schema)
  for (const part of path) {
    const def = definition(current)
    if (def['type'] === 'object')
      current = unwrap((def['shape'] as Record<string, unknown> | undefined)?.[String(part)])
    else if (def['type'] === 'record') current = unwrap(def['valueType'])
    else if (def['type'] === 'array') current = unwrap(def['element'])
    else return []
  }
  const def = definition(current)
  return def['type'] === 'object' ? Object.keys((def['shape'] as object | undefined) ?? {}) : []
}

function unwrap(schema: unknown): unknown {
  let current = schema
  for (;;) {
    const def = definition(current)
    if (def['type'] === 'pipe') current = def['in']
    else if (def['innerType'] !== undefined) current = def['innerType']
    else return current
  }
}

function definition(schema: unknown): { readonly [key: string]: unknown } {
  if (typeof schema !== 'object' || schema === null || !('_zod' in schema)) return {}
  return (schema as { readonly _zod: { readonly def: { readonly [key: string]: unknown } } })._zod.def
}

function unknownKey(key: string, path: Path, known: readonly string[]): string {
  const place = path.length === 0 ? '' : ` in ${where(path)}`
  if (key.startsWith('unsafe_'))
    return `${quote(key)}${place} is reserved: this release has no setting that lowers safety`
  const guess = nearest(key, known)
  if (guess !== null) return `unknown key ${quote(key)}${place}; did you mean "${guess}"?`
  return `unknown key ${quote(key)}${place}; known keys: ${known.join(', ') || 'none'}`
}

function where(path: Path): string {
  return path.length === 0 ? 'the file' : path.map((part) => String(part).slice(0, 80)).join('.')
}

/** A key as it may be shown: printable, one line, bounded. */
function quote(text: string): string {
  const short = text.length > 60 ? `${text.slice(0, 60)}…` : text
  return JSON.stringify(short).replaceAll(/[^\u0020-\u007e…]/gu, (c) => `\\u{${(c.codePointAt(0) ?? 0).toString(16)}}`)
}

function lowerFirst(text: string): string {
  return text.replace(/^Invalid input: /, '').replace(/^[A-Z](?=[a-z])/, (c) => c.toLowerCase())
}

function describeSyntax(code: string): string {
  return `not valid YAML (${code.toLowerCase().replaceAll('_', ' ')})`
}

function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++) {
      const swap = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1)
      next.push(Math.min(swap, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1))
    }
    row = next
  }
  return row[b.length] ?? 0
}

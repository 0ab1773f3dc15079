import { isUtf8 } from 'node:buffer'
import type { Json, JsonObject } from './digest.ts'
import { WritError } from './error.ts'

/** Whether a string may stand in an I-JSON text as it is. */
export function isIJsonString(text: string): boolean {
  return text.isWellFormed() && !noncharacter.test(text)
}

export interface JsonLimits {
  /** Bytes of UTF-8; 4 MiB unless told. */
  readonly maxBytes?: number
  /** Objects and arrays inside one another; 64 unless told. */
  readonly maxDepth?: number
  /** False refuses fractions, exponents and `-0`: what is signed has one spelling. True unless told. */
  readonly allowFraction?: boolean
  /** True refuses a member named `__proto__`, which otherwise is a key like any other. False unless told. */
  readonly refuseProto?: boolean
}

/** RFC 7493 §2.1 forbids noncharacters beside surrogates: the last two of each plane, and U+FDD0 to U+FDEF. */
const noncharacter =
  /[\ufdd0-\ufdef\ufffe\uffff]|[\ud83f\ud87f\ud8bf\ud8ff\ud93f\ud97f\ud9bf\ud9ff\uda3f\uda7f\udabf\udaff\udb3f\udb7f\udbbf\udbff][\udffe\udfff]/

/**
 * Parses one I-JSON text (RFC 7493): strict UTF-8 without a byte order mark, no member twice, no lone surrogate or
 * noncharacter (raw or escaped), every number within ±(2^53−1). Objects have no prototype, so that a name from outside
 * never finds an inherited member. Rejects `malformed_message` with what is wrong and where, never with what was sent.
 */
export function parseIJson(input: Uint8Array | string, limits: JsonLimits = {}): Json {
  const maxBytes = limits.maxBytes ?? 4 * 1024 * 1024
  const size = typeof input === 'string' ? Buffer.byteLength(input) : input.byteLength
  if (size > maxBytes) throw new WritError('malformed_message', `longer than ${maxBytes} bytes`)
  let text: string
  if (typeof input === 'string') {
    if (!input.isWellFormed()) throw refused('a lone surrogate', 0)
    text = input
  } else {
    if (!isUtf8(input)) throw refused('bytes that are not UTF-8', 0)
    text = Buffer.from(input.buffer, input.byteOffset, input.byteLength).toString('utf8')
  }
  const odd = noncharacter.exec(text)
  if (odd !== null) throw refused('a noncharacter', odd.index)
  const reader = new Reader(text, limits)
  return reader.whole()
}

function refused(what: string, at: number): WritError {
  return new WritError('malformed_message', `not I-JSON: ${what} at character ${at}`)
}

const QUOTE = 0x22
const BACKSLASH = 0x5c
const MINUS = 0x2d
const ZERO = 0x30
const NINE = 0x39

const escapes = new Map<number, string>([
  [QUOTE, '"'],
  [BACKSLASH, '\\'],
  [0x2f, '/'],
  [0x62, '\b'],
  [0x66, '\f'],
  [0x6e, '\n'],
  [0x72, '\r'],
  [0x74, '\t'],
])

/** Holds the place in the text. Recursion is bounded by the depth limit, so no input reaches the end of the stack. */
class Reader {
  readonly #text: string
  readonly #maxDepth: number
  readonly #allowFraction: boolean
  readonly #refuseProto: boolean
  #at = 0
  #depth = 0

  constructor(text: string, limits: JsonLimits) {
    this.#text = text
    this.#maxDepth = limits.maxDepth ?? 64
    this.#allowFraction = limits.allowFraction ?? true
    this.#refuseProto = limits.refuseProto ?? false
  }

  whole(): Json {
    this.#space()
    const value = this.#value()
    this.#space()
    if (this.#at < this.#text.length) throw refused('something after the value', this.#at)
    return value
  }

  #space(): void {
    for (;;) {
      const code = this.#text.charCodeAt(this.#at)
      if (code !== 0x20 && code !== 0x0a && code !== 0x0d && code !== 0x09) return
      this.#at++
    }
  }

  #value(): Json {
    const code = this.#text.charCodeAt(this.#at)
    if (code === QUOTE) return this.#string()
    if (code === 0x7b) return this.#object()
    if (code === 0x5b) return this.#array()
    if (code === MINUS || (code >= ZERO && code <= NINE)) return this.#number()
    if (code === 0x74 && this.#word('true')) return true
    if (code === 0x66 && this.#word('false')) return false
    if (code === 0x6e && this.#word('null')) return null
    throw refused(this.#at < this.#text.length ? 'no value' : 'an unexpected end', this.#at)
  }

  #word(word: string): boolean {
    if (!this.#text.startsWith(word, this.#at)) return false
    this.#at += word.length
    return true
  }

  #enter(): void {
    if (++this.#depth > this.#maxDepth) throw refused(`nesting deeper than ${this.#maxDepth}`, this.#at)
    this.#at++
    this.#space()
  }

  #object(): JsonObject {
    this.#enter()
    const members = Object.create(null) as Record<string, Json>
    if (this.#text.charCodeAt(this.#at) === 0x7d) return this.#leave(members)
    for (;;) {
      const start = this.#at
      if (this.#text.charCodeAt(start) !== QUOTE) throw refused('a member without a name in quotes', start)
      const name = this.#string()
      if (members[name] !== undefined) throw refused('a member name for the second time', start)
      if (this.#refuseProto && name === '__proto__') throw refused('a member named __proto__', start)
      this.#space()
      if (this.#text.charCodeAt(this.#at) !== 0x3a) throw refused('no colon after a member name', this.#at)
      this.#at++
      this.#space()
      members[name] = this.#value()
      this.#space()
      const next = this.#text.charCodeAt(this.#at)
      if (next === 0x7d) return this.#leave(members)
      if (next !== 0x2c) throw refused('neither a comma nor the end of an object', this.#at)
      this.#at++
      this.#space()
    }
  }

  #array(): readonly Json[] {
    this.#enter()
    const items: Json[] = []
    if (this.#text.charCodeAt(this.#at) === 0x5d) return this.#leave(items)
    for (;;) {
      items.push(this.#value())
      this.#space()
      const next = this.#text.charCodeAt(this.#at)
      if (next === 0x5d) return this.#leave(items)
      if (next !== 0x2c) throw refused('neither a comma nor the end of an array', this.#at)
      this.#at++
      this.#space()
    }
  }

  #leave<T>(value: T): T {
    this.#at++
    this.#depth--
    return value
  }

  #string(): string {
    const text = this.#text
    const start = ++this.#at
    for (let at = start; ; at++) {
      const code = text.charCodeAt(at)
      if (code === QUOTE) {
        this.#at = at + 1
        return text.slice(start, at)
      }
      if (code === BACKSLASH) return this.#escaped(start, at)
      // NaN, the code past the end, fails this comparison too.
      if (!(code >= 0x20)) throw refused(code < 0x20 ? 'a raw control character in a string' : 'an unexpected end', at)
    }
  }

  /** A string from its first backslash on; slices between escapes are copied whole. */
  #escaped(start: number, backslash: number): string {
    const text = this.#text
    let result = ''
    let from = start
    let at = backslash
    let units = false
    for (;;) {
      const code = text.charCodeAt(at)
      if (code === QUOTE) {
        result += text.slice(from, at)
        this.#at = at + 1
        if (units && !result.isWellFormed()) throw refused('an escaped lone surrogate', start)
        if (units && noncharacter.test(result)) throw refused('an escaped noncharacter', start)
        return result
      }
      if (code === BACKSLASH) {
        result += text.slice(from, at)
        const kind = text.charCodeAt(at + 1)
        if (kind === 0x75) {
          result += String.fromCharCode(this.#unit(at + 2))
          units = true
          at += 6
        } else {
          const plain = escapes.get(kind)
          if (plain === undefined) throw refused('an unknown escape', at)
          result += plain
          at += 2
        }
        from = at
      } else if (code >= 0x20) at++
      else throw refused(code < 0x20 ? 'a raw control character in a string' : 'an unexpected end', at)
    }
  }

  #unit(at: number): number {
    let unit = 0
    for (let i = at; i < at + 4; i++) {
      const code = this.#text.charCodeAt(i)
      const lower = code | 0x20
      if (code >= ZERO && code <= NINE) unit = unit * 16 + code - ZERO
      else if (lower >= 0x61 && lower <= 0x66) unit = unit * 16 + lower - 0x57
      else throw refused('a \\u escape without four hex digits', i)
    }
    return unit
  }

  #number(): number {
    const text = this.#text
    const start = this.#at
    let at = start
    const negative = text.charCodeAt(at) === MINUS
    if (negative) at++
    const first = at
    let value = 0
    let code = text.charCodeAt(at)
    while (code >= ZERO && code <= NINE) {
      // The digit is taken first: the sum before it could pass 2^53 and be rounded.
      value = value * 10 + (code - ZERO)
      code = text.charCodeAt(++at)
    }
    if (at === first) throw refused('a minus without digits', start)
    if (text.charCodeAt(first) === ZERO && at > first + 1) throw refused('a number with a leading zero', start)
    if (code === 0x2e || (code | 0x20) === 0x65) return this.#fraction(start, at)
    this.#at = at
    // Past 17 digits the sum is inexact but never falls back under the bound.
    if (value > Number.MAX_SAFE_INTEGER) throw refused('a number beyond 2^53-1', start)
    if (!negative) return value
    if (value !== 0) return -value
    if (!this.#allowFraction) throw refused('a negative zero', start)
    return 0
  }

  #fraction(start: number, integerEnd: number): number {
    if (!this.#allowFraction) throw refused('a number that is not written as an integer', start)
    const text = this.#text
    let at = integerEnd
    if (text.charCodeAt(at) === 0x2e) at = this.#digits(at + 1, start)
    if ((text.charCodeAt(at) | 0x20) === 0x65) {
      const sign = text.charCodeAt(at + 1)
      at = this.#digits(sign === MINUS || sign === 0x2b ? at + 2 : at + 1, start)
    }
    this.#at = at
    const value = Number(text.slice(start, at))
    if (Math.abs(value) > Number.MAX_SAFE_INTEGER) throw refused('a number beyond 2^53-1', start)
    return value === 0 ? 0 : value
  }

  #digits(from: number, start: number): number {
    let at = from
    for (;;) {
      const code = this.#text.charCodeAt(at)
      if (!(code >= ZERO && code <= NINE)) break
      at++
    }
    if (at === from) throw refused('a number without digits where they belong', start)
    return at
  }
}

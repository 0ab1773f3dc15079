/** One question to the worker, text to text; what `makeWeb` needs of the bridge. */
type Ask = (op: string, text: string) => string

/**
 * Runs inside the isolate, as text: it may use nothing but what stands between its braces. The parts of the web
 * platform that V8 does not bring: encoders, `URL`, `structuredClone`. URLs are parsed by the worker, by one parser.
 */
export function makeWeb(ask: Ask): Readonly<Record<string, unknown>> {
  'use strict'
  const fromCodes = String.fromCharCode.bind(String)
  const text = (value: unknown): string => String(value)
  const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/'

  function encodeUtf8(text: string): Uint8Array<ArrayBuffer> {
    const bytes = new Uint8Array(text.length * 3)
    let size = 0
    for (let at = 0; at < text.length; at++) {
      let code = text.charCodeAt(at)
      if (code >= 0xd800 && code < 0xe000) {
        const low = code < 0xdc00 ? text.charCodeAt(at + 1) : 0
        if (low >= 0xdc00 && low < 0xe000) {
          code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00)
          at++
        } else code = 0xfffd
      }
      if (code < 0x80) bytes[size++] = code
      else if (code < 0x800) {
        bytes[size++] = 0xc0 | (code >> 6)
        bytes[size++] = 0x80 | (code & 63)
      } else if (code < 0x10000) {
        bytes[size++] = 0xe0 | (code >> 12)
        bytes[size++] = 0x80 | ((code >> 6) & 63)
        bytes[size++] = 0x80 | (code & 63)
      } else {
        bytes[size++] = 0xf0 | (code >> 18)
        bytes[size++] = 0x80 | ((code >> 12) & 63)
        bytes[size++] = 0x80 | ((code >> 6) & 63)
        bytes[size++] = 0x80 | (code & 63)
      }
    }
    return bytes.slice(0, size)
  }

  function viewOf(data: unknown): Uint8Array {
    if (data instanceof Uint8Array) return data
    if (ArrayBuffer.isView(data)) return new Uint8Array(data.buffer, data.byteOffset, data.byteLength)
    if (data instanceof ArrayBuffer) return new Uint8Array(data)
    throw new TypeError('expected a string, an ArrayBuffer or a view of one')
  }

  function decodeUtf8(data: unknown, fatal: boolean): string {
    const bytes = viewOf(data)
    const parts: string[] = []
    let units: number[] = []
    const bad = (): void => {
      if (fatal) throw new TypeError('the bytes are not UTF-8')
      units.push(0xfffd)
    }
    for (let at = 0; at < bytes.length;) {
      if (units.length > 8192) {
        parts.push(fromCodes(...units))
        units = []
      }
      const first = bytes[at++] ?? 0
      if (first < 0x80) {
        units.push(first)
        continue
      }
      const more =
        first >= 0xc2 && first < 0xe0 ? 1 : first >= 0xe0 && first < 0xf0 ? 2 : first >= 0xf0 && first < 0xf5 ? 3 : 0
      if (more === 0) {
        bad()
        continue
      }
      let code = first & (0x3f >> more)
      let [low, high] = [0x80, 0xbf]
      if (first === 0xe0) low = 0xa0
      if (first === 0xed) high = 0x9f
      if (first === 0xf0) low = 0x90
      if (first === 0xf4) high = 0x8f
      let read = 0
      while (read < more) {
        const next = bytes[at] ?? 0
        if (at >= bytes.length || next < low || next > high) break
        ;[low, high] = [0x80, 0xbf]
        code = (code << 6) | (next & 63)
        at++
        read++
      }
      if (read < more) bad()
      else if (code >= 0x10000) units.push(0xd800 + ((code - 0x10000) >> 10), 0xdc00 + ((code - 0x10000) & 1023))
      else units.push(code)
    }
    parts.push(fromCodes(...units))
    return parts.join('')
  }

  class TextEncoder {
    readonly encoding = 'utf-8'
    encode(text: unknown = ''): Uint8Array {
      return encodeUtf8(String(text))
    }
  }

  /** How many bytes at the end begin a character that is not whole yet: 0 to 3. */
  function unfinished(bytes: Uint8Array): number {
    for (let back = 1; back <= 3 && back <= bytes.length; back++) {
      const byte = bytes[bytes.length - back] ?? 0
      if ((byte & 0xc0) === 0x80) continue
      const length = byte < 0xc2 || byte > 0xf4 ? 1 : byte < 0xe0 ? 2 : byte < 0xf0 ? 3 : 4
      return length > back ? back : 0
    }
    return 0
  }

  class TextDecoder {
    /** Of a stream: the bytes that begin a character, and whether some of its text was given already. */
    #rest = new Uint8Array(0)
    #begun = false
    readonly encoding = 'utf-8'
    readonly fatal: boolean
    readonly ignoreBOM: boolean
    constructor(label: unknown = 'utf-8', options: { fatal?: boolean; ignoreBOM?: boolean } = {}) {
      if (!/^utf-?8$/i.test(String(label).trim()))
        throw new RangeError(`only utf-8 is supported here, not "${String(label)}"`)
      this.fatal = options.fatal === true
      this.ignoreBOM = options.ignoreBOM === true
    }
    decode(data: unknown = new Uint8Array(0), { stream = false }: { stream?: boolean } = {}): string {
      const given = viewOf(data)
      const bytes = new Uint8Array(this.#rest.length + given.length)
      bytes.set(this.#rest)
      bytes.set(given, this.#rest.length)
      const [whole, begun] = [bytes.length - (stream ? unfinished(bytes) : 0), this.#begun]
      this.#rest = new Uint8Array(0)
      this.#begun = false
      const text = decodeUtf8(bytes.subarray(0, whole), this.fatal)
      this.#rest = bytes.slice(whole)
      this.#begun = stream && (begun || text !== '')
      return !begun && !this.ignoreBOM && text.charCodeAt(0) === 0xfeff ? text.slice(1) : text
    }
  }

  function btoa(value: unknown): string {
    const text = String(value)
    let result = ''
    for (let at = 0; at < text.length; at += 3) {
      const [a, b, c] = [text.charCodeAt(at), text.charCodeAt(at + 1), text.charCodeAt(at + 2)]
      if (a > 255 || b > 255 || c > 255) throw new RangeError('btoa takes characters up to U+00FF only')
      const bits = (a << 16) | ((b || 0) << 8) | (c || 0)
      result += `${alphabet[bits >> 18]}${alphabet[(bits >> 12) & 63]}${at + 1 < text.length ? alphabet[(bits >> 6) & 63] : '='}${at + 2 < text.length ? alphabet[bits & 63] : '='}`
    }
    return result
  }

  function atob(value: unknown): string {
    let text = String(value).replace(/[\t\n\f\r ]/g, '')
    if (text.length % 4 === 0) text = text.replace(/==?$/, '')
    if (text.length % 4 === 1 || /[^A-Za-z0-9+/]/.test(text))
      throw new RangeError('atob was given text that is not base64')
    let result = ''
    for (let at = 0; at < text.length; at += 4) {
      const digits = [0, 1, 2, 3].map((more) => (at + more < text.length ? alphabet.indexOf(text[at + more] ?? '') : 0))
      const bits = ((digits[0] ?? 0) << 18) | ((digits[1] ?? 0) << 12) | ((digits[2] ?? 0) << 6) | (digits[3] ?? 0)
      result += fromCodes(bits >> 16)
      if (at + 2 < text.length) result += fromCodes((bits >> 8) & 255)
      if (at + 3 < text.length) result += fromCodes(bits & 255)
    }
    return result
  }

  function structuredClone(value: unknown, seen = new Map<object, unknown>()): unknown {
    if (typeof value === 'function' || typeof value === 'symbol')
      throw new TypeError(`a ${typeof value} cannot be cloned`)
    if (typeof value !== 'object' || value === null) return value
    const known = seen.get(value)
    if (known !== undefined) return known
    const keep = <T extends object>(copy: T): T => {
      seen.set(value, copy)
      return copy
    }
    if (value instanceof Date) return keep(new Date(value.getTime()))
    if (value instanceof RegExp) return keep(new RegExp(value.source, value.flags))
    if (value instanceof ArrayBuffer) return keep(value.slice(0))
    if (value instanceof DataView)
      return keep(new DataView(structuredClone(value.buffer, seen) as ArrayBuffer, value.byteOffset, value.byteLength))
    if (ArrayBuffer.isView(value)) return keep((value as Uint8Array).slice())
    if (value instanceof Map) {
      const copy = keep(new Map())
      for (const [key, item] of value) copy.set(structuredClone(key, seen), structuredClone(item, seen))
      return copy
    }
    if (value instanceof Set) {
      const copy = keep(new Set())
      for (const item of value) copy.add(structuredClone(item, seen))
      return copy
    }
    if (value instanceof Error) {
      const copy = keep(new Error(value.message))
      copy.name = value.name
      return copy
    }
    if (value instanceof Promise || value instanceof WeakMap || value instanceof WeakSet)
      throw new TypeError('this object cannot be cloned')
    const copy: Record<string, unknown> = keep(
      Array.isArray(value) ? (Array.from({ length: value.length }) as unknown as Record<string, unknown>) : {},
    )
    for (const [key, item] of Object.entries(value))
      Object.defineProperty(copy, key, {
        value: structuredClone(item, seen),
        writable: true,
        enumerable: true,
        configurable: true,
      })
    return copy
  }

  /** Has the parameters of a URL follow it. */
  let renew: (params: URLSearchParams, search: string) => void
  class URLSearchParams {
    static {
      renew = (params, search) => {
        params.#pairs = new URLSearchParams(search).#pairs
      }
    }
    #pairs: [string, string][] = []
    #changed: (() => void) | null = null
    constructor(init: unknown = '', changed: (() => void) | null = null) {
      this.#changed = changed
      if (typeof init === 'object' && init !== null) {
        const pairs = Symbol.iterator in init ? [...(init as Iterable<[unknown, unknown]>)] : Object.entries(init)
        this.#pairs = pairs.map(([key, value]) => [String(key), String(value)])
        return
      }
      const decode = (part: string): string => {
        const bytes = encodeUtf8(part.replaceAll('+', ' '))
        const out: number[] = []
        for (let at = 0; at < bytes.length; at++) {
          const hex = bytes[at] === 0x25 ? fromCodes(bytes[at + 1] ?? 0, bytes[at + 2] ?? 0) : ''
          if (/^[0-9A-Fa-f]{2}$/.test(hex)) {
            out.push(Number.parseInt(hex, 16))
            at += 2
          } else out.push(bytes[at] ?? 0)
        }
        return decodeUtf8(new Uint8Array(out), false)
      }
      for (const part of String(init).replace(/^\?/, '').split('&')) {
        if (part === '') continue
        const cut = part.indexOf('=')
        this.#pairs.push(cut < 0 ? [decode(part), ''] : [decode(part.slice(0, cut)), decode(part.slice(cut + 1))])
      }
    }
    get size(): number {
      return this.#pairs.length
    }
    get(name: unknown): string | null {
      return this.getAll(name)[0] ?? null
    }
    getAll(name: unknown): string[] {
      const wanted = text(name)
      return this.#pairs.filter(([key]) => key === wanted).map(([, value]) => value)
    }
    has(name: unknown, value?: unknown): boolean {
      const found = this.getAll(name)
      return value === undefined ? found.length > 0 : found.includes(text(value))
    }
    append(name: unknown, value: unknown): void {
      this.#pairs.push([String(name), String(value)])
      this.#changed?.()
    }
    set(name: unknown, value: unknown): void {
      const at = this.#pairs.findIndex(([key]) => key === String(name))
      if (at < 0) return this.append(name, value)
      this.#pairs = this.#pairs.filter(([key], index) => key !== String(name) || index === at)
      this.#pairs[at] = [String(name), String(value)]
      this.#changed?.()
    }
    delete(name: unknown, value?: unknown): void {
      const [wanted, only] = [text(name), value === undefined ? null : text(value)]
      this.#pairs = this.#pairs.filter(([key, one]) => key !== wanted || (only !== null && one !== only))
      this.#changed?.()
    }
    sort(): void {
      this.#pairs.sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0))
      this.#changed?.()
    }
    forEach(each: (value: string, name: string) => void): void {
      for (const [name, value] of this.#pairs) each(value, name)
    }
    keys(): IterableIterator<string> {
      return this.#pairs.map(([name]) => name).values()
    }
    values(): IterableIterator<string> {
      return this.#pairs.map(([, value]) => value).values()
    }
    entries(): IterableIterator<[string, string]> {
      return this.#pairs.map(([name, value]): [string, string] => [name, value]).values()
    }
    [Symbol.iterator](): IterableIterator<[string, string]> {
      return this.entries()
    }
    toString(): string {
      const encode = (text: string): string => {
        let result = ''
        for (const byte of encodeUtf8(text)) {
          const char = fromCodes(byte)
          result +=
            byte === 32 ? '+' : /[\w*.-]/.test(char) ? char : `%${byte.toString(16).toUpperCase().padStart(2, '0')}`
        }
        return result
      }
      return this.#pairs.map(([name, value]) => `${encode(name)}=${encode(value)}`).join('&')
    }
  }

  type Parts = Record<
    | 'href'
    | 'origin'
    | 'protocol'
    | 'username'
    | 'password'
    | 'host'
    | 'hostname'
    | 'port'
    | 'pathname'
    | 'search'
    | 'hash',
    string
  >
  let change: (url: URL, part: string, value: string) => void
  let changed: (url: URL) => void
  let partOf: (url: URL, part: keyof Parts) => string
  class URL {
    #parts: Parts
    #params: URLSearchParams | null = null
    constructor(input: unknown, base?: unknown) {
      this.#parts = URL.#ask({ input: text(input), ...(base === undefined ? {} : { base: text(base) }) })
    }
    static #ask(question: object): Parts {
      const answer = ask('url', JSON.stringify(question))
      if (answer === '') throw new TypeError('Invalid URL')
      return JSON.parse(answer) as Parts
    }
    static canParse(input: unknown, base?: unknown): boolean {
      try {
        return new URL(input, base) instanceof URL
      } catch {
        return false
      }
    }
    static {
      change = (url, part, value) => {
        url.#parts = URL.#ask({ input: url.#parts.href, part, value })
      }
      changed = (url) => {
        if (url.#params !== null) renew(url.#params, url.#parts.search)
      }
      partOf = (url, part) => url.#parts[part]
    }
    get searchParams(): URLSearchParams {
      this.#params ??= new URLSearchParams(this.#parts.search, () => change(this, 'search', String(this.#params)))
      return this.#params
    }
    toString(): string {
      return this.#parts.href
    }
    toJSON(): string {
      return this.#parts.href
    }
  }
  for (const part of [
    'href',
    'origin',
    'protocol',
    'username',
    'password',
    'host',
    'hostname',
    'port',
    'pathname',
    'search',
    'hash',
  ] as const) {
    const get = function (this: URL): string {
      return partOf(this, part)
    }
    const set = function (this: URL, value: unknown): void {
      change(this, part, String(value))
      changed(this)
    }
    Object.defineProperty(URL.prototype, part, {
      get,
      ...(part === 'origin' ? {} : { set }),
      enumerable: true,
      configurable: true,
    })
  }

  return {
    encodeUtf8,
    decodeUtf8,
    viewOf,
    globals: {
      TextEncoder,
      TextDecoder,
      btoa,
      atob,
      structuredClone: (value: unknown) => structuredClone(value),
      URL,
      URLSearchParams,
    },
  }
}

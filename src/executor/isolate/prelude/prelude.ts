import type { makeInspect } from './inspect.ts'
import type { makeWeb } from './web.ts'

/** What the worker puts at the prelude's disposal. None of it ever reaches the guest's global. */
export interface Bridge {
  /** One operation, text to text. The worker checks operation, size and quota before it looks at the text. */
  readonly call: (op: string, text: string) => string
  /** The bytes of a project file or an output, or undefined. */
  readonly read: (path: string) => ArrayBuffer | undefined
  /** Stops the guest until the worker has room again, or for good after `exit`. */
  readonly wait: { applySyncPromise(receiver: undefined, args: readonly never[]): void }
  /** Bytes: the longest text of one `call`. */
  readonly chunk: number
}

/** What a step is told; arrives as JSON. */
export interface Begin {
  readonly env: Readonly<Record<string, string>>
  readonly args: readonly string[]
  readonly stdin: string
  readonly inputs: unknown
  readonly files: readonly string[]
}

export type Deliver = (
  kind: string,
  id: number,
  text: string,
  bytes?: ArrayBuffer | ((...args: never[]) => unknown),
) => void

/**
 * Runs inside the isolate, as text, before any code of the caller: it may use nothing but what stands between its
 * braces. Takes away what escapes limits, then offers `console`, `fetch`, timers and `writ`. All state of the worker
 * is behind `bridge`, which only these closures hold; strict mode keeps them out of stack frames.
 */
export function prelude(
  bridge: Bridge,
  inspect: ReturnType<typeof makeInspect>,
  web: (ask: Bridge['call']) => ReturnType<typeof makeWeb>,
): Deliver {
  'use strict'
  const { call, read, wait, chunk } = bridge
  const scope = globalThis as unknown as Record<string, unknown>
  const { stringify, parse } = JSON
  const { freeze, defineProperty } = Object
  const MapOf = Map
  const PromiseOf = Promise
  const text = String
  const fromCodes = String.fromCharCode.bind(String)

  for (const name of ['WebAssembly', 'SharedArrayBuffer', 'Atomics', 'FinalizationRegistry', 'WeakRef', 'console'])
    Reflect.deleteProperty(scope, name)
  for (const name of ['resize', 'transfer', 'transferToFixedLength', 'resizable', 'maxByteLength', 'detached'])
    Reflect.deleteProperty(ArrayBuffer.prototype, name)

  const tools = web(call)
  const { encodeUtf8, decodeUtf8, viewOf } = tools as {
    readonly encodeUtf8: (text: string) => Uint8Array
    readonly decodeUtf8: (data: unknown, fatal: boolean) => string
    readonly viewOf: (data: unknown) => Uint8Array
  }

  const add = (name: string, value: unknown): void => {
    defineProperty(scope, name, { value, writable: true, enumerable: false, configurable: true })
  }
  const chunked = (op: string, value: string): void => {
    for (let at = 0; at < value.length;) {
      const high = value.charCodeAt(at + chunk - 1)
      const size = high >= 0xd800 && high < 0xdc00 ? chunk - 1 : chunk
      if (call(op, value.slice(at, at + size)) === 'wait') wait.applySyncPromise(undefined, [])
      at += size
    }
  }
  const sendBytes = (data: unknown): void => {
    const bytes = typeof data === 'string' ? encodeUtf8(data) : viewOf(data)
    const part = 8192
    for (let at = 0; at < bytes.length; at += part) call('bytes', fromCodes(...bytes.subarray(at, at + part)))
  }
  const ok = (answer: string): void => {
    if (answer !== '') throw new Error(answer)
  }

  const print =
    (op: 'stdout' | 'stderr') =>
    (...values: unknown[]) =>
      chunked(op, `${inspect(values)}\n`)
  const timers = new MapOf<string, number>()
  const counts = new MapOf<string, number>()
  const out = print('stdout')
  const err = print('stderr')
  const silent = (): void => undefined
  const group = (...values: unknown[]): void => (values.length > 0 ? out(...values) : undefined)
  const sinceOf = (label: unknown): string =>
    `${text(label)}: ${Date.now() - (timers.get(text(label)) ?? Date.now())}ms`
  add('console', {
    log: out,
    info: out,
    debug: out,
    dir: (value: unknown) => out(value),
    table: out,
    group,
    groupCollapsed: group,
    groupEnd: silent,
    warn: err,
    error: err,
    trace: err,
    assert: (truth: unknown, ...values: unknown[]) => (truth ? undefined : err('Assertion failed', ...values)),
    count: (label: unknown = 'default') => {
      const next = (counts.get(text(label)) ?? 0) + 1
      counts.set(text(label), next)
      out(`${text(label)}: ${next}`)
    },
    time: (label: unknown = 'default') => void timers.set(text(label), Date.now()),
    countReset: (label: unknown = 'default') => void counts.delete(text(label)),
    timeLog: (label: unknown = 'default', ...values: unknown[]) => out(sinceOf(label), ...values),
    timeEnd: (label: unknown = 'default') => out(sinceOf(label)),
  })

  let last = 0
  const waiting = new MapOf<number, (kind: string, text: string, bytes: ArrayBuffer | undefined) => void>()
  const setTimer =
    (repeat: boolean, idle = false) =>
    (run: unknown, ms: unknown = 0, ...args: unknown[]) => {
      if (typeof run !== 'function') throw new TypeError('a timer needs a function')
      const id = ++last
      const delay = Math.min(Math.max(Number(ms) || 0, 0), 2_147_483_647)
      const start = (): void => ok(call('timer', stringify({ id, ms: delay, idle })))
      waiting.set(id, () => {
        if (repeat) start()
        else waiting.delete(id)
        run(...args)
      })
      start()
      return id
    }
  const clear = (id: unknown): void => {
    if (typeof id === 'number' && waiting.delete(id)) call('untimer', stringify({ id }))
  }
  add('setTimeout', setTimer(false))
  add('setInterval', setTimer(true))
  add('clearTimeout', clear)
  add('clearInterval', clear)
  add('queueMicrotask', (run: unknown) => {
    if (typeof run !== 'function') throw new TypeError('queueMicrotask needs a function')
    void PromiseOf.resolve().then(() => run() as unknown)
  })

  for (const [name, value] of Object.entries(tools['globals'] as object)) add(name, value)

  const bytesOf = (latin1: string): Uint8Array => Uint8Array.from(latin1, (char) => char.charCodeAt(0))
  add(
    'crypto',
    freeze({
      randomUUID: () => call('random', 'uuid'),
      getRandomValues: (view: ArrayBufferView) => {
        if (!ArrayBuffer.isView(view) || view.byteLength > 65_536)
          throw new TypeError('getRandomValues takes a view of at most 65536 bytes')
        new Uint8Array(view.buffer, view.byteOffset, view.byteLength).set(
          bytesOf(call('random', text(view.byteLength))),
        )
        return view
      },
      subtle: freeze({
        digest: async (algorithm: unknown, data: unknown) => {
          const name =
            typeof algorithm === 'object' && algorithm !== null ? (algorithm as { name?: unknown }).name : algorithm
          sendBytes(viewOf(data))
          const answer = call('digest', text(name).slice(0, 20))
          if (answer === '') throw new TypeError('digest knows SHA-1, SHA-256, SHA-384 and SHA-512')
          return bytesOf(answer).buffer
        },
      }),
    }),
  )

  class Headers {
    #pairs: [string, string][] = []
    constructor(init: unknown = []) {
      if (init instanceof Headers) this.#pairs = [...init.#pairs]
      else if (typeof init === 'object' && init !== null)
        for (const [name, value] of Symbol.iterator in init
          ? (init as Iterable<[unknown, unknown]>)
          : Object.entries(init))
          this.append(name, value)
    }
    append(name: unknown, value: unknown): void {
      this.#pairs.push([text(name).toLowerCase(), text(value).trim()])
    }
    set(name: unknown, value: unknown): void {
      this.delete(name)
      this.append(name, value)
    }
    delete(name: unknown): void {
      this.#pairs = this.#pairs.filter(([key]) => key !== text(name).toLowerCase())
    }
    get(name: unknown): string | null {
      const found = this.#pairs.filter(([key]) => key === text(name).toLowerCase())
      return found.length === 0 ? null : found.map(([, value]) => value).join(', ')
    }
    has(name: unknown): boolean {
      return this.get(name) !== null
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
  }

  class Response {
    readonly status: number
    readonly ok: boolean
    readonly statusText = ''
    readonly url: string
    readonly headers: Headers
    #body: ArrayBuffer
    #used = false
    constructor(status: number, url: string, headers: Headers, body: ArrayBuffer) {
      this.status = status
      this.ok = status >= 200 && status < 300
      this.url = url
      this.headers = headers
      this.#body = body
    }
    get bodyUsed(): boolean {
      return this.#used
    }
    async arrayBuffer(): Promise<ArrayBuffer> {
      if (this.#used) throw new TypeError('the body was read already')
      this.#used = true
      return this.#body
    }
    async bytes(): Promise<Uint8Array> {
      return new Uint8Array(await this.arrayBuffer())
    }
    async text(): Promise<string> {
      const whole = decodeUtf8(await this.arrayBuffer(), false)
      return whole.charCodeAt(0) === 0xfeff ? whole.slice(1) : whole
    }
    async json(): Promise<unknown> {
      return parse(await this.text()) as unknown
    }
  }
  add('Headers', Headers)
  add('Response', Response)

  /** Told from others by its name, as everywhere. */
  const abortError = (name: string, message: string): Error => {
    const error = new Error(message)
    defineProperty(error, 'name', { value: name, writable: true, enumerable: false, configurable: true })
    return error
  }
  class AbortSignal {
    aborted = false
    reason: unknown = undefined
    #heard: (() => void)[] = []
    static timeout(ms: number): AbortSignal {
      const signal = new AbortSignal()
      // As everywhere, it keeps no program going that has nothing else to wait for.
      setTimer(false, true)(() => signal.abort(abortError('TimeoutError', 'the operation timed out')), ms)
      return signal
    }
    abort(reason: unknown): void {
      if (this.aborted) return
      this.aborted = true
      this.reason = reason
      for (const heard of this.#heard) heard()
    }
    addEventListener(_name: string, heard: () => void): void {
      this.#heard.push(heard)
    }
    removeEventListener(_name: string, heard: () => void): void {
      this.#heard = this.#heard.filter((one) => one !== heard)
    }
    throwIfAborted(): void {
      if (this.aborted) throw this.reason
    }
  }
  class AbortController {
    readonly signal = new AbortSignal()
    abort(reason: unknown = abortError('AbortError', 'the operation was aborted')): void {
      this.signal.abort(reason)
    }
  }
  add('AbortSignal', AbortSignal)
  add('AbortController', AbortController)

  add(
    'fetch',
    async (input: unknown, init: { method?: unknown; headers?: unknown; body?: unknown; signal?: unknown } = {}) => {
      const url = text(input)
      const headers = new Headers(init.headers)
      const signal = init.signal instanceof AbortSignal ? init.signal : null
      signal?.throwIfAborted()
      const id = ++last
      if (init.body !== undefined && init.body !== null) {
        const form = init.body instanceof (scope['URLSearchParams'] as new () => object)
        if (form && !headers.has('content-type'))
          headers.set('content-type', 'application/x-www-form-urlencoded;charset=UTF-8')
        if (typeof init.body === 'string' && !headers.has('content-type'))
          headers.set('content-type', 'text/plain;charset=UTF-8')
        sendBytes(form ? text(init.body) : init.body)
      }
      // First: of one that is refused here nothing is to come later, its abort neither.
      ok(call('fetch', stringify({ id, url, method: text(init.method ?? 'GET').toUpperCase(), headers: [...headers] })))
      return await new PromiseOf<Response>((resolve, reject) => {
        waiting.set(id, (kind, answer, bytes) => {
          waiting.delete(id)
          if (kind !== 'answer') reject(new TypeError(answer))
          else {
            const { status, headers: pairs } = parse(answer) as { status: number; headers: [string, string][] }
            resolve(new Response(status, url, new Headers(pairs), bytes ?? new ArrayBuffer(0)))
          }
        })
        signal?.addEventListener('abort', () => {
          if (waiting.delete(id)) call('unfetch', stringify({ id }))
          reject(signal.reason)
        })
      })
    },
  )

  const exit = (code: unknown = 0): never => {
    call('exit', text(Number(code) & 255))
    for (;;) wait.applySyncPromise(undefined, [])
  }
  const readBytes = (path: unknown): Uint8Array => {
    const found = read(text(path).slice(0, 4096))
    if (found === undefined)
      throw new Error(`there is no file "${text(path).slice(0, 200)}"; writ.files() lists what there is`)
    return new Uint8Array(found)
  }
  const writeFile = (path: unknown, data: unknown): void => {
    sendBytes(data)
    ok(call('write', text(path).slice(0, 4096)))
  }

  const begin = (json: string): void => {
    const given = parse(json) as Begin
    const seal = (value: unknown): unknown => {
      if (typeof value === 'object' && value !== null) {
        for (const item of Object.values(value)) seal(item)
        freeze(value)
      }
      return value
    }
    const writ = freeze({
      env: seal(given.env),
      args: seal(given.args),
      stdin: given.stdin,
      inputs: seal(given.inputs),
      files: () => [...given.files],
      readText: (path: unknown) => decodeUtf8(readBytes(path), false),
      readBytes,
      writeFile,
      exit,
    })
    defineProperty(scope, 'writ', { value: writ, writable: false, enumerable: true, configurable: false })
    // Picked up and removed by the root module before the caller's first module runs.
    defineProperty(scope, 'writ:done', { value: done, writable: false, enumerable: false, configurable: true })
  }

  /** The entry has run to its end: what it exported or returned comes back, and the step is over. */
  const done = async (result: unknown): Promise<void> => {
    const value: unknown = typeof result === 'function' ? await (result(writOf()) as unknown) : await result
    if (value !== undefined) {
      const json = stringify(value, (_key, item: unknown) => (typeof item === 'bigint' ? text(item) : item), 2) as
        | string
        | undefined
      if (json !== undefined) writeFile('/out/return.json', json)
    }
    call('done', '')
  }
  const writOf = (): unknown => scope['writ']

  return (kind, id, answer, bytes) => {
    if (kind === 'begin') return begin(answer)
    Reflect.deleteProperty(scope, kind === 'main' ? 'writ:done' : '')
    if (kind === 'main') return void (async () => await done(await (bytes as () => unknown)()))()
    waiting.get(id)?.(kind, answer, bytes as ArrayBuffer | undefined)
  }
}

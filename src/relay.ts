import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import type { Duplex, Readable, Writable } from 'node:stream'
import type { Json, JsonObject } from './digest.ts'
import { WritError } from './error.ts'

/** As in contracts/mcp-tools.md; written here again because a relay must start without loading the MCP edge. */
const maxMessageBytes = 4 * 1024 * 1024
const refusedNumber = -32600
/** JSON-RPC's range for the implementation: the broker was not there to answer. */
const lostNumber = -32011

export interface RelayOptions {
  /** Connects to the broker's socket, starting a broker where none runs. */
  connect(): Promise<Duplex>
  readonly stdin: Readable
  readonly stdout: Writable
  /** Milliseconds an ended client's open requests are still waited for; 10,000 unless told. */
  readonly drainMs?: number
  /** For the operator, on standard error: why there is no broker. */
  report?(error: unknown): void
}

type Id = string | number

/** Time a broker that listens has to answer its first request. */
const greetingMs = 10_000
/** What a stateless connection may ask first and any broker answers; it binds the connection to nothing. */
const discover = {
  jsonrpc: '2.0',
  method: 'server/discover',
  params: {
    _meta: {
      'io.modelcontextprotocol/protocolVersion': '2026-07-28',
      'io.modelcontextprotocol/clientCapabilities': {},
    },
  },
} as const

interface Asked {
  readonly method: string
  readonly stateless: boolean
  readonly line: Buffer
  /** The connection whose far end has all of the line; null while it certainly has not. */
  sentOver: Duplex | null
}

/**
 * `writ mcp`: lines of a client to the broker and back, unchanged. A broker that dies is started again by the client's
 * next request; a 2025-era client's handshake is then replayed to it, unseen by the client. What was in flight is
 * answered with an error and never sent again, for it may have taken effect: one call must not run twice. Resolves when
 * the client is gone and its open requests are answered or waited for long enough.
 */
export async function relay(options: RelayOptions): Promise<void> {
  const line = new Relay(options)
  try {
    for await (const message of linesOf(options.stdin, () => line.refuseOversize())) await line.fromClient(message)
    await line.drained(options.drainMs ?? 10_000)
  } catch (error) {
    // A client that went without a word is a client that went.
    options.report?.(error)
  } finally {
    line.end()
  }
}

class Relay {
  readonly #options: RelayOptions
  #socket: Duplex | null = null
  #connecting: Promise<Duplex | null> | null = null
  readonly #asked = new Map<Id, Asked>()
  /** The `initialize` and `notifications/initialized` lines of a client of the 2025 revisions. */
  #handshake: { readonly initialize: JsonObject; initialized: Buffer | null } | null = null
  /** The relay's own requests; their answers are not the client's. */
  readonly #greetings = new Map<Id, () => void>()
  #settled: (() => void) | null = null
  #clientGone = false

  constructor(options: RelayOptions) {
    this.#options = options
    options.stdout.on('error', () => {
      this.#clientGone = true
      this.#options.stdin.destroy()
      this.end()
    })
  }

  async fromClient(line: Buffer): Promise<void> {
    if (line.toString('latin1').trim() === '') return
    const message = parse(line)
    const method = message?.['method']
    const id = idOf(message)
    if (message !== null && typeof method !== 'string') return await this.#passUnlessGone(line)
    if (message !== null && typeof method === 'string' && !('id' in message))
      return await this.#notify(method, message, line)
    if (message !== null && typeof method === 'string' && id !== null) {
      if (method === 'initialize') this.#handshake = { initialize: message, initialized: null }
      return await this.#request(id, { method, stateless: isStateless(message), line, sentOver: null })
    }
    // What cannot be read here is answered by the broker, which says what is wrong with it.
    const socket = await this.#connected(true)
    if (socket !== null) await write(socket, line)
  }

  async #request(id: Id, asked: Asked): Promise<void> {
    this.#asked.set(id, asked)
    // A line of which not even the last byte left this process can have had no effect: that one is sent again.
    for (let attempt = 0; attempt < 3; attempt++) {
      const socket = await this.#connected(asked.method !== 'initialize')
      if (this.#asked.get(id) !== asked) return
      if (socket === null) break
      if (await write(socket, asked.line)) {
        asked.sentOver = socket
        if (this.#socket !== socket) this.#lost(socket)
        return
      }
      if (this.#socket === socket) this.#socket = null
      socket.destroy()
    }
    if (this.#asked.get(id) !== asked) return
    this.#asked.delete(id)
    this.#answer(id, asked, this.#unreachable)
  }

  async #notify(method: string, message: JsonObject, line: Buffer): Promise<void> {
    if (method === 'notifications/initialized' && this.#handshake !== null) this.#handshake.initialized = line
    if (method === 'notifications/cancelled') {
      const params = message['params']
      const cancelled = isObject(params) ? idOf({ id: params['requestId'] ?? null }) : null
      if (cancelled !== null && this.#asked.get(cancelled)?.method !== 'initialize') this.#settle(cancelled)
    }
    await this.#passUnlessGone(line)
  }

  /** A notification starts no broker: there is nothing in a new one it could be about. */
  async #passUnlessGone(line: Buffer): Promise<void> {
    if (this.#socket !== null) await write(this.#socket, line)
  }

  refuseOversize(): void {
    this.#toClient({
      jsonrpc: '2.0',
      id: null,
      error: { code: refusedNumber, message: `a message is at most ${maxMessageBytes} bytes` },
    })
  }

  #unreachable = new WritError(
    'broker_unreachable',
    'The broker of this Writ is not running and could not be started. Nothing was done.',
  )

  async #connected(greet: boolean): Promise<Duplex | null> {
    if (this.#socket !== null) return this.#socket
    this.#connecting ??= this.#connect(greet).finally(() => (this.#connecting = null))
    return await this.#connecting
  }

  /** A connection to a broker that answers: one may still be accepted for a broker that is dying, and is then tried again. */
  async #connect(greet: boolean): Promise<Duplex | null> {
    for (let attempt = 0; attempt < 3 && !this.#clientGone; attempt++) {
      let socket: Duplex
      try {
        socket = await this.#options.connect()
      } catch (error) {
        this.#options.report?.(error)
        const code = error instanceof WritError ? error.code : 'broker_unreachable'
        this.#unreachable = new WritError(code, this.#unreachable.message)
        return null
      }
      // Told by the end of its lines and by writes that fail; an error nobody listens for would end the relay.
      socket.on('error', () => undefined)
      void this.#listen(socket)
      if (!greet || (await this.#greet(socket))) {
        if (this.#clientGone) break
        this.#socket = socket
        return socket
      }
      socket.destroy()
    }
    return null
  }

  /** Replays the client's handshake, or asks what changes nothing where there was none, and waits for the answer. */
  async #greet(socket: Duplex): Promise<boolean> {
    const id = `writ-relay-${randomUUID()}`
    const answered = new Promise<boolean>((resolve) => {
      const timer = setTimeout(resolve, greetingMs, false)
      const settle = (alive: boolean): void => {
        clearTimeout(timer)
        this.#greetings.delete(id)
        resolve(alive)
      }
      this.#greetings.set(id, () => settle(true))
      socket.once('close', () => settle(false))
    })
    const handshake = this.#handshake
    await write(socket, Buffer.from(`${JSON.stringify({ ...(handshake?.initialize ?? discover), id })}\n`))
    if (!(await answered)) return false
    return handshake?.initialized == null || (await write(socket, handshake.initialized))
  }

  async #listen(socket: Duplex): Promise<void> {
    try {
      for await (const line of linesOf(socket, null)) await this.#fromBroker(line)
    } catch {
      // A connection that breaks is a broker that went: the same as one that ended, and dealt with below.
    }
    socket.destroy()
    if (this.#socket === socket) this.#socket = null
    this.#lost(socket)
  }

  async #fromBroker(line: Buffer): Promise<void> {
    const message = parse(line)
    const id = idOf(message)
    if (message !== null && id !== null && !('method' in message)) {
      const greeted = this.#greetings.get(id)
      if (greeted !== undefined) return greeted()
      const asked = this.#asked.get(id)
      if (asked?.method === 'initialize' && 'error' in message) this.#handshake = null
      this.#settle(id)
    }
    if (!this.#clientGone && !this.#options.stdout.write(line)) await drained(this.#options.stdout)
  }

  /** The broker is gone. A handshake is begun again, for it has no effect; what else it was sent is answered and left. */
  #lost(socket: Duplex): void {
    for (const [id, asked] of this.#asked) {
      if (asked.sentOver !== socket) continue
      this.#asked.delete(id)
      if (asked.method === 'initialize' && !this.#clientGone) void this.#request(id, { ...asked, sentOver: null })
      else this.#answer(id, asked, lostInFlight)
    }
    if (this.#asked.size === 0) this.#settled?.()
  }

  #answer(id: Id, asked: Asked, error: WritError): void {
    const reason = { code: error.code, message: error.message, remedy: error.remedy, ref: 'none' }
    if (asked.method === 'tools/call') {
      const next =
        error === lostInFlight
          ? { tool: 'get_status', arguments: {} }
          : { tell_user: `${error.message} ${error.remedy}` }
      const text = `error ${reason.code}: ${reason.message} ${reason.remedy}\nnext: ${error === lostInFlight ? 'call get_status {}' : 'tell the user'}`
      const result = { content: [{ type: 'text', text }], structuredContent: { error: reason, next }, isError: true }
      this.#toClient({ jsonrpc: '2.0', id, result: asked.stateless ? { ...result, resultType: 'complete' } : result })
    } else {
      this.#toClient({
        jsonrpc: '2.0',
        id,
        error: { code: lostNumber, message: `${error.message} ${error.remedy}`, data: reason },
      })
    }
    if (this.#asked.size === 0) this.#settled?.()
  }

  #toClient(message: object): void {
    if (!this.#clientGone) this.#options.stdout.write(`${JSON.stringify(message)}\n`)
  }

  #settle(id: Id): void {
    this.#asked.delete(id)
    if (this.#asked.size === 0) this.#settled?.()
  }

  async drained(ms: number): Promise<void> {
    if (this.#asked.size === 0) return
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, ms)
      this.#settled = () => {
        clearTimeout(timer)
        resolve()
      }
    })
  }

  end(): void {
    this.#clientGone = true
    this.#asked.clear()
    this.#socket?.end()
    this.#socket?.destroy()
  }
}

const lostInFlight = new WritError(
  'broker_unreachable',
  'The broker stopped while this request was under way; whether it took effect is not known.',
  { remedy: 'Call get_status {} to see what exists before you repeat anything.' },
)

/** Whole lines with their line breaks; what exceeds a message's size is skipped up to the next break and told. */
async function* linesOf(stream: Readable, tooLong: (() => void) | null): AsyncGenerator<Buffer> {
  let held: Buffer[] = []
  let size = 0
  let skipping = false
  for await (const piece of stream as AsyncIterable<Buffer | string>) {
    let rest = typeof piece === 'string' ? Buffer.from(piece) : piece
    for (let end = rest.indexOf(10); end >= 0; end = rest.indexOf(10)) {
      const last = rest.subarray(0, end + 1)
      rest = rest.subarray(end + 1)
      const line = held.length === 0 ? last : Buffer.concat([...held, last])
      held = []
      size = 0
      if (skipping) skipping = false
      else if (tooLong !== null && line.length > maxMessageBytes + 1) tooLong()
      else yield line
    }
    if (rest.length === 0 || skipping) continue
    held.push(rest)
    size += rest.length
    if (tooLong !== null && size > maxMessageBytes) {
      tooLong()
      held = []
      size = 0
      skipping = true
    }
  }
  // A last line without a break is a message all the same when it comes from a client that ended.
  if (tooLong !== null && held.length > 0) yield Buffer.concat([...held, Buffer.from('\n')])
}

/** True once the whole line has left this process; false where it did not and will not. */
function write(socket: Duplex, line: Buffer): Promise<boolean> {
  return new Promise((resolve) => {
    if (socket.destroyed) resolve(false)
    else socket.write(line, (error) => resolve(error === null || error === undefined))
  })
}

/** Until the stream takes more or is gone. */
async function drained(stream: Writable): Promise<void> {
  if (stream.destroyed) return
  const stop = new AbortController()
  try {
    const signal = stop.signal
    await Promise.race([once(stream, 'drain', { signal }), once(stream, 'close', { signal })])
  } catch {
    // An error of the stream is followed by its end, which is where it is dealt with.
  } finally {
    stop.abort()
  }
}

function parse(line: Buffer): JsonObject | null {
  try {
    const value = JSON.parse(line.toString('utf8')) as Json
    return isObject(value) ? value : null
  } catch {
    // Not the relay's to judge: the broker says what is wrong with it.
    return null
  }
}

function idOf(message: JsonObject | null): Id | null {
  const id = message?.['id']
  if (typeof id === 'string') return id.length <= 128 ? id : null
  return typeof id === 'number' && Number.isSafeInteger(id) ? id : null
}

function isStateless(message: JsonObject): boolean {
  const params = message['params']
  const meta = isObject(params) ? params['_meta'] : undefined
  return isObject(meta) && 'io.modelcontextprotocol/protocolVersion' in meta
}

function isObject(value: Json | undefined): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

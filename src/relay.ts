import { randomUUID } from 'node:crypto'
import type { Duplex, Readable, Writable } from 'node:stream'
import type { Json, JsonObject } from './digest.ts'
import { WritError } from './error.ts'
// Of the MCP edge only what imports nothing else of it: a relay has to start at once.
import { drained, linesOf, write } from './mcp/lines.ts'
import { maxMessageBytes, parseRequestId, requestIdIn, type RequestId } from './mcp/request-id.ts'

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
    for await (const message of linesOf(options.stdin, (id) => line.refuseOversize(id))) await line.fromClient(message)
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
  readonly #asked = new Map<RequestId, Asked>()
  /** The `initialize` and `notifications/initialized` lines of a client of the 2025 revisions. */
  #handshake: { readonly initialize: JsonObject; initialized: Buffer | null } | null = null
  /** The relay's own requests; their answers are not the client's. */
  readonly #greetings = new Map<RequestId, () => void>()
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
    // The id under which the broker will answer, be it with what is wrong with the line.
    const id = requestIdIn(line)
    if (id !== null) {
      if (message !== null && method === 'initialize') this.#handshake = { initialize: message, initialized: null }
      const asked = { method: typeof method === 'string' ? method : '', stateless: isStateless(message) }
      return await this.#request(id, { ...asked, line, sentOver: null })
    }
    if (message !== null && typeof method !== 'string') return await this.#passUnlessGone(line)
    if (message !== null && typeof method === 'string' && !('id' in message))
      return await this.#notify(method, message, line)
    // Whom it would be answered to is not known, but the broker says what is wrong with it.
    const socket = await this.#connected(true)
    if (socket !== null) await write(socket, line)
  }

  async #request(id: RequestId, asked: Asked): Promise<void> {
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
      const cancelled = isObject(params) ? parseRequestId(params['requestId']) : null
      if (cancelled !== null && this.#asked.get(cancelled)?.method !== 'initialize') this.#settle(cancelled)
    }
    await this.#passUnlessGone(line)
  }

  /** A notification starts no broker: there is nothing in a new one it could be about. */
  async #passUnlessGone(line: Buffer): Promise<void> {
    if (this.#socket !== null) await write(this.#socket, line)
  }

  /** An id that is being served keeps its one answer. */
  refuseOversize(id: RequestId | null): void {
    const { code, message, remedy } = oversize
    this.#toClient({
      jsonrpc: '2.0',
      id: id !== null && this.#asked.has(id) ? null : id,
      error: { code: refusedNumber, message: `${message} ${remedy}`, data: { code, message, remedy, ref: 'none' } },
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
    const id = parseRequestId(message?.['id'])
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

  #answer(id: RequestId, asked: Asked, error: WritError): void {
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

  #settle(id: RequestId): void {
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

const oversize = new WritError('too_large', `A message has at most ${maxMessageBytes} bytes.`, {
  remedy: 'Send less in one call; for a file over 3 MiB ask upload_artifact with "upload" for a URL.',
})

function parse(line: Buffer): JsonObject | null {
  try {
    const value = JSON.parse(line.toString('utf8')) as Json
    return isObject(value) ? value : null
  } catch {
    // Not the relay's to judge: the broker says what is wrong with it.
    return null
  }
}

function isStateless(message: JsonObject | null): boolean {
  const params = message?.['params']
  const meta = isObject(params) ? params['_meta'] : undefined
  return isObject(meta) && 'io.modelcontextprotocol/protocolVersion' in meta
}

function isObject(value: Json | undefined): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

import { createServer } from 'node:http'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { Duplex } from 'node:stream'
import type { EgressPort, EgressResponse } from '../../egress/egress.ts'
import { maxData, windowBytes } from './frame.ts'

/*
 * The connections that the agent of a container takes on its loopback arrive here as bytes in frames. Each becomes a
 * stream that Node's own HTTP server reads strictly; what it understood goes to the run's gateway, and to nothing else.
 */

/** What is sent to the agent about a connection; nothing where it is over. The wire keeps numbers and windows. */
export interface ConnectionFrames {
  data(connection: number, bytes: Uint8Array): void
  end(connection: number): void
  reset(connection: number): void
  window(connection: number, bytes: number): void
  /** Bytes that may be sent now. */
  room(connection: number): number
}

export interface Connections {
  open(connection: number): void
  data(connection: number, bytes: Uint8Array): void
  end(connection: number): void
  reset(connection: number): void
  /** There is more room than before. */
  raised(connection: number): void
  close(): void
}

/** More than the gateway takes, so that it is the gateway that refuses. */
const mostBodyBytes = 1_048_576 + 65_536
/** Requests whose bytes and answers are held at once: a run that reads none of its answers holds no more of the run host. */
const mostAnswers = 8
/** Bytes that are read before the agent is told that it may send as much again. */
const tellAt = windowBytes / 4
const origin = 'http://127.0.0.1:3128'
const ownHosts: ReadonlySet<string> = new Set(['127.0.0.1:3128', 'localhost:3128'])

/** `send` is not called any more after `close`. */
export function openConnections(port: EgressPort, send: ConnectionFrames): Connections {
  const live = new Map<number, Connection>()
  const stop = new AbortController()

  const server = createServer(
    { maxHeaderSize: 32_768, insecureHTTPParser: false, requireHostHeader: true, keepAliveTimeout: 0 },
    (request, response) => void answer(request, response),
  )
  server.timeout = 0
  server.on('connect', (request, stream: Duplex) => void refuse(request, stream))
  server.on('upgrade', (_request, stream: Duplex) => stream.end(plain(501, 'Not Implemented')))
  server.on('clientError', (_error, stream: Duplex) => {
    if (stream.writable) stream.end(plain(400, 'Bad Request'))
    else stream.destroy()
  })

  let answering = 0
  const queue: (() => void)[] = []
  /** Waits for its turn to hold a request and an answer, and holds them until the connection has taken the answer. */
  async function turn(response: ServerResponse): Promise<void> {
    if (answering >= mostAnswers) await new Promise<void>((resolve) => queue.push(resolve))
    else answering++
    const over = (): void => {
      const next = queue.shift()
      if (next === undefined) answering--
      else next()
    }
    if (response.closed) over()
    else response.once('close', over)
  }

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const gone = new AbortController()
    response.once('close', () => gone.abort())
    await turn(response)
    const body = await bodyOf(request)
    if (body === null) {
      response.writeHead(413, { connection: 'close' }).end()
      return
    }
    const got = await ask(request, body, AbortSignal.any([gone.signal, stop.signal]))
    if (response.destroyed) return
    const empty = request.method === 'HEAD' || got.status === 204 || got.status === 304
    response.sendDate = false
    try {
      response.writeHead(got.status, [
        ...got.headers.flatMap(([name, value]) => [name, value]),
        ...(empty ? [] : ['content-length', String(got.body.length)]),
      ])
      response.end(empty ? undefined : got.body)
    } catch {
      // A header that Node does not write: no answer is better than half of one.
      response.destroy()
    }
  }

  /** The gateway counts the attempt and says why not; a tunnel is not made. */
  async function refuse(request: IncomingMessage, stream: Duplex): Promise<void> {
    stream.on('error', () => undefined)
    const { body } = await ask(request, Buffer.alloc(0), stop.signal)
    stream.end(Buffer.concat([Buffer.from(plain(405, 'Method Not Allowed', body.length)), body]))
  }

  async function ask(request: IncomingMessage, body: Buffer, signal: AbortSignal): Promise<EgressResponse> {
    const raw = request.rawHeaders
    const headers = Array.from(
      { length: raw.length / 2 },
      (_, at) => [raw[2 * at] ?? '', raw[2 * at + 1] ?? ''] as const,
    )
    try {
      const got = await port.fetch({ method: request.method ?? '', url: urlOf(request), headers, body }, signal)
      if (got.status >= 200 && got.status <= 599) return got
    } catch {
      // The port never rejects; where it did all the same, the answer is no.
    }
    return { status: 502, headers: [], body: Buffer.alloc(0) }
  }

  return {
    open(connection) {
      const made = new Connection(connection, send, () => live.delete(connection))
      live.set(connection, made)
      server.emit('connection', made)
    },
    data: (connection, bytes) => live.get(connection)?.arrive(bytes),
    end: (connection) => void live.get(connection)?.push(null),
    reset: (connection) => live.get(connection)?.abandon(),
    raised: (connection) => live.get(connection)?.pump(),
    close() {
      stop.abort()
      for (const connection of live.values()) connection.abandon()
      server.close()
    },
  }
}

/** One connection: holds no more of either direction than one window. */
class Connection extends Duplex {
  readonly #number: number
  readonly #send: ConnectionFrames
  readonly #closed: () => void
  /** What was read without telling the agent yet. */
  #unread = 0
  /** What waits for room. */
  #waiting: { bytes: Buffer; readonly done: () => void } | null = null
  #ended = false
  #abandoned = false

  constructor(number: number, send: ConnectionFrames, closed: () => void) {
    super({ allowHalfOpen: true, readableHighWaterMark: 65_536 })
    this.#number = number
    this.#send = send
    this.#closed = closed
    this.on('error', () => undefined)
  }

  arrive(bytes: Uint8Array): void {
    this.#unread += bytes.length
    if (this.push(bytes)) this.#release()
  }

  /** Ends it without telling the agent, which knows. */
  abandon(): void {
    this.#abandoned = true
    this.destroy()
  }

  #release(): void {
    if (this.#unread < tellAt || this.#abandoned) return
    this.#send.window(this.#number, this.#unread)
    this.#unread = 0
  }

  pump(): void {
    for (let room = 0; this.#waiting !== null && (room = this.#send.room(this.#number)) > 0;) {
      const waiting = this.#waiting
      const part = waiting.bytes.subarray(0, Math.min(room, maxData))
      waiting.bytes = waiting.bytes.subarray(part.length)
      if (part.length > 0) this.#send.data(this.#number, part)
      if (waiting.bytes.length > 0) continue
      this.#waiting = null
      waiting.done()
    }
  }

  override _read(): void {
    this.#release()
  }

  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    this.#waiting = { bytes: Buffer.from(chunk), done }
    this.pump()
  }

  override _final(done: () => void): void {
    this.#ended = true
    if (!this.#abandoned) this.#send.end(this.#number)
    done()
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    this.#waiting = null
    if (!this.#abandoned && !(this.#ended && this.readableEnded)) this.#send.reset(this.#number)
    this.#abandoned = true
    this.#closed()
    done(error)
  }
}

/** The URL as the sandbox meant it. Whatever is not this origin is the gateway's to refuse. */
function urlOf(request: IncomingMessage): string {
  const target = request.url ?? ''
  if (!target.startsWith('/')) return target
  const host = request.headers.host ?? ''
  return `${ownHosts.has(host.toLowerCase()) ? origin : `http://${host}`}${target}`
}

/** Null where it is larger than any gateway takes, or cut off. */
async function bodyOf(request: IncomingMessage): Promise<Buffer | null> {
  const chunks: Buffer[] = []
  let size = 0
  try {
    for await (const chunk of request as AsyncIterable<Buffer>) {
      size += chunk.length
      if (size > mostBodyBytes) return null
      chunks.push(chunk)
    }
    return Buffer.concat(chunks)
  } catch {
    return null
  }
}

function plain(status: number, reason: string, length = 0): string {
  return `HTTP/1.1 ${status} ${reason}\r\nconnection: close\r\ncontent-length: ${length}\r\n\r\n`
}

import { createServer } from 'node:http'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Duplex } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import type { EgressPort, EgressResponse } from '../../egress/egress.ts'
import { Connection } from './connection.ts'
import type { ConnectionFrames } from './connection.ts'

/*
 * The connections that the agent of a container takes on its loopback arrive here as bytes in frames. Each becomes a
 * stream that Node's own HTTP server reads strictly; what it understood goes to the run's gateway, and to nothing else.
 */

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
/** Milliseconds from the turn of a request to the end of its body: what a run never ends must not keep a turn. */
const usualBodyMs = 30_000
const origin = 'http://127.0.0.1:3128'
const ownHosts: ReadonlySet<string> = new Set(['127.0.0.1:3128', 'localhost:3128'])

/** `send` is not called any more after `close`. */
export function openConnections(port: EgressPort, send: ConnectionFrames, bodyMs = usualBodyMs): Connections {
  const live = new Map<number, Connection>()
  const stop = new AbortController()
  const turns = openTurns(mostAnswers)

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

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const connection: unknown = request.socket
    if (!(connection instanceof Connection)) return
    connection.asked(request)
    const turn = turns()
    const gone = new AbortController()
    /** The connection has taken the answer, or there is nobody any more to take it. */
    const over = (): void => {
      if (gone.signal.aborted) return
      connection.off('close', over)
      gone.abort()
      turn.over()
      connection.answered(request)
    }
    response.once('close', over)
    connection.once('close', over)
    await turn.come
    if (gone.signal.aborted) return
    const body = bodyOf(request, bodyMs)
    connection.reads(request)
    const came = await body
    if (gone.signal.aborted) return
    if (typeof came === 'number') {
      response.writeHead(came, { connection: 'close' }).end()
      return
    }
    const got = await ask(request, came, gone.signal)
    if (response.destroyed) return
    const empty = request.method === 'HEAD' || got.status === 204 || got.status === 304
    response.sendDate = false
    try {
      response.writeHead(got.status, [
        ...got.headers.flatMap(([name, value]) => [name, value]),
        ...(empty || got.rest !== undefined ? [] : ['content-length', String(got.body.length)]),
      ])
      if (got.rest === undefined || empty) response.end(empty ? undefined : got.body)
      else await pipeline(got.rest, response)
    } catch {
      // A header that Node does not write, or a download that broke off: no answer is better than what looks like a whole one.
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
      const got = await port.fetch(
        { method: request.method ?? '', url: urlOf(request), headers, body, pieces: true },
        signal,
      )
      if (got.status >= 200 && got.status <= 599) return got
    } catch {
      // The port never rejects; where it did all the same, the answer is no.
    }
    return { status: 502, headers: [], body: Buffer.alloc(0) }
  }

  return {
    open(connection) {
      const made = new Connection(connection, send)
      live.set(connection, made)
      made.once('close', () => live.delete(connection))
      server.emit('connection', made)
    },
    data: (connection, bytes) => live.get(connection)?.arrive(bytes),
    end: (connection) => live.get(connection)?.finish(),
    reset: (connection) => live.get(connection)?.abandon(),
    raised: (connection) => live.get(connection)?.pump(),
    close() {
      stop.abort()
      for (const connection of live.values()) connection.abandon()
      server.close()
    },
  }
}

/** The URL as the sandbox meant it. Whatever is not this origin, or says in two ways what it is, is the gateway's to refuse. */
function urlOf(request: IncomingMessage): string {
  const target = request.url ?? ''
  const raw = request.rawHeaders
  const hosts = raw.filter((_, at) => at % 2 === 1 && raw[at - 1]?.toLowerCase() === 'host')
  const isOwn = hosts.length === 1 && ownHosts.has(hosts[0]?.toLowerCase() ?? '')
  if (target.startsWith('/')) return `${isOwn ? origin : `http://${hosts.join(' ')}`}${target}`
  return isOwn || request.method === 'CONNECT' ? target : `http://${hosts.join(' ')}/`
}

/** Or the status of the answer where it is larger than any gateway takes, cut off, or not there in time. */
async function bodyOf(request: IncomingMessage, ms: number): Promise<Buffer | 400 | 408 | 413> {
  const chunks: Buffer[] = []
  let size = 0
  const { promise, resolve } = Promise.withResolvers<Buffer | 400 | 408 | 413>()
  const late = setTimeout(() => resolve(408), ms)
  request.on('data', (chunk: Buffer) => {
    size += chunk.length
    if (size > mostBodyBytes) resolve(413)
    else chunks.push(chunk)
  })
  request.once('end', () => resolve(Buffer.concat(chunks)))
  for (const event of ['error', 'close'] as const) request.once(event, () => resolve(400))
  try {
    return await promise
  } finally {
    clearTimeout(late)
    request.pause()
  }
}

/** Lets so many go on at once, in the order they came, each until it is over; one that is over before its turn comes too. */
function openTurns(most: number): () => { readonly come: Promise<void>; over(): void } {
  const waiting = new Set<() => void>()
  let under = 0
  const next = (): void => {
    for (const go of waiting) {
      if (under >= most) return
      waiting.delete(go)
      under++
      go()
    }
  }
  return () => {
    const { promise: come, resolve } = Promise.withResolvers<void>()
    waiting.add(resolve)
    next()
    return {
      come,
      over() {
        if (waiting.delete(resolve)) resolve()
        else under--
        next()
      },
    }
  }
}

function plain(status: number, reason: string, length = 0): string {
  return `HTTP/1.1 ${status} ${reason}\r\nconnection: close\r\ncontent-length: ${length}\r\n\r\n`
}

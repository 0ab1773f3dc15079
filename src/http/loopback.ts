import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import { WritError } from '../error.ts'
import type { Place } from '../path/transfer.ts'
import { openConnections } from './connections.ts'
import type { Transfers } from './transfer.ts'

/** The listener for one-time URLs where Writ serves no HTTP: open only while a ticket lives. */
export interface Loopback extends Place {
  close(): Promise<void>
}

/** Milliseconds it stays after the last ticket, so that one that is just being given finds it. */
const lingerMs = 1000
/** Open at once; one without a live URL makes room. */
const maxConnections = 64
/** Bytes of a body that may wait to be taken. */
const gatherBytes = 1024 * 1024
/** What a client that was refused may go on sending before its connection is closed: bytes and milliseconds. */
const discardBytes = 64 * 1024 * 1024
const discardMs = 2000

/** An ephemeral port of 127.0.0.1 that answers `/transfer/` to clients that name it so, and nothing else. */
export function openLoopback(transfers: () => Transfers): Loopback {
  let opening: Promise<{ readonly server: Server; readonly url: string }> | null = null
  let leaving: NodeJS.Timeout | undefined

  async function open(): Promise<{ readonly server: Server; readonly url: string }> {
    // Most brokers over stdio never move a large file, and keep the memory this would take.
    const { createServer } = await import('node:http')
    const receive = (request: IncomingMessage, response: ServerResponse, asksFirst: boolean): void => {
      const served = connections.serve(request.socket)
      response.once('close', () => served.end())
      if (transfers().knows((request.url ?? '').split('?', 1)[0] ?? '')) served.known()
      void serve(transfers(), server, request, response, asksFirst)
    }
    const server = createServer(
      { requestTimeout: 0, headersTimeout: 10_000, keepAliveTimeout: 5_000, maxHeaderSize: 16_384 },
      (request, response) => receive(request, response, false),
    )
    // Else Node would tell every client to go on, whatever it asks for.
    server.on('checkContinue', (request: IncomingMessage, response: ServerResponse) => receive(request, response, true))
    const connections = openConnections({
      limits: { connections: maxConnections, connections_per_address: maxConnections },
      behindProxy: false,
      refused: () => undefined,
    })
    server.on('connection', (socket: Socket) => {
      if (!connections.open(socket)) socket.destroy()
    })
    server.timeout = 120_000
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject)
      server.listen(0, '127.0.0.1', resolve)
    })
    // Its connections hold up a stop of the broker no longer than the tickets do.
    server.unref()
    return { server, url: `http://127.0.0.1:${portOf(server)}` }
  }

  async function shut(): Promise<void> {
    clearTimeout(leaving)
    const opened = opening
    opening = null
    if (opened === null) return
    const { server } = await opened
    await new Promise((resolve) => server.close(resolve))
  }

  function keep(): void {
    clearTimeout(leaving)
    leaving = undefined
  }

  return {
    keep,
    async url() {
      keep()
      opening ??= open()
      try {
        return (await opening).url
      } catch (failure) {
        opening = null
        throw failure
      }
    },
    release() {
      if (opening === null || leaving !== undefined) return
      leaving = setTimeout(() => {
        leaving = undefined
        void shut()
      }, lingerMs)
      leaving.unref()
    },
    async close() {
      const opened = await opening
      opened?.server.closeAllConnections()
      await shut()
    },
  }
}

function portOf(server: Server): number {
  return (server.address() as AddressInfo | null)?.port ?? 0
}

async function serve(
  transfers: Transfers,
  server: Server,
  request: IncomingMessage,
  response: ServerResponse,
  asksFirst: boolean,
): Promise<void> {
  request.on('error', () => undefined)
  const answer = await answerTo(transfers, portOf(server), request, () => {
    if (asksFirst) response.writeContinue()
  })
  try {
    await send(answer, request, response)
  } catch {
    // The file turned out not to be what it should, or the client is gone: either way the connection says so.
    request.socket.destroy()
  }
}

const methods: ReadonlySet<string> = new Set(['GET', 'HEAD', 'PUT', 'POST', 'PATCH', 'DELETE', 'OPTIONS'])

/** @param begin called before the body is waited for: a client that asked whether to send is told so then */
async function answerTo(
  transfers: Transfers,
  port: number,
  request: IncomingMessage,
  begin: () => void,
): Promise<Response> {
  const { headers, method = '', url = '' } = request
  const hosts = request.headersDistinct['host'] ?? []
  const named = hosts.length === 1 && (hosts[0] === `127.0.0.1:${port}` || hosts[0] === `localhost:${port}`)
  // A page in a browser reaches loopback too; no client that Writ gives a URL to says it is one.
  if (!named || headers.origin !== undefined || !methods.has(method)) return bare(403)
  const query = url.indexOf('?')
  const path = query < 0 ? url : url.slice(0, query)
  const given = new Headers()
  for (const [name, values] of Object.entries(request.headersDistinct))
    for (const value of values ?? []) given.append(name, value)
  const body = method === 'GET' || method === 'HEAD' ? null : bodyOf(request, begin)
  const web = new Request(`http://127.0.0.1:${port}/`, {
    method,
    headers: given,
    body,
    ...(body === null ? {} : { duplex: 'half' as const }),
  })
  return (await transfers.handle(web, path)) ?? bare(404)
}

function bare(status: number): Response {
  return new Response(null, { status, headers: { 'cache-control': 'no-store' } })
}

/**
 * What arrives, as it arrives, from when it is first asked for until so much of it waits to be taken; then the client waits
 * too. Asking for each piece would cost a turn of the event loop and of the client for each.
 */
function bodyOf(request: IncomingMessage, begin: () => void): ReadableStream<Uint8Array> {
  let begun = false
  return new ReadableStream<Uint8Array>(
    {
      pull(controller) {
        if (begun) return void request.resume()
        begun = true
        begin()
        request.on('data', (piece: Buffer) => {
          controller.enqueue(piece)
          if ((controller.desiredSize ?? 0) <= -gatherBytes) request.pause()
        })
        request.once('end', () => controller.close())
        const cut = (): void => {
          if (!request.readableEnded) controller.error(new WritError('transfer_cut', 'The connection ended.'))
        }
        request.on('error', cut)
        request.once('close', cut)
      },
    },
    { highWaterMark: 0, size: (piece) => piece.length },
  )
}

async function send(answer: Response, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const unread = !request.complete
  if (unread) response.setHeader('connection', 'close')
  response.writeHead(answer.status, [...answer.headers].flat())
  const reader = answer.body?.getReader()
  response.once('close', () => void reader?.cancel().catch(() => undefined))
  for (;;) {
    const read = await reader?.read()
    if (read?.value === undefined) break
    // A file may end for its client while that does not read it.
    if (!response.write(read.value)) await Promise.race([drained(response), reader?.closed])
  }
  await new Promise<void>((resolve) => response.end(resolve))
  if (unread) discard(request)
}

async function drained(response: ServerResponse): Promise<void> {
  await new Promise<void>((resolve) => {
    const done = (): void => {
      response.off('drain', done)
      response.off('close', done)
      resolve()
    }
    response.on('drain', done)
    response.on('close', done)
  })
}

/** A client that is still sending would lose the answer to a reset: it is let go on for a moment. */
function discard(request: IncomingMessage): void {
  const { socket } = request
  // Nobody takes it any more.
  request.removeAllListeners('data')
  let left = discardBytes
  const late = setTimeout(() => socket.destroy(), discardMs)
  late.unref()
  request.on('data', (piece: Buffer) => {
    left -= piece.length
    if (left < 0) socket.destroy()
  })
  request.once('close', () => {
    clearTimeout(late)
    socket.destroy()
  })
  request.resume()
}

import { createServer as createPlain, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { createServer as createTls, type Server as TlsServer } from 'node:https'
import type { AddressInfo, Socket } from 'node:net'
import type { Logger } from 'pino'
import type { JsonObject } from '../digest.ts'
import { systemCode, WritError } from '../error.ts'
import type { Authenticate } from '../request/caller.ts'
import { sendResponse } from './answer.ts'
import { streamBody } from './body.ts'
import { openCaps } from './caps.ts'
import { openConnections } from './connections.ts'
import { openSources, readHead } from './head.ts'
import { type Gauges, openMetrics } from './metrics.ts'
import { allowPage, preflight } from './pages.ts'
import { makeRoutes, refusal, type McpEndpoint, routeOf, type TransferEndpoint } from './routes.ts'
import { type HttpSettings, isLoopback, originOf } from './settings.ts'
import { loadCertificate, wasMeant, watchCertificate } from './tls.ts'

/** Milliseconds; a connection that keeps still longer than any of them is ended. */
export interface Timeouts {
  /** From the opening of a connection, or the end of the last request on it, to the end of a head. */
  readonly head: number
  /** A whole body of a message. */
  readonly body: number
  /** Nothing read or written in the middle of an exchange: longer than any wait. */
  readonly idle: number
  /** Between two requests. */
  readonly keepAlive: number
  /** For waits to be answered when the broker stops. */
  readonly stop: number
}

const standardTimeouts: Timeouts = { head: 10_000, body: 30_000, idle: 75_000, keepAlive: 65_000, stop: 5000 }

/** Why a wait ended, made once: each exchange ends with it. */
const over = new Error('the exchange is over')

export interface HttpServer {
  /** Origin of the address it listens on, whatever `url` says. */
  readonly url: string
  connections(): number
  /** Takes no new request, has every wait answered, then closes. */
  close(): Promise<void>
}

/**
 * Serves HTTP: `/mcp` for authenticated callers, transfers, and what needs no caller (keys, health, metrics). Each
 * request's head is read strictly first; one that could mean two things reaches nobody.
 * Rejects `invalid_config` where it cannot listen or its certificate cannot be used.
 */
export async function serveHttp(options: {
  readonly settings: HttpSettings
  readonly authenticate: Authenticate
  readonly mcp: McpEndpoint
  /** Answers a path of its own, or null for one that is not. */
  readonly transfers: TransferEndpoint | null
  /** Further documents under `/.well-known/`, by path; `resource` is the URI of `/mcp`. */
  readonly wellKnown: (path: string, resource: string) => JsonObject | null
  readonly keys: { readonly jwt: string; jwks(): JsonObject }
  readonly ready: () => Promise<JsonObject>
  /** Unix milliseconds, by the clock tokens are judged by. */
  readonly now: () => number
  readonly gauges: Gauges
  readonly log: Logger
  readonly timeouts?: Partial<Timeouts>
}): Promise<HttpServer> {
  const { settings, log } = options
  const timeouts = { ...standardTimeouts, ...options.timeouts }
  const loopback = isLoopback(settings.listen.host)
  const scheme = settings.tls === null ? 'http' : 'https'
  const sources = openSources({
    hosts: [
      ...settings.hosts,
      settings.listen.host,
      ...(settings.url === null ? [] : [new URL(settings.url).hostname]),
    ],
    origins: [...settings.origins, ...(settings.url === null ? [] : [settings.url])],
    loopback,
    scheme,
  })
  const caps = openCaps(settings.limits)
  /** What ends a wait: one for each request being served. */
  const exchanges = new Set<AbortController>()
  let stopping = false
  const metrics = openMetrics({
    ...options.gauges,
    writ_http_requests_open: { help: 'HTTP requests being served, waiting ones included', read: () => caps.requests },
    writ_http_connections: { help: 'Open HTTP connections', read: () => connections.size },
    writ_http_sessions: { help: 'Open MCP sessions of the 2025 revisions', read: () => options.mcp.sessions() },
  })
  const connections = openConnections({
    limits: settings.limits,
    behindProxy: settings.behindProxy,
    refused: () => metrics.refused('connections'),
  })
  let origin = originOf(settings, settings.listen.port)
  const routes = makeRoutes({
    ...options,
    caps,
    metrics,
    bodyMs: timeouts.body,
    origin: () => origin,
    stopping: () => stopping,
  })

  const serve = async (incoming: IncomingMessage, outgoing: ServerResponse, asksFirst: boolean): Promise<void> => {
    const began = performance.now()
    outgoing.setHeader('x-content-type-options', 'nosniff')
    const head = readHead({
      method: incoming.method ?? '',
      target: incoming.url ?? '',
      version: incoming.httpVersion,
      raw: incoming.rawHeaders,
    })
    if (!head.ok) {
      metrics.refused('malformed')
      return await last(refusal(head.status, head.text), outgoing)
    }
    const route = routeOf(head.path)
    if (!wasMeant(incoming.socket, head.host)) {
      metrics.refused('host')
      return await last(refusal(421, 'this connection was opened to another name'), outgoing)
    }
    if (route !== 'health' && !sources.host(head.host)) {
      metrics.refused('host')
      return await last(refusal(403, 'this is not the host you asked for'), outgoing)
    }
    const page = head.headers.get('origin')
    if (page !== undefined) {
      if (!sources.origin(page, head.host)) {
        metrics.refused('origin')
        return await last(refusal(403, 'pages of this origin may not call'), outgoing)
      }
      if (sources.listed(page)) allowPage(outgoing, page)
    }
    if (incoming.method === 'OPTIONS') {
      const allowed = page !== undefined && sources.listed(page) ? preflight(incoming, outgoing) : null
      if (allowed !== null) return await sendResponse(allowed, outgoing)
      const text = 'OPTIONS is for pages of listed origins'
      return await last(refusal(405, text, { allow: 'GET, POST, DELETE' }), outgoing)
    }
    if (stopping && route !== 'health')
      return await last(refusal(503, 'this Writ is stopping', { 'retry-after': '5' }), outgoing)
    const place = caps.enter()
    if (!(Symbol.dispose in place)) {
      metrics.refused('busy')
      return await last(refusal(place.status, 'too much is going on here', { 'retry-after': '1' }), outgoing)
    }
    const gone = new AbortController()
    exchanges.add(gone)
    const served = connections.serve(incoming.socket)
    outgoing.once('close', () => {
      gone.abort(over)
      exchanges.delete(gone)
      served.end()
      place[Symbol.dispose]()
      // 499: the client did not stay for the answer.
      const status = outgoing.writableFinished ? outgoing.statusCode : 499
      metrics.answered(route, status, (performance.now() - began) / 1000)
    })
    const exchange = { incoming, outgoing, head, gone, known: () => served.known() }
    if (route === 'mcp') return await sendResponse(await routes.mcp(exchange), outgoing)
    const begin = (): void => {
      if (asksFirst) outgoing.writeContinue()
    }
    const request = new Request(`${origin}${head.path}`, {
      method: incoming.method ?? 'GET',
      headers: [...head.headers].filter(
        ([name]) => name !== 'connection' && name !== 'transfer-encoding' && name !== 'keep-alive',
      ),
      signal: gone.signal,
      ...(route === 'transfer' && hasBody(incoming)
        ? { body: streamBody(incoming, begin), duplex: 'half' as const }
        : {}),
    })
    await sendResponse(await routes.fetch(request, exchange), outgoing)
  }

  const listener = (incoming: IncomingMessage, outgoing: ServerResponse, asksFirst = false): void => {
    incoming.on('error', () => undefined)
    serve(incoming, outgoing, asksFirst).catch((error: unknown) => {
      log.error({ err: error }, 'an HTTP request failed')
      if (outgoing.headersSent) outgoing.destroy()
      else void last(refusal(500, 'Internal error'), outgoing)
    })
  }
  const unasked = (_incoming: IncomingMessage, outgoing: ServerResponse): void => {
    metrics.refused('malformed')
    void last(refusal(417, 'send the body without asking first'), outgoing)
  }

  const certificate = settings.tls === null ? null : loadCertificate(settings.tls)
  const strict = {
    insecureHTTPParser: false,
    requireHostHeader: false,
    maxHeaderSize: 16 * 1024,
    headersTimeout: timeouts.head,
    // A body has its own deadline, by what it is for.
    requestTimeout: 0,
    keepAliveTimeout: timeouts.keepAlive,
    connectionsCheckingInterval: Math.min(2000, timeouts.head),
    noDelay: true,
  }
  const server: Server | TlsServer =
    certificate === null
      ? createPlain(strict, (incoming, outgoing) => listener(incoming, outgoing))
      : createTls(
          {
            ...strict,
            ...certificate,
            minVersion: 'TLSv1.2',
            ALPNProtocols: ['http/1.1'],
            handshakeTimeout: timeouts.head,
          },
          (incoming, outgoing) => listener(incoming, outgoing),
        )
  server.setTimeout(timeouts.idle)
  server.on('checkContinue', (incoming: IncomingMessage, outgoing: ServerResponse) =>
    listener(incoming, outgoing, true),
  )
  server.on('checkExpectation', unasked)
  server.on('connection', (socket: Socket) => {
    if (!connections.open(socket)) socket.destroy()
  })
  server.on(certificate === null ? 'connection' : 'secureConnection', (socket: Socket) => {
    socket.once('close', () => caps.closed(socket))
  })
  server.on('clientError', (error: Error, socket: Socket) => {
    metrics.refused('malformed')
    if (!socket.writable || systemCode(error) === 'ECONNRESET') socket.destroy()
    else
      socket.end(`HTTP/1.1 ${parserStatus(systemCode(error))}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`, () =>
        socket.destroySoon(),
      )
  })
  server.on('tlsClientError', (_error: Error, socket: Socket) => socket.destroy())
  const port = await listening(server, settings)
  origin = originOf(settings, port)
  const reload =
    certificate === null || settings.tls === null
      ? null
      : watchCertificate(settings.tls, certificate, {
          changed(next) {
            // Connections there are keep what they were opened with.
            ;(server as TlsServer).setSecureContext({ ...next, minVersion: 'TLSv1.2' })
            log.info('a new certificate is in force')
          },
          refused: (why) => log.error({ err: why }, 'a new certificate was refused; the earlier one stays in force'),
        })

  return {
    url: originOf({ ...settings, url: null }, port),
    connections: () => connections.size,
    async close() {
      stopping = true
      reload?.close()
      const closed = new Promise<void>((resolve) => server.close(() => resolve()))
      for (const gone of exchanges) gone.abort(over)
      const until = performance.now() + timeouts.stop
      server.closeIdleConnections()
      // Every wait is answered now; sessions and their streams end after their answers.
      await Promise.race([options.mcp.close(), pause(timeouts.stop)])
      while (caps.requests > 0 && performance.now() < until) await pause(10)
      server.closeIdleConnections()
      const forced = setTimeout(() => server.closeAllConnections(), 1000)
      await closed
      clearTimeout(forced)
      metrics.close()
    },
  }
}

async function pause(ms: number): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, ms).unref())
}

/** The last answer of a connection: nothing of what else was sent on it is read as a request. */
async function last(response: Response, outgoing: ServerResponse): Promise<void> {
  outgoing.setHeader('connection', 'close')
  await sendResponse(response, outgoing)
}

function hasBody(incoming: IncomingMessage): boolean {
  if (incoming.method === 'GET' || incoming.method === 'HEAD') return false
  return incoming.headers['transfer-encoding'] !== undefined || Number(incoming.headers['content-length'] ?? 0) > 0
}

function parserStatus(code: string | null): string {
  if (code === 'HPE_HEADER_OVERFLOW') return '431 Request Header Fields Too Large'
  if (code === 'ERR_HTTP_REQUEST_TIMEOUT') return '408 Request Timeout'
  return '400 Bad Request'
}

async function listening(server: Server | TlsServer, settings: HttpSettings): Promise<number> {
  const { host, port } = settings.listen
  await new Promise<void>((resolve, reject) => {
    server.once('error', (cause) => {
      const why =
        systemCode(cause) === 'EADDRINUSE' ? 'another program listens there' : (systemCode(cause) ?? 'unknown')
      reject(
        new WritError('invalid_config', `HTTP cannot listen on ${host}:${port}: ${why}.`, {
          remedy: 'Choose another address with --listen or "http.listen".',
          cause,
        }),
      )
    })
    // A thousand clients that come back at once are not made to try again.
    server.listen({ port, host, backlog: 4096 }, () => {
      server.removeAllListeners('error')
      resolve()
    })
  })
  return (server.address() as AddressInfo).port
}

import type { IncomingMessage, ServerResponse } from 'node:http'
import { type Context, Hono } from 'hono'
import type { Logger } from 'pino'
import type { JsonObject } from '../digest.ts'
import type { Authenticate, Caller, Unauthenticated } from '../request/caller.ts'
import type { Json } from './answer.ts'
import { drainBody, readBody } from './body.ts'
import type { Caps } from './caps.ts'
import type { Head } from './head.ts'
import type { Metrics, Route } from './metrics.ts'
import { type HttpSettings, isLoopback } from './settings.ts'

/** MCP as this edge sees it: a request whose sender is known in, a response out. */
export interface McpEndpoint {
  handle(request: {
    readonly method: 'POST' | 'GET' | 'DELETE'
    readonly headers: ReadonlyMap<string, string>
    readonly body: Uint8Array
    readonly caller: Caller
    /** The answer to a message of this name that the caller's token does not do for; null where it does. */
    readonly shortOf: (name: string) => Response | null
    readonly signal: AbortSignal
  }): Promise<Response | Json>
  sessions(): number
  close(): Promise<void>
}

/** One-time URLs: a request whose path is all the identity there is in, a response out. */
export interface TransferEndpoint {
  handle(request: Request, path: string): Promise<Response | null>
  /** Whether the path is that of a live URL. */
  knows(path: string): boolean
}

/** What a route knows beside the request: the connection, the head as it was read, and what ends a wait. */
interface Bindings {
  readonly incoming: IncomingMessage
  readonly outgoing: ServerResponse
  readonly head: Extract<Head, { readonly ok: true }>
  readonly gone: AbortController
  /** To be called once it is known whose request it is. */
  readonly known: () => void
}
type Env = { Bindings: Bindings }

const maxMessageBytes = 4 * 1024 * 1024
const none = new Uint8Array(0)

export function routeOf(path: string): Route {
  if (path === '/mcp') return 'mcp'
  if (path === '/healthz' || path === '/readyz') return 'health'
  if (path === '/metrics') return 'metrics'
  if (path.startsWith('/.well-known/')) return 'well-known'
  if (path.startsWith('/transfer/')) return 'transfer'
  return 'other'
}

/** Where a request goes once its head was read; neither rejects. */
interface Routes {
  fetch(request: Request, exchange: Bindings): Promise<Response>
  /** All of `/mcp`: what most requests are for, so none of them is made a web object before it has to be. */
  mcp(exchange: Bindings): Promise<Response | Json>
}

export function makeRoutes(options: {
  readonly settings: HttpSettings
  readonly authenticate: Authenticate
  readonly mcp: McpEndpoint
  readonly transfers: TransferEndpoint | null
  readonly wellKnown: (path: string, resource: string) => JsonObject | null
  readonly keys: { readonly jwt: string; jwks(): JsonObject }
  readonly ready: () => Promise<JsonObject>
  /** Unix milliseconds, by the clock tokens are judged by. */
  readonly now: () => number
  readonly caps: Caps
  readonly metrics: Metrics
  readonly log: Logger
  readonly bodyMs: number
  readonly origin: () => string
  readonly stopping: () => boolean
}): Routes {
  const { settings, caps, log } = options
  const app = new Hono<Env>()

  app.get('/healthz', () => Response.json({ ok: true }))
  app.get('/readyz', async () =>
    options.stopping() ? refusal(503, 'this Writ is stopping') : Response.json(await options.ready()),
  )
  app.get('/.well-known/jwks.json', () =>
    // The root's own word beside the list it signed: what a verifier that pins the root needs (RFC 7517 §5 allows members beside `keys`).
    Response.json(
      { ...options.keys.jwks(), key_set: options.keys.jwt },
      { headers: { 'cache-control': 'public, max-age=300' } },
    ),
  )
  app.get('/.well-known/*', (c) => {
    const found = options.wellKnown(c.env.head.path, `${options.origin()}/mcp`)
    return found === null ? missing() : Response.json(found)
  })
  app.get('/metrics', async (c) => {
    if (!settings.metrics && !isNear(c)) return missing()
    return new Response(await options.metrics.text(), { headers: { 'content-type': options.metrics.type } })
  })
  app.all('/transfer/*', async (c) => {
    if (options.transfers?.knows(c.env.head.path) === true) c.env.known()
    const answer = (await options.transfers?.handle(c.req.raw, c.env.head.path)) ?? missing()
    // What is left of a body belongs to no request any more.
    if (!c.env.incoming.complete) c.env.outgoing.setHeader('connection', 'close')
    return answer
  })
  for (const path of ['/healthz', '/readyz', '/metrics', '/.well-known/*'])
    app.all(path, () => refusal(405, 'this is for reading', { allow: 'GET, HEAD' }))
  app.notFound(async (c) => await unread(c.env, missing()))
  app.onError(async (error, c) => await failed(error, c.env))

  async function failed(error: unknown, exchange: Bindings): Promise<Response> {
    log.error({ err: error }, 'an HTTP request failed')
    return await unread(exchange, refusal(500, 'Internal error'))
  }

  async function serveMcp(exchange: Bindings): Promise<Response | Json> {
    const { incoming, outgoing, head, gone } = exchange
    const method = incoming.method
    if (method !== 'POST' && method !== 'GET' && method !== 'DELETE')
      return await unread(
        exchange,
        refusal(405, 'MCP is spoken by POST, GET and DELETE', { allow: 'GET, POST, DELETE' }),
      )
    const who = await options.authenticate({ headers: head.headers, resource: `${options.origin()}/mcp` })
    if (!who.ok) {
      options.metrics.unauthenticated(who.code, incoming.socket.remoteAddress ?? '')
      return await unread(exchange, challenge(who))
    }
    // Whoever went while that was found out gives no place back, and waits for no answer.
    if (outgoing.destroyed) return refusal(400, 'the client is gone')
    exchange.known()
    const place = caps.take(who.key, incoming.socket, mayHold(incoming))
    if (!(Symbol.dispose in place)) {
      options.metrics.refused('busy')
      return await unread(
        exchange,
        refusal(place.status, `you have too many ${place.what} open`, { 'retry-after': '1' }),
      )
    }
    outgoing.once('close', () => place[Symbol.dispose]())
    endWith(who.caller, options.now(), exchange)
    const body =
      method === 'POST'
        ? await readBody(incoming, { maxBytes: maxMessageBytes, withinMs: options.bodyMs })
        : ({ ok: true, bytes: none } as const)
    if (!body.ok) return await unread(exchange, bodyRefusal(body.status))
    place.resize(body.bytes.length)
    return await options.mcp.handle({
      method,
      headers: head.headers,
      body: body.bytes,
      caller: who.caller,
      shortOf(name) {
        const short = who.shortOf(name)
        if (short === null) return null
        options.metrics.unauthenticated(short.code, incoming.socket.remoteAddress ?? '')
        return challenge(short)
      },
      signal: gone.signal,
    })
  }
  return {
    fetch: async (request, exchange) => await app.fetch(request, exchange),
    mcp: async (exchange) => await serveMcp(exchange).catch(async (error: unknown) => await failed(error, exchange)),
  }
}

/** A stream or a wait lives no longer than the token it was opened with: the connection ends, and says nothing more. */
function endWith({ auth: { shown } }: Caller, nowMs: number, { gone, incoming }: Bindings): void {
  if (shown === null) return
  const { revoked, until_ms } = shown
  const end = (): void => {
    gone.abort()
    incoming.socket.destroy()
  }
  if (revoked.aborted) return end()
  revoked.addEventListener('abort', end, { once: true })
  const left = until_ms === null ? null : until_ms - nowMs
  // Longer than any stream is held is as good as never.
  const timer = left === null || left > 2 ** 31 - 1 ? undefined : setTimeout(end, Math.max(0, left))
  gone.signal.addEventListener(
    'abort',
    () => {
      revoked.removeEventListener('abort', end)
      clearTimeout(timer)
    },
    { once: true },
  )
}

function challenge(who: Unauthenticated): Response {
  const headers: Record<string, string> = { 'cache-control': 'no-store' }
  if (who.challenge !== '') headers['www-authenticate'] = who.challenge
  if (who.status === 503) headers['retry-after'] = '5'
  return Response.json({ error: who.code, error_description: who.message }, { status: who.status, headers })
}

/** Bytes a body may come to; one that does not say how long it is may be as long as any. */
function mayHold(incoming: IncomingMessage): number {
  if (incoming.headers['transfer-encoding'] !== undefined) return maxMessageBytes
  return Math.min(Number(incoming.headers['content-length'] ?? 0), maxMessageBytes)
}

function bodyRefusal(status: 400 | 408 | 413): Response {
  switch (status) {
    case 400:
      return refusal(status, 'the body ended early')
    case 408:
      return refusal(status, 'the body took too long')
    case 413:
      return refusal(status, `a message is at most ${maxMessageBytes} bytes`)
  }
}

/** An answer to a request whose body was not read: read and forgotten within bounds, else the connection ends. */
async function unread({ incoming, outgoing }: Bindings, response: Response): Promise<Response> {
  if (!(await drainBody(incoming, { maxBytes: 2 * maxMessageBytes, withinMs: 2000 })))
    outgoing.setHeader('connection', 'close')
  return response
}

/** Asked on this machine and by nobody else's errand: a proxy here would pass on what comes from anywhere. */
function isNear(c: Context<Env>): boolean {
  const { incoming, head } = c.env
  const address = (incoming.socket.remoteAddress ?? '').replace(/^::ffff:/, '')
  const errand = ['forwarded', 'via', 'x-forwarded-for', 'x-forwarded-host', 'x-real-ip'].some((name) =>
    head.headers.has(name),
  )
  return isLoopback(address) && isLoopback(head.host.replace(/:\d{1,5}$/, '')) && !errand
}

function missing(): Response {
  return refusal(404, 'there is nothing here')
}

/** A short answer of this edge's own; it repeats nothing of what was asked. */
export function refusal(status: number, text: string, headers: Readonly<Record<string, string>> = {}): Response {
  return Response.json({ error: text }, { status, headers: { 'cache-control': 'no-store', ...headers } })
}

import { createMcpHandler } from '@modelcontextprotocol/server'
import type { AuthInfo, ServerContext } from '@modelcontextprotocol/server'
import type { Broker } from '../broker.ts'
import type { JsonObject } from '../digest.ts'
import type { Caller } from '../request/caller.ts'
import { errorNumbers, readMessage } from './message.ts'
import type { Asserted, Inbound, InboundRequest, RequestId } from './message.ts'
import { openLine } from './line.ts'
import { decide, errorAnswer, refusalAnswer, unknownTool } from './refusal.ts'
import type { Log } from './refusal.ts'
import { makeServer } from './server.ts'
import { openSessions, personOf } from './session.ts'
import type { Session, Sessions, SessionLimits } from './session.ts'
import { openStateless, statelessRevision } from './stateless.ts'

/** One HTTP request to the MCP endpoint whose sender is known and whose head was checked. */
export interface McpRequest {
  readonly method: 'POST' | 'GET' | 'DELETE'
  /** By lower-case name; none of them came twice. */
  readonly headers: ReadonlyMap<string, string>
  /** Empty where the method has none. */
  readonly body: Uint8Array
  readonly caller: Caller
  /** The answer to a message of this name that the caller's token does not do for; null where it does. */
  readonly shortOf: (name: string) => Response | null
  /** Aborts when the wait for an answer ends: the client went, its token was revoked, the broker stops. */
  readonly signal: AbortSignal
}

/** A response, or the JSON that one is made of: most answers need no web object to be sent. */
export type McpAnswer = Response | { readonly status: number; readonly json: string }

/** MCP over HTTP, in the stateless revision and with the sessions of 2025, behind the same gate as the socket. */
export interface McpHttp {
  /** Never rejects. */
  handle(request: McpRequest): Promise<McpAnswer>
  /** Sessions of the 2025 revisions that are open. */
  sessions(): number
  /** Ends every session, each when what it was asked is answered. */
  close(): Promise<void>
}

/** What a handler of the SDK is served for: found again by the object that the SDK carries along. */
interface Exchange {
  readonly caller: Caller
  readonly signal: AbortSignal
}

/**
 * Messages that are being decided at once. The evaluation has a deadline, and what waits too long for it is denied: so what
 * comes in a burst waits here, where waiting costs nothing, and is decided when it is its turn.
 */
const decidingMax = 32

const endpoint = 'http://writ.invalid/mcp'
const sseKeepAliveMs = 15_000

/**
 * Each message is parsed strictly, decided by the broker and only then handed to the SDK, as on the socket. What is
 * malformed, unknown or refused is answered here.
 */
export function openMcpHttp(options: {
  readonly broker: Broker
  readonly log: Log
  readonly limits: SessionLimits
}): McpHttp {
  const { broker, log } = options
  const deciding = openLine(decidingMax)
  const exchanges = new WeakMap<AuthInfo, Exchange>()
  const exchangeOf = (context: ServerContext): Exchange | null => {
    const authInfo = context.http?.authInfo
    return (authInfo === undefined ? undefined : exchanges.get(authInfo)) ?? null
  }
  const asked = (context: ServerContext): Exchange | null => {
    const found = exchangeOf(context)
    if (found === null) return null
    return { caller: found.caller, signal: AbortSignal.any([found.signal, context.mcpReq.signal]) }
  }
  const report = (error: Error): void => log.debug({ error: error.name }, 'the SDK reported an error')
  const make = (): ReturnType<typeof makeServer> => makeServer(broker, asked, log)
  const stateless = createMcpHandler(make, {
    legacy: 'reject',
    onerror: report,
    keepAliveMs: sseKeepAliveMs,
    maxSubscriptions: 0,
  })
  // A call there is ended by nobody but its client.
  const calls = openStateless(makeServer(broker, exchangeOf, log, [statelessRevision]))
  const sessions = openSessions({ make, log, keepAliveMs: sseKeepAliveMs, limits: options.limits })
  const authInfoOf = (caller: Caller, signal: AbortSignal): AuthInfo => {
    // The token itself is nobody's business behind this line.
    const authInfo: AuthInfo = { token: '', clientId: '', scopes: [] }
    exchanges.set(authInfo, { caller, signal })
    return authInfo
  }

  const post = async (request: McpRequest): Promise<McpAnswer> => {
    const unfit = unfitHead(request.headers)
    if (unfit !== null) return unfit
    const inbound = readMessage(request.body)
    if (inbound.kind === 'malformed') return malformed(inbound, isModern(request.headers))
    if (inbound.kind === 'ignored') return new Response(null, { status: 202 })
    const modern = isModern(request.headers) || (inbound.kind === 'request' && inbound.stateless)
    const session = modern ? null : sessions.find(request.headers.get('mcp-session-id'), request.caller)
    const caller = assertedBy(
      request.caller,
      (inbound.kind === 'request' ? inbound.asserted : null) ?? session?.asserted ?? null,
    )
    const place = await deciding.enter(personOf(caller), request.signal)
    if (place === null) return busy(inbound.kind === 'request' ? inbound.id : null)
    const admission = await decide((one, message) => broker.admit(one, message), caller, inbound.message, log)
    place[Symbol.dispose]()
    if (inbound.kind === 'notification') {
      if (modern || !admission.allowed) return new Response(null, { status: 202 })
      return session?.notify(inbound) ?? unknownSession(request.headers, null)
    }
    const reason = admission.allowed ? unknownTool(inbound, log) : admission.reason
    if (reason !== null) return { status: 200, json: JSON.stringify(refusalAnswer(inbound, reason)) }
    // After policy: nobody is sent for more scopes to do what is refused with them too.
    const short = request.shortOf(inbound.message.name)
    if (short !== null) return short
    const authInfo = authInfoOf(caller, request.signal)
    const answer = modern ? await calls.call(request, inbound, authInfo) : null
    if (answer !== null) return { status: 200, json: JSON.stringify(answer) }
    if (modern) return await stateless.fetch(sdkRequest(request), { parsedBody: inbound.forward, authInfo })
    return await serveSession(sessions, session, request, inbound, authInfo)
  }

  return {
    async handle(request) {
      try {
        if (request.method === 'POST') return await post(request)
        const session = sessions.find(request.headers.get('mcp-session-id'), request.caller)
        if (session === null) return unknownSession(request.headers, null)
        if (request.method === 'DELETE') return await session.end()
        if (!accepts(request.headers.get('accept'), 'text/event-stream'))
          return problem(406, null, errorNumbers.invalidRequest, 'accept text/event-stream')
        return await session.listen(sdkRequest(request), request.signal)
      } catch (error) {
        log.warn({ error: error instanceof Error ? error.message : 'unknown' }, 'an MCP request over HTTP failed')
        return problem(500, null, errorNumbers.internal, 'Internal error')
      }
    },
    sessions: () => sessions.count(),
    async close() {
      // What the stateless handler serves is answered by its own end of a wait: nothing there outlives a request.
      await sessions.close()
    },
  }
}

async function serveSession(
  sessions: Sessions,
  session: Session | null,
  request: McpRequest,
  inbound: InboundRequest,
  authInfo: AuthInfo,
): Promise<Response> {
  if (inbound.method !== 'initialize') {
    if (session === null) return unknownSession(request.headers, inbound.id)
    return await session.serve(sdkRequest(request), inbound, authInfo)
  }
  if (session !== null)
    return problem(400, inbound.id, errorNumbers.invalidRequest, 'this session is initialized already')
  const opened = await sessions.open(request.caller, inbound.asserted)
  if (opened.kind === 'open') return await opened.session.serve(sdkRequest(request), inbound, authInfo)
  const full = problem(
    opened.whose === 'caller' ? 429 : 503,
    inbound.id,
    errorNumbers.refused,
    'too many sessions are open; end one with DELETE or try again later',
  )
  full.headers.set('retry-after', '30')
  return full
}

/**
 * What the SDK gets to see of the head: what it looks at and no more. The body goes beside it, parsed. Not the signal: a
 * wait that ends because the broker stops is still answered.
 */
function sdkRequest(request: McpRequest): Request {
  const headers = new Headers({ accept: 'application/json, text/event-stream', 'content-type': 'application/json' })
  for (const name of ['mcp-session-id', 'mcp-protocol-version', 'mcp-method', 'mcp-name']) {
    const value = request.headers.get(name)
    if (value !== undefined) headers.set(name, value)
  }
  return new Request(endpoint, { method: request.method, headers })
}

function unfitHead(headers: ReadonlyMap<string, string>): Response | null {
  const type = (headers.get('content-type') ?? '').split(';')[0]?.trim().toLowerCase()
  if (type !== 'application/json') return problem(415, null, errorNumbers.invalidRequest, 'send application/json')
  const accept = headers.get('accept')
  if (!accepts(accept, 'application/json') || !accepts(accept, 'text/event-stream'))
    return problem(406, null, errorNumbers.invalidRequest, 'accept both application/json and text/event-stream')
  return null
}

/** An absent Accept takes anything (RFC 9110 §12.5.1). */
function accepts(header: string | undefined, type: string): boolean {
  if (header === undefined) return true
  const group = `${type.split('/')[0] ?? ''}/*`
  const ranges = header.split(',').map((range) => range.split(';')[0]?.trim().toLowerCase())
  return ranges.some((range) => range === type || range === group || range === '*/*')
}

function isModern(headers: ReadonlyMap<string, string>): boolean {
  return /^20(?:2[6-9]|[3-9]\d)-\d\d-\d\d$/.test(headers.get('mcp-protocol-version') ?? '')
}

function assertedBy(caller: Caller, asserted: Asserted | null): Caller {
  return asserted === null ? caller : { ...caller, agent: { ...caller.agent, asserted } }
}

/** The stateless revision wants the status to say it too; a client of 2025 reads errors of a known request from a 200. */
function malformed(inbound: Extract<Inbound, { readonly kind: 'malformed' }>, modern: boolean): Response {
  const known =
    inbound.id !== null &&
    (inbound.number === errorNumbers.methodNotFound || inbound.number === errorNumbers.invalidParams)
  const status = !known ? 400 : !modern ? 200 : inbound.number === errorNumbers.methodNotFound ? 404 : 400
  return problem(status, inbound.id, inbound.number, inbound.text)
}

/** Whoever reads this is not the client that went: the broker stops. */
function busy(id: RequestId | null): Response {
  const answer = problem(503, id, errorNumbers.refused, 'this Writ is stopping')
  answer.headers.set('retry-after', '5')
  return answer
}

/** Somebody else's session and none at all look the same. */
function unknownSession(headers: ReadonlyMap<string, string>, id: RequestId | null): Response {
  return headers.has('mcp-session-id')
    ? problem(404, id, -32_001, 'Session not found')
    : problem(400, id, errorNumbers.invalidRequest, 'the Mcp-Session-Id header is missing; initialize first')
}

export function problem(
  status: number,
  id: RequestId | null,
  number: number,
  text: string,
  data?: JsonObject,
): Response {
  return Response.json(errorAnswer(id, number, text, data), { status })
}

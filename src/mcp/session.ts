import { randomBytes } from 'node:crypto'
import { WebStandardStreamableHTTPServerTransport } from '@modelcontextprotocol/server'
import type { AuthInfo, Server } from '@modelcontextprotocol/server'
import type { Caller } from '../request/caller.ts'
import { errorNumbers } from './message.ts'
import type { Asserted, InboundNotification, InboundRequest, RequestId } from './message.ts'
import { errorAnswer, harmless } from './refusal.ts'
import type { Log } from './refusal.ts'

export interface SessionLimits {
  /** Open sessions in all, and of one caller. */
  readonly sessions: number
  readonly sessionsPerCaller: number
  /** Milliseconds after which a session nobody used is forgotten. */
  readonly idleMs: number
}

/** A session of the 2025 revisions. It holds no authority: each of its requests is authenticated and decided anew. */
export interface Session {
  /** What the client said of itself when it was opened. */
  readonly asserted: Asserted | null
  serve(request: Request, inbound: InboundRequest, authInfo: AuthInfo): Promise<Response>
  notify(notification: InboundNotification): Response
  /** The stream a client may hold open; nothing is ever sent on it unasked. */
  listen(request: Request, gone: AbortSignal): Promise<Response>
  end(): Promise<Response>
}

export interface Sessions {
  /** Null for an unknown id and for another caller's alike. */
  find(id: string | undefined, caller: Caller): Session | null
  open(
    caller: Caller,
    asserted: Asserted | null,
  ): Promise<
    { readonly kind: 'open'; readonly session: Session } | { readonly kind: 'full'; readonly whose: 'caller' | 'all' }
  >
  count(): number
  close(): Promise<void>
}

interface Open extends Session {
  readonly id: string
  readonly owner: string
  readonly person: string
  usedMs: number
  /** Requests being served and streams held: while there are any, the session is in use. */
  readonly busy: () => boolean
  forget(): Promise<void>
  /** Ends it once what it is asked is answered. */
  finish(): Promise<void>
}

export function openSessions(options: {
  readonly make: () => Server
  readonly log: Log
  readonly keepAliveMs: number
  readonly limits: SessionLimits
}): Sessions {
  const { limits, log } = options
  const open = new Map<string, Open>()
  const sweep = setInterval(
    () => {
      const since = performance.now() - limits.idleMs
      for (const session of open.values()) if (!session.busy() && session.usedMs < since) void session.forget()
    },
    Math.min(30_000, limits.idleMs),
  )
  sweep.unref()

  /** Clients come back without having ended their last session; their own one longest unused makes room, nobody else's. */
  const makeRoom = async (person: string): Promise<boolean> => {
    const idle = [...open.values()].filter((session) => session.person === person && !session.busy())
    const oldest = idle.reduce<Open | null>(
      (found, one) => (found === null || one.usedMs < found.usedMs ? one : found),
      null,
    )
    await oldest?.forget()
    return oldest !== null
  }
  const countOf = (person: string): number => [...open.values()].filter((session) => session.person === person).length

  return {
    find(id, caller) {
      const session = id === undefined ? undefined : open.get(id)
      return session === undefined || session.owner !== ownerOf(caller) ? null : session
    },
    async open(caller, asserted) {
      const [owner, person] = [ownerOf(caller), personOf(caller)]
      if (countOf(person) >= limits.sessionsPerCaller && !(await makeRoom(person)))
        return { kind: 'full', whose: 'caller' }
      if (open.size >= limits.sessions && !(await makeRoom(person))) return { kind: 'full', whose: 'all' }
      const id = randomBytes(24).toString('base64url')
      const session = await connect({ ...options, id, owner, person, asserted, forgotten: () => void open.delete(id) })
      open.set(id, session)
      log.debug({ sessions: open.size }, 'an MCP session was opened')
      return { kind: 'open', session }
    },
    count: () => open.size,
    async close() {
      clearInterval(sweep)
      await Promise.all([...open.values()].map((session) => session.finish()))
    },
  }
}

/** Who a session belongs to: not one token, for an access token is replaced while a session lives. */
function ownerOf(caller: Caller): string {
  return JSON.stringify([caller.tenant, caller.subject.type, caller.subject.id, caller.agent.id])
}

/** Whose share a session is of: another agent, or a client registered anew, buys no second one. */
export function personOf({ tenant, subject }: Caller): string {
  return JSON.stringify([tenant, subject.type, subject.id])
}

async function connect(options: {
  readonly make: () => Server
  readonly log: Log
  readonly keepAliveMs: number
  readonly id: string
  readonly owner: string
  readonly person: string
  readonly asserted: Asserted | null
  readonly forgotten: () => void
}): Promise<Open> {
  const { id, log } = options
  const transport = new WebStandardStreamableHTTPServerTransport({
    sessionIdGenerator: () => id,
    keepAliveMs: options.keepAliveMs,
  })
  const pending = new Set<RequestId>()
  let streams = 0
  let opening: RequestId | null = null
  let drained: (() => void) | null = null
  const settle = (request: RequestId): void => {
    pending.delete(request)
    if (pending.size === 0) drained?.()
  }
  const send = transport.send.bind(transport)
  transport.send = async (message, extra) => {
    const answered = !('method' in message) && message.id !== undefined ? message.id : null
    try {
      await send(harmless(message, log) as typeof message, extra)
    } finally {
      if (answered !== null) settle(answered)
    }
  }
  const server = options.make()
  // eslint-disable-next-line unicorn/prefer-add-event-listener -- the SDK's server is no event target
  server.onerror = (error) => log.debug({ error: error.name }, 'the SDK reported an error')
  await server.connect(transport)

  const forget = async (): Promise<void> => {
    options.forgotten()
    await server.close()
  }
  const finish = async (): Promise<void> => {
    transport.closeStandaloneSSEStream()
    if (pending.size > 0) await new Promise<void>((resolve) => (drained = resolve))
    await forget()
  }
  const session: Open = {
    id,
    owner: options.owner,
    person: options.person,
    asserted: options.asserted,
    usedMs: performance.now(),
    busy: () => pending.size > 0 || streams > 0,
    forget,
    finish,
    async serve(request, inbound, authInfo) {
      session.usedMs = performance.now()
      if (pending.has(inbound.id))
        return answer(400, errorAnswer(null, errorNumbers.invalidRequest, '"id" is that of a request not yet answered'))
      if (inbound.method === 'initialize') opening = inbound.id
      pending.add(inbound.id)
      const response = await transport.handleRequest(request, { parsedBody: inbound.forward, authInfo })
      if (response.status !== 200) settle(inbound.id)
      return await readable(response, inbound.id)
    },
    notify(notification) {
      session.usedMs = performance.now()
      const { cancels } = notification
      if (cancels !== null && (!pending.has(cancels) || cancels === opening)) return new Response(null, { status: 202 })
      transport.onmessage?.(notification.forward as unknown as Parameters<NonNullable<typeof transport.onmessage>>[0])
      if (cancels !== null) {
        // Nothing is answered to what was cancelled, so the stream it would have come on ends.
        settle(cancels)
        transport.closeSSEStream(cancels)
      }
      return new Response(null, { status: 202 })
    },
    async listen(request, gone) {
      session.usedMs = performance.now()
      const response = await transport.handleRequest(request)
      if (response.status !== 200) return await readable(response, null)
      streams++
      gone.addEventListener(
        'abort',
        () => {
          streams--
          session.usedMs = performance.now()
        },
        { once: true },
      )
      return response
    },
    async end() {
      await forget()
      return new Response(null, { status: 200 })
    },
  }
  return session
}

/** Errors the SDK's transport answers itself repeat headers and thrown texts: they are said in Writ's words instead. */
async function readable(response: Response, id: RequestId | null): Promise<Response> {
  if (response.status < 400) return response
  await response.body?.cancel()
  const text =
    response.status === 409
      ? 'a stream of this session is open already'
      : response.status === 404
        ? 'Session not found'
        : 'the request does not fit this session: look at its MCP-Protocol-Version'
  return answer(response.status, errorAnswer(id, response.status === 404 ? -32_001 : errorNumbers.invalidRequest, text))
}

function answer(status: number, body: object): Response {
  return Response.json(body, { status })
}

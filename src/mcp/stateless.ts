import { PerRequestHTTPServerTransport } from '@modelcontextprotocol/server'
import type { AuthInfo, JSONRPCMessage, Server } from '@modelcontextprotocol/server'
import type { InboundRequest } from './message.ts'

/** The stateless revision whose calls one server of the SDK can serve side by side. */
export const statelessRevision = '2026-07-28'

type Answered = (answer: JSONRPCMessage | null) => void

/**
 * The way into one server of the SDK for all stateless calls, where the SDK would make a server, a transport and two web
 * objects for each. Nothing of a call stays with the server: a call is told from the others by a number of our own in place
 * of its id, and its caller rides along with it. The class it extends is what the SDK knows a stateless exchange by.
 */
class StatelessTransport extends PerRequestHTTPServerTransport {
  readonly #waiting = new Map<number, Answered>()
  #last = 0
  /** The call that is being given to the SDK, until it has taken it. */
  #given: number | null = null

  /** Null where the SDK refused the call before any code of ours ran. */
  async ask(forward: object, authInfo: AuthInfo): Promise<JSONRPCMessage | null> {
    const id = ++this.#last
    return await new Promise((resolve, reject) => {
      this.#waiting.set(id, resolve)
      this.#given = id
      try {
        this.onmessage?.({ ...forward, id } as JSONRPCMessage, {
          classification: { era: 'modern', revision: statelessRevision },
          authInfo,
        })
      } catch (error) {
        this.#waiting.delete(id)
        reject(error instanceof Error ? error : new Error('the SDK failed'))
      } finally {
        this.#given = null
      }
    })
  }

  /** Handlers begin after a call was given: what the SDK says before, or complains of, is its refusal. */
  refused(): void {
    if (this.#given !== null) this.#settle(this.#given, null)
  }

  #settle(id: number, answer: JSONRPCMessage | null): void {
    const answered = this.#waiting.get(id)
    this.#waiting.delete(id)
    answered?.(answer)
  }

  override send(message: JSONRPCMessage): Promise<void> {
    // Nobody who asked for progress is served here, so there is nothing but answers.
    if ('method' in message || typeof message.id !== 'number') return Promise.resolve()
    this.#settle(message.id, message.id === this.#given ? null : message)
    return Promise.resolve()
  }
}

/**
 * Serves calls of tools in the stateless revision. An answer is what the SDK's own handler answers with status 200; null
 * where that handler has to be asked.
 */
export interface Stateless {
  call(
    request: { readonly headers: ReadonlyMap<string, string> },
    inbound: InboundRequest,
    authInfo: AuthInfo,
  ): Promise<object | null>
}

/** `server` has to list `statelessRevision` among its protocol versions. */
export function openStateless(server: Server): Stateless {
  const transport = new StatelessTransport({ classification: { era: 'modern', revision: statelessRevision } })
  // A message it cannot make sense of it drops, and says so here.
  // eslint-disable-next-line unicorn/prefer-add-event-listener -- a server of the SDK is no event target
  server.onerror = () => transport.refused()
  void server.connect(transport)
  return {
    async call(request, inbound, authInfo) {
      if (!isPlainCall(request.headers, inbound)) return null
      const answer = await transport.ask(inbound.forward, authInfo)
      return answer === null ? null : { ...answer, id: inbound.id }
    },
  }
}

/**
 * A call of a tool whose head says what its body says and which wants nothing but one answer. All else, whether it is in
 * order or not, is for the SDK to judge.
 */
function isPlainCall(headers: ReadonlyMap<string, string>, { method, message, forward }: InboundRequest): boolean {
  if (method !== 'tools/call') return false
  const meta = (forward['params'] as { readonly _meta?: Readonly<Record<string, unknown>> })._meta
  return (
    meta !== undefined &&
    meta['io.modelcontextprotocol/protocolVersion'] === statelessRevision &&
    meta['progressToken'] === undefined &&
    headers.get('mcp-protocol-version') === statelessRevision &&
    headers.get('mcp-method') === method &&
    headers.get('mcp-name') === message.name
  )
}

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

  /** Null where the SDK refused the call before any code of ours ran. */
  async ask(forward: object, authInfo: AuthInfo): Promise<JSONRPCMessage | null> {
    const id = ++this.#last
    return await new Promise((resolve) => {
      let given = true
      this.#waiting.set(id, (answer) => resolve(given ? null : answer))
      this.onmessage?.({ ...forward, id } as JSONRPCMessage, {
        classification: { era: 'modern', revision: statelessRevision },
        authInfo,
      })
      // Handlers begin after this line: what was answered by now was answered by the SDK.
      given = false
    })
  }

  override send(message: JSONRPCMessage): Promise<void> {
    // Nobody who asked for progress is served here, so there is nothing but answers.
    if ('method' in message || typeof message.id !== 'number') return Promise.resolve()
    const answered = this.#waiting.get(message.id)
    this.#waiting.delete(message.id)
    answered?.(message)
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

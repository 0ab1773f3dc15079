import type { IncomingMessage, ServerResponse } from 'node:http'

/** What a browser is told on the answer to a page of a listed origin. */
export function allowPage(outgoing: ServerResponse, page: string): void {
  outgoing.setHeader('access-control-allow-origin', page)
  outgoing.setHeader('access-control-expose-headers', 'mcp-session-id, www-authenticate, retry-after')
  outgoing.setHeader('vary', 'origin')
}

/** The answer to a browser that asks before it sends what a page of a listed origin wants; null where it does not ask that. */
export function preflight(incoming: IncomingMessage, outgoing: ServerResponse): Response | null {
  if (incoming.headers['access-control-request-method'] === undefined) return null
  outgoing.setHeader('access-control-allow-methods', 'GET, POST, DELETE, PUT')
  outgoing.setHeader(
    'access-control-allow-headers',
    'authorization, content-type, accept, mcp-session-id, mcp-protocol-version, mcp-method, mcp-name, last-event-id',
  )
  outgoing.setHeader('access-control-max-age', '600')
  return new Response(null, { status: 204 })
}

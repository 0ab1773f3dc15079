import { Client as Client2, StreamableHTTPClientTransport as Transport2 } from '@modelcontextprotocol/client'
import { Client as Client1 } from '@modelcontextprotocol/sdk/client/index.js'
import { StreamableHTTPClientTransport as Transport1 } from '@modelcontextprotocol/sdk/client/streamableHttp.js'
import type { JsonObject } from '../../src/digest.ts'
import { type CallOutcome, outcomeOf, patient, resourceOf } from '../e2e/clients/driver.ts'

/** A real MCP client over HTTP, driven the same way whichever it is. */
export interface HttpClient {
  readonly version: () => string | null
  listTools(): Promise<readonly string[]>
  call(
    tool: string,
    args: JsonObject,
    options?: { readonly signal?: AbortSignal; readonly progress?: (text: string) => void },
  ): Promise<CallOutcome>
  readResource(uri: string): Promise<{ readonly text: string | null; readonly base64: string | null }>
  /** Ends the session, where there is one, and the connection. */
  close(): Promise<void>
}

type Fetch = (input: string | URL | Request, init?: RequestInit) => Promise<Response>
interface Where {
  readonly url: string
  readonly token: string
  readonly fetch?: Fetch
}

/** `@modelcontextprotocol/client` 2.x: `auto` asks for 2026-07-28 first, `legacy` is its default, a 2025 session. */
export async function client2(mode: 'auto' | 'legacy', where: Where): Promise<HttpClient> {
  const client = new Client2(
    { name: 'client2', version: '2' },
    mode === 'auto' ? { versionNegotiation: { mode: 'auto' } } : {},
  )
  const transport = new Transport2(new URL('/mcp', where.url), {
    requestInit: { headers: { authorization: `Bearer ${where.token}` } },
    ...(where.fetch === undefined ? {} : { fetch: where.fetch }),
  })
  await client.connect(transport)
  return patient({
    version: () => client.getNegotiatedProtocolVersion() ?? null,
    listTools: async () => (await client.listTools()).tools.map((tool) => tool.name),
    async call(name, args, options = {}) {
      const { signal, progress } = options
      const result = await client.callTool(
        { name, arguments: { ...args } },
        {
          timeout: 60_000,
          ...(signal === undefined ? {} : { signal }),
          ...(progress === undefined ? {} : { onprogress: (it) => progress(it.message ?? '') }),
        },
      )
      return outcomeOf(result as unknown as JsonObject)
    },
    readResource: async (uri) =>
      resourceOf((await client.readResource({ uri })).contents as unknown as readonly JsonObject[]),
    async close() {
      await transport.terminateSession()
      await client.close()
    },
  })
}

/** `@modelcontextprotocol/sdk` 1.x, the older official client. */
export async function sdk1(where: Where): Promise<HttpClient> {
  const client = new Client1({ name: 'sdk1', version: '1' })
  const transport = new Transport1(new URL('/mcp', where.url), {
    requestInit: { headers: { authorization: `Bearer ${where.token}` } },
    ...(where.fetch === undefined ? {} : { fetch: where.fetch }),
  })
  await client.connect(transport)
  return patient({
    version: () => transport.protocolVersion ?? null,
    listTools: async () => (await client.listTools()).tools.map((tool) => tool.name),
    async call(name, args, options = {}) {
      const { signal, progress } = options
      const result = await client.callTool({ name, arguments: { ...args } }, undefined, {
        timeout: 60_000,
        ...(signal === undefined ? {} : { signal }),
        ...(progress === undefined ? {} : { onprogress: (it) => progress(it.message ?? '') }),
      })
      return outcomeOf(result as unknown as JsonObject)
    },
    readResource: async (uri) =>
      resourceOf((await client.readResource({ uri })).contents as unknown as readonly JsonObject[]),
    async close() {
      await transport.terminateSession()
      await client.close()
    },
  })
}

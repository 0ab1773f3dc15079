import { onTestFinished } from 'vitest'
import type { Logger } from 'pino'
import { pino } from 'pino'
import { systemClock } from '../../src/clock.ts'
import type { JsonObject } from '../../src/digest.ts'
import { type HttpServer, serveHttp, type Timeouts } from '../../src/http/http.ts'
import { openIdentity } from '../../src/http/identity/identity.ts'
import type { OAuthSettings } from '../../src/http/identity/settings.ts'
import type { Tokens } from '../../src/http/identity/token.ts'
import { type HttpLimits, httpSchema, httpSettings } from '../../src/http/settings.ts'
import { openSqliteLedger } from '../../src/ledger/sqlite/sqlite.ts'
import { openMcpHttp } from '../../src/mcp/http.ts'
import type { Broker } from '../../src/broker.ts'
import { folder } from '../ledger/folder.ts'
import { testSigner } from '../ledger/sample.ts'
import { memoryBroker } from '../mcp/memory-broker.ts'

export interface Edge {
  readonly http: HttpServer
  readonly url: string
  readonly broker: ReturnType<typeof memoryBroker>
  readonly tokens: Tokens
  readonly log: readonly JsonObject[]
  token(subject?: string, agent?: string, validMs?: number): Promise<string>
}

/** The edge with real identities over the broker that is kept in memory; gone when the test ends. */
export async function openEdge(
  options: {
    readonly http?: object
    readonly limits?: Partial<HttpLimits>
    readonly timeouts?: Partial<Timeouts>
    readonly sessionIdleMs?: number
    readonly broker?: ReturnType<typeof memoryBroker>
    readonly admit?: Broker['admit']
    readonly oauth?: OAuthSettings
  } = {},
): Promise<Edge> {
  const lines: JsonObject[] = []
  const log: Logger = pino(
    { level: 'debug' },
    { write: (line: string) => void lines.push(JSON.parse(line) as JsonObject) },
  )
  const ledger = openSqliteLedger({ path: `${folder()}/ledger.db`, signer: testSigner(), clock: systemClock })
  const identity = openIdentity({ ledger, clock: systemClock, log, oauth: options.oauth ?? null })
  const broker = options.broker ?? memoryBroker()
  const settings = httpSettings(
    httpSchema.parse({ ...options.http, limits: options.limits ?? {} }),
    { host: '127.0.0.1', port: 0 },
    { resolve: (path) => path, fail: (key, message) => new Error(`${key}: ${message}`) },
  )
  const mcp = openMcpHttp({
    broker: options.admit === undefined ? broker : { ...broker, admit: options.admit },
    log,
    limits: {
      sessions: settings.limits.sessions,
      sessionsPerCaller: settings.limits.sessions_per_caller,
      idleMs: options.sessionIdleMs ?? 60_000,
    },
  })
  const http = await serveHttp({
    settings,
    authenticate: identity.authenticate,
    mcp,
    transfers: null,
    wellKnown: () => null,
    keys: { jwt: '', jwks: () => ({ keys: [] }) },
    ready: () => Promise.resolve({ ready: true, unavailable: ['engine'] }),
    now: () => Date.now(),
    gauges: { writ_waits: { help: 'Calls that wait', read: () => 3 } },
    log,
    timeouts: options.timeouts ?? {},
  })
  onTestFinished(async () => {
    await http.close()
    ledger.close()
  })
  return {
    http,
    url: http.url,
    broker,
    tokens: identity.tokens,
    log: lines,
    async token(subject = 'ada', agent = 'agent', validMs = 3_600_000) {
      const made = await identity.tokens.create({
        tenant: 'default',
        subject: { type: 'user', id: subject },
        agent,
        roles: ['developer'],
        valid_ms: validMs,
      })
      return made.token
    },
  }
}

/** One message over HTTP as a plain client sends it. */
export async function post(
  url: string,
  token: string,
  message: object | string,
  headers: Readonly<Record<string, string>> = {},
  signal?: AbortSignal,
): Promise<Response> {
  return await fetch(`${url}/mcp`, {
    method: 'POST',
    headers: {
      authorization: `Bearer ${token}`,
      'content-type': 'application/json',
      accept: 'application/json, text/event-stream',
      ...headers,
    },
    body: typeof message === 'string' ? message : JSON.stringify(message),
    ...(signal === undefined ? {} : { signal }),
  })
}

/** The messages of an answer, whether it came as JSON or as a stream of events. */
export async function messagesOf(response: Response): Promise<readonly JsonObject[]> {
  const text = await response.text()
  if (!(response.headers.get('content-type') ?? '').startsWith('text/event-stream'))
    return [JSON.parse(text) as JsonObject]
  return text
    .split('\n')
    .filter((line) => line.startsWith('data: '))
    .map((line) => JSON.parse(line.slice(6)) as JsonObject)
}

export const initialize = {
  jsonrpc: '2.0',
  id: 0,
  method: 'initialize',
  params: { protocolVersion: '2025-11-25', capabilities: {}, clientInfo: { name: 'raw', version: '1' } },
}

/** Opens a session of the 2025 revisions and says so, as a client does. */
export async function openSession(url: string, token: string): Promise<string> {
  const opened = await post(url, token, initialize)
  const id = opened.headers.get('mcp-session-id')
  await opened.text()
  if (id === null) throw new Error(`no session: ${String(opened.status)}`)
  await post(url, token, { jsonrpc: '2.0', method: 'notifications/initialized' }, { 'mcp-session-id': id })
  return id
}

export function call(id: number, tool: string, args: JsonObject, meta: JsonObject = {}): object {
  return { jsonrpc: '2.0', id, method: 'tools/call', params: { name: tool, arguments: args, _meta: meta } }
}

/** The same in the stateless revision; its headers go beside it. */
export function statelessCall(id: number, tool: string, args: JsonObject, meta: JsonObject = {}): object {
  return call(id, tool, args, {
    'io.modelcontextprotocol/protocolVersion': '2026-07-28',
    'io.modelcontextprotocol/clientInfo': { name: 'raw', version: '1' },
    'io.modelcontextprotocol/clientCapabilities': {},
    ...meta,
  })
}

export function statelessHeaders(tool: string): Readonly<Record<string, string>> {
  return { 'mcp-protocol-version': '2026-07-28', 'mcp-method': 'tools/call', 'mcp-name': tool }
}

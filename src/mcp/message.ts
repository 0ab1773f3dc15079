import type { Message } from '../broker.ts'
import type { Json, JsonObject } from '../digest.ts'
import { WritError } from '../error.ts'
import { parseIJson } from '../json.ts'
import { plainLine } from './neutral.ts'
import { maxMessageBytes, parseRequestId, requestIdIn, type RequestId } from './request-id.ts'

export type { RequestId } from './request-id.ts'

const maxDepth = 64

/** JSON-RPC 2.0 §5.1, and one of ours: −32000 to −32019 are the implementation's, what follows belongs to MCP. */
export const errorNumbers = {
  parse: -32700,
  invalidRequest: -32600,
  methodNotFound: -32601,
  invalidParams: -32602,
  internal: -32603,
  /** A request that policy refused and that has no result shape to say so in. */
  refused: -32010,
} as const

export const requestMethods = [
  'initialize',
  'ping',
  'server/discover',
  'tools/list',
  'tools/call',
  'resources/list',
  'resources/templates/list',
  'resources/read',
] as const
export const notificationMethods = ['notifications/initialized', 'notifications/cancelled'] as const
export type RequestMethod = (typeof requestMethods)[number]
export type NotificationMethod = (typeof notificationMethods)[number]

/** What a client says of itself. */
export interface Asserted {
  readonly client: string
  readonly version: string
}

export interface InboundRequest {
  readonly kind: 'request'
  readonly id: RequestId
  readonly method: RequestMethod
  /** What policy decides: a tool's name and arguments for `tools/call`, else the method and its parameters. */
  readonly message: Message
  readonly asserted: Asserted | null
  /** Whether the request carries the envelope of the stateless revisions (2026-07-28 and later). */
  readonly stateless: boolean
  /** Rebuilt from the checked fields; nothing else of what came goes on. */
  readonly forward: JsonObject
}

export interface InboundNotification {
  readonly kind: 'notification'
  readonly method: NotificationMethod
  readonly message: Message
  /** The request a `notifications/cancelled` is about. */
  readonly cancels: RequestId | null
  readonly forward: JsonObject
}

export type Inbound =
  | InboundRequest
  | InboundNotification
  /** Responses (we ask clients nothing) and notifications outside the closed list: dropped, as JSON-RPC wants. */
  | { readonly kind: 'ignored' }
  | { readonly kind: 'malformed'; readonly id: RequestId | null; readonly number: number; readonly text: string }

/**
 * Reads one line of a connection: I-JSON, then JSON-RPC, then the closed list of methods and the shape of their
 * parameters. Never throws; what it cannot read comes back as `malformed` with a text that repeats nothing of the input
 * but a name, made harmless, and the id of the request, where the line has one and only one.
 */
export function readMessage(line: Uint8Array): Inbound {
  let value: Json
  try {
    value = parseIJson(line, { maxBytes: maxMessageBytes, maxDepth, refuseProto: true })
  } catch (error) {
    if (!(error instanceof WritError)) throw error
    return malformed(requestIdIn(line), errorNumbers.parse, error.message)
  }
  if (Array.isArray(value))
    return malformed(null, errorNumbers.invalidRequest, 'batches are not served; send one message per line')
  if (!isObject(value)) return malformed(null, errorNumbers.invalidRequest, 'a message is a JSON object')
  return readEnvelope(value)
}

function readEnvelope(value: JsonObject): Inbound {
  const hasId = 'id' in value
  const id = hasId ? parseRequestId(value['id']) : null
  if (hasId && id === null) {
    return malformed(
      null,
      errorNumbers.invalidRequest,
      '"id" must be a string of at most 128 characters or an integer within ±(2^53−1)',
    )
  }
  if (value['jsonrpc'] !== '2.0') return malformed(id, errorNumbers.invalidRequest, '"jsonrpc" must be "2.0"')
  if (!('method' in value)) {
    if ('result' in value || 'error' in value) return { kind: 'ignored' }
    return malformed(id, errorNumbers.invalidRequest, '"method" is missing')
  }
  for (const key of Object.keys(value)) {
    if (key !== 'jsonrpc' && key !== 'id' && key !== 'method' && key !== 'params') {
      return malformed(
        id,
        errorNumbers.invalidRequest,
        `unknown member "${plainLine(key, 40)}"; a request has jsonrpc, id, method and params`,
      )
    }
  }
  const method = value['method']
  if (typeof method !== 'string') return malformed(id, errorNumbers.invalidRequest, '"method" must be a string')
  const params = 'params' in value ? value['params'] : {}
  if (!isObject(params)) return malformed(id, errorNumbers.invalidRequest, '"params" must be an object')
  const meta = params['_meta']
  if (meta !== undefined && !isObject(meta))
    return malformed(id, errorNumbers.invalidParams, '"params._meta" must be an object')
  if (id === null) return readNotification(method, params)
  return readRequest(id, method, params, meta ?? {})
}

function readRequest(id: RequestId, method: string, params: JsonObject, meta: JsonObject): Inbound {
  if (!isOneOf(requestMethods, method)) {
    return malformed(id, errorNumbers.methodNotFound, `unknown method "${plainLine(method, 60)}"`)
  }
  const token = meta['progressToken']
  if (token !== undefined && parseRequestId(token) === null) {
    return malformed(id, errorNumbers.invalidParams, '"params._meta.progressToken" must be a string or an integer')
  }
  // No tasks of MCP are served, but what the SDK cannot read it drops, and the request would go without an answer.
  const task = meta['io.modelcontextprotocol/related-task']
  if (task !== undefined && !(isObject(task) && typeof task['taskId'] === 'string'))
    return malformed(id, errorNumbers.invalidParams, '"params._meta" names a related task that is none')
  const read = readParams(method, params)
  if ('wrong' in read) return malformed(id, errorNumbers.invalidParams, read.wrong)
  const info = method === 'initialize' ? params['clientInfo'] : meta['io.modelcontextprotocol/clientInfo']
  return {
    kind: 'request',
    id,
    method,
    message: read.message,
    asserted: assertedBy(info),
    stateless: 'io.modelcontextprotocol/protocolVersion' in meta,
    forward: {
      jsonrpc: '2.0',
      id,
      method,
      params: 'kept' in read && '_meta' in params ? { ...read.kept, _meta: meta } : read.kept,
    },
  }
}

type Params = { readonly message: Message; readonly kept: JsonObject } | { readonly wrong: string }

/** Keeps the parameters a method is known to have. Unknown ones are left behind here, as the revisions ask. */
function readParams(method: RequestMethod, params: JsonObject): Params {
  switch (method) {
    case 'tools/call': {
      const name = params['name']
      if (typeof name !== 'string' || name === '') return { wrong: '"params.name" must be the name of a tool' }
      const args = params['arguments'] ?? {}
      if (!isObject(args) || params['arguments'] === null) return { wrong: '"params.arguments" must be an object' }
      return { message: { name, arguments: args }, kept: { name, arguments: args } }
    }
    case 'resources/read': {
      const uri = params['uri']
      if (typeof uri !== 'string' || uri === '' || uri.length > 4096) {
        return { wrong: '"params.uri" must be a URI of at most 4096 characters' }
      }
      return { message: { name: method, arguments: { uri } }, kept: { uri } }
    }
    case 'initialize': {
      const { protocolVersion, capabilities, clientInfo } = params
      if (typeof protocolVersion !== 'string' || protocolVersion.length > 64) {
        return { wrong: '"params.protocolVersion" must be a string' }
      }
      if (!isObject(capabilities)) return { wrong: '"params.capabilities" must be an object' }
      const asserted = assertedBy(clientInfo)
      if (asserted === null) return { wrong: '"params.clientInfo" must have a name and a version' }
      // Capabilities of a client change nothing here: no request is ever sent to one.
      return {
        message: {
          name: method,
          arguments: { protocolVersion, clientInfo: { name: asserted.client, version: asserted.version } },
        },
        kept: { protocolVersion, capabilities: {}, clientInfo: { name: asserted.client, version: asserted.version } },
      }
    }
    case 'tools/list':
    case 'resources/list':
    case 'resources/templates/list':
      // One page holds everything, so no cursor was ever given out.
      if (params['cursor'] !== undefined) return { wrong: '"params.cursor" is not one this server gave' }
      return { message: { name: method, arguments: {} }, kept: {} }
    case 'ping':
    case 'server/discover':
      return { message: { name: method, arguments: {} }, kept: {} }
  }
}

function readNotification(method: string, params: JsonObject): Inbound {
  if (!isOneOf(notificationMethods, method)) return { kind: 'ignored' }
  const cancels = method === 'notifications/cancelled' ? parseRequestId(params['requestId']) : null
  if (method === 'notifications/cancelled' && cancels === null) return { kind: 'ignored' }
  const kept: JsonObject = cancels === null ? {} : { requestId: cancels }
  return {
    kind: 'notification',
    method,
    message: { name: method, arguments: kept },
    cancels,
    forward: { jsonrpc: '2.0', method, params: kept },
  }
}

function assertedBy(info: Json | undefined): Asserted | null {
  if (!isObject(info)) return null
  const { name, version } = info
  if (typeof name !== 'string' || typeof version !== 'string') return null
  return { client: plainLine(name, 128), version: plainLine(version, 64) }
}

export function isObject(value: Json | undefined): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function isOneOf<T extends string>(list: readonly T[], text: string): text is T {
  return (list as readonly string[]).includes(text)
}

function malformed(id: RequestId | null, number: number, text: string): Inbound {
  return { kind: 'malformed', id, number, text }
}

import type { Admission, Broker, Message } from '../broker.ts'
import type { JsonObject } from '../digest.ts'
import { WritError } from '../error.ts'
import type { ErrorCode } from '../error.ts'
import { sentences } from '../execution/result.ts'
import { newId } from '../id.ts'
import type { Reason } from '../policy/policy.ts'
import type { Caller } from '../request/caller.ts'
import { toolNames } from '../request/call.ts'
import { errorNumbers } from './message.ts'
import type { InboundRequest, RequestId } from './message.ts'
import { nearest } from './nearest.ts'
import { plainLine } from './neutral.ts'
import { presentError } from './present.ts'
import { isToolName } from './tools.ts'

/** The operator's log; pino's logger is one. */
export interface Log {
  debug(fields: object, text: string): void
  info(fields: object, text: string): void
  warn(fields: object, text: string): void
}

export const serverInfo = { name: 'writ', version: '0.1.0' } as const

/** Asks the broker. What could not be decided is refused; never rejects. */
export async function decide(admit: Broker['admit'], caller: Caller, message: Message, log: Log): Promise<Admission> {
  try {
    return await admit(caller, message)
  } catch (error) {
    log.warn({ error: error instanceof Error ? error.message : 'unknown' }, 'a decision failed')
    return {
      allowed: false,
      reason: edgeReason('internal', 'This request could not be decided, so it is refused.', log),
    }
  }
}

/** The reason where a call names no tool there is; null where it names one, and for every other method. */
export function unknownTool(request: InboundRequest, log: Log): Reason | null {
  const { name } = request.message
  if (request.method !== 'tools/call' || isToolName(name)) return null
  const near = nearest(name, toolNames)
  const text = `There is no tool "${plainLine(name, 40)}"${near === null ? '' : `; did you mean "${near}"?`}`
  return edgeReason('unknown_tool', text, log)
}

/** The answer to a refused request: a result for a tool's call, an error of the protocol for what has no such shape. */
export function refusalAnswer(request: InboundRequest, reason: Reason): object {
  if (request.method !== 'tools/call') {
    const text = `${sentences(reason)} (ref ${reason.ref})`
    return errorAnswer(request.id, errorNumbers.refused, plainLine(text, 1000), { ...reason })
  }
  // The stateless revisions want these two of every result; the SDK adds them to what passes through it.
  const stamp = request.stateless
    ? { resultType: 'complete', _meta: { 'io.modelcontextprotocol/serverInfo': serverInfo } }
    : {}
  return { jsonrpc: '2.0', id: request.id, result: { ...presentError(reason, request.message), ...stamp } }
}

/** What is refused here costs a client nothing and would fill the disk: so many a minute are logged, then how many came. */
const mostLogged = 100
const refusals = { since: Number.NEGATIVE_INFINITY, count: 0 }

function mayLog(log: Log): boolean {
  const now = performance.now()
  if (now - refusals.since >= 60_000) {
    if (refusals.count > mostLogged)
      log.info({ count: refusals.count - mostLogged }, 'more was refused at the MCP edge than is logged one by one')
    refusals.since = now
    refusals.count = 0
  }
  return ++refusals.count <= mostLogged
}

/** A refusal made at this edge, under a reference that stands in the operator's log unless there is a flood of them. */
export function edgeReason(code: ErrorCode, message: string, log: Log): Reason {
  const ref = newId('dec')
  if (mayLog(log)) log.info({ ref, code, message }, 'refused at the MCP edge')
  return { code, message, remedy: new WritError(code, message).remedy, ref }
}

export function errorAnswer(id: RequestId | null, code: number, message: string, data?: JsonObject): object {
  return { jsonrpc: '2.0', id, error: { code, message, ...(data === undefined ? {} : { data }) } }
}

/** What the SDK sends, with error texts made harmless: its own may repeat what a client sent, or say how Writ is made. */
export function harmless<T extends object>(message: T, log: Log): T | object {
  if (!('error' in message) || !('id' in message)) return message
  const { id, error } = message as unknown as {
    readonly id: RequestId
    readonly error: { code: number; message: string }
  }
  if (error.code !== errorNumbers.internal)
    return { ...message, error: { ...error, message: plainLine(error.message, 500) } }
  const ref = newId('dec')
  log.warn({ ref, text: plainLine(error.message, 500) }, 'the SDK failed a request')
  return errorAnswer(id, errorNumbers.internal, `Internal error (ref ${ref})`)
}

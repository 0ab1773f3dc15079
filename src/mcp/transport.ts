import type { Duplex } from 'node:stream'
import type { JSONRPCMessage, Transport } from '@modelcontextprotocol/server'
import type { Admission, Broker, Message } from '../broker.ts'
import type { Reason } from '../policy/policy.ts'
import type { Caller } from '../request/caller.ts'
import { errorNumbers, readMessage } from './message.ts'
import type { InboundNotification, InboundRequest } from './message.ts'
import { decide, errorAnswer, harmless, refusalAnswer, unknownTool } from './refusal.ts'
import type { Log } from './refusal.ts'
import { maxMessageBytes, type RequestId } from './request-id.ts'

/** Requests of one connection that may be unanswered at once; more are left in the socket. */
const inFlightMax = 64
/** Bytes of unanswered requests beyond which no further one is read: what a connection can make the broker hold. */
const heldBytesMax = 8 * 1024 * 1024
/** Time a peer has to read the last answer of a connection that is being closed. */
const lingerMs = 1000

interface Pending {
  readonly request: InboundRequest
  readonly caller: Caller
  readonly bytes: number
}

/**
 * The way from a socket into the SDK: each line is parsed strictly, decided by the broker, and only then handed on; in
 * the order in which it came. What is malformed, unknown or refused is answered here and never gets further. Each
 * request is answered at most once, and exactly once unless its client cancelled it or the connection ended.
 */
export class GatedTransport implements Transport {
  onclose?: () => void
  onerror?: (error: Error) => void
  onmessage?: (message: JSONRPCMessage) => void

  readonly #socket: Duplex
  readonly #admit: Broker['admit']
  readonly #log: Log
  readonly #callerNow: () => Caller
  /** What the client says of itself since it said so. */
  #asserted: Caller['agent']['asserted'] | null = null
  readonly #pending = new Map<RequestId, Pending>()
  #pendingBytes = 0
  /** Notifications being decided; a request being decided is among the pending ones. */
  #notes = 0
  #tail: Promise<void> = Promise.resolve()
  #chunks: Buffer[] = []
  #held = 0
  #state: 'new' | 'open' | 'draining' | 'closed' = 'new'

  readonly #ended = Promise.withResolvers<void>()
  /** Resolves when the connection has ended, from whichever side. */
  readonly closed: Promise<void> = this.#ended.promise

  constructor(options: {
    readonly socket: Duplex
    /** Asked for each message: roles that the operator took away count no longer for the next one. */
    readonly caller: () => Caller
    readonly admit: Broker['admit']
    readonly log: Log
  }) {
    this.#socket = options.socket
    this.#callerNow = options.caller
    this.#admit = options.admit
    this.#log = options.log
  }

  get inFlight(): number {
    return this.#pending.size
  }

  /** Who sent the request that is being served; null once it was answered or cancelled. */
  callerOf(id: RequestId): Caller | null {
    return this.#pending.get(id)?.caller ?? null
  }

  start(): Promise<void> {
    this.#state = 'open'
    this.#socket.on('data', (chunk: Buffer) => this.#receive(chunk))
    this.#socket.on('drain', () => this.#readOn())
    this.#socket.on('end', () => this.#finish())
    this.#socket.on('close', () => this.#finish())
    this.#socket.on('error', (error: Error) => {
      this.#log.debug({ error: error.name }, 'an MCP connection broke')
      this.#finish()
    })
    return Promise.resolve()
  }

  /** Takes what the SDK sends. An answer nobody waits for any more is dropped. */
  send(message: JSONRPCMessage): Promise<void> {
    if ('method' in message) {
      // Only progress is ever sent unasked: a reader too slow for it does not get it.
      if (!this.#socket.writableNeedDrain) this.#write(message)
      return Promise.resolve()
    }
    if (message.id === undefined || !this.#settle(message.id)) return Promise.resolve()
    this.#write(harmless(message, this.#log))
    return Promise.resolve()
  }

  close(): Promise<void> {
    this.#finish()
    return Promise.resolve()
  }

  #receive(chunk: Buffer): void {
    if (this.#state !== 'open') return
    this.#chunks.push(chunk)
    this.#held += chunk.length
    if (chunk.includes(10)) this.#readOn()
    else this.#refuseOversize()
  }

  /** Reads the lines held, as long as there is room for more requests and the peer takes its answers. */
  #readOn(): void {
    if (this.#state !== 'open') return
    let buffer = this.#chunks.length === 1 ? (this.#chunks[0] ?? Buffer.alloc(0)) : Buffer.concat(this.#chunks)
    for (;;) {
      if (!this.#hasRoom()) {
        this.#socket.pause()
        break
      }
      const end = buffer.indexOf(10)
      if (end < 0) {
        this.#socket.resume()
        break
      }
      const line = buffer.subarray(0, end)
      buffer = buffer.subarray(end + 1)
      if (!isBlank(line)) this.#accept(line)
    }
    this.#chunks = buffer.length === 0 ? [] : [buffer]
    this.#held = buffer.length
    this.#refuseOversize()
  }

  #hasRoom(): boolean {
    const held = this.#pending.size + this.#notes < inFlightMax && this.#pendingBytes < heldBytesMax
    return held && !this.#socket.writableNeedDrain
  }

  /** A line longer than any message may be, and no end in sight: the only thing that costs a client its connection. */
  #refuseOversize(): void {
    if (this.#held <= maxMessageBytes || this.#chunks.some((chunk) => chunk.includes(10))) return
    this.#chunks = []
    this.#held = 0
    this.#write(
      errorAnswer(
        null,
        errorNumbers.invalidRequest,
        `a message is at most ${maxMessageBytes} bytes; this connection is closed`,
      ),
    )
    this.#state = 'draining'
    // Input is read and forgotten meanwhile: closing on unread bytes would cost the peer the answer.
    this.#socket.resume()
    this.#socket.end()
    setTimeout(() => this.#finish(), lingerMs).unref()
  }

  #accept(line: Uint8Array): void {
    const inbound = readMessage(line)
    switch (inbound.kind) {
      case 'ignored':
        return
      case 'malformed':
        // An id that is being served keeps its one answer.
        this.#write(
          errorAnswer(
            inbound.id !== null && this.#pending.has(inbound.id) ? null : inbound.id,
            inbound.number,
            inbound.text,
          ),
        )
        return
      case 'request':
        return this.#acceptRequest(inbound, line.byteLength)
      case 'notification':
        if (inbound.cancels !== null && !this.#pending.has(inbound.cancels)) return
        this.#notes++
        return this.#decide(this.#caller(), inbound.message, (admission) => {
          this.#notes--
          this.#passNotification(inbound, admission)
        })
    }
  }

  #acceptRequest(request: InboundRequest, bytes: number): void {
    if (this.#pending.has(request.id)) {
      this.#write(errorAnswer(null, errorNumbers.invalidRequest, '"id" is that of a request not yet answered'))
      return
    }
    if (request.asserted !== null) this.#asserted = request.asserted
    const caller = this.#caller()
    this.#pending.set(request.id, { request, caller, bytes })
    this.#pendingBytes += bytes
    const unknown = unknownTool(request, this.#log)
    if (unknown !== null) {
      this.#refuse(request, unknown)
      return
    }
    this.#decide(caller, request.message, (admission) => {
      if (!admission.allowed) this.#refuse(request, admission.reason)
      else if (this.#pending.get(request.id)?.request === request)
        this.onmessage?.(request.forward as unknown as JSONRPCMessage)
    })
  }

  #caller(): Caller {
    const caller = this.#callerNow()
    return this.#asserted === null ? caller : { ...caller, agent: { ...caller.agent, asserted: this.#asserted } }
  }

  #passNotification(notification: InboundNotification, admission: Admission): void {
    if (!admission.allowed) return
    const { cancels } = notification
    if (cancels !== null) {
      const pending = this.#pending.get(cancels)
      // MCP: `initialize` is not cancelled. A request answered meanwhile is not either.
      if (pending === undefined || pending.request.method === 'initialize') return
      this.#settle(cancels)
    }
    this.onmessage?.(notification.forward as unknown as JSONRPCMessage)
  }

  /** Asks the broker at once and acts on its answer in turn, so that order is kept and no decision waits for another. */
  #decide(caller: Caller, message: Message, act: (admission: Admission) => void): void {
    const asked = decide(this.#admit, caller, message, this.#log)
    this.#tail = this.#tail.then(async () => {
      const admission = await asked
      if (this.#state === 'open') act(admission)
      if (this.#chunks.length > 0) this.#readOn()
    })
    this.#tail = this.#tail.catch((error: unknown) => {
      this.#log.warn(
        { error: error instanceof Error ? error.message : 'unknown' },
        'an MCP message could not be passed on',
      )
    })
  }

  #refuse(request: InboundRequest, reason: Reason): void {
    if (this.#pending.get(request.id)?.request !== request || !this.#settle(request.id)) return
    this.#write(refusalAnswer(request, reason))
  }

  /** True for the one caller that may answer. */
  #settle(id: RequestId): boolean {
    const pending = this.#pending.get(id)
    if (pending === undefined) return false
    this.#pending.delete(id)
    this.#pendingBytes -= pending.bytes
    if (this.#chunks.length > 0 || this.#socket.isPaused()) queueMicrotask(() => this.#readOn())
    return true
  }

  #write(message: object): void {
    if (this.#state !== 'open' || this.#socket.destroyed || this.#socket.writableEnded) return
    this.#socket.write(`${JSON.stringify(message)}\n`)
  }

  #finish(): void {
    if (this.#state === 'closed') return
    this.#state = 'closed'
    this.#pending.clear()
    this.#chunks = []
    this.#held = 0
    if (!this.#socket.writableEnded) this.#socket.end()
    this.#socket.resume()
    setTimeout(() => this.#socket.destroy(), lingerMs).unref()
    this.onclose?.()
    this.#ended.resolve()
  }
}

function isBlank(line: Uint8Array): boolean {
  return line.every((byte) => byte === 13 || byte === 32 || byte === 9)
}

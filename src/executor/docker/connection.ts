import type { IncomingMessage } from 'node:http'
import { Duplex } from 'node:stream'
import { maxData, windowBytes } from './frame.ts'

/** What is sent to the agent about a connection; nothing where it is over. The wire keeps numbers and windows. */
export interface ConnectionFrames {
  data(connection: number, bytes: Uint8Array): void
  end(connection: number): void
  reset(connection: number): void
  window(connection: number, bytes: number): void
  /** Bytes that may be sent now. */
  room(connection: number): number
}

/** Bytes that are read before the agent is told that it may send as much again. */
const tellAt = windowBytes / 4
/** Bytes that are read at once, and of one connection before others have their turn. */
const sliceBytes = 16_384
const headEnd = '\r\n\r\n'

/**
 * One connection as a stream: holds no more of either direction than one window. What comes is read request by request,
 * so that nobody makes Node hold a thousand of them by sending them before the first is answered: after the end of a head
 * nothing is read until its request says `reads`, beyond its body nothing until `answered`.
 */
export class Connection extends Duplex {
  readonly #number: number
  readonly #send: ConnectionFrames
  /** What came and was not read. */
  readonly #held = new Held()
  /** What was read without telling the agent yet. */
  #untold = 0
  /** Bytes read since others had their turn. */
  #burst = 0
  /** The request that was read last, until it is answered. */
  #request: IncomingMessage | null = null
  /** Bytes of its body that are still to come; null where that is not known. */
  #bodyLeft: number | null = null
  #reading = false
  /** What waits for room. */
  #waiting: { bytes: Buffer; readonly done: () => void } | null = null
  #ended = false
  #abandoned = false

  constructor(number: number, send: ConnectionFrames) {
    super({ allowHalfOpen: true, readableHighWaterMark: 65_536 })
    this.#number = number
    this.#send = send
    this.on('error', () => undefined)
    // Node has it pause while it holds many answers; what it reads then it reads right after this event.
    this.on('resume', () => setImmediate(() => this.#feed()))
  }

  arrive(bytes: Uint8Array): void {
    this.#held.add(bytes)
    this.#feed()
  }

  /** The agent sends no more. Whoever ends like that waits for no answer: what was not read is let go of. */
  finish(): void {
    this.#held.clear()
    this.push(null)
  }

  /** Ends it without telling the agent, which knows. */
  abandon(): void {
    this.#abandoned = true
    this.destroy()
  }

  /** A request was read as far as its head. */
  asked(request: IncomingMessage): void {
    this.#request = request
    this.#reading = false
    const length = request.headers['content-length']
    this.#bodyLeft = length === undefined || !/^\d{1,15}$/.test(length) ? null : Number(length)
  }

  /** The body of that request is wanted. */
  reads(request: IncomingMessage): void {
    if (request !== this.#request) return
    this.#reading = true
    this.#feed()
  }

  answered(request: IncomingMessage): void {
    if (request !== this.#request) return
    this.#request = null
    // Later: what one connection sent ahead must not keep all others waiting until it is answered.
    if (this.#held.size > 0) setImmediate(() => this.#feed())
  }

  /** There is more room than before. */
  pump(): void {
    for (let room = 0; this.#waiting !== null && (room = this.#send.room(this.#number)) > 0;) {
      const waiting = this.#waiting
      const part = waiting.bytes.subarray(0, Math.min(room, maxData))
      waiting.bytes = waiting.bytes.subarray(part.length)
      if (part.length > 0) this.#send.data(this.#number, part)
      if (waiting.bytes.length > 0) continue
      this.#waiting = null
      waiting.done()
    }
  }

  /** Hands on what may be read now, one slice at a time: the next only when whoever reads has taken the one before. */
  #feed(): void {
    while (this.#held.size > 0 && this.readableLength === 0 && !this.destroyed && !this.readableEnded) {
      if (this.#request !== null && (!this.#reading || this.#request.complete)) return
      if (this.#burst >= sliceBytes) return
      // Chunks end like a head does.
      const left = this.#request === null ? null : this.#bodyLeft
      const slice = left === null ? this.#held.take(sliceBytes, headEnd) : this.#held.take(Math.min(sliceBytes, left))
      if (left !== null) this.#bodyLeft = left - slice.length
      if (slice.length === 0) return
      if (this.#burst === 0)
        setImmediate(() => {
          this.#burst = 0
          this.#feed()
        })
      this.#burst += slice.length
      this.#untold += slice.length
      this.push(slice)
      this.#tell()
    }
  }

  #tell(): void {
    if (this.#untold < tellAt || this.#abandoned) return
    this.#send.window(this.#number, this.#untold)
    this.#untold = 0
  }

  override _read(): void {
    this.#feed()
  }

  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    this.#waiting = { bytes: chunk, done }
    this.pump()
  }

  override _final(done: () => void): void {
    this.#ended = true
    if (!this.#abandoned) this.#send.end(this.#number)
    done()
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    this.#held.clear()
    this.#waiting = null
    if (!this.#abandoned && !(this.#ended && this.readableEnded)) this.#send.reset(this.#number)
    this.#abandoned = true
    done(error)
  }
}

/** Bytes in the order they came, at the cost of their number and not of their pieces': a piece may be a single byte. */
class Held {
  #bytes = Buffer.alloc(0)
  #from = 0
  #to = 0

  get size(): number {
    return this.#to - this.#from
  }

  add(bytes: Uint8Array): void {
    if (this.#to + bytes.length > this.#bytes.length) {
      const kept = this.#bytes.subarray(this.#from, this.#to)
      const needed = kept.length + bytes.length
      // In place only where that moves no more than it makes room for.
      const size = Math.max(needed, Math.min(needed * 2, windowBytes))
      const into = needed * 2 <= this.#bytes.length ? this.#bytes : Buffer.allocUnsafeSlow(size)
      kept.copy(into)
      this.#bytes = into
      this.#to = kept.length
      this.#from = 0
    }
    this.#bytes.set(bytes, this.#to)
    this.#to += bytes.length
  }

  /** At most so many, and none after the first `end`. */
  take(most: number, end?: string): Buffer {
    const ahead = this.#bytes.subarray(this.#from, Math.min(this.#from + most, this.#to))
    const at = end === undefined ? -1 : ahead.indexOf(end)
    // A copy: whoever reads may keep it, and the place is used again.
    const taken = Buffer.from(at < 0 || end === undefined ? ahead : ahead.subarray(0, at + end.length))
    this.#from += taken.length
    if (this.#from === this.#to) this.clear()
    return taken
  }

  clear(): void {
    this.#from = 0
    this.#to = 0
    if (this.#bytes.length > sliceBytes) this.#bytes = Buffer.alloc(0)
  }
}

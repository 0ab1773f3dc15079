import type { HttpLimits } from './settings.ts'

/** Why a request is not taken now; the caller's own doing is 429, everybody's together 503. */
export type Full = { readonly status: 429 | 503; readonly what: 'requests' | 'connections' | 'bytes' }

/** Bytes of request bodies held at once, from their first byte to the end of the answer: in all, and of one caller. */
const bytesMax = 256 * 1024 * 1024
const bytesPerCaller = 64 * 1024 * 1024

/** A place that holds a body: what was only feared to be so large gives the rest back. */
export interface BodyPlace extends Disposable {
  resize(bytes: number): void
}

/** Counts what is open at once. A place is given back by disposing of it. */
export interface Caps {
  /** A place among all requests; taken before anything is read. */
  enter(): Disposable | Full
  /** A place among the caller's requests, on a connection that counts as the caller's until it closes, for a body of at most `bytes`. */
  take(caller: string, connection: object, bytes: number): BodyPlace | Full
  readonly requests: number
}

interface Held {
  requests: number
  bytes: number
  /** Connections the caller has been seen on, and how many of its requests each serves. */
  readonly connections: Set<object>
}

export function openCaps(
  limits: Pick<HttpLimits, 'requests' | 'requests_per_caller' | 'connections_per_caller'>,
): Caps & { closed(connection: object): void } {
  const callers = new Map<string, Held>()
  const byConnection = new Map<object, Set<string>>()
  let requests = 0
  let bytesHeld = 0
  const drop = (caller: string, held: Held): void => {
    if (held.requests === 0 && held.connections.size === 0) callers.delete(caller)
  }
  return {
    enter() {
      if (requests >= limits.requests) return { status: 503, what: 'requests' }
      requests++
      return once(() => void requests--)
    },
    take(caller, connection, bytes) {
      const held = callers.get(caller) ?? { requests: 0, bytes: 0, connections: new Set() }
      if (held.requests >= limits.requests_per_caller) return { status: 429, what: 'requests' }
      if (!held.connections.has(connection) && held.connections.size >= limits.connections_per_caller)
        return { status: 429, what: 'connections' }
      if (held.bytes + bytes > bytesPerCaller) return { status: 429, what: 'bytes' }
      if (bytesHeld + bytes > bytesMax) return { status: 503, what: 'bytes' }
      callers.set(caller, held)
      held.requests++
      held.connections.add(connection)
      const seen = byConnection.get(connection) ?? new Set()
      byConnection.set(connection, seen.add(caller))
      let mine = 0
      const resize = (size: number): void => {
        held.bytes += size - mine
        bytesHeld += size - mine
        mine = size
      }
      resize(bytes)
      const place = once(() => {
        resize(0)
        held.requests--
        drop(caller, held)
      })
      return { resize, [Symbol.dispose]: () => place[Symbol.dispose]() }
    },
    closed(connection) {
      for (const caller of byConnection.get(connection) ?? []) {
        const held = callers.get(caller)
        if (held === undefined) continue
        held.connections.delete(connection)
        drop(caller, held)
      }
      byConnection.delete(connection)
    },
    get requests() {
      return requests
    },
  }
}

function once(back: () => void): Disposable {
  let given = false
  return {
    [Symbol.dispose]: () => {
      if (given) return
      given = true
      back()
    },
  }
}

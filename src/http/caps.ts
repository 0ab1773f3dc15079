import type { HttpLimits } from './settings.ts'

/** Why a request is not taken now; the caller's own doing is 429, everybody's together 503. */
export type Full = { readonly status: 429 | 503; readonly what: 'requests' | 'connections' }

/** Counts what is open at once. A place is given back by disposing of it. */
export interface Caps {
  /** A place among all requests; taken before anything is read. */
  enter(): Disposable | Full
  /** A place among the caller's requests, on a connection that counts as the caller's until it closes. */
  take(caller: string, connection: object): Disposable | Full
  readonly requests: number
}

interface Held {
  requests: number
  /** Connections the caller has been seen on, and how many of its requests each serves. */
  readonly connections: Set<object>
}

export function openCaps(limits: HttpLimits): Caps & { closed(connection: object): void } {
  const callers = new Map<string, Held>()
  const byConnection = new Map<object, Set<string>>()
  let requests = 0
  const drop = (caller: string, held: Held): void => {
    if (held.requests === 0 && held.connections.size === 0) callers.delete(caller)
  }
  return {
    enter() {
      if (requests >= limits.requests) return { status: 503, what: 'requests' }
      requests++
      return once(() => void requests--)
    },
    take(caller, connection) {
      const held = callers.get(caller) ?? { requests: 0, connections: new Set() }
      if (held.requests >= limits.requests_per_caller) return { status: 429, what: 'requests' }
      if (!held.connections.has(connection) && held.connections.size >= limits.connections_per_caller)
        return { status: 429, what: 'connections' }
      callers.set(caller, held)
      held.requests++
      held.connections.add(connection)
      const seen = byConnection.get(connection) ?? new Set()
      byConnection.set(connection, seen.add(caller))
      return once(() => {
        held.requests--
        drop(caller, held)
      })
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

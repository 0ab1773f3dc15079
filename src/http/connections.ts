import { isIP, type Socket } from 'node:net'
import { isLoopback } from './settings.ts'

/** One request being served on a connection. */
export interface Served {
  /** Who asks is known, by a token or a live one-time URL: the connection is theirs until another request says otherwise. */
  known(): void
  end(): void
}

/**
 * The open connections. Where there is room for no more, one makes room on which nobody showed who they are, the one
 * longest idle first: so who holds connections without a token holds up nobody, and a caller's connection is never closed
 * for a newcomer.
 */
export interface Connections {
  /** False where nothing could make room for this one. */
  open(socket: Socket): boolean
  /** @param socket of the request; over TLS another object than the one that was opened */
  serve(socket: Socket): Served
  readonly size: number
}

interface Entry {
  readonly name: string
  readonly socket: Socket
  /** What the limit of one address counts it under; null where that says nothing of who is there. */
  readonly network: string | null
  known: boolean
  serving: number
  /** When it was opened, or the last request on it was begun or ended. */
  usedMs: number
}

export function openConnections(options: {
  readonly limits: { readonly connections: number; readonly connections_per_address: number }
  /** Whether a proxy opens all of them: then no address is a client's. */
  readonly behindProxy: boolean
  /** Told of each connection that was closed or not taken for want of room. */
  readonly refused: () => void
}): Connections {
  const { limits } = options
  const entries = new Map<string, Entry>()
  const networks = new Map<string, Set<Entry>>()

  function drop(entry: Entry): void {
    if (entries.get(entry.name) === entry) entries.delete(entry.name)
    const beside = networks.get(entry.network ?? '')
    beside?.delete(entry)
    if (beside?.size === 0) networks.delete(entry.network ?? '')
  }

  /** Closes the one longest idle among these of which nobody is known; false where there is none. */
  function makeRoom(among: Iterable<Entry>): boolean {
    let oldest: Entry | null = null
    for (const one of among) if (!one.known && (oldest === null || before(one, oldest))) oldest = one
    if (oldest === null) return false
    options.refused()
    drop(oldest)
    oldest.socket.destroy()
    return true
  }

  function crowded(beside: ReadonlySet<Entry>): boolean {
    if (beside.size < limits.connections_per_address) return false
    let unknown = 0
    for (const { known } of beside) if (!known) unknown++
    return unknown >= limits.connections_per_address
  }

  return {
    open(socket) {
      const name = nameOf(socket)
      if (name === null) return true
      const network = options.behindProxy ? null : networkOf(socket.remoteAddress ?? '')
      const beside = network === null ? null : (networks.get(network) ?? new Set())
      if (beside !== null && crowded(beside)) makeRoom(beside)
      if (entries.size >= limits.connections && !makeRoom(entries.values())) {
        options.refused()
        return false
      }
      const entry: Entry = { name, socket, network, known: false, serving: 0, usedMs: performance.now() }
      entries.set(name, entry)
      if (network !== null && beside !== null) networks.set(network, beside.add(entry))
      socket.once('close', () => drop(entry))
      return true
    },
    serve(socket) {
      const entry = entries.get(nameOf(socket) ?? '')
      if (entry === undefined) return { known: () => undefined, end: () => undefined }
      let [known, ended] = [false, false]
      entry.serving++
      entry.usedMs = performance.now()
      return {
        known() {
          known = true
          entry.known = true
        },
        end() {
          if (ended) return
          ended = true
          entry.serving--
          entry.usedMs = performance.now()
          entry.known = known
        },
      }
    },
    get size() {
      return entries.size
    },
  }
}

function before(one: Entry, other: Entry): boolean {
  const [busy, otherBusy] = [one.serving > 0, other.serving > 0]
  return busy === otherBusy ? one.usedMs < other.usedMs : !busy
}

/** No two open connections to one port have the same; null for one that is closed. */
function nameOf({ remoteAddress, remotePort }: Socket): string | null {
  return remoteAddress === undefined ? null : `${remoteAddress} ${String(remotePort)}`
}

/** An IPv4 address, or the /64 of an IPv6 address, which is one customer's; null on loopback, where a proxy may be. */
export function networkOf(address: string): string | null {
  const bare = address.replace(/^::ffff:(?=\d+\.)/i, '')
  if (isLoopback(bare)) return null
  if (isIP(bare) !== 6) return bare
  const [head = '', tail] = (bare.split('%', 1)[0] ?? '').split('::')
  const groups = head === '' ? [] : head.split(':')
  const rest = tail === undefined || tail === '' ? [] : tail.split(':')
  const all =
    tail === undefined ? groups : [...groups, ...Array<string>(8 - groups.length - rest.length).fill('0'), ...rest]
  return all
    .slice(0, 4)
    .map((group) => Number.parseInt(group, 16).toString(16))
    .join(':')
}

import { Duplex } from 'node:stream'
import { serveMcp } from '../../src/mcp/server.ts'
import type { Connection } from '../../src/mcp/server.ts'
import type { Json, JsonObject } from '../../src/digest.ts'
import { caller, quiet } from './memory-broker.ts'
import type { MemoryBroker } from './memory-broker.ts'

export const legacyHandshake = {
  jsonrpc: '2.0',
  id: 'init',
  method: 'initialize',
  params: { protocolVersion: '2025-11-25', capabilities: {}, clientInfo: { name: 'raw', version: '1' } },
} as const

export const envelope = {
  'io.modelcontextprotocol/protocolVersion': '2026-07-28',
  'io.modelcontextprotocol/clientCapabilities': {},
  'io.modelcontextprotocol/clientInfo': { name: 'raw', version: '2' },
} as const

/** A client of raw bytes on one connection to the edge. */
export interface Wire {
  readonly connection: Connection
  readonly lines: JsonObject[]
  readonly ended: Promise<void>
  send(...messages: readonly (Json | string | Uint8Array)[]): void
  /** The answer to a request, waited for. */
  answer(id: Json): Promise<JsonObject>
  /** Resolves once everything sent so far was served: pings are answered in order. */
  settled(): Promise<void>
  stopReading(): void
  readOn(): void
  close(): void
}

export function wire(broker: MemoryBroker, options: { readonly stateless?: boolean } = {}): Wire {
  const [near, far] = Duplex.duplexPair()
  const connection = serveMcp({ socket: far, caller, broker, log: quiet })
  const lines: JsonObject[] = []
  const watchers = new Set<() => void>()
  let held = ''
  near.setEncoding('utf8')
  near.on('data', (text: string) => {
    held += text
    for (let end = held.indexOf('\n'); end >= 0; end = held.indexOf('\n')) {
      lines.push(JSON.parse(held.slice(0, end)) as JsonObject)
      held = held.slice(end + 1)
    }
    for (const watch of watchers) watch()
  })
  const ended = new Promise<void>((resolve) => near.once('end', resolve))

  const answer = (id: Json): Promise<JsonObject> =>
    new Promise((resolve) => {
      const look = (): void => {
        const found = lines.find((line) => !('method' in line) && line['id'] === id)
        if (found === undefined) return
        watchers.delete(look)
        resolve(found)
      }
      watchers.add(look)
      look()
    })
  const send: Wire['send'] = (...messages) => {
    for (const message of messages) {
      if (message instanceof Uint8Array) near.write(message)
      else near.write(typeof message === 'string' ? `${message}\n` : `${JSON.stringify(message)}\n`)
    }
  }
  let pings = 0
  return {
    connection,
    lines,
    ended,
    send,
    answer,
    settled: async () => {
      const id = `settled-${++pings}`
      const method = options.stateless === true ? 'tools/list' : 'ping'
      send({ jsonrpc: '2.0', id, method, params: options.stateless === true ? { _meta: envelope } : {} })
      await answer(id)
    },
    stopReading: () => void near.pause(),
    readOn: () => void near.resume(),
    close: () => void near.destroy(),
  }
}

import type { Socket } from 'node:net'
import type { JsonObject } from '../../../src/digest.ts'
import { connectOrStart } from '../../../src/start.ts'
import { until } from '../../wait.ts'
import { decided } from '../clients/driver.ts'

const envelope = {
  'io.modelcontextprotocol/protocolVersion': '2026-07-28',
  'io.modelcontextprotocol/clientCapabilities': {},
  'io.modelcontextprotocol/clientInfo': { name: 'crash', version: '1' },
} as const

/** Rejects a call whose broker went before it answered: what the call did is not known. */
export class Unanswered extends Error {}

/** A light MCP client on the broker's own socket. A call that finds no broker starts one, as the relay does. */
export interface Line {
  /** The structured result of a tool, `error` included. Rejects `Unanswered`. */
  call(tool: string, args: JsonObject): Promise<JsonObject>
  /** The result of any other request. Rejects `Unanswered`, and with the error's text where it was refused. */
  request(method: string, params: JsonObject): Promise<JsonObject>
  close(): void
}

/** The status of an execution once it has ended. */
export async function final(line: Line, execution: string): Promise<JsonObject> {
  return await until(
    `${execution} has ended`,
    async () => {
      const status = await line.call('get_status', { execution_id: execution, wait_ms: 2000 })
      return status['final'] === true && status
    },
    { withinMs: 110_000 },
  )
}

export interface BrokerPlace {
  readonly configFile: string
  readonly socket: string
  readonly logFile: string
  readonly env: Readonly<Record<string, string>>
}

/** `tap` sees every byte of either direction. */
export function openLine(place: BrokerPlace, tap: (bytes: string) => void = () => undefined): Line {
  let socket: Socket | null = null
  let connecting: Promise<Socket> | null = null
  let last = 0
  const waiting = new Map<number, { resolve(answer: JsonObject): void; reject(error: Error): void }>()

  async function connect(): Promise<Socket> {
    const made = await connectOrStart({ ...place, withinMs: 60_000 })
    let held = ''
    const mine = new Set<number>()
    made.setEncoding('utf8')
    made.on('data', (text: string) => {
      tap(text)
      held += text
      for (let end = held.indexOf('\n'); end >= 0; end = held.indexOf('\n')) {
        const answer = JSON.parse(held.slice(0, end)) as JsonObject
        held = held.slice(end + 1)
        if (typeof answer['id'] !== 'number') continue
        waiting.get(answer['id'])?.resolve(answer)
        waiting.delete(answer['id'])
      }
    })
    made.on('error', () => made.destroy())
    made.on('close', () => {
      if (socket === made) socket = null
      for (const id of mine) {
        waiting.get(id)?.reject(new Unanswered('the broker went before it answered'))
        waiting.delete(id)
      }
    })
    ids.set(made, mine)
    return made
  }
  const ids = new WeakMap<Socket, Set<number>>()

  async function request(method: string, params: JsonObject): Promise<JsonObject> {
    if (socket?.destroyed === true) socket = null
    connecting ??= socket === null ? connect().finally(() => (connecting = null)) : null
    if (connecting !== null) socket = await connecting
    const over = socket
    if (over?.destroyed === true) socket = null
    if (over === null || over.destroyed) throw new Unanswered('the broker went before it was asked')
    const id = ++last
    ids.get(over)?.add(id)
    const answer = await new Promise<JsonObject>((resolve, reject) => {
      waiting.set(id, { resolve, reject })
      const line = `${JSON.stringify({ jsonrpc: '2.0', id, method, params: { ...params, _meta: envelope } })}\n`
      tap(line)
      over.write(line)
    })
    const { result, error } = answer as { readonly result?: JsonObject; readonly error?: JsonObject }
    if (result === undefined) throw new Error(`${method} was answered with ${JSON.stringify(error)}`)
    return result
  }

  return {
    request,
    async call(name, args) {
      return await decided(
        async () => {
          const result = await request('tools/call', { name, arguments: args })
          return (result['structuredContent'] ?? result) as JsonObject
        },
        (answer) => answer,
      )
    },
    close() {
      socket?.destroy()
    },
  }
}

import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'

/** A service outside of Writ that remembers what was done to it: the only witness of a run that ran twice. */
export interface Effects {
  readonly port: number
  /** How often each unique line was written. */
  readonly seen: ReadonlyMap<string, number>
  /** Requests that did not carry the credential. */
  readonly strangers: number
  /** Resolves when the line is written, and its answer is then held back until `release`. */
  hold(line: string): Promise<void>
  release(line: string): void
  close(): Promise<void>
}

export async function openEffects(token: string): Promise<Effects> {
  const seen = new Map<string, number>()
  const held = new Map<
    string,
    { readonly arrived: () => void; readonly gate: Promise<void>; readonly open: () => void }
  >()
  let strangers = 0
  const server = createServer((request, response) => {
    const pieces: Buffer[] = []
    request.on('data', (piece: Buffer) => pieces.push(piece))
    request.on('error', () => undefined)
    request.on('end', () => {
      const line = Buffer.concat(pieces).toString('utf8')
      if (request.headers.authorization !== `Bearer ${token}`) strangers++
      seen.set(line, (seen.get(line) ?? 0) + 1)
      const wait = held.get(line)
      wait?.arrived()
      void (wait?.gate ?? Promise.resolve()).then(() => response.end(`written ${line}`))
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return {
    port: (server.address() as AddressInfo).port,
    seen,
    get strangers() {
      return strangers
    },
    async hold(line) {
      const arrival = Promise.withResolvers<void>()
      const gate = Promise.withResolvers<void>()
      held.set(line, { arrived: arrival.resolve, gate: gate.promise, open: gate.resolve })
      await arrival.promise
    },
    release(line) {
      held.get(line)?.open()
      held.delete(line)
    },
    async close() {
      for (const { open } of held.values()) open()
      server.closeAllConnections()
      await new Promise<void>((resolve) => server.close(() => resolve()))
    },
  }
}

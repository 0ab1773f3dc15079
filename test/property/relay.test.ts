import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { connect as dial, createServer } from 'node:net'
import type { Server, Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { PassThrough } from 'node:stream'
import * as fc from 'fast-check'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { Json } from '../../src/digest.ts'
import { serveMcp } from '../../src/mcp/server.ts'
import { relay } from '../../src/relay.ts'
import { caller, memoryBroker, quiet } from '../mcp/memory-broker.ts'
import { envelope, legacyHandshake } from '../mcp/wire.ts'

const step = fc.oneof(
  { weight: 5, arbitrary: fc.record({ do: fc.constant('call' as const), wait: fc.constantFrom(0, 0, 3) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('kill' as const), wait: fc.constant(0) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('pause' as const), wait: fc.constantFrom(0, 1, 4) }) },
)

const folder = mkdtempSync(join(tmpdir(), 'writ-relay-'))
const path = join(folder, 's')
let server: Server
beforeAll(async () => {
  server = createServer().listen(path)
  await once(server, 'listening')
})
afterAll(() => {
  server.close()
  rmSync(folder, { recursive: true, force: true })
})

test('however often the broker dies, the relay answers each request once and no call reaches a broker twice [G-relay-never-repeats]', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 30 }), fc.boolean(), async (steps, stateless) => {
      const broker = memoryBroker()
      const stdin = new PassThrough()
      const stdout = new PassThrough()
      const ends: Socket[] = []
      server.removeAllListeners('connection')
      server.on('connection', (socket) => {
        ends.push(socket)
        serveMcp({ socket, caller, broker, log: quiet })
      })
      const connect = async (): Promise<Socket> => {
        const socket = dial(path)
        await once(socket, 'connect')
        return socket
      }
      const ended = relay({ connect, stdin, stdout, drainMs: 5000 })
      const sent: Json[] = []
      if (!stateless) {
        stdin.write(`${JSON.stringify(legacyHandshake)}\n{"jsonrpc":"2.0","method":"notifications/initialized"}\n`)
        sent.push('init')
      }
      for (const [id, one] of steps.entries()) {
        if (one.do === 'kill') ends.at(-1)?.destroy()
        if (one.do === 'pause') await new Promise((resolve) => setTimeout(resolve, one.wait))
        if (one.do !== 'call') continue
        const params = {
          name: 'start_execution',
          arguments: { task_id: `t${id}`, wait_ms: one.wait },
          ...(stateless ? { _meta: envelope } : {}),
        }
        stdin.write(`${JSON.stringify({ jsonrpc: '2.0', id, method: 'tools/call', params })}\n`)
        sent.push(id)
      }
      stdin.end()
      await ended
      const lines = String(stdout.read() ?? '')
        .split('\n')
        .filter((line) => line !== '')
      const answered = lines.map((line) => (JSON.parse(line) as { id: Json }).id)
      expect(new Set(answered)).toEqual(new Set(sent))
      expect(answered).toHaveLength(sent.length)
      const started = broker.seen.called.map((it) => it.arguments['task_id'])
      expect(new Set(started).size).toBe(started.length)
    }),
    { numRuns: 150 },
  )
})

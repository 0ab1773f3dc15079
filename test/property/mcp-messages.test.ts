import * as fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { Json } from '../../src/digest.ts'
import { parseIJson } from '../../src/json.ts'
import { requestMethods } from '../../src/mcp/message.ts'
import { requestIdIn } from '../../src/mcp/request-id.ts'
import { toolNames } from '../../src/request/call.ts'
import { memoryBroker } from '../mcp/memory-broker.ts'
import { envelope, legacyHandshake, wire } from '../mcp/wire.ts'

describe('any sequence of messages', () => {
  const oddId = fc.oneof(
    fc.integer({ min: -3, max: 60 }),
    fc.string({ maxLength: 4 }),
    fc.constantFrom(null, 1.5, true, {}, []),
  )
  const name = fc.oneof(
    fc.constantFrom(...toolNames),
    fc.string({ maxLength: 12 }),
    fc.constantFrom('__proto__', 'toString', 7, null),
  )
  const args = fc.oneof(
    fc.constantFrom({}, { execution_id: 'e' }, { task_id: 't' }, { wait_ms: 1 }, { target_ref: 'sandbox' }),
    fc.dictionary(
      fc.constantFrom('task_id', 'execution_id', 'files', 'x', 'constructor'),
      fc.jsonValue({ maxDepth: 2 }),
    ),
    fc.jsonValue({ maxDepth: 2 }),
  )
  const method = fc.oneof(
    { weight: 5, arbitrary: fc.constant('tools/call') },
    { weight: 3, arbitrary: fc.constantFrom(...requestMethods) },
    { weight: 1, arbitrary: fc.constantFrom('subscriptions/listen', 'prompts/list', 'logging/setLevel', '') },
    { weight: 1, arbitrary: fc.jsonValue({ maxDepth: 1 }) },
  )
  const meta = fc.oneof(fc.constantFrom(envelope, {}), fc.jsonValue({ maxDepth: 1 }))
  const params = fc.oneof(
    { weight: 6, arbitrary: fc.record({ name, arguments: args, uri: fc.string(), _meta: meta }, { requiredKeys: [] }) },
    { weight: 1, arbitrary: fc.jsonValue({ maxDepth: 1 }) },
  )
  /** A request under an id of its own: whatever else is wrong with it, it is answered exactly once. */
  const numbered = fc
    .record(
      { jsonrpc: fc.constantFrom('2.0', '2.0', '2.0', '2.0', '1.0'), method, params, auth: fc.constant(1) },
      { requiredKeys: ['jsonrpc'] },
    )
    .map((message) => (index: number) => JSON.stringify({ ...message, id: `n${index}` }))
  const odd = fc.oneof(
    fc.record({ jsonrpc: fc.constant('2.0'), id: oddId, method, params }).map((message) => JSON.stringify(message)),
    fc
      .record({
        requestId: fc.oneof(
          oddId,
          fc.nat(49).map((at) => `n${at}`),
        ),
      })
      .map((it) => JSON.stringify({ jsonrpc: '2.0', method: 'notifications/cancelled', params: it })),
    fc
      .record({ jsonrpc: fc.constant('2.0'), id: oddId, result: fc.jsonValue({ maxDepth: 1 }) })
      .map((it) => JSON.stringify(it)),
    numbered.map((text) => `{"method":"ping",${text(99).slice(1)}`),
    numbered.map((text) => `[${text(98)}]`),
    fc.constant('{"jsonrpc":"2.0","method":"notifications/initialized"}'),
    fc.json({ maxDepth: 3 }),
    fc.string({ unit: 'binary', maxLength: 40 }).map((text) => text.replaceAll('\n', ' ')),
  )
  const line = fc.oneof({ weight: 3, arbitrary: numbered }, { weight: 1, arbitrary: odd.map((text) => () => text) })

  // Twice 100 connections of 50 messages: 10,000 messages.
  test.each([false, true])(
    'is survived, each request is answered exactly once, and nothing reaches the broker undecided (stateless: %s) [G-every-message-decided]',
    async (stateless) => {
      const rejections: unknown[] = []
      const note = (reason: unknown): void => void rejections.push(reason)
      process.on('unhandledRejection', note)
      let answered = 0
      await fc.assert(
        fc.asyncProperty(fc.array(line, { minLength: 50, maxLength: 50 }), async (makers) => {
          const broker = memoryBroker({ denied: ['cancel_execution', 'resources/list'] })
          const client = wire(broker, { stateless })
          const lines = makers.map((make, index) => make(index))
          if (stateless) client.send({ jsonrpc: '2.0', id: 'init', method: 'tools/list', params: { _meta: envelope } })
          else client.send(legacyHandshake)
          client.send(...lines)
          await client.settled()
          await expect.poll(() => client.connection.inFlight, { interval: 1 }).toBe(0)

          const decided = broker.seen.admitted.map((it) => it.message.name)
          for (const called of broker.seen.called) {
            expect(called.tool).not.toBe('cancel_execution')
            const at = decided.indexOf(called.tool)
            expect(at).toBeGreaterThanOrEqual(0)
            decided.splice(at, 1)
          }
          const cancelled = new Set(lines.flatMap((text) => /"requestId":"(n\d+)"/.exec(text)?.[1] ?? []))
          const counts = new Map<Json, number>()
          for (const got of client.lines) counts.set(got['id'] ?? null, (counts.get(got['id'] ?? null) ?? 0) + 1)
          for (const [index, text] of lines.entries()) {
            const id = `n${index}`
            if (!text.includes(`"id":"${id}"`) || !isIJson(text)) continue
            const count = counts.get(id) ?? 0
            const wanted = cancelled.has(id) && count === 0 ? 0 : 1
            expect({ text, count }).toEqual({ text, count: wanted })
            answered += count
          }
          // What cannot be parsed is answered under its id where there is one to be found, else under none.
          const unreadable = lines.filter((text) => text.trim() !== '' && !isIJson(text))
          for (const [id, of] of Map.groupBy(unreadable, (text) => requestIdIn(Buffer.from(text))))
            // An id that is used again while it is in flight is one request to whoever waits for its answer.
            expect(counts.get(id) ?? 0).toBeGreaterThanOrEqual(id === null ? of.length : 1)
          client.close()
        }),
        { numRuns: 100 },
      )
      process.off('unhandledRejection', note)
      expect(rejections).toEqual([])
      expect(answered).toBeGreaterThan(1500)
    },
  )
})

function isIJson(text: string): boolean {
  try {
    parseIJson(text, { refuseProto: true })
    return true
  } catch {
    return false
  }
}

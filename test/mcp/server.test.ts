import { afterEach, describe, expect, test, vi } from 'vitest'
import type { Json, JsonObject } from '../../src/digest.ts'
import { maxMessageBytes } from '../../src/mcp/request-id.ts'
import { toolNames } from '../../src/request/call.ts'
import { until } from '../wait.ts'
import { denial, memoryBroker } from './memory-broker.ts'
import { envelope, legacyHandshake, wire } from './wire.ts'
import type { Wire } from './wire.ts'

const open: Wire[] = []
afterEach(() => {
  vi.useRealTimers()
  for (const one of open.splice(0)) one.close()
})

function connect(options: Parameters<typeof memoryBroker>[0] = {}, stateless = false) {
  const broker = memoryBroker(options)
  const client = wire(broker, { stateless })
  open.push(client)
  return { broker, client }
}

const call = (id: Json, name: string, args: JsonObject = {}, meta?: JsonObject): JsonObject => ({
  jsonrpc: '2.0',
  id,
  method: 'tools/call',
  params: { name, arguments: args, ...(meta === undefined ? {} : { _meta: meta }) },
})
const cancel = (requestId: Json): JsonObject => ({
  jsonrpc: '2.0',
  method: 'notifications/cancelled',
  params: { requestId },
})

describe('a connection', () => {
  test('serves a 2025 client after its handshake and knows it by what it asserts', async () => {
    const { broker, client } = connect()
    client.send(legacyHandshake, { jsonrpc: '2.0', method: 'notifications/initialized' }, call(1, 'list_targets'))
    expect(await client.answer('init')).toMatchObject({
      result: { protocolVersion: '2025-11-25', capabilities: { tools: {}, resources: {} } },
    })
    expect(await client.answer(1)).toMatchObject({
      result: { structuredContent: { targets: [{ target_ref: 'sandbox' }] } },
    })
    expect(broker.seen.called[0]?.caller.agent).toEqual({
      id: 'agent:local',
      asserted: { client: 'raw', version: '1' },
    })
    expect(broker.seen.called[0]?.caller.subject).toEqual({ type: 'user', id: 'user:ada' })
  })

  test('serves a stateless client without any handshake', async () => {
    const { broker, client } = connect({}, true)
    client.send(
      { jsonrpc: '2.0', id: 0, method: 'server/discover', params: { _meta: envelope } },
      call(1, 'list_targets', {}, envelope),
    )
    expect(await client.answer(0)).toMatchObject({ result: { supportedVersions: ['2026-07-28'] } })
    expect(await client.answer(1)).toMatchObject({
      result: { resultType: 'complete', structuredContent: { targets: [{}] } },
    })
    expect(broker.seen.called[0]?.caller.agent.asserted).toEqual({ client: 'raw', version: '2' })
  })

  test('advertises neither subscriptions nor changes of lists', async () => {
    const { client } = connect()
    client.send(legacyHandshake)
    const { result } = await client.answer('init')
    expect(JSON.stringify(result)).not.toMatch(/subscribe|listChanged|logging|prompts|sampling/)
  })

  test('has every message decided before anything else sees it, reads, listings and discovery included [G-every-message-decided]', async () => {
    const { broker, client } = connect()
    client.send(legacyHandshake, { jsonrpc: '2.0', method: 'notifications/initialized' })
    const methods = ['tools/list', 'resources/list', 'resources/templates/list', 'ping'] as const
    methods.forEach((method, index) => client.send({ jsonrpc: '2.0', id: index, method }))
    client.send(
      { jsonrpc: '2.0', id: 9, method: 'resources/read', params: { uri: 'writ://receipts/x' } },
      call(10, 'get_result', { execution_id: 'e' }),
    )
    await client.answer(10)
    expect(broker.seen.admitted.map((it) => it.message.name)).toEqual([
      'initialize',
      'notifications/initialized',
      ...methods,
      'resources/read',
      'get_result',
    ])
    expect(broker.seen.admitted.at(-1)?.message.arguments).toEqual({ execution_id: 'e' })
  })

  test('answers a refused tool call as a result and any other refused request as an error, both with code, remedy and ref', async () => {
    const everything = ['tools/list', 'resources/read', 'initialize', 'server/discover', ...toolNames]
    const { broker, client } = connect({ denied: everything })
    client.send(call(1, 'start_execution', { task_id: 't' }), { jsonrpc: '2.0', id: 2, method: 'tools/list' })
    client.send({ jsonrpc: '2.0', id: 3, method: 'resources/read', params: { uri: 'writ://receipts/rcpt_ffffffffff' } })
    client.send(legacyHandshake, call(4, 'start_execution', { task_id: 't' }, envelope))
    expect(await client.answer(1)).toMatchObject({
      result: { isError: true, structuredContent: { error: denial, next: {} } },
    })
    for (const id of [2, 3, 'init'])
      expect(await client.answer(id)).toMatchObject({ error: { code: -32010, data: denial } })
    expect(await client.answer(4)).toMatchObject({ result: { resultType: 'complete', isError: true } })
    expect(broker.seen.called).toEqual([])
  })

  test('answers what cannot be decided as refused [G-every-message-decided]', async () => {
    const broker = { ...memoryBroker(), admit: () => Promise.reject(new Error('the secret is /etc/x')) }
    const client = wire(broker)
    open.push(client)
    client.send(call(1, 'list_targets'))
    const answer = await client.answer(1)
    expect(answer).toMatchObject({ result: { isError: true, structuredContent: { error: { code: 'internal' } } } })
    expect(JSON.stringify(answer)).not.toContain('/etc/x')
    expect(broker.seen.called).toEqual([])
  })

  test('tells nothing of a failure inside', async () => {
    const broker = {
      ...memoryBroker(),
      call: () => Promise.reject(new Error('/var/lib/writ broke')),
      readResource: () => Promise.reject(new Error('/var/lib/writ broke')),
    }
    const client = wire(broker)
    open.push(client)
    client.send(call(1, 'list_targets'), {
      jsonrpc: '2.0',
      id: 2,
      method: 'resources/read',
      params: { uri: 'writ://x' },
    })
    expect(await client.answer(1)).toMatchObject({
      result: { isError: true, structuredContent: { error: { code: 'internal' } } },
    })
    expect(await client.answer(2)).toMatchObject({ error: { code: -32603 } })
    expect(JSON.stringify(client.lines)).not.toContain('/var/lib')
  })

  test('answers an unknown tool with the nearest one and asks nobody', async () => {
    const { broker, client } = connect()
    client.send(call(1, 'get_statuses'), call(2, '__proto__'), call(3, 'constructor'))
    expect(await client.answer(1)).toMatchObject({
      result: {
        isError: true,
        structuredContent: {
          error: { code: 'unknown_tool', message: 'There is no tool "get_statuses"; did you mean "get_status"?' },
        },
      },
    })
    await client.answer(2)
    await client.answer(3)
    expect(broker.seen.admitted).toEqual([])
  })

  test('goes on after malformed messages', async () => {
    const { client } = connect()
    client.send('{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}', '[]', '', '\r', 'x', {
      jsonrpc: '2.0',
      id: 7,
      method: 'nope',
    })
    client.send(legacyHandshake)
    await client.answer('init')
    expect(client.lines.slice(0, -1).map((line) => [line['id'], (line['error'] as JsonObject)['code']])).toEqual([
      [null, -32700],
      [null, -32600],
      [null, -32700],
      [7, -32601],
    ])
  })

  test('reads messages however their bytes are cut', async () => {
    const { client } = connect()
    const bytes = Buffer.from(`${JSON.stringify(legacyHandshake)}\r\n${JSON.stringify(call('é漢', 'list_targets'))}\n`)
    for (const byte of bytes) client.send(Buffer.from([byte]))
    expect(await client.answer('é漢')).toMatchObject({ result: {} })
  })

  test('takes a message of just under 4 MiB and refuses one just over, without ending', async () => {
    const { broker, client } = connect()
    const upload = (id: number, size: number) =>
      call(id, 'upload_artifact', { task_id: 't', files: [{ path: 'a', content: 'x'.repeat(size) }] })
    client.send(upload(1, maxMessageBytes - 200), upload(2, maxMessageBytes))
    expect(await client.answer(1)).toMatchObject({ result: { structuredContent: { state: 'ready' } } })
    expect(await client.answer(2)).toMatchObject({ error: { code: -32700 } })
    expect(broker.seen.called).toHaveLength(1)
  })

  test('ends, with an answer, on a line that never ends', async () => {
    const { client } = connect()
    client.send(Buffer.alloc(maxMessageBytes + 1, 'x'))
    await client.ended
    expect(client.lines).toMatchObject([{ id: null, error: { code: -32600 } }])
  })

  test('keeps the order of messages although decisions take as long as they like', async () => {
    let left = 40
    const { broker, client } = connect({ decideMs: () => left-- % 7 })
    for (let id = 0; id < 40; id++) client.send(call(id, 'get_status', { execution_id: `e${id}` }))
    await client.settled()
    expect(broker.seen.called.map((it) => it.arguments['execution_id'])).toEqual(
      Array.from({ length: 40 }, (_, id) => `e${id}`),
    )
  })

  test('has at most 64 requests in flight and serves the others as those end', async () => {
    const { broker, client } = connect()
    for (let id = 0; id < 200; id++) client.send(call(id, 'get_status', { wait_ms: 30 }))
    await client.answer(0)
    expect(client.connection.inFlight).toBeLessThanOrEqual(64)
    for (let id = 0; id < 200; id++) await client.answer(id)
    expect(broker.seen.called).toHaveLength(200)
    expect(client.lines).toHaveLength(200)
  })

  test('holds at most 8 MiB of unanswered requests, and one more', async () => {
    const { broker, client } = connect({ decideMs: () => 50 })
    const args = { task_id: 't', files: [{ path: 'a', content: 'x'.repeat(3 * 1024 * 1024) }] }
    for (let id = 0; id < 8; id++) client.send(call(id, 'upload_artifact', args))
    await client.answer(0)
    expect(broker.seen.admitted.length).toBeLessThan(8)
    for (let id = 0; id < 8; id++)
      expect(await client.answer(id)).toMatchObject({ result: { structuredContent: { state: 'ready' } } })
  })

  test('stops reading from a client that does not read', async () => {
    const { broker, client } = connect()
    client.stopReading()
    for (let id = 0; id < 5000; id++) client.send({ jsonrpc: '2.0', id, method: 'tools/list' })
    let read = 0
    for (let still = 0; still < 5; await new Promise((resolve) => setTimeout(resolve, 40))) {
      const now = broker.seen.admitted.length
      still = now > 0 && now === read ? still + 1 : 0
      read = now
    }
    expect(read).toBeLessThan(200)
    client.readOn()
    await until('all of it is read', () => broker.seen.admitted.length === 5000)
  })

  test('does not serve a second request under an id in use', async () => {
    const { broker, client } = connect()
    client.send(call(1, 'get_status', { wait_ms: 50 }), call(1, 'start_execution', { task_id: 't' }))
    expect(await client.answer(1)).toMatchObject({ result: { structuredContent: { recent: [{}] } } })
    await client.settled()
    expect(client.lines.filter((line) => line['id'] === 1)).toHaveLength(1)
    expect(broker.seen.called.map((it) => it.tool)).toEqual(['get_status'])
  })

  test('tells ids 1 and "1" apart', async () => {
    const { client } = connect()
    client.send(call(1, 'list_targets'), call('1', 'get_status'))
    expect(await client.answer(1)).toMatchObject({ result: { structuredContent: { targets: [{}] } } })
    expect(await client.answer('1')).toMatchObject({ result: { structuredContent: { recent: [{}] } } })
  })
})

describe('a wait', () => {
  test('is ended by cancelling its request, which stays unanswered, and nothing else is [G-cancel-ends-wait]', async () => {
    const { broker, client } = connect()
    client.send(
      call(1, 'start_execution', { task_id: 't', wait_ms: 40_000 }),
      call(2, 'get_status', { wait_ms: 40_000 }),
    )
    await client.settled()
    client.send(cancel(1), cancel(99), cancel('1'))
    await client.settled()
    await expect.poll(() => broker.seen.aborted).toBe(1)
    expect(broker.seen.called.map((it) => it.tool)).toEqual(['start_execution', 'get_status'])
    expect(client.lines.some((line) => line['id'] === 1 || line['id'] === 2)).toBe(false)
    expect(client.connection.inFlight).toBe(1)
  })

  test('ends when its connection ends', async () => {
    const { broker, client } = connect()
    client.send(call(1, 'get_status', { wait_ms: 40_000 }))
    await client.settled()
    client.close()
    await client.connection.closed
    await expect.poll(() => broker.seen.aborted).toBe(1)
  })

  test('reports progress every 5 s where a token came, and after the answer no more', async () => {
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] })
    const { broker, client } = connect()
    client.send(
      call(1, 'get_status', { wait_ms: 40_000 }, { progressToken: 'p' }),
      call(2, 'get_status', { wait_ms: 40_000 }),
    )
    await client.settled()
    await vi.advanceTimersByTimeAsync(15_000)
    broker.release()
    await client.answer(1)
    await vi.advanceTimersByTimeAsync(15_000)
    const progress = client.lines
      .filter((line) => line['method'] === 'notifications/progress')
      .map((line) => line['params'])
    expect(progress).toEqual(
      [1, 2, 3].map((count) => ({ progressToken: 'p', progress: count, message: 'step 1 of 1' })),
    )
  })
})

describe('a resource', () => {
  test('is read as text where that is harmless, else byte for byte; unknown and forbidden look the same', async () => {
    const { client } = connect()
    const read = (id: number, uri: string): JsonObject => ({
      jsonrpc: '2.0',
      id,
      method: 'resources/read',
      params: { uri },
    })
    client.send(
      read(1, 'writ://receipts/rcpt_ffffffffff'),
      read(2, 'writ://artifacts/exec_bbbbbbbbbb/out.txt'),
      read(3, 'writ://receipts/none'),
    )
    expect(await client.answer(1)).toMatchObject({
      result: { contents: [{ mimeType: 'application/jwt', text: 'eyJ.cA.cw' }] },
    })
    expect(await client.answer(2)).toMatchObject({
      result: { contents: [{ blob: Buffer.from('a\u001b[2Jb').toString('base64') }] },
    })
    expect(await client.answer(3)).toMatchObject({ error: { code: -32602, message: 'There is no such resource.' } })
  })
})

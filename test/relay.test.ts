import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { connect as dial, createServer } from 'node:net'
import type { Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Duplex, PassThrough } from 'node:stream'
import { afterEach, describe, expect, test } from 'vitest'
import type { Json, JsonObject } from '../src/digest.ts'
import { WritError } from '../src/error.ts'
import { relay } from '../src/relay.ts'
import { serveMcp } from '../src/mcp/server.ts'
import { caller, memoryBroker, quiet } from './mcp/memory-broker.ts'
import type { MemoryBroker } from './mcp/memory-broker.ts'
import { envelope, legacyHandshake } from './mcp/wire.ts'
import { until } from './wait.ts'

interface Bench {
  readonly broker: MemoryBroker
  readonly lines: JsonObject[]
  readonly ended: Promise<void>
  readonly connects: () => number
  send(message: Json | string): void
  /** The broker's process dies: its end of the connection is gone at once. */
  kill(): Promise<void>
  eof(): void
  answer(id: Json): Promise<JsonObject>
}

const running: Bench[] = []
afterEach(async () => {
  for (const one of running.splice(0)) {
    one.eof()
    await one.kill()
    await one.ended
  }
})

function bench(options: { readonly fail?: () => unknown; readonly drainMs?: number } = {}): Bench {
  const broker = memoryBroker()
  const stdin = new PassThrough()
  const stdout = new PassThrough()
  let far: Duplex | null = null
  let connects = 0
  const connect = async (): Promise<Duplex> => {
    connects++
    const error = options.fail?.()
    if (error !== undefined) throw error
    const [near, other] = Duplex.duplexPair()
    far = other
    serveMcp({ socket: other, caller, broker, log: quiet })
    return await Promise.resolve(near)
  }
  const ended = relay({
    connect,
    stdin,
    stdout,
    ...(options.drainMs === undefined ? {} : { drainMs: options.drainMs }),
  })
  const lines: JsonObject[] = []
  let held = ''
  stdout.setEncoding('utf8')
  stdout.on('data', (text: string) => {
    held += text
    for (let end = held.indexOf('\n'); end >= 0; end = held.indexOf('\n')) {
      lines.push(JSON.parse(held.slice(0, end)) as JsonObject)
      held = held.slice(end + 1)
    }
  })
  const one: Bench = {
    broker,
    lines,
    ended,
    connects: () => connects,
    send: (message) => void stdin.write(typeof message === 'string' ? message : `${JSON.stringify(message)}\n`),
    kill: async () => {
      far?.destroy()
      await new Promise((resolve) => setImmediate(resolve))
    },
    eof: () => void stdin.end(),
    answer: async (id) => {
      return await until(`${JSON.stringify(id)} is answered`, () => lines.find((line) => line['id'] === id), {
        everyMs: 2,
      })
    },
  }
  running.push(one)
  return one
}

const initialized: JsonObject = { jsonrpc: '2.0', method: 'notifications/initialized' }
const call = (id: Json, name: string, args: JsonObject = {}, meta?: JsonObject): JsonObject => ({
  jsonrpc: '2.0',
  id,
  method: 'tools/call',
  params: { name, arguments: args, ...(meta === undefined ? {} : { _meta: meta }) },
})

describe('the relay', () => {
  test('starts no broker before the client asks something', async () => {
    const one = bench()
    one.send(initialized)
    one.send('\n')
    await new Promise((resolve) => setTimeout(resolve, 20))
    expect(one.connects()).toBe(0)
    one.send(call(1, 'list_targets'))
    await one.answer(1)
    expect(one.connects()).toBe(1)
  })

  test("replays a 2025 client's handshake to the next broker, unseen by the client", async () => {
    const one = bench()
    one.send(legacyHandshake)
    await one.answer('init')
    one.send(initialized)
    one.send(call(1, 'list_targets'))
    await one.answer(1)
    await one.kill()
    one.send(call(2, 'list_targets'))
    await one.answer(2)
    expect(one.connects()).toBe(2)
    expect(one.lines.map((line) => line['id'])).toEqual(['init', 1, 2])
    expect(one.broker.seen.admitted.map((it) => it.message.name)).toEqual([
      'initialize',
      'notifications/initialized',
      'list_targets',
      'initialize',
      'notifications/initialized',
      'list_targets',
    ])
    expect(one.broker.seen.called.map((it) => it.caller.agent.asserted.client)).toEqual(['raw', 'raw'])
  })

  test('replays nothing for a stateless client', async () => {
    const one = bench()
    one.send(call(1, 'list_targets', {}, envelope))
    await one.answer(1)
    await one.kill()
    one.send(call(2, 'list_targets', {}, envelope))
    expect(await one.answer(2)).toMatchObject({
      result: { resultType: 'complete', structuredContent: { targets: [{}] } },
    })
    expect(one.broker.seen.admitted.map((it) => it.message.name)).toEqual([
      'server/discover',
      'list_targets',
      'server/discover',
      'list_targets',
    ])
    expect(one.lines.map((line) => line['id'])).toEqual([1, 2])
  })

  test('answers what was in flight when the broker died, once, and sends none of it again [G-relay-never-repeats]', async () => {
    const one = bench()
    one.send(call(1, 'start_execution', { task_id: 't', wait_ms: 40_000 }))
    one.send(call(2, 'get_status', { wait_ms: 40_000 }, envelope))
    await expect.poll(() => one.broker.seen.called.length).toBeGreaterThan(0)
    await one.kill()
    expect(await one.answer(1)).toMatchObject({
      result: {
        isError: true,
        structuredContent: { error: { code: 'broker_unreachable' }, next: { tool: 'get_status', arguments: {} } },
      },
    })
    expect(await one.answer(2)).toMatchObject({ result: { resultType: 'complete', isError: true } })
    one.send(call(3, 'get_status'))
    await one.answer(3)
    expect(one.broker.seen.called.filter((it) => it.tool === 'start_execution')).toHaveLength(1)
    expect(one.lines.map((line) => line['id'])).toEqual([1, 2, 3])
  })

  test('sends a call again of which the dead broker certainly got nothing [G-relay-never-repeats]', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'writ-relay-'))
    const path = join(folder, 's')
    const broker = memoryBroker()
    const ends: Socket[] = []
    const server = createServer((socket) => {
      ends.push(socket)
      serveMcp({ socket, caller, broker, log: quiet })
    }).listen(path)
    await once(server, 'listening')
    const stdin = new PassThrough()
    const stdout = new PassThrough()
    const reach = async (): Promise<Socket> => {
      const socket = dial(path)
      await once(socket, 'connect')
      return socket
    }
    const ended = relay({ stdin, stdout, connect: reach })
    stdin.write(`${JSON.stringify(call(1, 'list_targets'))}\n`)
    await once(stdout, 'data')
    // The relay cannot have heard of this end when it takes up the next call: the kernel refuses its write.
    ends[0]?.destroy()
    stdin.write(`${JSON.stringify(call(2, 'start_execution', { task_id: 't' }))}\n`)
    const [answer] = (await once(stdout, 'data')) as [Buffer]
    expect(JSON.parse(answer.toString())).toMatchObject({ id: 2, result: { structuredContent: { state: 'running' } } })
    expect(broker.seen.called.map((it) => it.tool)).toEqual(['list_targets', 'start_execution'])
    stdin.end()
    await ended
    server.close()
    rmSync(folder, { recursive: true, force: true })
  })

  test('is not taken in by a socket that a dying broker still has open [G-relay-never-repeats]', async () => {
    const broker = memoryBroker()
    const stdin = new PassThrough()
    const stdout = new PassThrough()
    let connects = 0
    const connect = (): Promise<Duplex> => {
      const [near, far] = Duplex.duplexPair()
      // Accepts, takes the first bytes and is gone.
      if (++connects === 1) far.once('data', () => far.destroy())
      else serveMcp({ socket: far, caller, broker, log: quiet })
      return Promise.resolve(near)
    }
    const ended = relay({ connect, stdin, stdout })
    stdin.end(`${JSON.stringify(call(1, 'start_execution', { task_id: 't' }))}\n`)
    await ended
    expect(JSON.parse(String(stdout.read()))).toMatchObject({
      id: 1,
      result: { structuredContent: { state: 'running' } },
    })
    expect(connects).toBe(2)
    expect(broker.seen.called).toHaveLength(1)
  })

  test('begins a handshake again that the death of the broker cut off', async () => {
    let first = true
    const stdin = new PassThrough()
    const stdout = new PassThrough()
    const ended = relay({
      stdin,
      stdout,
      connect: () => {
        const [near, far] = Duplex.duplexPair()
        if (first) far.once('data', () => far.destroy())
        else serveMcp({ socket: far, caller, broker: memoryBroker(), log: quiet })
        first = false
        return Promise.resolve(near)
      },
    })
    stdin.end(`${JSON.stringify(legacyHandshake)}\n`)
    await ended
    expect(JSON.parse(String(stdout.read()))).toMatchObject({ id: 'init', result: { protocolVersion: '2025-11-25' } })
  })

  test('says that nothing was done when no broker can be reached, and tries again at the next call', async () => {
    let down = true
    const one = bench({ fail: () => (down ? new WritError('no_config', 'no writ.yaml above /home/ada/x') : undefined) })
    one.send(call(1, 'start_execution', { task_id: 't' }))
    one.send({ jsonrpc: '2.0', id: 2, method: 'tools/list' })
    expect(await one.answer(1)).toMatchObject({
      result: { isError: true, structuredContent: { error: { code: 'no_config' } } },
    })
    expect(await one.answer(2)).toMatchObject({ error: { code: -32011, data: { code: 'no_config' } } })
    expect(JSON.stringify(one.lines)).not.toContain('/home/ada')
    down = false
    one.send(call(3, 'list_targets'))
    expect(await one.answer(3)).toMatchObject({ result: { structuredContent: { targets: [{}] } } })
  })

  test('leaves the judgement of malformed lines to the broker, and skips one too long for any message', async () => {
    const one = bench()
    one.send('{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}\n')
    await one.answer(null)
    expect(one.lines).toMatchObject([{ id: null, error: { code: -32700 } }])
    one.send('x'.repeat(5 * 1024 * 1024))
    one.send('still the same line\n')
    one.send(call(3, 'list_targets'))
    await one.answer(3)
    expect(one.lines.map((line) => line['id'])).toEqual([null, null, 3])
    expect(one.connects()).toBe(1)
  })

  test('says which request an unreadable line was, and waits for none of them when the client ends', async () => {
    const one = bench({ drainMs: 20_000 })
    one.send('{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"get_status","name":"get_result"}}\n')
    one.send('{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"get_status","arguments":{"a":\t"\t"}}}\n')
    one.send('{"jsonrpc":"2.0","id":3,"id":4,"method":"ping"}\n')
    for (const id of [1, 2, null]) expect(await one.answer(id)).toMatchObject({ error: { code: -32700 } })
    const before = performance.now()
    one.eof()
    await one.ended
    expect(performance.now() - before).toBeLessThan(10_000)
  })

  test('says of a request that was too long which one it was, wherever its id stands, and what to do instead', async () => {
    const one = bench()
    const long = 'x'.repeat(5 * 1024 * 1024)
    one.send(`{"jsonrpc":"2.0","id":"head","method":"tools/call","params":{"name":"submit_task","a":"${long}"}}\n`)
    one.send(
      `{"method":"tools/call","params":{"name":"submit_task","id":1,"a":"${long}"},"jsonrpc":"2.0","id":"tail"}\n`,
    )
    one.send(`{"id":"both","method":"tools/call","params":{"a":"${long}"},"jsonrpc":"2.0","id":"both"}\n`)
    for (const id of ['head', 'tail', null])
      expect(await one.answer(id)).toMatchObject({
        error: {
          code: -32600,
          data: { code: 'too_large', remedy: expect.stringContaining('upload_artifact') as string },
        },
      })
    expect(one.connects()).toBe(0)
  })

  test('leaves a request that is served its one answer when a line that is too long names its id', async () => {
    const one = bench()
    one.send(call(1, 'get_status', { wait_ms: 300 }))
    one.send(`{"jsonrpc":"2.0","id":1,"method":"ping","params":{"a":"${'x'.repeat(5 * 1024 * 1024)}"}}\n`)
    expect(await one.answer(null)).toHaveProperty('error')
    expect(await one.answer(1)).toHaveProperty('result')
  })

  test('says of an unreadable request, too, that no broker can be reached', async () => {
    const one = bench({ fail: () => new WritError('no_config', 'no writ.yaml') })
    one.send('{"jsonrpc":"2.0","id":1,"method":"ping","params":{"a":"\t"}}\n')
    expect(await one.answer(1)).toMatchObject({ error: { data: { code: 'no_config' } } })
  })

  test('waits for open answers when the client ends, but not for long', async () => {
    const quick = bench()
    quick.send(call(1, 'get_status', { wait_ms: 60 }))
    quick.eof()
    await quick.ended
    expect(quick.lines).toMatchObject([{ id: 1, result: {} }])

    const slow = bench({ drainMs: 50 })
    slow.send(call(1, 'get_status', { wait_ms: 40_000 }))
    slow.eof()
    await slow.ended
    expect(slow.lines).toEqual([])
    await expect.poll(() => slow.broker.seen.aborted).toBe(1)
  })

  test('ends when nobody reads its answers any more, and stays quiet about it', async () => {
    const stdin = new PassThrough()
    const stdout = new PassThrough()
    const broker = memoryBroker()
    const connect = (): Promise<Duplex> => {
      const [near, far] = Duplex.duplexPair()
      serveMcp({ socket: far, caller, broker, log: quiet })
      return Promise.resolve(near)
    }
    const ended = relay({ connect, stdin, stdout })
    stdin.write(`${JSON.stringify(call(1, 'get_status', { wait_ms: 40_000 }))}\n`)
    await expect.poll(() => broker.seen.called.length).toBe(1)
    stdout.destroy(new Error('EPIPE'))
    await ended
    await expect.poll(() => broker.seen.aborted).toBe(1)
  })

  test('does not wait for a request its client cancelled', async () => {
    const one = bench({ drainMs: 25_000 })
    one.send(call(1, 'get_status', { wait_ms: 40_000 }))
    one.send({ jsonrpc: '2.0', method: 'notifications/cancelled', params: { requestId: 1 } })
    const before = performance.now()
    one.eof()
    await one.ended
    expect(performance.now() - before).toBeLessThan(15_000)
  })

  test('passes lines through byte for byte', async () => {
    const stdin = new PassThrough()
    const seen: Buffer[] = []
    const answer = '{"result" :{"odd":"\\u00e9"}, "id":1,"jsonrpc":"2.0"}\r\n'
    const [near, far] = Duplex.duplexPair()
    far.once('data', (greeting: Buffer) => {
      const { id } = JSON.parse(greeting.toString()) as { id: string }
      far.on('data', (chunk: Buffer) => {
        seen.push(chunk)
        if (seen.length === 1) far.write(answer)
      })
      far.write(`{"jsonrpc":"2.0","id":"${id}","result":{}}\n`)
    })
    const stdout = new PassThrough()
    const ended = relay({ connect: () => Promise.resolve(near), stdin, stdout, drainMs: 0 })
    const text = ' {"id" : 1,\t"jsonrpc":"2.0","method":"ping", "odd":"\\u00e9 漢 \ud83d\ude00"}\r\nnot json\n'
    for (const byte of Buffer.from(text)) stdin.write(Buffer.from([byte]))
    stdin.end()
    await ended
    expect(Buffer.concat(seen).toString()).toBe(text)
    expect(String(stdout.read())).toBe(answer)
  })
})

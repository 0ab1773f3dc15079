import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'
import { afterAll, describe, expect, it, vi } from 'vitest'
import { askBroker } from '../../src/control/control.ts'
import type { Json, JsonObject } from '../../src/digest.ts'
import { until } from '../wait.ts'
import { openLine } from './crash/line.ts'
import { makePlace } from './crash/place.ts'
import { brokerOf, familyOf } from './crash/processes.ts'

vi.setConfig({ testTimeout: 120_000 })

const heap = join(import.meta.dirname, 'fuzz', 'processes', 'heap.ts')
const place = makePlace({ name: 'writ-hostile-', env: { NODE_OPTIONS: `--import ${heap}` } })
const line = openLine(place)
await line.call('list_targets', {})
const broker = brokerOf(place.configFile)
if (broker === null) throw new Error('there is no broker')

afterAll(() => {
  line.close()
  place.writ(['stop'])
  rmSync(place.root, { recursive: true, force: true })
})

const meta = {
  'io.modelcontextprotocol/protocolVersion': '2026-07-28',
  'io.modelcontextprotocol/clientCapabilities': {},
} as const

/** One connection of raw bytes to the broker itself, with no client that would keep to the rules. */
interface Raw {
  readonly socket: Socket
  readonly answers: JsonObject[]
  readonly ended: Promise<void>
  send(text: string | Uint8Array): void
  /** The answer to this id. */
  answer(id: Json): Promise<JsonObject>
}

function raw(): Raw {
  const socket = connect(place.socket)
  const answers: JsonObject[] = []
  let held = ''
  socket.setEncoding('utf8')
  socket.on('error', () => undefined)
  socket.on('data', (text: string) => {
    held += text
    for (let end = held.indexOf('\n'); end >= 0; end = held.indexOf('\n')) {
      answers.push(JSON.parse(held.slice(0, end)) as JsonObject)
      held = held.slice(end + 1)
    }
  })
  return {
    socket,
    answers,
    ended: new Promise((resolve) => socket.once('close', () => resolve())),
    send: (text) => void socket.write(typeof text === 'string' ? `${text}\n` : text),
    async answer(id) {
      return await until(
        `${JSON.stringify(id)} is answered`,
        () => answers.find((one) => one['id'] === id && !('method' in one)),
        { withinMs: 60_000, everyMs: 5 },
      )
    },
  }
}

const callOf = (id: Json, name: string, args: Json, more: JsonObject = {}): string =>
  JSON.stringify({ jsonrpc: '2.0', id, method: 'tools/call', params: { name, arguments: args, _meta: meta }, ...more })

/** That the connection still serves what is well-formed. */
async function serves(one: Raw): Promise<void> {
  const id = `well ${String(one.answers.length)}`
  one.send(callOf(id, 'get_status', {}))
  expect(await one.answer(id)).toHaveProperty(['result', 'structuredContent'])
}

describe('a message that breaks the rules', () => {
  it('is refused with what is wrong with it, and the next one is served', async () => {
    const one = raw()
    const deep = (open: string, close: string): string =>
      `{"jsonrpc":"2.0","id":5,"method":"tools/call","params":{"name":"get_status","arguments":{"x":${open.repeat(10_000)}1${close.repeat(10_000)}}}}`
    const cases: readonly (readonly [string, RegExp])[] = [
      ['{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/call"}', /second time/],
      [
        '{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"get_status","arguments":{"task_id":"a","task_id":"b"}}}',
        /second time/,
      ],
      [
        '{"jsonrpc":"2.0","id":3,"method":"tools/call","params":{"name":"get_status","arguments":{"task_id":"\\ud800"}}}',
        /surrogate|unicode|well-formed/i,
      ],
      [
        '{"jsonrpc":"2.0","id":4,"method":"tools/call","params":{"na\\udfffme":"get_status"}}',
        /surrogate|unicode|well-formed/i,
      ],
      [deep('[', ']'), /deep|depth/i],
      [deep('{"a":', '}'), /deep|depth/i],
      ['{"jsonrpc":"2.0","id":6,"method":"ping"', /JSON/i],
      ['[{"jsonrpc":"2.0","id":7,"method":"ping"}]', /batch/i],
      ['"text"', /object/i],
      ['{"jsonrpc":"1.0","id":8,"method":"ping"}', /jsonrpc/i],
      ['{"jsonrpc":"2.0","id":{},"method":"ping"}', /"id"/i],
      ['{"jsonrpc":"2.0","id":9.5,"method":"ping"}', /"id"/i],
      ['{"jsonrpc":"2.0","id":10,"method":"ping","extra":1}', /extra/],
      ['{"jsonrpc":"2.0","id":11,"method":"tools/destroy"}', /unknown method/i],
      ['{"jsonrpc":"2.0","id":12,"method":"__proto__"}', /unknown method/i],
    ]
    for (const [text, says] of cases) {
      const before = one.answers.length
      one.send(text)
      const answer = await until('it is answered', () => one.answers[before], { everyMs: 5 })
      expect(answer).toHaveProperty('error')
      expect((answer?.['error'] as JsonObject | undefined)?.['message']).toMatch(says)
    }
    // Bytes that are no UTF-8.
    one.send(
      Buffer.concat([
        Buffer.from('{"jsonrpc":"2.0","id":13,"method":"'),
        Buffer.from([0xff, 0xc0, 0x80]),
        Buffer.from('"}\n'),
      ]),
    )
    await serves(one)
    expect(JSON.stringify(one.answers)).not.toContain(place.root)
    one.socket.destroy()
  })

  it('names the unknown field and the tool that was meant', async () => {
    const one = raw()
    one.send(callOf('field', 'get_status', { wait_sm: 5 }))
    one.send(callOf('tool', 'start_executoin', {}))
    one.send(
      callOf(
        'proto',
        'submit_task',
        JSON.parse('{"__proto__":{"polluted":true},"constructor":{"prototype":{"polluted":true}}}') as Json,
      ),
    )
    expect(JSON.stringify(await one.answer('field'))).toMatch(/wait_sm.*wait_ms/)
    expect(JSON.stringify(await one.answer('tool'))).toMatch(/start_execution/)
    await serves(one)
    // A member no object may safely have is refused with the whole message.
    expect(one.answers.find((answer) => answer['id'] === 'proto')).toHaveProperty('error')
    one.socket.destroy()
  })

  it('of 5 MiB costs its sender the connection, and nobody else anything', async () => {
    const one = raw()
    const other = raw()
    await serves(other)
    one.send(Buffer.alloc(5 << 20, 97))
    await one.ended
    expect(JSON.stringify(one.answers)).toMatch(/at most \d+ bytes/)
    await serves(other)
    other.socket.destroy()
    const third = raw()
    third.send(`${callOf('padded', 'get_status', {}).slice(0, -1)}${' '.repeat(5 << 20)}}`)
    await third.ended
    await serves(raw())
  })
})

describe('ids that are not the caller’s', () => {
  it('[G-own-work] are answered in the same words as ids nobody was ever given', async () => {
    const submitted = await line.call('submit_task', {
      project_name: 'mine',
      goal: 'Own something',
      target_ref: 'production',
      execution_intent: 'run_script',
      inputs: { script: 'm.js' },
      files: [{ path: 'm.js', content: "writ.writeFile('/out/f.txt', 'mine')" }],
    })
    const started = await line.call('start_execution', { task_id: submitted['task_id'] as string })
    const approval = started['approval'] as JsonObject
    const ran = await line.call('submit_task', {
      project_name: 'mine',
      goal: 'Run something',
      target_ref: 'sandbox',
      execution_intent: 'run_script',
      inputs: { script: 'm.js' },
      files: [{ path: 'm.js', content: "writ.writeFile('/out/f.txt', 'mine')" }],
    })
    const done = await line.call('start_execution', { task_id: ran['task_id'] as string, wait_ms: 20_000 })
    const result = await line.call('get_result', { execution_id: done['execution_id'] as string })
    const receipt = String((result['receipt'] as JsonObject)['uri'])
    const file = String(((result['files'] as readonly JsonObject[])[0] ?? {})['uri'])
    expect(file).toMatch(/^writ:/)

    // From here on somebody else speaks over the socket, who may do nothing but develop.
    const before = readFileSync(place.configFile, 'utf8')
    writeFileSync(
      place.configFile,
      before
        .replace('subject: local-user', 'subject: mallory')
        .replace('roles: [developer, operator]', 'roles: [developer]'),
    )
    await askBroker(place.folder.controlSocket, 'reload')
    const one = raw()
    let asked = 0
    const ask = async (method: string, params: JsonObject): Promise<string> => {
      const id = `ask ${String(asked++)}`
      one.send(JSON.stringify({ jsonrpc: '2.0', id, method, params: { ...params, _meta: meta } }))
      const answer = await one.answer(id)
      const { error, result: got } = answer as { readonly error?: JsonObject; readonly result?: JsonObject }
      const words = JSON.stringify(error ?? got).replaceAll(/dec_[a-z2-7]{10}/g, 'dec_')
      return words
    }
    const never = { task: 'task_aaaaaaaaaa', exec: 'exec_aaaaaaaaaa', apr: 'apr_aaaaaaaaaa', rcpt: 'rcpt_aaaaaaaaaa' }
    const task = String(submitted['task_id'])
    const execution = String(done['execution_id'])
    const digest = String(approval['plan_digest'])
    const tools: readonly (readonly [string, JsonObject, JsonObject])[] = [
      ['get_status', { execution_id: execution }, { execution_id: never.exec }],
      ['get_status', { task_id: task }, { task_id: never.task }],
      ['get_status', { approval_id: approval['approval_id'] as string }, { approval_id: never.apr }],
      ['get_result', { execution_id: execution }, { execution_id: never.exec }],
      ['get_result', { execution_id: execution, file: 'f.txt' }, { execution_id: never.exec, file: 'f.txt' }],
      ['start_execution', { task_id: task }, { task_id: never.task }],
      ['start_execution', { task_id: task, dry_run: true }, { task_id: never.task, dry_run: true }],
      [
        'upload_artifact',
        { task_id: task, files: [{ path: 'x', content: 'x' }] },
        { task_id: never.task, files: [{ path: 'x', content: 'x' }] },
      ],
      ['cancel_execution', { execution_id: execution }, { execution_id: never.exec }],
      [
        'respond_to_approval',
        { approval_id: approval['approval_id'] as string, plan_digest: digest, verdict: 'approve', reason: 'mine now' },
        { approval_id: never.apr, plan_digest: digest, verdict: 'approve', reason: 'mine now' },
      ],
    ]
    for (const [name, theirs, unknown] of tools) {
      const words = await ask('tools/call', { name, arguments: theirs })
      expect(words).toMatch(/not_found/)
      expect(words).toBe(await ask('tools/call', { name, arguments: unknown }))
    }
    for (const [theirs, unknown] of [
      [receipt, `writ://receipts/${never.rcpt}`],
      [file, `writ://artifacts/${never.exec}/f.txt`],
    ] as const) {
      const words = (await ask('resources/read', { uri: theirs })).replaceAll(theirs, 'URI')
      expect(words).not.toMatch(/mine|eyJ/)
      expect(words).toBe((await ask('resources/read', { uri: unknown })).replaceAll(unknown, 'URI'))
    }
    expect(await ask('resources/list', {})).not.toContain('writ://receipts/')
    expect(await ask('tools/call', { name: 'get_status', arguments: {} })).not.toContain(execution)
    one.socket.destroy()
    writeFileSync(place.configFile, before)
    await askBroker(place.folder.controlSocket, 'reload')
    // Nothing of it changed what is asked about.
    expect(await openLineOnce('get_status', { execution_id: String(started['execution_id']) })).toMatchObject({
      state: 'awaiting_approval',
    })
  }, 60_000)
})

async function openLineOnce(tool: string, args: JsonObject): Promise<JsonObject> {
  const own = openLine(place)
  try {
    return await own.call(tool, args)
  } finally {
    own.close()
  }
}

/** Megabytes the broker holds after everything that nothing holds was collected, and that its run host has. */
async function heldMb(): Promise<{ readonly broker: number; readonly host: number }> {
  const now = brokerOf(place.configFile)
  if (now === null) throw new Error('the broker is gone')
  const told = (): readonly string[] => readFileSync(place.logFile, 'utf8').match(/^\{"heap":.*\}$/gm) ?? []
  const before = told().length
  process.kill(now.pid, 'SIGUSR2')
  const line = await until('it has told what it holds', () => told()[before])
  const { host } = familyOf(now)
  if (host === null) throw new Error('there is no run host')
  const resident = /^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${String(host.pid)}/status`, 'utf8'))?.[1]
  return { broker: (JSON.parse(line) as { readonly heap: number }).heap / 2 ** 20, host: Number(resident) / 1024 }
}

/** Numbers from a seed (mulberry32). */
function dice(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let x = state
    x = Math.imul(x ^ (x >>> 15), x | 1)
    x ^= x + Math.imul(x ^ (x >>> 7), x | 61)
    return ((x ^ (x >>> 14)) >>> 0) / 2 ** 32
  }
}

describe('a flood', () => {
  it('[G-hostile-input] of 2,000 mutated messages ends no broker, grows it little, and leaves every other client served', async () => {
    const seed = Math.floor(Math.random() * 2 ** 31)
    const random = dice(seed)
    const pick = <T>(list: readonly T[]): T => list[Math.floor(random() * list.length)] as T
    const odd: readonly Json[] = [
      null,
      true,
      -1,
      1e308,
      '',
      'a'.repeat(5000),
      '\u0000',
      '\u202e',
      '../../etc/passwd',
      [],
      {},
      [[[[]]]],
      'exec_aaaaaaaaaa',
      'task_aaaaaaaaaa',
      'sha256:00',
      { files: [] },
      2 ** 53,
    ]
    const tools = [
      'list_targets',
      'submit_task',
      'upload_artifact',
      'start_execution',
      'get_status',
      'get_result',
      'respond_to_approval',
      'cancel_execution',
      'nothing',
      '',
    ]
    const fields = [
      'target_ref',
      'task_id',
      'execution_id',
      'approval_id',
      'files',
      'inputs',
      'cursor',
      'wait_ms',
      'max_bytes',
      'idempotency_key',
      'again',
      'project_name',
      'goal',
      'execution_intent',
      'constraints',
      'archive',
      '__proto__',
      'x',
    ]
    const message = (id: number): string => {
      const args: Record<string, Json> = {}
      for (let count = Math.floor(random() * 5); count > 0; count--) args[pick(fields)] = pick(odd)
      const text = callOf(id, pick(tools), random() < 0.1 ? pick(odd) : args)
      const kind = random()
      if (kind < 0.5) return text
      const at = Math.floor(random() * text.length)
      if (kind < 0.65) return text.slice(0, at)
      if (kind < 0.8)
        return text.slice(0, at) + String.fromCharCode(32 + Math.floor(random() * 95)) + text.slice(at + 1)
      if (kind < 0.9) return text.slice(0, at) + text.slice(Math.floor(random() * text.length))
      return JSON.stringify(pick(odd))
    }
    const warm = raw()
    for (let id = 0; id < 200; id++) warm.send(message(id))
    await serves(warm)
    warm.socket.destroy()
    const before = await heldMb()
    const other = raw()
    for (let round = 0; round < 10; round++) {
      const one = raw()
      for (let id = 0; id < 200; id++) one.send(message(id).replaceAll('\n', ' '))
      await serves(one)
      // Answered at most once each, and never with what only the operator may know.
      const ids = one.answers.map((answer) => answer['id']).filter((id) => typeof id === 'number')
      expect(new Set(ids).size).toBe(ids.length)
      expect(JSON.stringify(one.answers)).not.toContain(place.root)
      await serves(other)
      // Some go without waiting for anything.
      if (round % 2 === 0) one.socket.destroy()
      else one.socket.end()
    }
    other.socket.destroy()
    const after = await heldMb()
    process.stdout.write(`fuzz seed ${String(seed)}: ${JSON.stringify([before, after])} MB before and after\n`)
    expect(brokerOf(place.configFile)?.pid).toBe(broker.pid)
    expect(after.broker - before.broker).toBeLessThan(16)
    expect(after.host - before.host).toBeLessThan(80)
  }, 180_000)

  it('[G-flood] of 3,000 refusals costs one receipt a code and one a minute, and every answer is still a reason', async () => {
    const from = performance.now()
    const before = (await askBroker(place.folder.controlSocket, 'status')).receipts
    const codes = new Set<string>()
    const total = 3000
    const one = raw()
    for (let sent = 0; sent < total;) {
      for (let batch = 0; batch < 500; batch++, sent++) {
        const what = [
          callOf(sent, 'get_result', { execution_id: 'exec_aaaaaaaaaa' }),
          callOf(sent, 'start_execution', { task_id: 'task_bbbbbbbbbb' }),
          callOf(sent, 'get_status', { approval_id: 'apr_cccccccccc' }),
        ][sent % 3]
        one.send(what ?? '')
      }
      for (let id = sent - 500; id < sent; id++) {
        const { result } = (await one.answer(id)) as {
          readonly result: {
            readonly structuredContent: { readonly error: { readonly code: string; readonly ref: string } }
          }
        }
        codes.add(result.structuredContent.error.code)
        expect(result.structuredContent.error.ref).toMatch(/^dec_/)
      }
      one.answers.length = 0
    }
    one.socket.destroy()
    const minutes = Math.ceil((performance.now() - from) / 60_000)
    const after = (await askBroker(place.folder.controlSocket, 'status')).receipts
    expect(codes).toEqual(new Set(['not_found']))
    expect(after - before).toBeLessThanOrEqual(codes.size + minutes)
    // What was only counted is accounted for when the broker stops, and the log is whole.
    place.writ(['stop'])
    const verified = place.writ(['verify'])
    expect(verified.out).toMatch(/^VALID:LOGGED/)
    const list = JSON.parse(place.writ(['receipts', 'list', '--json']).out) as {
      readonly receipts: readonly JsonObject[]
    }
    expect(list.receipts.some((receipt) => receipt['kind'] === 'denials')).toBe(true)
  }, 180_000)
})

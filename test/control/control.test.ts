import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { askBroker, serveControl } from '../../src/control/control.ts'
import type { Answered, ControlMethods } from '../../src/control/protocol.ts'
import { digestOf, type JsonObject } from '../../src/digest.ts'
import { WritError } from '../../src/error.ts'

const folder = mkdtempSync(join(tmpdir(), 'writ-control-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

let count = 0
const socketPath = (): string => join(folder, `${String(count++)}.sock`)

const status: Answered<'status'> = {
  version: '0',
  pid: process.pid,
  started: '2026-12-01T00:00:00.000Z',
  running: 0,
  queued: 0,
  awaiting_approval: 0,
  connections: 0,
  receipts: 1,
  room: 'ok',
  recovered: { unknown: 0, queued: 0, leases: 0 },
  policy: { generation: null, packs: [], refused: [], warnings: [] },
  configuration: { ok: true },
}
const row: Answered<'token_revoke'> = {
  token_id: '',
  tenant: 'acme',
  subject: 'ada',
  type: 'user',
  agent: 'ada-agent',
  roles: [],
  created: '2026-12-01T00:00:00.000Z',
  expires: '2026-12-02T00:00:00.000Z',
  revoked: null,
}

const methods: ControlMethods = {
  status: async () => await Promise.resolve(status),
  stop: async () => await Promise.reject(new Error('secret detail /var/lib/writ')),
  reload: async () => await Promise.resolve(status),
  approval: async () => await Promise.reject(new Error('not asked here')),
  approval_file: async ({ from }) => await Promise.resolve({ size: from, sha256: digestOf(''), bytes: '' }),
  answer: async () =>
    await Promise.reject(
      new WritError('approval_refused', 'This approval has expired.', {
        remedy: 'Start again.',
        cause: new Error('inner'),
      }),
    ),
  cancel: async ({ reason }) =>
    await Promise.resolve({ state: 'cancelled', final: true, reason, text: 'ü'.repeat(200_000) }),
  token_create: async () => await Promise.resolve({ token: 'writ_', ...row }),
  token_list: async () => await Promise.resolve({ tokens: [row] }),
  token_revoke: async ({ token_id }) => await Promise.resolve({ ...row, token_id }),
}

async function serving(): Promise<{ readonly path: string; readonly close: () => Promise<void> }> {
  const path = socketPath()
  const server = await serveControl(path, methods)
  return { path, close: async () => await server.close() }
}

/** What the socket says to these bytes until it says no more for a moment. */
async function raw(path: string, bytes: string | Buffer): Promise<string> {
  return await new Promise((resolve, reject) => {
    const socket = connect(path)
    let heard = ''
    socket.setEncoding('utf8')
    socket.on('data', (piece: string) => (heard += piece))
    socket.on('error', reject)
    socket.on('close', () => resolve(heard))
    socket.end(bytes)
  })
}

describe('the control socket', () => {
  it('[G-socket-private] is its user’s alone, replaces what a crash left, and is gone when it closes', async () => {
    const path = socketPath()
    writeFileSync(path, 'left by a crash')
    const server = await serveControl(path, methods)
    expect(statSync(path).mode & 0o777).toBe(0o600)
    expect(await askBroker(path, 'status')).toEqual(status)
    await server.close()
    await expect(askBroker(path, 'status')).rejects.toMatchObject({ code: 'broker_unreachable' })
  })

  it('answers each line in order, large ones whole', async () => {
    const { path, close } = await serving()
    const large = await askBroker(path, 'cancel', { execution_id: 'exec_1', reason: 'late' })
    expect(large).toMatchObject({ state: 'cancelled', final: true, reason: 'late' })
    expect(large['text']).toBe('ü'.repeat(200_000))
    const lines = (
      await raw(
        path,
        ['a', 'b', 'c']
          .map((token_id) => `${JSON.stringify({ method: 'token_revoke', arguments: { token_id } })}\n`)
          .join(''),
      )
    )
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as JsonObject)
    expect(lines).toEqual(['a', 'b', 'c'].map((token_id) => ({ ok: { ...row, token_id } })))
    await close()
  })

  it('carries a refusal with its code and remedy, and of any other failure nothing but that it was one', async () => {
    const { path, close } = await serving()
    await expect(askBroker(path, 'answer', { jws: 'x' })).rejects.toMatchObject({
      code: 'approval_refused',
      message: 'This approval has expired.',
      remedy: 'Start again.',
    })
    expect(await raw(path, '{"method":"answer","arguments":{"jws":"x"}}\n')).not.toContain('inner')
    const heard = await raw(path, '{"method":"stop","arguments":{}}\n')
    expect(JSON.parse(heard)).toMatchObject({ error: { code: 'internal' } })
    expect(heard).not.toContain('secret detail')
    await close()
  })

  it('answers nonsense with a refusal, and goes on', async () => {
    const { path, close } = await serving()
    const bad = [
      '{}',
      '[]',
      'null',
      '{"method":"constructor"}',
      '{"method":"__proto__"}',
      '{"method":"status","method":"stop"}',
      'not json',
      '{"method":1}',
      '{"method":"status"}',
      '{"method":"status","arguments":[]}',
      '{"method":"status","arguments":{"more":1}}',
      '{"method":"token_revoke","arguments":{}}',
      '{"method":"token_revoke","arguments":"tok_1"}',
      '{"method":"cancel","arguments":{"execution_id":"exec_1","reason":7}}',
      `{"method":"cancel","arguments":{"execution_id":"exec_1","reason":"${'x'.repeat(1001)}"}}`,
      '{"method":"approval_file","arguments":{"approval_id":"apr_1","path":"a","from":-1}}',
      '{"method":"approval_file","arguments":{"approval_id":"apr_1","path":"a","from":1e300}}',
      '\ud800',
    ]
    const heard = (await raw(path, `${bad.join('\n')}\n{"method":"status","arguments":{}}\n`)).trim().split('\n')
    expect(heard).toHaveLength(bad.length + 1)
    for (const line of heard.slice(0, -1)) expect(JSON.parse(line)).toHaveProperty('error')
    expect(JSON.parse(heard.at(-1) ?? '')).toEqual({ ok: status })
    await close()
  })

  it('hangs up on a line without an end, and serves the next', async () => {
    const { path, close } = await serving()
    expect(await raw(path, Buffer.alloc(5 * 1024 * 1024, 0x20)).catch(() => '')).toBe('')
    expect(await askBroker(path, 'status')).toEqual(status)
    await close()
  })

  it('stops beside a client that does not read its answer', async () => {
    const path = socketPath()
    const bytes = 'A'.repeat(1_400_000)
    const { close } = await serveControl(path, {
      ...methods,
      approval_file: async () => await Promise.resolve({ size: 0, sha256: digestOf(''), bytes }),
    })
    const socket = connect(path)
    socket.pause()
    const asked = { method: 'approval_file', arguments: { approval_id: 'a', path: 'p', from: 0 } }
    await new Promise<void>((resolve) => socket.write(`${JSON.stringify(asked)}\n`, () => resolve()))
    await new Promise((resolve) => setTimeout(resolve, 200))
    await close()
    socket.destroy()
  })

  it('that closes before it answered, or answers as another version of Writ does, is told as such', async () => {
    const path = socketPath()
    const answers = new Map([
      ['reload', 'garbage'],
      ['token_list', '{"ok":{"tokens":[{"token_id":"tok_1"}]}}'],
      ['stop', '{}'],
    ])
    const server = createServer((socket) => {
      socket.once('data', (bytes) => {
        const { method } = JSON.parse(bytes.toString()) as { readonly method: string }
        const answer = answers.get(method)
        if (answer === undefined) socket.destroy()
        else socket.end(`${answer}\n`)
      })
      socket.on('error', () => undefined)
    })
    await new Promise<void>((resolve) => server.listen(path, resolve))
    await expect(askBroker(path, 'status')).rejects.toMatchObject({ code: 'broker_unreachable' })
    for (const method of ['reload', 'token_list', 'stop'] as const)
      await expect(askBroker(path, method)).rejects.toMatchObject({
        code: 'broker_running',
        remedy: expect.stringContaining('"writ stop"') as string,
      })
    await new Promise((resolve) => server.close(resolve))
  })
})

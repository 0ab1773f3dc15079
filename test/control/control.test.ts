import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { askBroker, type ControlMethods, serveControl } from '../../src/control/control.ts'
import type { JsonObject } from '../../src/digest.ts'
import { WritError } from '../../src/error.ts'

const folder = mkdtempSync(join(tmpdir(), 'writ-control-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

let count = 0
const socketPath = (): string => join(folder, `${String(count++)}.sock`)

const methods: ControlMethods = {
  status: async () => await Promise.resolve({ running: 0 }),
  stop: async () => await Promise.reject(new Error('secret detail /var/lib/writ')),
  reload: async () => await Promise.resolve({}),
  approval: async (id) => await Promise.resolve({ id }),
  approval_file: async (asked) => await Promise.resolve({ asked }),
  answer: async () =>
    await Promise.reject(
      new WritError('approval_refused', 'This approval has expired.', {
        remedy: 'Start again.',
        cause: new Error('inner'),
      }),
    ),
  cancel: async (id) => await Promise.resolve({ id, text: 'ü'.repeat(200_000) }),
  token_create: async (asked) => await Promise.resolve({ asked }),
  token_list: async () => await Promise.resolve({ tokens: [] }),
  token_revoke: async (id) => await Promise.resolve({ id }),
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
    expect(await askBroker(path, 'status')).toEqual({ running: 0 })
    await server.close()
    await expect(askBroker(path, 'status')).rejects.toMatchObject({ code: 'broker_unreachable' })
  })

  it('answers each line in order, large ones whole', async () => {
    const { path, close } = await serving()
    const large = await askBroker(path, 'cancel', 'exec_1')
    expect(String(large['text'])).toBe('ü'.repeat(200_000))
    const lines = (
      await raw(
        path,
        ['a', 'b', 'c'].map((argument) => `${JSON.stringify({ method: 'approval', argument })}\n`).join(''),
      )
    )
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as JsonObject)
    expect(lines).toEqual(['a', 'b', 'c'].map((id) => ({ ok: { id } })))
    await close()
  })

  it('carries a refusal with its code and remedy, and of any other failure nothing but that it was one', async () => {
    const { path, close } = await serving()
    await expect(askBroker(path, 'answer', 'x')).rejects.toMatchObject({
      code: 'approval_refused',
      message: 'This approval has expired.',
      remedy: 'Start again.',
    })
    expect(await raw(path, '{"method":"answer","argument":"x"}\n')).not.toContain('inner')
    const heard = await raw(path, '{"method":"stop"}\n')
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
      '\ud800',
    ]
    const heard = (await raw(path, `${bad.join('\n')}\n{"method":"status"}\n`)).trim().split('\n')
    expect(heard).toHaveLength(bad.length + 1)
    for (const line of heard.slice(0, -1)) expect(JSON.parse(line)).toHaveProperty('error')
    expect(JSON.parse(heard.at(-1) ?? '')).toEqual({ ok: { running: 0 } })
    await close()
  })

  it('hangs up on a line without an end, and serves the next', async () => {
    const { path, close } = await serving()
    expect(await raw(path, Buffer.alloc(5 * 1024 * 1024, 0x20)).catch(() => '')).toBe('')
    expect(await askBroker(path, 'status')).toEqual({ running: 0 })
    await close()
  })

  it('that closes before it answered, or says what is no answer, is told as such', async () => {
    const path = socketPath()
    const server = createServer((socket) => {
      socket.once('data', (bytes) => (bytes.toString().includes('status') ? socket.destroy() : socket.end('garbage\n')))
      socket.on('error', () => undefined)
    })
    await new Promise<void>((resolve) => server.listen(path, resolve))
    await expect(askBroker(path, 'status')).rejects.toMatchObject({ code: 'broker_unreachable' })
    await expect(askBroker(path, 'reload')).rejects.toBeInstanceOf(WritError)
    await new Promise((resolve) => server.close(resolve))
  })
})

import { once } from 'node:events'
import { chmodSync, existsSync, lstatSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import type { Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { isSocketPath, listenMcp } from '../../src/mcp/socket.ts'
import type { Listener } from '../../src/mcp/socket.ts'
import { caller, memoryBroker, quiet } from './memory-broker.ts'
import { legacyHandshake } from './wire.ts'

let folder = ''
const listeners: Listener[] = []
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'writ-sock-'))
})
afterEach(async () => {
  for (const listener of listeners.splice(0)) await listener.close()
  rmSync(folder, { recursive: true, force: true })
})

async function listen(path: string, changed?: () => void): Promise<Listener> {
  const callerOf = (): typeof caller => caller
  const listener = await listenMcp({
    path,
    broker: memoryBroker(),
    callerOf,
    log: quiet,
    ...(changed === undefined ? {} : { changed }),
  })
  listeners.push(listener)
  return listener
}

async function dial(path: string): Promise<Socket> {
  const socket = connect(path)
  await once(socket, 'connect')
  return socket
}

async function handshake(socket: Socket): Promise<string> {
  socket.write(`${JSON.stringify(legacyHandshake)}\n`)
  const [bytes] = (await once(socket, 'data')) as [Buffer]
  return bytes.toString()
}

describe('the MCP socket', () => {
  test('is 0600 in a folder that is 0700 [G-socket-private]', async () => {
    const path = join(folder, 'run', 'mcp.sock')
    await listen(path)
    expect(lstatSync(path).mode & 0o777).toBe(0o600)
    expect(lstatSync(join(folder, 'run')).mode & 0o777).toBe(0o700)
  })

  test('is not opened in a folder that others may enter, or that is a link [G-socket-private]', async () => {
    const shared = join(folder, 'shared')
    mkdirSync(shared)
    chmodSync(shared, 0o755)
    await expect(listen(join(shared, 'mcp.sock'))).rejects.toMatchObject({ code: 'invalid_config' })
    mkdirSync(join(folder, 'own'), { mode: 0o700 })
    symlinkSync(join(folder, 'own'), join(folder, 'link'))
    await expect(listen(join(folder, 'link', 'mcp.sock'))).rejects.toMatchObject({ code: 'invalid_config' })
    expect(existsSync(join(folder, 'own', 'mcp.sock'))).toBe(false)
  })

  test('replaces the socket of a broker that died and nothing but a socket', async () => {
    const path = join(folder, 'run', 'mcp.sock')
    mkdirSync(join(folder, 'run'), { mode: 0o700 })
    const dead = createServer().listen(path)
    await once(dead, 'listening')
    await listen(path)
    expect(await handshake(await dial(path))).toContain('"serverInfo"')
    dead.close()

    const file = join(folder, 'run', 'file.sock')
    writeFileSync(file, 'precious')
    await expect(listen(file)).rejects.toMatchObject({ code: 'invalid_config' })
    expect(lstatSync(file).isFile()).toBe(true)
  })

  test('refuses a path too long for a socket', async () => {
    const path = join(folder, 'x'.repeat(110), 'mcp.sock')
    expect(isSocketPath(path)).toBe(false)
    await expect(listen(path)).rejects.toMatchObject({ code: 'invalid_config' })
  })

  test('counts its connections and ends them all when it closes', async () => {
    const path = join(folder, 'run', 'mcp.sock')
    let changes = 0
    const listener = await listen(path, () => changes++)
    const [one, two] = [await dial(path), await dial(path)]
    await Promise.all([handshake(one), handshake(two)])
    expect(listener.connections()).toBe(2)
    one.destroy()
    await expect.poll(() => listener.connections()).toBe(1)
    two.write(
      '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"get_status","arguments":{"wait_ms":40000}}}\n',
    )
    await expect.poll(() => listener.inFlight()).toBe(1)
    const gone = once(two, 'close')
    await listener.close()
    await gone
    expect(listener.connections()).toBe(0)
    expect(changes).toBe(4)
    expect(existsSync(path)).toBe(false)
  })

  test('asks for each message who its client is now, so that a role taken away counts no longer [G-every-message-decided]', async () => {
    const path = join(folder, 'run', 'mcp.sock')
    const broker = memoryBroker()
    let roles: readonly string[] = ['developer']
    const callerOf = (): typeof caller => ({ ...caller, roles })
    listeners.push(await listenMcp({ path, broker, callerOf, log: quiet }))
    const socket = await dial(path)
    await handshake(socket)
    roles = []
    socket.write(`${JSON.stringify({ jsonrpc: '2.0', id: 7, method: 'ping' })}\n`)
    await once(socket, 'data')
    const seen = broker.seen.admitted.map((one) => ({ name: one.message.name, roles: one.caller.roles }))
    expect(seen[0]).toEqual({ name: 'initialize', roles: ['developer'] })
    expect(seen.at(-1)).toEqual({ name: 'ping', roles: [] })
  })
})

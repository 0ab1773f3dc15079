import {
  appendFileSync,
  chmodSync,
  chownSync,
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { createServer } from 'node:net'
import { dirname, join } from 'node:path'
import { expect, it, onTestFinished } from 'vitest'
import { askBroker } from '../src/control/control.ts'
import { folderOf, makeFolders, turnLog } from '../src/folder.ts'
import { connectOrStart } from '../src/start.ts'
import { useWorld } from './e2e/world.ts'
import { folder } from './ledger/folder.ts'
import { until } from './wait.ts'

it('a log that has grown too long is put aside, the newest three are kept, and who writes to it goes on', () => {
  const path = join(folder(), 'broker.log')
  const written = openSync(path, 'a', 0o600)
  const turns: boolean[] = []
  for (const text of ['one\n', 'two\n', 'three\n', 'four\n', 'five\n']) {
    writeSync(written, text)
    turns.push(turnLog(path, written, 4))
  }
  writeSync(written, 'x')
  expect(turnLog(path, written, 4)).toBe(false)
  closeSync(written)
  expect(turns).toEqual([true, true, true, true, true])
  const texts = ['', '.1', '.2', '.3', '.4'].map((end) =>
    existsSync(`${path}${end}`) ? readFileSync(`${path}${end}`, 'utf8') : null,
  )
  expect(texts).toEqual(['x', 'five\n', 'four\n', 'three\n', null])
  expect(statSync(`${path}.1`).mode & 0o777).toBe(0o600)
})

it('a folder is made with all above it, is left as it is where it is there, and is never waited for where it cannot be', () => {
  const at = folder()
  makeFolders(join(at, 'a', 'b'), 0o700)
  makeFolders(join(at, 'a', 'b'), 0o755)
  expect([statSync(join(at, 'a')).mode & 0o777, statSync(join(at, 'a', 'b')).mode & 0o777]).toEqual([0o700, 0o700])
  writeFileSync(join(at, 'file'), '')
  expect(() => makeFolders(join(at, 'file'), 0o700)).toThrow('EEXIST')
  expect(() => makeFolders(join(at, 'file', 'x'), 0o700)).toThrow('ENOTDIR')
  expect(() => makeFolders('/proc/writ-test/x', 0o700)).toThrow(/\/proc\/writ-test/)
})

it('a log that is written elsewhere, or is not there, is left alone', () => {
  const at = folder()
  const [path, other] = [join(at, 'broker.log'), join(at, 'other')]
  const written = openSync(other, 'a', 0o600)
  writeSync(written, 'long enough')
  expect(turnLog(path, written, 4)).toBe(false)
  appendFileSync(path, 'long enough')
  expect(turnLog(path, written, 4)).toBe(false)
  closeSync(written)
  expect(readFileSync(path, 'utf8')).toBe('long enough')
})

it('[G-socket-private] nobody looks for a broker where another user could have put its sockets', async () => {
  // Too long for a socket, so that these are where everybody may make a folder.
  const data = join(folder(), 'd'.repeat(100))
  const { controlSocket, mcpSocket, log } = folderOf(data)
  const heard: string[] = []
  const strangers = [controlSocket, mcpSocket].map((path) => {
    mkdirSync(dirname(path), { recursive: true, mode: 0o700 })
    return createServer((socket) => {
      heard.push(path)
      socket.end('{"ok":{"tokens":[]}}\n')
    }).listen(path)
  })
  onTestFinished(() => {
    for (const one of strangers) one.close()
    rmSync(dirname(controlSocket), { recursive: true, force: true })
  })
  const ask = async (): Promise<void> => {
    const refused = { code: 'invalid_config' }
    await expect(askBroker(controlSocket, 'token_list')).rejects.toMatchObject(refused)
    const start = { configFile: join(data, 'writ.yaml'), socket: mcpSocket, logFile: log, env: {}, withinMs: 1 }
    await expect(connectOrStart(start)).rejects.toMatchObject(refused)
  }
  chmodSync(dirname(controlSocket), 0o777)
  await ask()
  chmodSync(dirname(controlSocket), 0o700)
  if (process.getuid?.() === 0) {
    chownSync(dirname(controlSocket), 65_534, 65_534)
    await ask()
    chownSync(dirname(controlSocket), 0, 0)
  }
  expect(heard).toEqual([])
  expect(await askBroker(controlSocket, 'token_list')).toEqual({ tokens: [] })
})

const world = useWorld()

it('a broker in the background does so with its own', { timeout: 40_000 }, async () => {
  await world.client()
  const log = join(world.folder, '.writ', 'broker.log')
  appendFileSync(log, 'x'.repeat(8 * 1024 * 1024))
  await until('the log is put aside', () => existsSync(`${log}.1`) && statSync(`${log}.1`).size > 8 * 1024 * 1024)
  expect(readFileSync(`${log}.1`, 'utf8')).toContain('"msg":"ready"')
  await until('the log begins anew', () => statSync(log).size < 10_000)
  // What it says from now on stands in the one of its old name.
  appendFileSync(join(world.folder, 'policies', 'starter', 'request.rego'), '\nno policy at all {{{\n')
  await until('it says that the edit was refused', () =>
    /^\{.*a policy edit was refused.*\}$/m.test(readFileSync(log, 'utf8')),
  )
})

import { spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll } from 'vitest'
import { askBroker } from '../../src/control/control.ts'
import { folderOf } from '../../src/folder.ts'
import { client2 } from './clients/client2.ts'
import { type Driver, patient } from './clients/driver.ts'

const root = join(import.meta.dirname, '..', '..')
export const writBin = join(root, 'bin', 'writ')
export const passphrase = 'a passphrase for the tests'
/** What policy says where a busy machine gave it no time; its remedy is to ask again. */
const late = 'Policy did not answer in time.'

export interface Ran {
  readonly code: number
  readonly out: string
  readonly err: string
}

/** One initialised folder with a broker of its own. The tests drive it as people do: by its command line and by MCP. */
export interface World {
  readonly folder: string
  readonly env: Readonly<Record<string, string>>
  /** `writ …` in the folder. */
  writ(args: readonly string[], options?: { readonly input?: string; readonly passphrase?: string }): Ran
  json(args: readonly string[]): unknown
  /** A connected client that nobody here wrote; closed after the tests. */
  client(driver?: Driver): Promise<Driver>
  /** Adds YAML under `targets:` (two spaces deep) and, when given, a `credentials:` section. */
  addTarget(yaml: string, credentials?: string): void
  enrol(name?: string): void
  approve(id: string, name?: string): Ran
  /** Throws where none answers. */
  brokerPid(): number
  /** Has the broker look at its files again; what they say is in force or refused when it resolves. */
  reload(): Promise<void>
  log(): string
  close(): Promise<void>
}

export function makeWorld(options: { readonly env?: Readonly<Record<string, string>> } = {}): World {
  const folder = mkdtempSync(join(tmpdir(), 'writ-e2e-'))
  const env = { PATH: process.env['PATH'] ?? '', HOME: folder, ...options.env }
  const drivers: Driver[] = []
  const writ: World['writ'] = (args, given = {}) => {
    const fd3 = given.passphrase === undefined ? null : join(folder, '.passphrase')
    if (fd3 !== null) writeFileSync(fd3, given.passphrase ?? '', { mode: 0o600 })
    const script = fd3 === null ? 'exec "$@"' : `exec "$@" 3<'${fd3}'`
    const run = (): Ran => {
      const done = spawnSync('/bin/sh', ['-c', script, 'sh', process.execPath, writBin, ...args], {
        cwd: folder,
        env,
        input: given.input ?? '',
        encoding: 'utf8',
        maxBuffer: 64 * 1024 * 1024,
      })
      return { code: done.status ?? 128, out: done.stdout, err: done.stderr }
    }
    let ran = run()
    for (let tries = 1; tries < 3 && ran.code !== 0 && `${ran.out}${ran.err}`.includes(late); tries++) ran = run()
    if (fd3 !== null) rmSync(fd3)
    return ran
  }
  const world: World = {
    folder,
    env,
    writ,
    json(args) {
      const ran = writ([...args, '--json'])
      return JSON.parse(ran.out) as unknown
    },
    async client(driver = client2('auto')) {
      await driver.connect(process.execPath, [writBin, 'mcp', '--config', join(folder, 'writ.yaml')], env)
      drivers.push(driver)
      return patient(driver)
    },
    addTarget(yaml, credentials) {
      const path = join(folder, 'catalog.yaml')
      const text = readFileSync(path, 'utf8')
      // Before the commented example at the end, still inside `targets:`.
      const at = text.indexOf('# A service with a token.')
      writeFileSync(
        path,
        `${text.slice(0, at)}${yaml}\n${text.slice(at)}\n${credentials === undefined ? '' : `credentials:\n${credentials}\n`}`,
      )
    },
    enrol(name = 'ada') {
      const ran = writ(['approvals', 'enroll', name, '--role', 'approver', '--passphrase-fd', '3'], { passphrase })
      if (ran.code !== 0) throw new Error(ran.err)
    },
    approve: (id, name) =>
      writ(
        [
          'approvals',
          'approve',
          id,
          ...(name === undefined ? [] : ['--as', name]),
          '--passphrase-fd',
          '3',
          '--reason',
          'seen',
        ],
        { passphrase },
      ),
    brokerPid() {
      const ran = writ(['status', '--json'])
      const { pid } = JSON.parse(ran.out) as { readonly pid?: number }
      if (pid === undefined) throw new Error('no broker answers')
      return pid
    },
    async reload() {
      await askBroker(folderOf(join(folder, '.writ')).controlSocket, 'reload')
    },
    log: () =>
      existsSync(join(folder, '.writ', 'broker.log')) ? readFileSync(join(folder, '.writ', 'broker.log'), 'utf8') : '',
    async close() {
      for (const driver of drivers) await driver.close().catch(() => undefined)
      writ(['stop'])
      rmSync(folder, { recursive: true, force: true })
    },
  }
  const made = writ(['init'])
  if (made.code !== 0) throw new Error(`writ init failed: ${made.err}`)
  return world
}

/** A world that is taken down after the file's tests, however they end. */
export function useWorld(options: Parameters<typeof makeWorld>[0] = {}): World {
  const world = makeWorld(options)
  afterAll(async () => await world.close())
  return world
}

export function script(
  name: string,
  content: string,
): {
  readonly inputs: { readonly script: string }
  readonly files: readonly { readonly path: string; readonly content: string }[]
} {
  return { inputs: { script: name }, files: [{ path: name, content }] }
}

/** Command lines of live processes that hold `text`, words parted by NUL; for proving that nothing is left behind. */
export function commandsWith(text: string): readonly string[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)
    .map((pid) => {
      try {
        return readFileSync(`/proc/${pid}/cmdline`, 'utf8')
      } catch {
        return ''
      }
    })
    .filter((command) => command.includes(text))
}

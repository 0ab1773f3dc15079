import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import {
  accessSync,
  chownSync,
  constants,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { expect, it } from 'vitest'
import { writBin } from '../e2e/world.ts'

const unit = join(import.meta.dirname, '..', '..', 'packaging', 'systemd', 'writ.service')
const nobody = 65_534

it('ships a systemd unit that systemd takes without a complaint and finds little exposed in', (context) => {
  const verified = spawnSync('systemd-analyze', ['verify', unit], { encoding: 'utf8' })
  if (verified.error !== undefined) context.skip('systemd-analyze is not installed; it comes with systemd')
  // Only what concerns this unit: verify looks at others of the machine too.
  const said = `${verified.stdout}${verified.stderr}`.split('\n').filter((line) => line.includes('writ.service'))
  expect(said.filter((line) => !line.includes('is not executable'))).toEqual([])
  const security = spawnSync('systemd-analyze', ['security', '--offline=yes', '--threshold=20', unit], {
    encoding: 'utf8',
  })
  expect(security.stdout).toMatch(/Overall exposure level for writ\.service: [01]\.\d/)
  expect(security.status).toBe(0)
})

it('is set up with the package as the README installs it, from where the package has it', () => {
  const root = join(import.meta.dirname, '..', '..')
  const read = (name: string): string => readFileSync(join(root, name), 'utf8')
  const { version, files } = JSON.parse(read('package.json')) as { readonly version: string; readonly files: string[] }
  const install = `npm install --global --ignore-scripts ./writ-${version}.tgz`
  expect(read('README.md')).toContain(`\n${install}\n`)
  const text = readFileSync(unit, 'utf8')
  expect(text).toContain(`#   ${install}\n`)
  expect(text.match(/npm install/g)?.length).toBe(1)
  expect(text).toContain('#   cp "$(npm root --global)/writ/packaging/systemd/writ.service" /etc/systemd/system/\n')
  expect(files).toContain('packaging/')
})

it('gets its certificate by the hook of the page, for its own user alone', (context) => {
  if (process.getuid?.() !== 0) context.skip('only root can give files to another user; run the tests as root')
  const page = readFileSync(join(import.meta.dirname, '..', '..', 'docs', 'remote.md'), 'utf8')
  const hook = /```sh\n(#!\/bin\/sh -e\n[^]*?)```/.exec(page)?.[1] ?? ''
  const folder = mkdtempSync(join(tmpdir(), 'writ-hook-'))
  try {
    for (const name of ['fullchain.pem', 'privkey.pem']) writeFileSync(join(folder, name), name, { mode: 0o600 })
    const here = hook
      .replaceAll('/var/lib/writ', join(folder, 'writ'))
      .replaceAll('-o writ -g writ', `-o ${String(nobody)} -g ${String(nobody)}`)
    // A renewal comes after a renewal.
    for (let times = 0; times < 2; times++)
      expect(spawnSync('sh', ['-ec', here], { env: { ...process.env, RENEWED_LINEAGE: folder } }).status).toBe(0)
    for (const [path, mode] of [
      ['writ/tls', 0o700],
      ['writ/tls/fullchain.pem', 0o600],
      ['writ/tls/privkey.pem', 0o600],
    ] as const) {
      const is = statSync(join(folder, path))
      expect([path, is.uid, is.mode & 0o777]).toEqual([path, nobody, mode])
    }
    expect(readFileSync(join(folder, 'writ/tls/privkey.pem'), 'utf8')).toBe('privkey.pem')
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
})

it('runs under a user of its own that holds no privilege at all, as the unit has it', async (context) => {
  if (process.getuid?.() !== 0) context.skip('only root can become another user; run the tests as root')
  if (spawnSync('setpriv', ['--version']).error !== undefined)
    context.skip('setpriv is not installed; it comes with util-linux')
  const others = statSync(writBin).mode & 0o004
  if (others === 0) context.skip('another user cannot read this clone; chmod -R o+rX it')
  const folder = mkdtempSync(join(tmpdir(), 'writ-nobody-'))
  try {
    chownSync(folder, nobody, nobody)
    const as = [
      '--reuid',
      String(nobody),
      '--regid',
      String(nobody),
      '--clear-groups',
      '--no-new-privs',
      '--bounding-set=-all',
      '--inh-caps=-all',
    ]
    const env = { PATH: process.env['PATH'] ?? '', HOME: folder }
    const reached = spawnSync('setpriv', [...as, process.execPath, writBin, 'init', folder], { env, encoding: 'utf8' })
    if (reached.status !== 0 && /EACCES|Permission denied/.test(reached.stderr))
      context.skip('another user cannot read this clone; chmod -R o+rX it and the folders above')
    expect(reached.stderr).toBe('')
    const broker = spawn(
      'setpriv',
      [...as, process.execPath, writBin, 'serve', '--listen', '127.0.0.1:0', '--config', folder],
      {
        env,
        cwd: folder,
        stdio: ['ignore', 'ignore', 'pipe'],
      },
    )
    const ended = once(broker, 'exit')
    let url = ''
    for await (const line of createInterface({ input: broker.stderr })) {
      url = /"address":"([^"]+)"/.exec(line)?.[1] ?? ''
      if (url !== '') break
    }
    broker.stderr.resume()
    expect(await (await fetch(`${url}/readyz`)).json()).toEqual({ ready: true, unavailable: [] })
    const status = readFileSync(`/proc/${String(broker.pid)}/status`, 'utf8')
    for (const set of ['CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb'])
      expect(status).toMatch(new RegExp(`^${set}:\\s+0+$`, 'm'))
    expect(status).toMatch(/^NoNewPrivs:\s+1$/m)
    broker.kill('SIGTERM')
    expect(await ended).toEqual([0, null])
    // Nobody else reads what it wrote.
    for (const name of readdirSync(join(folder, '.writ')))
      expect([name, statSync(join(folder, '.writ', name)).mode & 0o077]).toEqual([name, 0])
    accessSync(join(folder, '.writ'), constants.R_OK)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}, 120_000)

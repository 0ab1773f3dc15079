import { spawnSync } from 'node:child_process'
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { homedir, tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { afterAll, describe, expect, it, type TestContext, vi } from 'vitest'

vi.setConfig({ testTimeout: 600_000 })

const root = join(import.meta.dirname, '..', '..')
const folder = mkdtempSync(join(tmpdir(), 'writ-install-'))
const tree = join(folder, 'tree')
const prefix = join(folder, 'prefix')
const home = join(folder, 'home')

/** What a machine of a user has: its own Node and npm, none of this clone's. */
const systemPath = (process.env['PATH'] ?? '')
  .split(delimiter)
  .filter((part) => !part.includes('node_modules'))
  .join(delimiter)

interface Ran {
  readonly code: number | null
  readonly out: string
  readonly err: string
}

function run(
  command: string,
  args: readonly string[],
  options: { cwd?: string; env?: Readonly<Record<string, string>>; input?: string } = {},
): Ran {
  const done = spawnSync(command, args, {
    cwd: options.cwd ?? folder,
    env: options.env ?? { ...process.env, PATH: systemPath, HOME: homedir() },
    input: options.input ?? '',
    encoding: 'utf8',
    maxBuffer: 64 * 1024 * 1024,
  })
  return { code: done.status, out: done.stdout, err: done.stderr }
}

afterAll(() => {
  if (existsSync(join(prefix, 'bin', 'writ')))
    run(join(prefix, 'bin', 'writ'), ['stop', '--config', join(home, 'work')], { env: bare() })
  rmSync(folder, { recursive: true, force: true })
})

function walk(at: string): readonly string[] {
  return readdirSync(at, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(at.length + 1))
}

let tarball: string | null = null

/** Packs a copy of the tree, once. */
function packed(): string {
  if (tarball !== null) return tarball
  cpSync(root, tree, {
    recursive: true,
    filter: (from) => !['node_modules', 'dist', '.git', '.cache'].some((name) => from === join(root, name)),
  })
  symlinkSync(join(root, 'node_modules'), join(tree, 'node_modules'))
  // As README.md says it.
  for (const args of [
    ['run', 'build'],
    ['pack', '--pack-destination', folder],
  ]) {
    const made = run('npm', args, { cwd: tree })
    if (made.code !== 0) throw new Error(`npm ${args.join(' ')} failed: ${made.err}\n${made.out}`)
  }
  const file = readdirSync(folder).find((name) => name.endsWith('.tgz'))
  if (file === undefined) throw new Error('npm pack left no tarball')
  tarball = join(folder, file)
  return tarball
}

describe('the package', () => {
  it('holds compiled JavaScript, policies, the Rego tools and the licence; no test, no source, no path of the machine it was made on', () => {
    mkdirSync(join(folder, 'unpacked'))
    expect(run('tar', ['-xzf', packed(), '-C', join(folder, 'unpacked')]).code).toBe(0)
    const at = join(folder, 'unpacked', 'package')
    const files = walk(at)
    for (const needed of [
      'package.json',
      'LICENSE',
      'bin/writ',
      'dist/main.js',
      'dist/cli/cli.js',
      'native/rego-tools/rego-tools.wasm.br',
      'native/sandbox-agent/sandbox-agent-amd64.br',
      'native/sandbox-agent/sandbox-agent-arm64.sha256',
      'policies/org/access.rego',
      'policies/starter/request.rego',
      'policies/capabilities.json',
    ])
      expect(files).toContain(needed)
    const unwanted = files.filter(
      (file) =>
        /(?:^|\/)(?:test|bench|node_modules|\.ci|tools)\/|(?:\.ts|\.tsbuildinfo|\.map)$/.test(file) &&
        !file.startsWith('examples/'),
    )
    expect(unwanted).toEqual([])
    // Each module of the sources was compiled, and every sibling started as a process of its own is there.
    const modules = walk(join(tree, 'src')).filter((file) => file.endsWith('.ts') && !file.endsWith('.d.ts'))
    expect(
      modules.map((file) => `dist/${file.replace(/\.ts$/, '.js')}`).filter((file) => !files.includes(file)),
    ).toEqual([])
    const places = [root, folder, homedir()].filter((place) => place.length > 1)
    for (const file of files.filter((name) => !name.endsWith('.br'))) {
      const text = readFileSync(join(at, file), 'latin1')
      expect([file, places.filter((place) => text.includes(`${place}/`))]).toEqual([file, []])
      // TypeScript's own endings would not be found under node_modules.
      if (file.startsWith('dist/'))
        expect([file, /from '\.[^']*\.ts'|import\('\.[^']*\.ts'\)/.exec(text)?.[0]]).toEqual([file, undefined])
    }
  })
})

/** An environment with the system's Node and a shell in it, and nothing to compile with. */
function bare(): Readonly<Record<string, string>> {
  const bin = join(folder, 'bin')
  if (!existsSync(bin)) {
    mkdirSync(bin)
    for (const name of ['node', 'sh']) symlinkSync(run('sh', ['-c', `command -v ${name}`]).out.trim(), join(bin, name))
  }
  return { PATH: bin, HOME: home }
}

/** Installs the tarball, once; skips with the reason where this machine cannot. */
function installed(context: TestContext): string {
  const version = run('node', ['--version']).out.trim()
  if (!version.startsWith('v20.'))
    return context.skip(`the system's node is ${version || 'missing'}; install Node 20 to test that it is enough`)
  const writ = join(prefix, 'bin', 'writ')
  if (existsSync(writ)) return writ
  if (run('npm', ['view', 'commander', 'version', '--fetch-timeout=10000', '--fetch-retries=0']).code !== 0)
    return context.skip('no npm registry answers, so nothing can be installed; try again with a network')
  const done = run('npm', [
    'install',
    '--global',
    '--ignore-scripts',
    '--no-audit',
    '--no-fund',
    '--prefix',
    prefix,
    packed(),
  ])
  if (done.code !== 0) throw new Error(`npm install failed: ${done.err}`)
  mkdirSync(home, { recursive: true })
  return writ
}

describe('installed under Node 20, without scripts and without a compiler', () => {
  it('says its version, and doctor finds nothing that keeps it from working', (context) => {
    const writ = installed(context)
    const manifest = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { readonly version: string }
    expect(run(writ, ['--version'], { env: bare() })).toMatchObject({ code: 0, out: `${manifest.version}\n` })
    const doctor = run(writ, ['doctor', '--json'], { cwd: home, env: bare() })
    expect(doctor.err).toBe('')
    const { areas, problems } = JSON.parse(doctor.out) as {
      readonly areas: readonly { readonly area: string; readonly findings: readonly { readonly what: string }[] }[]
      readonly problems: number
    }
    expect([doctor.code, problems]).toEqual([0, 0])
    expect(areas.find(({ area }) => area === 'runtime')?.findings[0]?.what).toMatch(/^Node v(?:2[4-9]|[3-9]\d)\./)
  })

  it('sets up a folder, runs a script in the sandbox, and proves it', (context) => {
    const writ = installed(context)
    const work = join(home, 'work')
    expect(run(writ, ['init', 'work'], { cwd: home, env: bare() }).code).toBe(0)
    expect(readdirSync(join(work, 'policies', 'org'))).toContain('access.rego')
    writeFileSync(join(work, 'hello.ts'), "const who: string = 'world'\nconsole.log(`hello ${who}`)\n")
    const ran = run(writ, ['run', 'sandbox', '--intent', 'run_script', 'hello.ts'], { cwd: work, env: bare() })
    expect(ran.err).toContain('hello world')
    expect(ran.out).toMatch(/^exec_[a-z2-7]{10} {2}succeeded\n/)
    expect(ran.code).toBe(0)
    expect(run(writ, ['status'], { cwd: work, env: bare() }).code).toBe(0)
    expect(run(writ, ['verify'], { cwd: work, env: bare() }).out).toMatch(/^VALID:LOGGED/)
    expect(run(writ, ['policy', 'test'], { cwd: work, env: bare() }).code).toBe(0)
  })

  it('hands a passphrase on a file descriptor through to the Node it runs on', (context) => {
    const writ = installed(context)
    const work = join(home, 'work')
    writeFileSync(join(work, 'passphrase'), 'a passphrase for the test\n', { mode: 0o600 })
    const enrolled = run('sh', ['-c', 'exec "$0" approvals enroll ada --passphrase-fd 3 3<passphrase', writ], {
      cwd: work,
      env: bare(),
    })
    expect(enrolled).toMatchObject({ code: 0, err: '' })
    expect(run(writ, ['stop'], { cwd: work, env: bare() }).code).toBe(0)
  })
})

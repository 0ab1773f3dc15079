import { spawn, spawnSync } from 'node:child_process'
import {
  chmodSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { once } from 'node:events'
import { createServer, type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Command } from 'commander'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { declare } from '../../src/cli/commands.ts'

// Each command is a process of its own; a busy machine takes its time.
vi.setConfig({ testTimeout: 300_000 })

const bin = join(import.meta.dirname, '..', '..', 'bin', 'writ')
const folder = mkdtempSync(join(tmpdir(), 'writ-cli-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

interface Ran {
  readonly code: number | null
  readonly out: string
  readonly err: string
}

function writ(
  args: readonly string[],
  given: { cwd?: string; env?: Readonly<Record<string, string>>; input?: string } = {},
): Ran {
  const done = spawnSync(process.execPath, [bin, ...args], {
    cwd: given.cwd ?? folder,
    env: { PATH: process.env['PATH'] ?? '', HOME: folder, ...given.env },
    input: given.input ?? '',
    encoding: 'utf8',
  })
  return { code: done.status, out: done.stdout, err: done.stderr }
}

function leaves(command: Command, path: readonly string[] = []): readonly (readonly [string, Command])[] {
  // A group has no option of its own; a command that has others below it does.
  const own = command.commands.length === 0 || command.options.length > 0
  return [
    ...(own ? [[path.join(' '), command] as const] : []),
    ...command.commands.flatMap((child) => leaves(child, [...path, child.name()])),
  ]
}

const program = new Command('writ')
declare(program, async () => await Promise.resolve())

describe('every command', () => {
  it('stands in the list that scripts rely on', () => {
    const named = new Set(leaves(program).map(([name]) => name))
    const promised = [
      'init',
      'mcp',
      'serve',
      'stop',
      'status',
      'doctor',
      'run',
      'targets list',
      'credentials list',
      'credentials set',
      'credentials remove',
      'executions list',
      'executions show',
      'executions cancel',
      'approvals list',
      'approvals show',
      'approvals approve',
      'approvals reject',
      'approvals enroll',
      'policy check',
      'policy test',
      'policy fmt',
      'policy build',
      'policy eval',
      'receipts list',
      'receipts show',
      'verify',
      'keys',
      'keys rotate',
    ]
    expect(promised.filter((name) => !named.has(name))).toEqual([])
  })

  it('has a description of itself and of each option, and --json where it prints data', () => {
    for (const [name, command] of leaves(program)) {
      expect([name, command.description() !== '']).toEqual([name, true])
      for (const option of command.options)
        expect([name, option.flags, option.description !== '']).toEqual([name, option.flags, true])
      expect([name, command.options.some((option) => option.long === '--json')]).toEqual([
        name,
        name !== 'mcp' && name !== 'serve',
      ])
    }
  })

  it('shows its options and the exit codes with --help, also those that main starts itself', () => {
    for (const args of [['run'], ['mcp'], ['serve'], ['approvals', 'approve'], []]) {
      const { code, out } = writ([...args, '--help'])
      expect(code).toBe(0)
      expect(out).toContain(`Usage: ${['writ', ...args].join(' ')}`)
      expect(out).toContain('--config <file>')
    }
    const { out } = writ(['run', '--help'])
    for (const text of [
      '--no-wait',
      '--intent <intent>',
      '(required)',
      'Examples:',
      'Exit status:',
      'install_and_test',
    ])
      expect(out).toContain(text)
    for (const args of [['run'], ['init'], ['verify'], ['token', 'create'], ['approvals', 'enroll']])
      expect(writ([...args, '--help']).out).not.toContain('default: []')
    expect(writ(['token', 'create', '--help']).out).toMatch(/\(default:\s+30d\)/)
    expect(writ(['--help']).out).toContain('Exit status: 0 done, 1 the answer is no, 2 wrong usage or configuration.')
    expect(writ(['--version'])).toMatchObject({
      code: 0,
      out: `${(JSON.parse(readFileSync(join(bin, '..', '..', 'package.json'), 'utf8')) as { version: string }).version}\n`,
    })
  })
})

describe('wrong usage', () => {
  it('exits 2 and names what was near', () => {
    const cases = [
      [['statsu'], "unknown command 'statsu'", 'Did you mean status?'],
      [['policy', 'chek'], "unknown command 'chek'", 'Did you mean check?'],
      [['run', 'sandbox', '--intent', 'x', '--gaol', 'y'], "unknown option '--gaol'", 'Did you mean --goal?'],
      [['run', 'sandbox'], "required option '--intent <intent>'", 'not specified'],
      [['executions', 'show'], "missing required argument 'id'", ''],
      [['executions', 'list', '--limit', 'many'], 'has to be a whole number', ''],
      [['mcp', '--bogus'], 'unknown option "--bogus"', ''],
      [['mcp', '--config'], '--config needs a value', ''],
      [['mcp', '--config='], '--config needs a value', ''],
      [['serve', '--config', '--listen', 'none'], '--config needs a value', ''],
      [['serve', '--listen'], '--listen needs a value', ''],
      [['--config'], 'argument missing', ''],
    ] as const
    for (const [args, ...texts] of cases) {
      const { code, err, out } = writ(args)
      expect(code).toBe(2)
      expect(out).toBe('')
      for (const text of texts) expect(err).toContain(text)
    }
    expect(writ([]).code).toBe(2)
    expect(writ(['policy']).code).toBe(2)
  })

  it('is JSON with --json, on standard output, and nothing else', () => {
    const { code, out, err } = writ(['statsu', '--json'])
    expect([code, err]).toEqual([2, ''])
    expect(JSON.parse(out)).toMatchObject({ error: { code: 'usage', remedy: 'See --help.' } })
    expect(JSON.parse(writ(['status', '--json']).out)).toMatchObject({
      error: { code: 'no_config', remedy: expect.stringContaining('writ init') as string },
    })
  })

  it('of a path that cannot be is told with the path, exit 2, and as JSON with --json; nothing waits for ever', () => {
    writeFileSync(join(folder, 'occupied'), '')
    const pack = join(bin, '..', '..', 'policies', 'starter')
    const cases: readonly (readonly [readonly string[], string])[] = [
      [['init', 'occupied'], 'occupied'],
      [['init', 'occupied/deep'], 'occupied'],
      [['init', '/proc/writ-test'], '/proc/writ-test'],
      [['policy', 'build', pack, '--out', 'occupied'], 'occupied'],
      [['policy', 'build', pack, '--out', '/proc/writ-test/deep'], '/proc/writ-test'],
    ]
    for (const [args, path] of cases) {
      const { code, out, err } = writ(args)
      expect([args, code, out]).toEqual([args, 2, ''])
      expect(err).toMatch(/^writ: .*\n {6}Check the path, and that you may read and write there\.\n$/)
      expect(err).toContain(path)
      const json = writ([...args, '--json'])
      expect([args, json.code, json.err]).toEqual([args, 2, ''])
      expect(JSON.parse(json.out)).toMatchObject({ error: { code: 'usage' } })
    }
  })

  it('of a name with escape sequences never reaches a terminal as it is', () => {
    for (const args of [
      ['\u001b]0;x\u0007\u202e'],
      ['--\u001b[2J'],
      ['--config', '/\u001b[2J', 'status'],
      ['verify', '\u009b2J', '--json'],
    ]) {
      const { code, out, err } = writ(args)
      expect(code).toBe(2)
      for (const text of [out, err])
        expect(
          Array.from(text)
            .filter((one) => one < ' ' && one !== '\n')
            .concat(Array.from(text).filter((one) => one > '~' && one < '\u00a1')),
        ).toEqual([])
    }
  })
})

describe('the configuration', () => {
  it('is written by init, which overwrites nothing and can be run twice', () => {
    const first = writ(['init', 'a', '--json'])
    expect(first.code).toBe(0)
    expect(JSON.parse(first.out)).toMatchObject({
      written: ['writ.yaml', 'catalog.yaml', 'policies/org', 'policies/starter', 'keys'],
      kept: [],
    })
    const tree = (dir: string): readonly string[] =>
      readdirSync(dir, { recursive: true, withFileTypes: true })
        .filter((entry) => entry.isFile())
        .map((entry) => `${entry.name} ${readFileSync(join(entry.parentPath, entry.name), 'hex')}`)
    writeFileSync(join(folder, 'a', 'catalog.yaml'), '# mine\ntargets: {}\n')
    const before = tree(join(folder, 'a'))
    const second = writ(['init', 'a', '--json'])
    expect(JSON.parse(second.out)).toMatchObject({
      written: [],
      kept: ['writ.yaml', 'catalog.yaml', 'policies/org', 'policies/starter', 'keys'],
    })
    expect(tree(join(folder, 'a'))).toEqual(before)
    rmSync(join(folder, 'a', 'catalog.yaml'))
    expect(JSON.parse(writ(['init', 'a', '--json']).out)).toMatchObject({ written: ['catalog.yaml'] })
  })

  it('is the one named before or behind the command, else of WRIT_CONFIG, else the nearest upward', () => {
    cpSync(join(folder, 'a'), join(folder, 'b'), { recursive: true })
    writeFileSync(
      join(folder, 'b', 'catalog.yaml'),
      'targets:\n  only-b: { about: B, executor: isolate, intents: [run_script] }\n',
    )
    const deep = join(folder, 'a', 'x', 'y')
    mkdirSync(deep, { recursive: true })
    const b = join(folder, 'b', 'writ.yaml')
    const list = (args: readonly string[], given: Parameters<typeof writ>[1]): string => writ(args, given).out
    expect(list(['targets', 'list'], { cwd: deep })).toContain('sandbox')
    expect(list(['targets', 'list'], { cwd: deep, env: { WRIT_CONFIG: b } })).toContain('only-b')
    expect(list(['--config', b, 'targets', 'list'], { cwd: deep })).toContain('only-b')
    expect(list(['targets', '--config', b, 'list'], { cwd: deep })).toContain('only-b')
    expect(list(['targets', 'list', `--config=${b}`], { cwd: deep })).toContain('only-b')
    expect(list(['targets', 'list', '--config', join(folder, 'a')], { cwd: deep, env: { WRIT_CONFIG: b } })).toContain(
      'sandbox',
    )
  })

  it('that is broken is told with file, line and the nearest known key, exit 2, and stops no verifier who brings his own keys', () => {
    const c = join(folder, 'c')
    cpSync(join(folder, 'a'), c, { recursive: true })
    const keys = writ(['keys', '--json'], { cwd: c })
    writeFileSync(join(folder, 'jwks.json'), keys.out)
    writeFileSync(join(c, 'writ.yaml'), `${readFileSync(join(c, 'writ.yaml'), 'utf8')}\napprover: []\n`)
    const { code, err } = writ(['status'], { cwd: c })
    expect(code).toBe(2)
    expect(err).toMatch(/writ\.yaml:\d+:1/)
    expect(err).toContain('approvers')
    writeFileSync(join(folder, 'receipt'), 'no receipt')
    const verified = writ(['verify', join(folder, 'receipt'), '--jwks', join(folder, 'jwks.json')], { cwd: c })
    expect(verified.code).toBe(1)
    expect(verified.out).toMatch(/^(?:MALFORMED|UNTRUSTED|INVALID)/)
  })
})

describe('without a broker', () => {
  beforeAll(() => void writ(['init', 'b']))

  it('what only reads works: nothing was recorded yet', () => {
    const cwd = join(folder, 'b')
    for (const args of [
      ['executions', 'list'],
      ['approvals', 'list'],
      ['receipts', 'list'],
      ['credentials', 'list'],
      ['keys'],
    ]) {
      const { code, out, err } = writ([...args, '--json'], { cwd })
      expect([args.join(' '), code, err]).toEqual([args.join(' '), 0, ''])
      expect(typeof JSON.parse(out)).toBe('object')
    }
    expect(writ(['status'], { cwd })).toMatchObject({ code: 1, err: '' })
    expect(JSON.parse(writ(['status', '--json'], { cwd }).out)).toMatchObject({ broker: false })
    expect(writ(['stop'], { cwd })).toMatchObject({ code: 1 })
    expect(writ(['executions', 'show', 'exec_aaaaaaaaaa'], { cwd })).toMatchObject({ code: 1 })
    expect(writ(['receipts', 'show', 'nonsense'], { cwd })).toMatchObject({ code: 1 })
    expect(writ(['verify'], { cwd }).code).toBe(1)
  })

  it('a credential is stored from standard input alone, encrypted, listed by name and removed', () => {
    const cwd = join(folder, 'b')
    expect(writ(['credentials', 'set', 'token', 'a-value-in-argv'], { cwd }).code).toBe(2)
    const set = writ(['credentials', 'set', 'token'], { cwd, input: 'a-very-secret-value\n' })
    expect(set).toMatchObject({ code: 0, out: 'Stored token, encrypted.\n' })
    expect(set.err).toContain('catalog.yaml names no credential with the source { file: token }')
    writeFileSync(
      join(cwd, 'catalog.yaml'),
      `${readFileSync(join(cwd, 'catalog.yaml'), 'utf8')}\ncredentials:\n  known: { source: { file: known-token }, inject: { bearer: true } }\n`,
    )
    expect(writ(['credentials', 'set', 'known-token'], { cwd, input: 'a-very-secret-value' })).toMatchObject({
      code: 0,
      err: '',
    })
    expect(writ(['credentials', 'remove', 'known-token'], { cwd }).code).toBe(0)
    const stored = readdirSync(join(cwd, 'credentials')).map((name) =>
      readFileSync(join(cwd, 'credentials', name), 'latin1'),
    )
    expect(stored).toHaveLength(1)
    expect(stored[0]).not.toContain('secret-value')
    expect(JSON.parse(writ(['credentials', 'list', '--json'], { cwd }).out)).toEqual({
      credentials: [{ name: 'known', source: 'file', inject: 'bearer', value: 'missing' }],
      unused: ['token'],
    })
    expect(writ(['credentials', 'set', 'short'], { cwd, input: 'x' })).toMatchObject({ code: 2 })
    expect(writ(['credentials', 'set', '../evil'], { cwd, input: 'a-very-secret-value' }).code).toBe(2)
    expect(writ(['credentials', 'remove', 'token'], { cwd }).code).toBe(0)
    expect(writ(['credentials', 'remove', 'token'], { cwd }).code).toBe(1)
  })

  it('what the compiler made is kept in no folder that another user could have put there', () => {
    const pack = join(bin, '..', '..', 'policies', 'starter')
    const kept = join(folder, 'tmp', `writ-policy-${String(process.getuid?.())}`)
    mkdirSync(kept, { recursive: true, mode: 0o700 })
    chmodSync(kept, 0o777)
    const check = (): Ran => writ(['policy', 'check', pack], { env: { TMPDIR: join(folder, 'tmp') } })
    expect(check()).toMatchObject({
      code: 2,
      out: '',
      err: expect.stringContaining(`${kept} is not a private folder of this user.`) as string,
    })
    chmodSync(kept, 0o700)
    expect(check().code).toBe(0)
  })

  it('policies are checked, tested, formatted and built, attached or not, with a configuration or without', () => {
    const pack = join(folder, 'pack')
    cpSync(join(bin, '..', '..', 'policies', 'starter'), pack, { recursive: true })
    for (const cwd of [folder, join(folder, 'b')]) {
      expect(writ(['policy', 'check', pack], { cwd }).code).toBe(0)
      const tested = writ(['policy', 'test', pack, '--json'], { cwd })
      expect(tested.code).toBe(0)
      expect((JSON.parse(tested.out) as { tests: unknown[] }).tests.length).toBeGreaterThan(0)
    }
    expect(writ(['policy', 'test', pack, '--run', 'no_such_test']).code).toBe(1)
    expect(writ(['policy', 'build', pack, '--out', 'built']).code).toBe(0)
    expect(readFileSync(join(folder, 'built', 'starter.wasm')).subarray(0, 4)).toEqual(Buffer.from('\0asm'))
    expect(writ(['policy', 'fmt', pack, '--check']).code).toBe(0)
    writeFileSync(join(pack, 'more.rego'), 'package writ.pack.starter\nx   :=   1\n')
    expect(writ(['policy', 'fmt', pack, '--check']).code).toBe(1)
    expect(writ(['policy', 'fmt', pack]).code).toBe(0)
    expect(writ(['policy', 'fmt', pack, '--check']).code).toBe(0)
    // What no pack takes is not formatted either: nothing outside is written to, and no way leads around.
    const outside = join(folder, 'outside.rego')
    writeFileSync(outside, 'package writ.pack.starter\nx   :=   1\n')
    symlinkSync(outside, join(pack, 'linked.rego'))
    for (const name of ['around', 'again']) symlinkSync('.', join(pack, name))
    expect(writ(['policy', 'fmt', pack, '--check'])).toMatchObject({ code: 0 })
    for (const name of ['linked.rego', 'around', 'again']) rmSync(join(pack, name))
    const latin1 = Buffer.from('package writ.pack.starter\n\n# Für\nx   :=   1\n', 'latin1')
    writeFileSync(join(pack, 'more.rego'), latin1)
    const untouched = writ(['policy', 'fmt', pack])
    expect([untouched.code, untouched.out]).toEqual([1, expect.stringContaining('not UTF-8') as string])
    expect(readFileSync(join(pack, 'more.rego'))).toEqual(latin1)
    writeFileSync(join(pack, 'more.rego'), 'package writ.pack.starter\n\nx := \n')
    const broken = writ(['policy', 'check', pack])
    expect(broken.code).toBe(1)
    expect(broken.out).toMatch(/more\.rego:\d+:\d+: error: /)
    expect(writ(['policy', 'check']).code).toBe(2)
    expect(writ(['policy', 'check'], { cwd: join(folder, 'b') }).code).toBe(0)
    for (const verb of ['check', 'test', 'fmt', 'build'])
      expect(writ(['policy', verb, join(folder, 'nowhere')])).toMatchObject({
        code: 2,
        err: expect.stringContaining('nowhere is no folder.') as string,
      })
    expect(writ(['policy', 'eval'], { cwd: join(folder, 'b') }).code).toBe(2)
    expect(writ(['policy', 'eval', '--input', join(folder, 'nowhere')], { cwd: join(folder, 'b') }).code).toBe(2)
    expect(writ(['policy', 'eval', '--input', '-'], { cwd: join(folder, 'b'), input: '{' })).toMatchObject({
      code: 2,
      err: expect.stringContaining('The input is not') as string,
    })
    const empty = writ(['policy', 'eval', '--input', '-', '--json'], { cwd: join(folder, 'b'), input: '{}' })
    expect(empty.code).toBe(2)
    expect(JSON.parse(empty.out)).toMatchObject({
      error: { code: 'usage', message: expect.stringMatching(/no writ\.input\/v1: without action/) as string },
    })
  })
})

/** The same of a command that is not waited for; nobody reads its standard error where `deaf`. */
async function begun(cwd: string, args: readonly string[], deaf = false): Promise<Ran> {
  const child = spawn(process.execPath, [bin, ...args], {
    cwd,
    env: { PATH: process.env['PATH'] ?? '', HOME: folder },
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: 60_000,
    killSignal: 'SIGKILL',
  })
  const [out, err]: [Buffer[], Buffer[]] = [[], []]
  child.stdout.on('data', (piece: Buffer) => out.push(piece))
  if (deaf) child.stderr.destroy()
  else child.stderr.on('data', (piece: Buffer) => err.push(piece))
  const [code] = (await once(child, 'close')) as [number | null]
  return { code, out: Buffer.concat(out).toString(), err: Buffer.concat(err).toString() }
}

describe('a command with a broker', () => {
  const cwd = join(folder, 'e')
  const run = ['run', 'sandbox', '--intent', 'run_script', 'a.js', '--json']
  beforeAll(() => {
    writ(['init', 'e'])
    writeFileSync(join(cwd, 'a.js'), 'console.log("said"); export default { done: true }')
  })
  afterAll(() => void writ(['stop'], { cwd }))

  it('whose notes nobody reads any more goes on, and gives its answer', async () => {
    const { code, out } = await begun(cwd, run, true)
    expect(JSON.parse(out)).toMatchObject({ state: 'succeeded' })
    expect(code).toBe(0)
  })

  it('that cannot have the address it is to serve says so and ends, and has answered nobody before', async () => {
    writ(['stop'], { cwd })
    const other = createServer().listen(0, '127.0.0.1')
    await once(other, 'listening')
    const listen = `127.0.0.1:${String((other.address() as AddressInfo).port)}`
    const refused = `HTTP cannot listen on ${listen}: another program listens there.`
    const served = await begun(cwd, ['serve', '--listen', listen])
    expect(served).toMatchObject({ code: 2, err: expect.stringContaining(refused) as string })
    // Started by a client, which waits for it.
    const config = readFileSync(join(cwd, 'writ.yaml'), 'utf8')
    writeFileSync(join(cwd, 'writ.yaml'), `${config}\nhttp: { listen: "${listen}" }\n`)
    const ran = await begun(cwd, run)
    expect(ran).toMatchObject({ code: 2, err: expect.stringContaining(refused) as string })
    writeFileSync(join(cwd, 'writ.yaml'), config)
    other.close()
    // Neither of the two holds the folder.
    expect((await begun(cwd, run)).code).toBe(0)
  })
})

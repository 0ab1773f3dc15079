import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it, vi } from 'vitest'
import type { JsonObject } from '../../src/digest.ts'
import { useWorld, writBin } from '../e2e/world.ts'

vi.setConfig({ testTimeout: 120_000 })

const world = useWorld()
const file = (name: string, content: string | Uint8Array): string => {
  writeFileSync(join(world.folder, name), content)
  return name
}
const run = (...args: readonly string[]): ReturnType<typeof world.writ> =>
  world.writ(['run', 'sandbox', '--intent', 'run_script', ...args])

function stateOf(pid: number): string {
  try {
    return /^State:\s+(\w)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? ''
  } catch {
    return 'gone'
  }
}

/** Nothing a terminal would obey or hide. */
function inert(text: string): boolean {
  return Array.from(text).every((one) => {
    const code = one.codePointAt(0) ?? 0
    return code === 10 || (code >= 32 && code < 127) || (code > 160 && code !== 0xad && !/\p{Cf}/u.test(one))
  })
}

describe('writ run', () => {
  it('exits 0 for what succeeded and 1 for any other end, and says the ids without waiting', () => {
    const good = run(file('good.js', "console.log('fine')"))
    expect(good).toMatchObject({ code: 0 })
    expect(good.err).toContain('fine')
    expect(run(file('bad.js', "throw new Error('no')"))).toMatchObject({ code: 1 })
    const ids = run(file('later.js', "console.log('later')"), '--no-wait')
    expect(ids.code).toBe(0)
    expect(ids.out).toMatch(/^task {7}task_\w{10}\nexecution {2}exec_\w{10}\nstate {6}running\n$/)
    expect(world.writ(['run', 'nowhere', '--intent', 'run_script', 'good.js'])).toMatchObject({ code: 1 })
    expect(world.writ(['run', 'sandbox', '--intent', 'fly', 'good.js'])).toMatchObject({ code: 1 })
    expect(run('missing.js')).toMatchObject({
      code: 2,
      err: expect.stringContaining('missing.js cannot be read') as string,
    })
    expect(run('good.js', '--input', 'novalue')).toMatchObject({ code: 2 })
    expect(run('good.js', '--input', 'stdin=12345678901234567890')).toMatchObject({
      code: 2,
      err: expect.stringMatching(/--input stdin cannot be sent .*\n +Quote it to give it as text/) as string,
    })
    expect(world.writ(['run', 'production', '--intent', 'run_script', 'good.js'])).toMatchObject({
      code: 1,
      out: expect.stringContaining('no_eligible_approver') as string,
    })
  })

  it('only asks what policy would say with --dry-run', () => {
    expect(run('good.js', '--dry-run')).toMatchObject({ code: 0, out: 'policy would answer: allow\n' })
    const asked = world.writ(['run', 'production', '--intent', 'run_script', 'good.js', '--dry-run', '--json'])
    expect(asked.code).toBe(1)
    expect(JSON.parse(asked.out)).toMatchObject({ effect: expect.stringMatching(/pending|deny/) as string })
  })

  it('takes inputs as JSON where they are, the script from --input, and prints JSON', () => {
    file('entry.js', "import { name } from './name.js'\nconsole.log(name)")
    const ran = run(
      file('name.js', "export const name = 'ada'"),
      'entry.js',
      '--input',
      'script=entry.js',
      '--project',
      'p',
      '--goal',
      'g',
      '--json',
    )
    expect(ran.code).toBe(0)
    const result = JSON.parse(ran.out) as JsonObject
    expect(result).toMatchObject({ state: 'succeeded', tail: 'ada\n' })
    const shown = world.json(['executions', 'show', String(result['execution_id'])]) as { plan: { task: JsonObject } }
    expect(shown.plan.task).toMatchObject({ project_name: 'p', goal: 'g', inputs: { script: 'entry.js' } })
  })

  it('writes the exact bytes of the result with --out, whatever they are, and follows no link out of it', () => {
    const bytes = {
      'text.txt': Buffer.from('plain\n'),
      'crlf.txt': Buffer.from('one\r\ntwo\r'),
      'bom.txt': Buffer.from('\ufeffbom'),
      'escape.txt': Buffer.from('\u001b[2J\u202e\u0000\u200b'),
      'binary.bin': Buffer.from(Array.from({ length: 256 }, (_, at) => at)),
      'long.txt': Buffer.from('äöü€😀'.repeat(150_000)),
      empty: Buffer.alloc(0),
      'deep/er/file.txt': Buffer.from('deep'),
    }
    const code = Object.entries(bytes)
      .map(
        ([name, content]) =>
          `out(${JSON.stringify(name)}, ${content.length > 1000 ? "'äöü€😀'.repeat(150_000)" : `new Uint8Array(${JSON.stringify([...content])})`})`,
      )
      .join('\n')
    const write = 'const out = (name, content) => writ.writeFile(`/out/${name}`, content)\n'
    const ran = run(file('out.js', write + code), '--out', 'results')
    expect(ran).toMatchObject({ code: 0 })
    for (const [name, content] of Object.entries(bytes))
      expect([name, readFileSync(join(world.folder, 'results', name)).equals(content)]).toEqual([name, true])
    mkdirSync(join(world.folder, 'trap'))
    mkdirSync(join(world.folder, 'elsewhere'))
    symlinkSync(join(world.folder, 'elsewhere'), join(world.folder, 'trap', 'deep'))
    const trapped = run('out.js', '--again', '--out', 'trap')
    expect(trapped).toMatchObject({ code: 1, err: expect.stringContaining('outside of trap') as string })
    expect(existsSync(join(world.folder, 'elsewhere', 'er'))).toBe(false)
  })

  it('[G-terminal] prints nothing that a terminal would obey: output, names, goals, labels', () => {
    const evil = '\u001b]0;owned\u0007\u001b[2J\u202e\u009b31m\u200b'
    const content = `console.log(${JSON.stringify(evil)}); throw new Error(${JSON.stringify(evil)})`
    const ran = run(file('evil.js', content), '--project', 'evil', '--goal', `goal ${evil}`)
    for (const text of [ran.out, ran.err]) expect(inert(text)).toBe(true)
    expect(ran.err).toContain('\\u{1b}]0;owned')
    const json = run('evil.js', '--again', '--json')
    expect(inert(json.out)).toBe(true)
    for (const args of [
      ['executions', 'list'],
      ['receipts', 'list'],
      ['approvals', 'list', '--all'],
    ])
      for (const more of [[], ['--json']]) {
        const listed = world.writ([...args, ...more])
        expect([args.join(' '), listed.code, inert(listed.out + listed.err)]).toEqual([args.join(' '), 0, true])
      }
    const { executions } = world.json(['executions', 'list', '--limit', '2']) as { executions: { id: string }[] }
    for (const { id } of executions) expect(inert(world.writ(['executions', 'show', id]).out)).toBe(true)
  })
})

describe('what was recorded', () => {
  it('is listed, shown and cancelled by id', async () => {
    const { executions } = world.json(['executions', 'list', '--limit', '1']) as { executions: { id: string }[] }
    expect(executions).toHaveLength(1)
    const waiting = run(
      file('sleep.js', 'await new Promise((resolve) => setTimeout(resolve, 60_000))'),
      '--no-wait',
      '--json',
    )
    const id = String((JSON.parse(waiting.out) as JsonObject)['execution_id'])
    expect(world.writ(['executions', 'cancel', id, '--reason', 'x'.repeat(1001)]).code).toBe(2)
    const cancelled = world.writ(['executions', 'cancel', id, '--reason', 'the "wrong" table'])
    expect(cancelled.code).toBe(0)
    for (let tries = 0; tries < 30; tries++) {
      if (world.writ(['executions', 'show', id]).out.includes('cancelled')) break
      await new Promise((resolve) => setTimeout(resolve, 200))
    }
    const { out } = world.writ(['executions', 'show', id])
    expect(out).toMatch(/^exec_\w{10} {2}cancelled/)
    expect(out).toContain('the \\"wrong\\" table')
    const ended = world.writ(['executions', 'cancel', id])
    expect(ended).toMatchObject({ code: 1, out: `${id} had ended already: cancelled\n` })
    expect(world.writ(['executions', 'cancel', 'exec_aaaaaaaaaa'])).toMatchObject({ code: 1 })
  })

  it('is verified: one receipt, the whole log, with a pinned root, with a key set, and with neither', () => {
    const { receipts } = world.json(['receipts', 'list', '--limit', '3']) as { receipts: { id: string }[] }
    const jws = world.writ(['receipts', 'show', receipts[0]?.id ?? '', '--jws']).out
    file('receipt.jws', jws)
    file('log.jws', world.writ(['receipts', 'list', '--jws']).out)
    const root = world.writ(['keys', '--fingerprint']).out.trim()
    file('keys.json', world.writ(['keys', '--json']).out)
    const verify = (args: readonly string[], given: { readonly input?: string } = {}): string => {
      const { code, out, err } = world.writ(['verify', ...args], given)
      return `${String(code)} ${out.split('\n')[0] ?? ''}${err}`
    }
    expect(verify(['receipt.jws'])).toBe('0 VALID:SIGNED')
    expect(world.writ(['verify', 'receipt.jws']).out).toContain('self-pinned')
    expect(verify(['receipt.jws', '--root', root])).toBe('0 VALID:SIGNED')
    expect(world.writ(['verify', 'receipt.jws', '--root', root]).out).not.toContain('self-pinned')
    expect(verify(['receipt.jws', '--jwks', 'keys.json'])).toBe('0 VALID:SIGNED')
    expect(verify(['-'], { input: jws })).toBe('0 VALID:SIGNED')
    expect(verify(['log.jws', '--log', '--root', root])).toBe('0 VALID:LOGGED')
    expect(verify(['--log', '-'], { input: readFileSync(join(world.folder, 'log.jws'), 'utf8') })).toBe(
      '0 VALID:LOGGED',
    )
    expect(verify([])).toBe('0 VALID:LOGGED')
    expect(verify(['log.jws'])).toMatch(/^1 INVALID ENCODING.*did you mean --log\?/)
    const report = world.writ(['verify', 'receipt.jws', '--json'])
    expect(JSON.parse(report.out)).toMatchObject({ verdict: 'VALID:SIGNED', pinned: 'self' })

    const flipped = Buffer.from(jws.trim())
    flipped[jws.length >> 1] = (flipped[jws.length >> 1] ?? 0) ^ 1
    expect(verify(['-'], { input: flipped.toString('latin1') })).toMatch(/^1 (?:INVALID|MALFORMED)/)
    const lines = readFileSync(join(world.folder, 'log.jws'), 'utf8').trim().split('\n')
    for (const wrong of [lines.toSpliced(1, 1), lines.toReversed(), [...lines, lines.at(-1) ?? '']])
      expect(verify(['-', '--log'], { input: `${wrong.join('\n')}\n` })).toMatch(/^1 (?!VALID)/)
    expect(verify(['receipt.jws', '--root', `${root.startsWith('A') ? 'B' : 'A'}${root.slice(1)}`])).toMatch(
      /^1 UNTRUSTED/,
    )
    expect(verify(['no-such-file'])).toMatch(/^2 /)
    expect(verify(['receipt.jws', '--jwks', 'no-such-file'])).toMatch(/^2 .*no-such-file/)
  })

  it('is verified with what it refers to, and held against what was kept elsewhere', () => {
    const { receipts } = world.json(['receipts', 'list', '--limit', '1000']) as {
      receipts: { id: string; kind: string; index: number; execution: string | null }[]
    }
    const show = (id: string): string => world.writ(['receipts', 'show', id, '--jws']).out
    const outcome = receipts.find(({ kind }) => kind === 'outcome')
    const decisions = receipts.filter(({ kind }) => kind === 'decision')
    const own = decisions.findLast(({ execution }) => execution === outcome?.execution)
    const other = decisions.find(({ execution }) => execution !== outcome?.execution)
    file('outcome.jws', show(outcome?.id ?? ''))
    file('decision.jws', show(own?.id ?? ''))
    file('other.jws', show(other?.id ?? ''))
    const paired = world.writ(['verify', 'outcome.jws', '--with', 'decision.jws'])
    expect(paired).toMatchObject({
      code: 0,
      out: expect.stringMatching(/^VALID:SIGNED[^]*checked +DECISION/) as string,
    })
    expect(world.writ(['verify', 'outcome.jws', '--with', 'other.jws'])).toMatchObject({
      code: 1,
      out: expect.stringMatching(/^INVALID PAIR/) as string,
    })
    for (const log of [[], ['log.jws', '--log']])
      expect(world.writ(['verify', ...log, '--held', 'outcome.jws', '--held', 'decision.jws'])).toMatchObject({
        code: 0,
        out: expect.stringMatching(/^VALID:LOGGED[^]*checked +HELD/) as string,
      })
    // An older copy of the log does not have what came later.
    const log = readFileSync(join(world.folder, 'log.jws'), 'utf8').split('\n')
    file('older.jws', log.slice(0, outcome?.index).join('\n'))
    expect(world.writ(['verify', 'older.jws', '--log', '--held', 'outcome.jws']).out).toMatch(/^INCOMPLETE/)
    expect(world.writ(['verify', 'outcome.jws', '--held', 'decision.jws'])).toMatchObject({ code: 2 })
    expect(world.writ(['verify', '--with', 'decision.jws'])).toMatchObject({ code: 2 })
  })

  it('is not believed by somebody who was given nothing to trust', () => {
    const nowhere = mkdtempSync(join(tmpdir(), 'writ-nothing-'))
    const receipt = readFileSync(join(world.folder, 'receipt.jws'), 'utf8')
    const done = spawnSync(process.execPath, [writBin, 'verify', '-'], {
      cwd: nowhere,
      env: world.env,
      input: receipt,
      encoding: 'utf8',
    })
    rmSync(nowhere, { recursive: true })
    expect(done.status).toBe(1)
    expect(done.stdout).toMatch(/^UNTRUSTED/)
  })

  it('is decided again from its recorded input, with the same answer', () => {
    const { executions } = world.json(['executions', 'list', '--limit', '1']) as { executions: { id: string }[] }
    const again = world.writ(['policy', 'eval', '--execution', executions[0]?.id ?? '', '--json'])
    expect(again.code).toBe(0)
    expect(JSON.parse(again.out)).toMatchObject({ same: true, decision: { effect: 'allow' } })
    const now = world.writ(['policy', 'eval', '--execution', executions[0]?.id ?? '', '--attached', '--json'])
    expect(JSON.parse(now.out)).toMatchObject({ decision: { effect: 'allow' }, recorded: { effect: 'allow' } })
    expect(world.writ(['policy', 'eval', '--execution', 'exec_aaaaaaaaaa']).code).toBe(1)
  })

  it('is in a broker that leaves no core file, and in which no signal opens an inspector [G-secret-nowhere]', () => {
    const { pid } = JSON.parse(world.writ(['status', '--json']).out) as { pid: number }
    expect(readFileSync(`/proc/${pid}/limits`, 'utf8')).toMatch(/Max core file size\s+0\s+0/)
    process.kill(pid, 'SIGUSR1')
    // Node says on standard error, which is the broker's log, that its debugger listens.
    expect(world.writ(['status']).code).toBe(0)
    expect(readFileSync(join(world.folder, '.writ', 'broker.log'), 'utf8')).not.toContain('Debugger listening')
  })

  it('ends with the broker: whoever stopped it finds its process gone, with all it was doing', () => {
    const status = JSON.parse(world.writ(['status', '--json']).out) as { pid: number }
    expect(status).toMatchObject({ broker: true, policy: { packs: [{ pack: 'org' }, { pack: 'starter' }] } })
    const running = run(file('long.js', 'await new Promise(() => {})'), '--no-wait')
    expect(running.code).toBe(0)
    expect(world.writ(['stop'])).toMatchObject({ code: 0, out: 'The broker has stopped.\n' })
    expect(stateOf(status.pid)).toMatch(/^(?:gone|Z)$/)
    expect(world.writ(['status']).code).toBe(1)
    expect(world.writ(['stop']).code).toBe(1)
  })

  it('names the option where an address of the command line may not be listened on, not a line of the file', () => {
    const { code, err } = world.writ(['serve', '--listen', '0.0.0.0:9999'])
    expect([code, err.split('\n')]).toEqual([
      2,
      [
        'writ: --listen: listening beyond loopback needs "tls", or "unsafe_plain_http_behind_proxy: true" behind a proxy that speaks TLS',
        '      Say so in the section "http" of writ.yaml, or name an address of loopback.',
        '',
      ],
    ])
  })

  it('goes on under a new key after a rotation, which needs the root and no broker that runs', () => {
    const root = world.writ(['keys', '--fingerprint']).out
    expect(run(file('before.js', "console.log('before')"))).toMatchObject({ code: 0 })
    expect(world.writ(['keys', 'rotate'])).toMatchObject({
      code: 2,
      err: expect.stringContaining('another broker holds this data folder') as string,
    })
    expect(world.writ(['stop']).code).toBe(0)
    const pem = join(world.folder, 'keys', 'root.pem')
    const kept = readFileSync(pem)
    rmSync(pem)
    expect(world.writ(['keys', 'rotate'])).toMatchObject({
      code: 2,
      err: expect.stringContaining('root.pem') as string,
    })
    writeFileSync(pem, kept, { mode: 0o600 })
    const rotated = world.json(['keys', 'rotate']) as { jwks: { keys: { role: string; until?: number }[] } }
    const keys = rotated.jwks.keys.filter(({ role }) => role === 'receipt')
    expect(keys.map(({ until }) => until === undefined)).toEqual([false, true])
    rmSync(pem)
    expect(run(file('after.js', "console.log('after')"))).toMatchObject({ code: 0 })
    expect(world.writ(['keys', '--fingerprint']).out).toBe(root)
    const verified = world.writ(['verify', '--root', root.trim()])
    expect(verified).toMatchObject({ code: 0, out: expect.stringMatching(/^VALID:LOGGED[^]*1 key/) as string })
    const { receipts } = world.json(['receipts', 'list', '--limit', '1000']) as { receipts: { kind: string }[] }
    expect(receipts.filter(({ kind }) => kind === 'key')).toHaveLength(1)
    expect(world.writ(['stop']).code).toBe(0)
  })
})

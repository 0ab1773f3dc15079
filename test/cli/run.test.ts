import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it, vi } from 'vitest'
import type { JsonObject } from '../../src/digest.ts'
import { useWorld, writBin } from '../e2e/world.ts'

vi.setConfig({ testTimeout: 240_000 })

const world = useWorld()
world.enrol()
const file = (name: string, content: string | Uint8Array): string => {
  writeFileSync(join(world.folder, name), content)
  return name
}
const run = (...args: readonly string[]): ReturnType<typeof world.writ> =>
  world.writ(['run', 'sandbox', '--intent', 'run_script', ...args])
const ended = (out: string): JsonObject => JSON.parse(out) as JsonObject

/** A command that goes on while the test looks at what it has said so far. */
function running(args: readonly string[]): {
  readonly child: ChildProcess
  err(): string
  says(what: RegExp): Promise<void>
} {
  const child = spawn(process.execPath, [writBin, 'run', ...args], { cwd: world.folder, env: world.env })
  let err = ''
  child.stderr.setEncoding('utf8').on('data', (text: string) => (err += text))
  return {
    child,
    err: () => err,
    says: async (what) => await expect.poll(() => err, { timeout: 120_000, interval: 20 }).toMatch(what),
  }
}

async function gone(child: ChildProcess): Promise<readonly [number | null, string | null]> {
  if (child.exitCode === null && child.signalCode === null) await new Promise((resolve) => child.once('exit', resolve))
  return [child.exitCode, child.signalCode]
}

describe('a file too large for a message', () => {
  const reads = "const { length } = writ.readBytes('big.bin')\nconsole.log(`big ${length}`)\n"

  it('goes by a one-time URL, with progress, and files that are too many for one call go in several', () => {
    const big = Buffer.alloc(5 * 1024 * 1024, 'large ')
    const parts = Array.from({ length: 5 }, (_, at) => file(`part${String(at)}.txt`, String(at).repeat(1024 * 1024)))
    const names = parts.map((name) => `writ.readText('${name}').length`).join(' + ')
    const ran = run(file('big.js', `${reads}console.log(${names})`), file('big.bin', big), ...parts, '--json')
    expect(ran).toMatchObject({ code: 0, err: expect.stringContaining('big.bin: 5.0 of 5.0 MiB sent') as string })
    expect(ended(ran.out)).toMatchObject({
      state: 'succeeded',
      tail: `big ${String(big.length)}\n${String(5 * 1024 * 1024)}\n`,
    })
  })

  it('that the task holds already is not sent again, and files that were changed meanwhile are put back', async () => {
    const again = run('big.js', 'big.bin', ...Array.from({ length: 5 }, (_, at) => `part${String(at)}.txt`), '--json')
    expect(ended(again.out)).toMatchObject({ state: 'succeeded', existing: true })
    expect(again.err).not.toContain('MiB sent')
    const client = await world.client()
    const changed = await client.call('upload_artifact', {
      task_id: String(ended(again.out)['task_id']),
      files: [
        { path: 'big.js', content: "console.log('another')" },
        { path: 'more.js', content: '' },
      ],
      remove: ['big.bin'],
    })
    expect(changed.isError).toBe(false)
    const back = run('big.js', 'big.bin', ...Array.from({ length: 5 }, (_, at) => `part${String(at)}.txt`), '--json')
    expect(back.err).toContain('MiB sent')
    expect(ended(back.out)).toMatchObject({
      execution_id: ended(again.out)['execution_id'],
      existing: true,
      tail: expect.stringMatching(/^big 5242880\n/) as string,
    })
  })

  it('of any UTF-8 arrives as it is, also where no message can hold its characters', () => {
    file('odd.txt', 'a\ufffeb\u{1ffff}\u0000\n')
    const odd = run(file('odd.js', "console.log([...writ.readText('odd.txt')].length)"), 'odd.txt', '--json')
    expect(ended(odd.out)).toMatchObject({ state: 'succeeded', tail: '6\n' })
  })

  it('that cannot be read is told before anything is sent', () => {
    expect(run('big.js', 'no-such.bin')).toMatchObject({
      code: 2,
      err: expect.stringContaining('no-such.bin') as string,
    })
    expect(run('big.js', '.')).toMatchObject({ code: 2, err: expect.stringContaining('EISDIR') as string })
  })
})

describe('while it runs', () => {
  const slow =
    "console.log('first line')\nawait new Promise((resolve) => setTimeout(resolve, 60_000))\nconsole.log('last')\n"

  it('says the id, the state and the output as they come, and when interrupted that the run goes on', async () => {
    const one = running(['sandbox', '--intent', 'run_script', file('slow.js', slow)])
    await one.says(/^exec_\w{10}: (?:queued|running)$/m)
    await one.says(/^first line$/m)
    expect(one.child.exitCode).toBeNull()
    one.child.kill('SIGINT')
    expect(await gone(one.child)).toEqual([null, 'SIGINT'])
    const id = /exec_\w{10}/.exec(one.err())?.[0] ?? ''
    expect(one.err()).toContain(`${id} goes on without this command: "writ executions show ${id}" shows it`)
    expect(world.writ(['executions', 'show', id]).out).toMatch(/^exec_\w{10} {2}running/)
    expect(world.writ(['executions', 'cancel', id]).code).toBe(0)
  })

  it('says at once whose approval it waits for and how it is given, and goes on by itself', async () => {
    const one = running(['production', '--intent', 'run_script', file('asks.js', "console.log('approved')")])
    await one.says(/writ approvals approve apr_\w{10}/)
    expect(one.err()).toMatch(/^exec_\w{10}: awaiting_approval$/m)
    expect(world.approve(/apr_\w{10}/.exec(one.err())?.[0] ?? '').code).toBe(0)
    await one.says(/^approved$/m)
    expect(await gone(one.child)).toEqual([0, null])
  })

  it('shows output in whole lines however it is printed', () => {
    const long = 'x'.repeat(20_000)
    const script = `console.log('a'.repeat(5000)); console.log(${JSON.stringify('b'.repeat(5000))}); console.log('${long}end')`
    const ran = run(file('long.js', script))
    expect(ran.err.split('\n')).toContain('a'.repeat(5000))
    expect(ran.err.split('\n')).toContain('b'.repeat(5000))
    expect(ran.err.replaceAll('\n', '')).toContain(`${long}end`)
  })

  it('names the approval with --no-wait', () => {
    const ran = world.writ([
      'run',
      'production',
      '--intent',
      'run_script',
      file('later.js', "console.log('l')"),
      '--no-wait',
    ])
    expect(ran).toMatchObject({ code: 0 })
    expect(ran.out).toMatch(
      /^task {7}task_\w{10}\nexecution {2}exec_\w{10}\nstate {6}awaiting_approval\napproval {3}(apr_\w{10})\n {2}A person .*writ approvals approve \1\n/,
    )
  })
})

describe('the same command again', () => {
  it('[G-once] shows the run there is, also one that failed; --again runs it once more', () => {
    const code = "console.log('now', Date.now())\nthrow new Error('flaky')\n"
    const one = run(file('same.js', code), '--json')
    const two = run('same.js', '--json')
    expect([one.code, two.code]).toEqual([1, 1])
    expect(ended(two.out)).toMatchObject({ execution_id: ended(one.out)['execution_id'], existing: true })
    expect(two.err).toContain('--again runs them once more')
    const three = run('same.js', '--again', '--json')
    expect(ended(three.out)['execution_id']).not.toBe(ended(one.out)['execution_id'])
    expect(ended(three.out)).toMatchObject({ task_id: ended(one.out)['task_id'], state: 'failed' })
    file('same.js', `${code}\n`)
    expect(ended(run('same.js', '--json').out)['task_id']).not.toBe(ended(one.out)['task_id'])
    expect(ended(run('same.js', '--input', 'args=["x"]', '--json').out)['existing']).toBeUndefined()
  })
})

describe('what keeps it from running', () => {
  it('is told by code, with exit 2 where the operator has to put it right and 1 where the answer is no', () => {
    const cases: readonly (readonly [readonly string[], number, string, RegExp])[] = [
      [['run', 'nowhere', '--intent', 'run_script', 'same.js'], 1, 'unknown_target', /writ targets list/],
      [['run', 'sandbox', '--intent', 'fly', 'same.js'], 1, 'unknown_intent', /--intent has to be one of.*run_script/],
      [
        ['run', 'sandbox', '--intent', 'run_script', 'same.js', '--goal', 'g'.repeat(2000)],
        2,
        'invalid_arguments',
        /--goal is too long/,
      ],
      [
        ['run', 'sandbox', '--intent', 'run_script', 'same.js', '--out', 'same.js'],
        2,
        'usage',
        /same\.js: something else/,
      ],
    ]
    for (const [args, code, name, says] of cases) {
      const json = world.writ([...args, '--json'])
      expect([args, json.code, (ended(json.out)['error'] as JsonObject)['code']]).toEqual([args, code, name])
      const told = world.writ(args)
      expect(told.out + told.err).toMatch(says)
      expect(told.out + told.err).not.toMatch(/list_targets|submit_task|upload_artifact|\n\s+at /)
    }
    const missing = run('same.js', '--input', 'script=other.js')
    expect(missing.code).toBe(1)
    expect(missing.out).toMatch(/other\.js.*\n {2}Name the file on the command line\./)
  })

  it('is the configuration: exit 2, its code and what to do, on standard output with --json', () => {
    expect(world.writ(['stop']).code).toBe(0)
    const catalog = join(world.folder, 'catalog.yaml')
    const before = readFileSync(catalog, 'utf8')
    try {
      writeFileSync(catalog, `${before}\ntragets: {}\n`)
      const ran = run('same.js', '--json')
      expect(ran.code).toBe(2)
      expect(ended(ran.out)).toMatchObject({
        error: { code: 'broker_unreachable', remedy: expect.stringContaining('writ doctor') as string },
      })
      expect(ran.err).toContain('tragets')
      expect(run('same.js')).toMatchObject({ code: 2, out: '' })
      expect(run('same.js').err).not.toMatch(/\n\s+at /)
    } finally {
      writeFileSync(catalog, before)
    }
  })

  it('is a folder for results that cannot be: nothing is submitted for it', () => {
    const before = ended(world.writ(['executions', 'list', '--json', '--limit', '1000']).out)
    expect(run(file('unheard.js', "console.log('unheard')"), '--out', 'unheard.js/x', '--json')).toMatchObject({
      code: 2,
    })
    expect(run('unheard.js', '--out', '/proc/writ/x')).toMatchObject({ code: 2 })
    expect(ended(world.writ(['executions', 'list', '--json', '--limit', '1000']).out)).toEqual(before)
    expect(existsSync('/proc/writ')).toBe(false)
    renameSync(join(world.folder, 'unheard.js'), join(world.folder, 'heard.js'))
    expect(run('heard.js', '--out', 'new/deep')).toMatchObject({ code: 0 })
    expect(existsSync(join(world.folder, 'new', 'deep'))).toBe(true)
  })
})

it('a folder whose name begins with two dots is a folder like any other, to send from and to import from', () => {
  mkdirSync(join(world.folder, '..parts'))
  const names = [
    file('..parts/main.js', "import { said } from './part.js'\nconsole.log(said, ...writ.files())\n"),
    file('..parts/part.js', "export const said = 'imported'\n"),
  ]
  expect(ended(run(...names, '--json').out)).toMatchObject({
    state: 'succeeded',
    tail: 'imported ..parts/main.js ..parts/part.js\n',
  })
})

import { readFileSync, readdirSync } from 'node:fs'
import { afterAll, describe, expect, test } from 'vitest'
import { findCage } from '../../src/executor/isolate/cage.ts'
import { createIsolateExecutor } from '../../src/executor/isolate/isolate.ts'
import type { EgressPort } from '../../src/executor/executor.ts'
import { listen, prepare } from '../executor/fixture.ts'

const folder = new URL('./programs/isolate/', import.meta.url)
const env = { PATH: '/usr/bin:/bin', HOME: '/', LANG: 'C.UTF-8' }
const groups = findCage()
/** What holds the workers: memory groups where they can be made, and resource limits everywhere. */
const cages = groups.kind === 'rlimit' ? [groups] : [groups, findCage({ root: '/nonexistent' })]
const executors = new Map(
  cages.map((cage) => [
    cage.kind,
    createIsolateExecutor({ env, owner: `attack${process.pid}${cage.kind}`, cages: cage }),
  ]),
)
afterAll(async () => await Promise.all([...executors.values()].map((executor) => executor.close())))

interface Expected {
  readonly end: 'exited' | 'stopped'
  /** `by` of a stop, `reason` of an exit. */
  readonly why: string | null
  readonly exit: number | null
  readonly stdout?: string
  /** The first line of stderr. */
  readonly stderr?: string
  readonly outputs?: readonly string[]
}

const fine = (...lines: readonly string[]): Expected => ({
  end: 'exited',
  why: null,
  exit: 0,
  stdout: lines.join('\n'),
  stderr: '',
})
const memory: Expected = { end: 'stopped', why: 'memory', exit: null, stdout: '' }
const time = (stdout: string): Expected => ({ end: 'stopped', why: 'time', exit: null, stdout, stderr: '' })
const failed = (stderr: string): Expected => ({ end: 'exited', why: 'guest_error', exit: 1, stdout: '', stderr })
const quota: Expected = { end: 'exited', why: 'callback_quota', exit: null, stdout: '' }
const paths = 'outputs go under /out: relative parts, no "..", no control characters, at most 512 bytes'

/** The only outcome of each program that passes: what Writ saw, what came out, to the byte. */
const programs: Readonly<Record<string, Expected>> = {
  'I-01-resizable-buffer.js': failed('Uncaught TypeError: buffer.resize is not a function'),
  'I-02-webassembly.js': fine('undefined undefined undefined undefined undefined', 'undefined undefined undefined'),
  'I-03-array-fill.js': memory,
  'I-03-nested-arrays.js': memory,
  'I-03-promise-chain.js': { ...memory, stdout: 'before' },
  'I-04-map.js': memory,
  'I-04-object-keys.js': memory,
  'I-04-set.js': memory,
  'I-05-intl.js': memory,
  'I-05-json-parse.js': memory,
  'I-06-atomics-wait.js': failed('Uncaught ReferenceError: Atomics is not defined'),
  'I-06-bigint.js': time('before'),
  'I-06-loop.js': time('before'),
  'I-06-microtasks.js': time('before'),
  'I-06-redos.js': time('before'),
  'I-08-spin-after-await.js': time('403'),
  'I-08-spin-in-timer.js': time('timer'),
  'I-09-never-settles.js': time('before'),
  'I-10-forged-memory.js': failed('Uncaught Error: Isolate was disposed during execution due to memory limit'),
  'I-10-forged-timeout.js': failed('Uncaught Error: Script execution timed out.'),
  'I-12-large-argument.js': quota,
  'I-12-million-calls.js': quota,
  'I-13-odd-arguments.js': fine(
    'fetch 403',
    'read there is no file "../../../etc/passwd"; writ.files() lists what there is',
    'absolute there is no file "/etc/passwd"; writ.files() lists what there is',
    'proc there is no file "/proc/self/environ"; writ.files() lists what there is',
    `write ${paths}`,
    `climb ${paths}`,
    `nul ${paths}`,
    'timer a timer needs a function',
    'number undefined',
    'url Invalid URL',
    'random getRandomValues takes a view of at most 65536 bytes',
    'digest digest knows SHA-1, SHA-256, SHA-384 and SHA-512',
    'decode only utf-8 is supported here, not "utf-16"',
    `lone ${paths}`,
    'exit Symbol(thrown)',
  ),
  'I-14-host-error.js': fine(
    'TypeError the request was not answered',
    'TypeError: the request was not answered',
    'stack,message undefined',
    'true false',
  ),
  'I-16-reachability.js': fine('true nothing', 'none'),
  'I-17-constructor-chain.js': fine(
    ...'R u R R u R R R R R R R'.split(' ').map((letter) => (letter === 'R' ? 'ReferenceError' : 'undefined')),
  ),
  'I-18-dynamic-import.js': fine(
    'Not supported',
    'Not supported',
    'Not supported',
    'Not supported',
    'Not supported',
    '0 undefined',
  ),
  'I-18-hashbang-u2028.js': fine('14'),
  'I-18-internal-import.js': failed(
    'I-18-internal-import.js: the package "writ:done" is not part of the project; import files of the project or "writ"',
  ),
  'I-18-many-parentheses.js': failed('Uncaught RangeError: Maximum call stack size exceeded [<isolated-vm>:0:0]'),
  'I-18-outside-import.js': failed('I-18-outside-import.js: there is no file "../../../../etc/passwd" in the project'),
  'I-18-static-import.js': failed(
    'I-18-static-import.js: "fs" does not exist in an isolate; use writ.readText(path), writ.readBytes(path), writ.files() and writ.writeFile("/out/name", data)',
  ),
  'I-18-types.ts': failed(
    'I-18-types.ts: the TypeScript cannot be read: TypeScript enum is not supported in strip-only mode',
  ),
  'I-19-getter-during-copy.js': {
    ...fine('TypeError', 'TypeError', 'object', 'TypeError', 'TypeError'),
    outputs: ['liar', 'return.json'],
  },
  'I-21-placeholder.js': fine(
    'writ-placeholder-1',
    'd3JpdC1wbGFjZWhvbGRlci0x 1-redlohecalp-tirw',
    '{"VAULT_TOKEN":"writ-placeholder-1","WRIT_OUT":"/out"}',
    '35',
  ),
  'I-22-frozen-api.js': fine(...Array<string>(7).fill('TypeError')),
  'I-22-inspect-hook.js': {
    end: 'exited',
    why: null,
    exit: 0,
    stdout: `${Array<string>(1)
      .fill(
        '{\n  toString: [Function: toString],\n  [Symbol(nodejs.util.inspect.custom)]: [Function: [nodejs.util.inspect.custom]]\n}',
      )
      .join(
        '',
      )}\n{\n  toString: [Function: toString],\n  [Symbol(nodejs.util.inspect.custom)]: [Function: [nodejs.util.inspect.custom]]\n} {\n  toString: [Function: toString],\n  [Symbol(nodejs.util.inspect.custom)]: [Function: [nodejs.util.inspect.custom]]\n} [unreadable object]\ntrue`,
  },
  'I-22-legacy-accessors.js': fine(
    'true',
    'true',
    'ReferenceError',
    'TypeError',
    'TypeError',
    'TypeError',
    'true',
    '0',
  ),
  'I-22-patched-intrinsics.js': { ...fine('a [ 1 ] Map(1) { 1 => 2 }', 'nothing'), stderr: 'b', outputs: ['x'] },
  'I-22-promise-species.js': fine('undefined'),
  'I-22-proxy-handler.js': fine('[Function (anonymous)]', 'undefinedundefined'),
  'I-22-stack-frames.js': fine('{ toString: [Function: toString] }', 'nothing'),
  'E-14-ways-out.js': fine(
    ...'http://1.1.1.1/ https://example.com/ http://169.254.169.254/latest/meta-data/ http://[fd00:ec2::254]/'
      .split(' ')
      .map((url) => `${url} 403`),
    ...'http://localhost:22/ http://127.0.0.1:3128@evil.example/ file:///etc/passwd data:text/plain,x blob:null/x'
      .split(' ')
      .map((url) => `${url} 403`),
    ...['ws://127.0.0.1:3128/', 'ftp://127.0.0.1/', 'unix:/var/run/docker.sock', '/vault/', '//evil.example/', ''].map(
      (url) => `${url} 403`,
    ),
    '[]',
  ),
}

/** What ends otherwise where resource limits hold the address space: what is asked for is not even given. */
const underLimits: Readonly<Record<string, Expected>> = {
  'I-01-resizable-buffer.js': failed('Uncaught RangeError: Array buffer allocation failed'),
}

const canary = 'canary-value-7f3a'
const failing: EgressPort = { fetch: () => Promise.reject(new Error(`${canary} at /etc/secret/path`)) }

describe('attacks on the isolate', () => {
  test('every program has its expected outcome, and every outcome its program', () => {
    expect(readdirSync(folder).sort()).toEqual(Object.keys(programs).sort())
  })

  const held = [...executors.keys()].flatMap((kind) =>
    Object.entries(kind === 'rlimit' ? { ...programs, ...underLimits } : programs).map(
      (one) => [kind, ...one] as const,
    ),
  )
  test.each(held)(
    'under %s, %s ends exactly so [G-isolate-holds]',
    { timeout: 60_000 },
    async (kind, name, expected) => {
      const files: Record<string, string | Uint8Array> = { [name]: readFileSync(new URL(name, folder)) }
      if (name.includes('parentheses')) files['generated.js'] = '('.repeat(10_000_000)
      const prepared = prepare({
        files,
        argv: [[name]],
        limits: { memory_mb: 32, cpu_s: 50 },
        plan: {
          environment: [{ name: 'VAULT_TOKEN', about: '', value: { kind: 'placeholder', credential: 'vault' } }],
        },
        placeholders: { vault: 'writ-placeholder-1' },
      })
      const seen = listen(prepared, name.startsWith('I-14') ? failing : undefined)
      const spins = expected.why === 'time'
      if (spins) {
        const watch = setInterval(() => {
          if (seen.size === 0) return
          clearInterval(watch)
          setTimeout(() => seen.stop.abort('time'), 300)
        }, 20)
      }
      const outcome = (await executors.get(kind)?.run(prepared.job, seen.io)) ?? { end: 'unknown', steps: [] }
      const why = outcome.end === 'exited' ? outcome.reason : outcome.end === 'stopped' ? outcome.by : null
      const steps = outcome.end === 'not_started' ? [] : outcome.steps
      expect({
        end: outcome.end,
        why,
        exit: steps.at(-1)?.exit ?? null,
        stdout: seen.text('stdout').trimEnd(),
      }).toEqual({
        end: expected.end,
        why: expected.why,
        exit: expected.exit,
        stdout: expected.stdout,
      })
      const [firstLine] = seen.text('stderr').split('\n')
      expect(firstLine).toBe(expected.stderr ?? firstLine)
      expect([...seen.files.keys()]).toEqual(expected.outputs ?? [])
      const everything = seen.text() + [...seen.files.values()].map(String).join('')
      for (const word of [canary, '/etc/secret', 'node_modules', 'src/executor', process.cwd()])
        expect(everything).not.toContain(word)
    },
  )

  test('the installed isolated-vm is past the type confusion of GHSA-864f-rcv7-6rh4, and the floor stands in package.json', () => {
    const at = new URL('../../', import.meta.url)
    const installed = JSON.parse(readFileSync(new URL('node_modules/isolated-vm/package.json', at), 'utf8')) as {
      version: string
    }
    const wanted = JSON.parse(readFileSync(new URL('package.json', at), 'utf8')) as {
      dependencies: Record<string, string>
    }
    for (const version of [installed.version, wanted.dependencies['isolated-vm'] ?? '0.0.0']) {
      const [major = 0, minor = 0, patch = 0] = version.split('.').map(Number)
      expect(major * 1_000_000 + minor * 1000 + patch).toBeGreaterThanOrEqual(7_000_001)
    }
  })
})

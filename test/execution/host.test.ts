import { execFileSync } from 'node:child_process'
import { readFileSync, readdirSync } from 'node:fs'
import { createServer } from 'node:http'
import { afterEach, describe, expect, test } from 'vitest'
import { Secret } from '../../src/credential/secret.ts'
import { digestJson } from '../../src/digest.ts'
import { startRunHost } from '../../src/execution/host.ts'
import type { Dispatch, FileReader, RunEnd, RunEvents, RunHost } from '../../src/execution/job.ts'
import type { PolicyInput } from '../../src/policy/policy.ts'
import { quickest } from '../cost.ts'
import { prepare } from '../executor/fixture.ts'
import type { Prepared, Project } from '../executor/fixture.ts'
import { until } from '../wait.ts'

const hosts: RunHost[] = []
function open(options: Parameters<typeof startRunHost>[0] = {}): RunHost {
  const host = startRunHost(options)
  hosts.push(host)
  return host
}
afterEach(async () => {
  for (const host of hosts.splice(0)) await host.close()
})

const generation = { number: 1, digest: digestJson([]), packs: [] }
const input: PolicyInput = {
  schema: 'writ.input/v1',
  phase: 'egress',
  subject: {
    type: 'user',
    id: 'ana',
    properties: {
      tenant: 'default',
      roles: [],
      auth: { method: 'socket', age_s: 0 },
      agent: { id: 'a', asserted: { client: 'c', version: '1' } },
    },
  },
  action: { name: 'fetch', properties: { arguments: {} } },
  resource: { type: 'target', id: 't', properties: { owner: null, tenant: null, labels: {} } },
  context: {
    time: { rfc3339: '2026-01-01T00:00:00Z', unix_s: 1_767_225_600, weekday: 'thu', minute_of_day: 0 },
    counters: { executions_60m: 0, denied_10m: 0, running: 0 },
    task: null,
    plan: null,
    approvals: [],
    verdict: null,
    call: null,
    supported_obligations: [],
    truncated: [],
  },
}

interface Told {
  readonly end: RunEnd
  readonly text: string
  readonly started: readonly number[]
  readonly files: ReadonlyMap<string, string>
}

async function run(
  host: RunHost,
  project: Project | Prepared,
  more: { secrets?: Dispatch['secrets']; files?: FileReader; events?: Partial<RunEvents> } = {},
): Promise<Told> {
  const prepared = 'job' in project ? project : prepare(project)
  let text = ''
  const started: number[] = []
  const files = new Map<string, string>()
  const end = await host.run(
    { job: prepared.job, secrets: more.secrets ?? [], generation, egress_input: input },
    more.files ??
      ((digest) => {
        const found = prepared.bytes.get(digest)
        return found === undefined ? Promise.reject(new Error('none')) : Promise.resolve(found)
      }),
    {
      started(step) {
        started.push(step)
        more.events?.started?.(step)
      },
      output(step, stream, bytes) {
        text += Buffer.from(bytes).toString()
        more.events?.output?.(step, stream, bytes)
      },
      async file(path, bytes) {
        await more.events?.file?.(path, bytes)
        files.set(path, Buffer.from(bytes).toString('latin1'))
      },
    },
  )
  return { end, text, started, files }
}
const script = (code: string, more: Partial<Project> = {}): Project => ({
  files: { 'main.js': code },
  argv: [['main.js']],
  ...more,
})

/** Live processes whose command line names one of Writ's own entry files, below `pid`. */
function below(pid: number): readonly number[] {
  const parents = new Map<number, number>()
  for (const name of readdirSync('/proc')) {
    try {
      const stat = readFileSync(`/proc/${name}/stat`, 'utf8')
      const [state, parent] = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
      if (state !== 'Z' && /^\d+$/.test(name)) parents.set(Number(name), Number(parent))
    } catch {
      continue
    }
  }
  return [...parents].filter(([, parent]) => parent === pid).map(([child]) => child)
}
const alive = (pid: number): boolean => {
  try {
    process.kill(pid, 0)
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'))
  } catch {
    return false
  }
}
/** The pid of a run host that is there. Nobody else's: to kill 0 is to kill the tests and what runs them. */
function pidOf(host: RunHost): number {
  const { pid } = host
  if (pid === null) throw new Error('there is no run host')
  return pid
}

describe('the run host', () => {
  test('runs a job, streams its output and stores its files', async () => {
    const told = await run(
      open(),
      script("console.log('hello'); writ.writeFile('/out/a.txt', 'A'); export default { n: 1 }"),
    )
    expect(told.end.outcome).toMatchObject({ end: 'exited', reason: null, steps: [{ exit: 0 }] })
    expect(told.end.counts).toEqual({
      egress: { allowed: 0, blocked: 0, refusals: [] },
      isolation_applied: 'process',
      withheld_files: 0,
      redactions: 0,
      dropped_bytes: 0,
    })
    expect(told.text).toBe('hello\n')
    expect(told.started).toEqual([0])
    expect([...told.files]).toEqual([
      ['a.txt', 'A'],
      ['return.json', '{\n  "n": 1\n}'],
    ])
  })

  test('drops and counts what a run prints past its limit, and lets it go on', async () => {
    const told = await run(
      open(),
      script("for (let i = 0; i < 300; i++) console.log('x'.repeat(99)); writ.writeFile('/out/end', 'x')", {
        limits: { output_kb: 16 },
      }),
    )
    expect(told.end.outcome).toMatchObject({ end: 'exited', steps: [{ exit: 0 }] })
    expect(told.text.length).toBe(16 * 1024)
    expect(told.end.counts.dropped_bytes).toBe(300 * 100 - 16 * 1024)
    expect(told.files.has('end')).toBe(true)
  })

  test('ends a run at its wall limit [G-limits-hold]', async () => {
    const host = open()
    // What starts a worker counts too: on a slow machine it may be all of a second.
    for (const wall_s of [1, 2, 4, 8]) {
      let begun = Infinity
      const told = await run(host, script("console.log('x'); await new Promise(() => {})", { limits: { wall_s } }), {
        events: { output: () => (begun = performance.now()) },
      })
      if (begun === Infinity) continue
      expect(performance.now() - begun).toBeLessThan(wall_s * 1000 + 2000)
      expect(told.end.outcome).toMatchObject({ end: 'stopped', by: 'time' })
      return
    }
    expect.unreachable('no run began')
  })

  test('ends a run within 2 s of cancel, and knows no other run by that [G-cancel]', async () => {
    const host = open({ poolSize: 2 })
    const other = run(host, script('await new Promise((d) => setTimeout(d, 600)); console.log("other")'))
    const took = await quickest(2, async () => {
      const spinning = prepare(script("console.log('x'); for (;;);"))
      let asked = Infinity
      const told = await run(host, spinning, {
        events: {
          output() {
            asked = performance.now()
            host.cancel(spinning.job.execution)
          },
        },
      })
      const ended = performance.now()
      expect(told.end.outcome).toMatchObject({ end: 'stopped', by: 'cancel' })
      return ended - asked
    })
    expect(took).toBeLessThan(2000)
    expect((await other).end.outcome).toMatchObject({ end: 'exited', steps: [{ exit: 0 }] })
  })

  test('takes each execution once', async () => {
    const host = open()
    const prepared = prepare(script("console.log('once')"))
    expect((await run(host, prepared)).text).toBe('once\n')
    const again = await run(host, prepared)
    expect(again.text).toBe('')
    expect(again.end.outcome).toMatchObject({ end: 'not_started', error: { code: 'conflict' } })
    expect((await run(host, script("console.log('other')"))).text).toBe('other\n')
  })

  test('a run told to have started ends unknown when the run host dies, one not told ends not_started, and the next run has a new host [G-unknown-never-again]', async () => {
    const exits: (number | null)[] = []
    const host = open({ onExit: (code) => exits.push(code) })
    const first = host.pid
    const started = await run(host, script('for (;;);'), {
      events: { started: () => process.kill(pidOf(host), 'SIGKILL') },
    })
    expect(started.end.outcome).toEqual({ end: 'unknown', steps: [] })
    expect(exits).toEqual([null])

    const before = await run(host, script('for (;;);'), {
      files: () => {
        process.kill(pidOf(host), 'SIGKILL')
        return new Promise(() => undefined)
      },
    })
    expect(before.started).toEqual([])
    expect(before.end.outcome).toMatchObject({ end: 'not_started', error: { code: 'run_host_lost' } })

    expect((await run(host, script("console.log('again')"))).text).toBe('again\n')
    expect(host.pid).not.toBe(first)
  })

  test.each(['a cancel', 'the wall time of a run'])(
    'a run host that does not answer %s is killed: its runs end unknown, and the next run has another [G-host-answers]',
    { timeout: 60_000 },
    async (what) => {
      const told: string[] = []
      const host = open({
        patience: { late: 1, answer: 2, ending: 30 },
        onExit: (_code, why) => told.push(why),
      })
      const silent = pidOf(host)
      const spinning = prepare(
        script("console.log('x'); for (;;);", { limits: { wall_s: what === 'a cancel' ? 60 : 4 } }),
      )
      let begun = Infinity
      const ended = await run(host, spinning, {
        events: {
          output() {
            begun = performance.now()
            process.kill(silent, 'SIGSTOP')
            if (what === 'a cancel') host.cancel(spinning.job.execution)
          },
        },
      })
      expect(ended.end.outcome).toEqual({ end: 'unknown', steps: [] })
      expect(ended.end.counts.isolation_applied).toBeNull()
      expect(performance.now() - begun).toBeLessThan(20_000)
      expect(told).toEqual(['the run host did not answer'])
      await until('the run host is gone', () => !alive(silent))
      expect((await run(host, script("console.log('again')"))).text).toBe('again\n')
    },
  )

  test('a run host leaves no core file, and no signal opens an inspector in it [G-secret-nowhere]', async () => {
    const host = open()
    await host.check()
    const pid = pidOf(host)
    expect(readFileSync(`/proc/${pid}/limits`, 'utf8')).toMatch(/Max core file size\s+0\s+0/)
    // One bit a signal: where nothing catches it, SIGUSR1 (10) ends a process, and an inspector would catch it.
    const caught = /^SigCgt:\s+([0-9a-f]+)$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? ''
    expect((BigInt(`0x${caught}`) >> 9n) & 1n).toBe(0n)
  })

  test('a run host whose broker is gone takes its workers with it [G-nothing-left]', async () => {
    const program = `
      const { startRunHost } = await import(${JSON.stringify(new URL('../../src/execution/host.ts', import.meta.url).href)})
      const host = startRunHost({ owner: 'orphan' })
      await host.check()
      console.log(host.pid)
      process.kill(process.pid, 'SIGKILL')`
    let printed = ''
    try {
      execFileSync(process.execPath, ['--no-warnings', '--input-type=module-typescript', '-e', program], {
        encoding: 'utf8',
      })
    } catch (error) {
      printed = (error as { stdout: string }).stdout
    }
    const pid = Number(printed.trim())
    expect(pid).toBeGreaterThan(1)
    const workers = below(pid)
    await until('run host and workers are gone', () => ![pid, ...workers].some(alive))
  })

  test('a worker whose run host is gone ends by itself [G-nothing-left]', async () => {
    const host = open()
    await run(host, script("console.log('x')"))
    const pid = pidOf(host)
    const workers = await until('a worker waits', () => (below(pid).length > 0 ? below(pid) : null))
    process.kill(pid, 'SIGKILL')
    await until('no worker is left', () => !workers.some(alive))
  })

  test('a file that is not the one of the plan starts nothing', async () => {
    const told = await run(open(), script("console.log('x')"), {
      files: () => Promise.resolve(Buffer.from('other code')),
    })
    expect(told.end.outcome).toMatchObject({ end: 'not_started', error: { code: 'ledger_corrupt' } })
    expect(told.text).toBe('')
  })

  test('a file that cannot be stored is said to be no space, and the run does not pass', async () => {
    const told = await run(open(), script("writ.writeFile('/out/a', 'x')"), {
      events: { file: () => Promise.reject(new Error('full')) },
    })
    expect(told.end.outcome).toMatchObject({ end: 'exited', reason: 'no_space', steps: [{ exit: null }] })
  })

  test('an executor there is not starts nothing', async () => {
    const prepared = prepare(script('1'), 'docker')
    const told = await run(open(), prepared)
    expect(told.end.outcome).toMatchObject({ end: 'not_started', error: { code: 'target_unavailable' } })
  })

  test('keeps a leased value from output, files and file names, and counts it [G-redacted]', async () => {
    const value = 'canary-7f3a9d2e-value'
    const secrets = [Secret.ingest('token', value)]
    const told = await run(
      open(),
      script(
        `const v = ['canary-7f3a', '9d2e-value'].join('');
         console.log('plain ' + v); console.log(btoa(v)); console.error([...v].map((c) => c.charCodeAt(0).toString(16)).join(''));
         writ.writeFile('/out/text.txt', 'a ' + v + ' b');
         writ.writeFile('/out/binary', new Uint8Array([0, 255, ...new TextEncoder().encode(v)]));
         writ.writeFile('/out/' + v, 'x')`,
      ),
      { secrets },
    )
    expect(told.end.outcome).toMatchObject({ end: 'exited', steps: [{ exit: 0 }] })
    const all = told.text + [...told.files].flat().join('')
    for (const form of [value, Buffer.from(value).toString('base64'), Buffer.from(value).toString('hex')])
      expect(all).not.toContain(form)
    expect([...told.files.keys()]).toEqual(['text.txt'])
    expect(told.files.get('text.txt')).toBe('a [REDACTED:token] b')
    expect(told.end.counts).toMatchObject({ withheld_files: 2, redactions: 4 })
  })

  test('asks policy for each request, and without a grant none leaves [G-egress-closed]', async () => {
    let reached = 0
    const server = createServer((_request, response) => {
      reached++
      response.end('reached')
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    const address = server.address()
    const port = typeof address === 'object' && address !== null ? address.port : 0
    const told = await run(
      open(),
      script(
        "for (const name of ['local', 'other']) { const r = await fetch('http://127.0.0.1:3128/' + name + '/x'); console.log(r.status) }",
        {
          plan: {
            services: [
              {
                name: 'local',
                about: '',
                url: `http://127.0.0.1:${port}`,
                credential: null,
                addresses: ['127.0.0.0/8'],
                ca: null,
              },
            ],
          },
        },
      ),
    )
    server.close()
    expect(told.text).toBe('403\n403\n')
    expect(reached).toBe(0)
    expect(told.end.counts.egress).toMatchObject({ allowed: 0, blocked: 2 })
  })

  test('says what its executors find on this machine', async () => {
    const found = await open().check()
    expect(found.map(({ executor }) => executor)).toEqual(['isolate'])
    expect(found[0]?.findings.length).toBeGreaterThan(0)
  })

  test('refuses bytes that are no archive', async () => {
    await expect(open().unpack(Buffer.from('no archive'))).rejects.toMatchObject({ code: 'invalid_archive' })
  })

  test('holds nothing of the machine’s environment', async () => {
    const host = open()
    await host.check()
    const text = readFileSync(`/proc/${host.pid}/environ`, 'utf8')
    const names = new Set(
      text
        .split('\0')
        // Where `sh` is bash, it says by this how it started what it became.
        .filter((entry) => entry !== '' && !entry.startsWith('_='))
        .map((entry) => entry.split('=')[0]),
    )
    expect(names).toEqual(new Set(['HOME', 'LANG', 'PATH']))
  })
})

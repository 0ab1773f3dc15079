import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { EgressPort, EgressRequest, Executor } from '../../src/executor/executor.ts'
import type { Outcome } from '../../src/execution/job.ts'
import { newId } from '../../src/id.ts'
import { endingOf } from '../../src/path/ending.ts'
import type { Decision } from '../../src/policy/policy.ts'
import { quickest } from '../cost.ts'
import { listen, prepare } from '../executor/fixture.ts'
import type { Prepared, Project, Seen } from '../executor/fixture.ts'
import { until } from '../wait.ts'

/** What a program of the suite does; each kind of sandbox writes it in a language it runs. */
export type Program =
  /** Prints to both streams, then requests `http://127.0.0.1:3128/vault/`, then prints `after` to stdout. */
  | { readonly does: 'print'; readonly stdout: string; readonly stderr: string; readonly after: string }
  | { readonly does: 'exit'; readonly code: number }
  /** Prints `begun` and then uses up its processor. */
  | { readonly does: 'spin' }
  /** Prints `begun` and then does nothing. */
  | { readonly does: 'sleep' }
  /** Prints that many bytes to stdout. */
  | { readonly does: 'flood'; readonly bytes: number }
  /** Takes memory until it is stopped. */
  | { readonly does: 'eat' }
  /** Copies the project file `from` to the output `to`. */
  | { readonly does: 'copy'; readonly from: string; readonly to: string }
  /** Prints its whole environment as one JSON object. */
  | { readonly does: 'environment' }
  /** Requests URL with a body and prints `<status> <body>`. */
  | { readonly does: 'fetch'; readonly url: string; readonly body: string }
  /** Leaves that many outputs of that many bytes each, prints `made`, and ends. */
  | { readonly does: 'leave'; readonly count: number; readonly bytes: number }
  /** Starts what would outlive it if it could (children, timers), prints `left`, and ends. */
  | { readonly does: 'linger' }

export interface Subject {
  readonly executor: Executor
  /** Files and argv of one step that does it. */
  program(program: Program): { readonly files: Project['files']; readonly argv: readonly string[] }
  /** Kills the sandbox of every run under way, from outside, before it returns. */
  kill(): void
  /** Processes, containers and folders of ended runs that are still there. */
  remains(): Promise<readonly string[]>
}

const decision = { id: newId('dec') } as Decision
const unasked = {} as Parameters<typeof endingOf>[0]

/** What every kind of sandbox owes, whatever it is made of. */
export function executorContract(name: string, make: () => Promise<Subject>): void {
  describe(`executor ${name}`, () => {
    let subject: Subject
    beforeAll(async () => {
      subject = await make()
    })
    afterAll(async () => {
      await subject.executor.close()
    })

    const project = (programs: readonly Program[], rest: Partial<Project> = {}): Prepared => {
      const made = programs.map((program) => subject.program(program))
      return prepare(
        {
          files: Object.assign({}, ...made.map((one) => one.files), rest.files) as Project['files'],
          argv: made.map((one) => one.argv),
          ...omitFiles(rest),
        },
        subject.executor.kind,
      )
    }
    const run = async (prepared: Prepared, seen: Seen): Promise<Outcome> =>
      await subject.executor.run(prepared.job, seen.io)

    test('streams both streams while the program still runs, and its exit is 0', async () => {
      const prepared = project([{ does: 'print', stdout: 'out-text', stderr: 'err-text', after: 'later' }])
      // The program gets its answer, and so goes on, only once both have come.
      const seen: Seen = listen(prepared, {
        async fetch() {
          await until('both streams have come', () => seen.size === 'out-text\nerr-text\n'.length)
          return { status: 200, headers: [], body: Buffer.alloc(0) }
        },
      })
      const outcome = await run(prepared, seen)
      expect(outcome).toMatchObject({ end: 'exited', reason: null, steps: [{ exit: 0 }] })
      expect(seen.text('stdout')).toBe('out-text\nlater\n')
      expect(seen.text('stderr')).toBe('err-text\n')
      expect(seen.started).toEqual([0])
    })

    test('runs the steps in order and stops at the first that fails', async () => {
      const prepared = project([
        { does: 'exit', code: 0 },
        { does: 'exit', code: 9 },
        { does: 'exit', code: 0 },
      ])
      const seen = listen(prepared)
      const outcome = await run(prepared, seen)
      expect(outcome.end).toBe('exited')
      expect(outcome.end === 'exited' && outcome.steps.map((step) => step.exit)).toEqual([0, 9])
      expect(seen.started).toEqual([0, 1])
    })

    test('counts an exit code that the intent calls success as success', async () => {
      const prepared = project([
        { does: 'exit', code: 3 },
        { does: 'exit', code: 0 },
      ])
      const steps = prepared.job.plan.steps.map((step) => ({ ...step, success: [0, 3] }))
      const allowed = { ...prepared, job: { ...prepared.job, plan: { ...prepared.job.plan, steps } } }
      const outcome = await run(allowed, listen(allowed))
      expect(outcome.end === 'exited' && outcome.steps.map((step) => step.exit)).toEqual([3, 0])
    })

    test('ends a program that uses up its processor time [G-limits-hold]', async () => {
      const prepared = project([{ does: 'spin' }], { limits: { cpu_s: 1 } })
      const outcome = await run(prepared, listen(prepared))
      expect(outcome).toMatchObject({ end: 'stopped', by: 'time', steps: [{ exit: null }] })
    })

    test('ends a program that takes more memory than its limit, and goes on serving [G-limits-hold]', async () => {
      const prepared = project([{ does: 'eat' }], { limits: { memory_mb: 32 } })
      const outcome = await run(prepared, listen(prepared))
      expect(outcome).toMatchObject({ end: 'stopped', by: 'memory' })
      const next = project([{ does: 'exit', code: 0 }])
      expect(await run(next, listen(next))).toMatchObject({ end: 'exited', steps: [{ exit: 0 }] })
    })

    test.each(['time', 'cancel'] as const)('is gone less than 2 s after the signal says %s [G-cancel]', async (by) => {
      for (const does of ['spin', 'sleep'] as const) {
        const took = await quickest(2, async () => {
          const prepared = project([{ does }], { limits: { wall_s: 60, cpu_s: 60 } })
          const seen = listen(prepared)
          const running = run(prepared, seen)
          await until('the program runs', () => seen.text() === 'begun\n')
          const asked = performance.now()
          seen.stop.abort(by)
          expect(await running).toMatchObject({ end: 'stopped', by })
          return performance.now() - asked
        })
        expect(took).toBeLessThan(2000)
      }
    })

    test('starts nothing for a run that was cancelled before', async () => {
      const prepared = project([{ does: 'exit', code: 0 }])
      const seen = listen(prepared)
      seen.stop.abort('cancel')
      expect(await run(prepared, seen)).toEqual({ end: 'stopped', by: 'cancel', steps: [] })
      expect(seen.started).toEqual([])
    })

    test('hands every byte of a flood to the sink, which alone decides what is kept', async () => {
      const prepared = project([{ does: 'flood', bytes: 2_000_000 }])
      const seen = listen(prepared)
      expect(await run(prepared, seen)).toMatchObject({ end: 'exited', steps: [{ exit: 0 }] })
      expect(seen.size).toBe(2_000_000)
    })

    test('ends a run at its output limit where the plan says so', async () => {
      const prepared = project([{ does: 'flood', bytes: 50_000_000 }], { plan: { engine: { stop_on_output: true } } })
      expect(await run(prepared, listen(prepared))).toMatchObject({ end: 'stopped', by: 'output' })
    })

    test('takes files in and brings outputs back byte for byte', async () => {
      const bytes = Buffer.from([...Array(70_000).keys()].map((value) => value % 256))
      const prepared = project([{ does: 'copy', from: 'data/in.bin', to: 'deep/out.bin' }], {
        files: { 'data/in.bin': bytes },
      })
      const seen = listen(prepared)
      expect(await run(prepared, seen)).toMatchObject({ end: 'exited', steps: [{ exit: 0 }] })
      expect([...seen.files.keys()]).toEqual(['deep/out.bin'])
      expect(seen.files.get('deep/out.bin')?.equals(bytes)).toBe(true)
    })

    test('calls no run a success whose sandbox died before all outputs were handed over [G-whole-success]', async () => {
      const count = 6
      const prepared = project([{ does: 'leave', count, bytes: 1_000_000 }], { limits: { artifact_kb: 8192 } })
      const seen = listen(prepared)
      const { artifacts, output } = seen.io
      let killed = false
      const kill = (): void => {
        if (!killed) subject.kill()
        killed = true
      }
      const outcome = await subject.executor.run(prepared.job, {
        ...seen.io,
        output: {
          get full() {
            return output.full
          },
          write(step, stream, bytes) {
            output.write(step, stream, bytes)
            // A sandbox that hands its outputs over one by one is killed at the first of them.
            if (subject.executor.kind !== 'isolate') kill()
          },
        },
        artifacts: {
          async put(path, bytes) {
            await artifacts.put(path, bytes)
            kill()
          },
        },
      })
      expect(seen.text('stdout')).toBe('made\n')
      expect(seen.files.size).toBeLessThan(count)
      const run = { plan: prepared.job.plan, decision, began: true, overQuota: false }
      expect(endingOf(unasked, outcome, run)).toMatchObject({
        state: 'failed',
        ran: true,
        reason: 'sandbox_crash',
        reasons: [{ code: 'sandbox_crash' }],
      })
    })

    test('shows a run its declared environment and placeholders, and nothing of the machine [G-placeholder-only]', async () => {
      const prepared = project([{ does: 'environment' }], {
        plan: {
          environment: [
            { name: 'MODE', about: '', value: { kind: 'literal', value: 'test' } },
            { name: 'VAULT_ADDR', about: '', value: { kind: 'service', service: 'vault' } },
            { name: 'VAULT_TOKEN', about: '', value: { kind: 'placeholder', credential: 'vault-token' } },
            { name: 'OTHER_TOKEN', about: '', value: { kind: 'placeholder', credential: 'not-leased' } },
          ],
        },
        placeholders: { 'vault-token': 'writ-placeholder-5f' },
      })
      const seen = listen(prepared)
      await run(prepared, seen)
      const environment = JSON.parse(seen.text('stdout')) as Record<string, string>
      expect(environment).toMatchObject({
        MODE: 'test',
        VAULT_ADDR: 'http://127.0.0.1:3128/vault',
        VAULT_TOKEN: 'writ-placeholder-5f',
        OTHER_TOKEN: '',
      })
      const allowed = new Set([
        'MODE',
        'VAULT_ADDR',
        'VAULT_TOKEN',
        'OTHER_TOKEN',
        'WRIT_OUT',
        'PATH',
        'HOME',
        'LANG',
        'PWD',
        'SHLVL',
      ])
      expect(Object.keys(environment).filter((key) => !allowed.has(key))).toEqual([])
    })

    test('lets a run out through the egress port only, and hands the answer back', async () => {
      const asked: EgressRequest[] = []
      const egress: EgressPort = {
        fetch(request) {
          asked.push(request)
          return Promise.resolve({
            status: 201,
            headers: [['content-type', 'text/plain']],
            body: Buffer.from('from the service'),
          })
        },
      }
      const prepared = project([{ does: 'fetch', url: 'http://127.0.0.1:3128/vault/v1/kv', body: 'sent' }])
      const seen = listen(prepared, egress)
      await run(prepared, seen)
      expect(seen.text('stdout')).toBe('201 from the service\n')
      expect(asked.map(({ method, url, body }) => [method, url, Buffer.from(body).toString()])).toEqual([
        ['POST', 'http://127.0.0.1:3128/vault/v1/kv', 'sent'],
      ])
    })

    test('is closed where the port refuses, and no other way leads out [G-egress-closed]', async () => {
      const prepared = project([{ does: 'fetch', url: 'http://127.0.0.1:3128/vault/', body: '' }])
      const seen = listen(prepared)
      await run(prepared, seen)
      expect(seen.text('stdout')).toBe('403 refused\n')
    })

    test('rejects before anything has started where a file cannot be had', async () => {
      const prepared = project([{ does: 'exit', code: 0 }])
      const seen = listen({ ...prepared, bytes: new Map() })
      await expect(run(prepared, seen)).rejects.toThrow('no such file')
      expect(seen.started).toEqual([])
    })

    test('leaves nothing behind, whatever the program started [G-nothing-left]', async () => {
      const prepared = project([{ does: 'linger' }])
      const seen = listen(prepared)
      const outcome = await run(prepared, seen)
      expect(outcome.end).toBe('exited')
      expect(seen.text('stdout')).toContain('left')
      expect(await subject.remains()).toEqual([])
    })

    test('says of itself whether it can run here', async () => {
      const findings = await subject.executor.check()
      expect(findings.length).toBeGreaterThan(0)
      expect(findings.filter((finding) => finding.level !== 'ok' && finding.fix === null)).toEqual([])
    })
  })
}

function omitFiles(project: Partial<Project>): Omit<Partial<Project>, 'files'> {
  const { files: _files, ...rest } = project
  return rest
}

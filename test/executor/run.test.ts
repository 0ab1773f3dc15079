import { setTimeout as pause } from 'node:timers/promises'
import { afterAll, expect, test, vi } from 'vitest'
import { digestOf } from '../../src/digest.ts'
import type { Dispatch, RunEnd } from '../../src/execution/job.ts'
import type { Executor } from '../../src/executor/executor.ts'
import { createIsolateExecutor } from '../../src/executor/isolate/isolate.ts'
import { runJob } from '../../src/executor/run.ts'
import { openArtifacts } from '../../src/executor/sinks.ts'
import { maxPayload } from '../../src/execution/host-wire.ts'
import { checkInput } from '../../src/policy/input.ts'
import type { Decision, PolicyInput } from '../../src/policy/policy.ts'
import { input, plan as policyPlan } from '../policy/fixtures/input.ts'
import { prepare } from './fixture.ts'

const executor = createIsolateExecutor({
  env: { PATH: '/usr/bin:/bin', HOME: '/', LANG: 'C.UTF-8' },
  owner: `run${process.pid}`,
})
afterAll(async () => await executor.close())

/** A run of so many seconds whose file comes only when `files` does. */
async function runWith(
  wall_s: number,
  files: Promise<unknown>,
  signal = new AbortController().signal,
): Promise<RunEnd & { begun: number }> {
  const prepared = prepare({ files: { 'a.js': 'for (;;);' }, argv: [['a.js']], limits: { wall_s } })
  const dispatch: Dispatch = {
    job: prepared.job,
    secrets: [],
    generation: { number: 1, digest: digestOf('generation'), packs: [] },
    egress_input: { schema: 'writ.input/v1' } as PolicyInput,
  }
  let begun = 0
  const end = await runJob(
    dispatch,
    executor,
    {
      async read(digest) {
        await files
        return prepared.bytes.get(digest) ?? Buffer.alloc(0)
      },
      started() {
        begun++
        return Promise.resolve()
      },
      output: () => undefined,
      file: () => Promise.resolve(),
      decide: () => Promise.reject(new Error('nothing is asked')),
    },
    signal,
  )
  return { ...end, begun }
}

test('a run whose time is over before anything was handed to a sandbox has not started, and is not said to have timed out', async () => {
  const { outcome, begun } = await runWith(1, pause(1500))
  expect(begun).toBe(0)
  expect(outcome).toMatchObject({ end: 'not_started', error: { code: 'target_unavailable' } })
})

test('a run whose time is over while its code runs has timed out', async () => {
  // What starts a worker counts too: on a slow machine it may be all of a second.
  for (const wall_s of [1, 2, 4, 8]) {
    const { outcome, begun } = await runWith(wall_s, Promise.resolve())
    if (begun === 0) continue
    expect(begun).toBe(1)
    expect(outcome).toMatchObject({ end: 'stopped', by: 'time' })
    return
  }
  expect.unreachable('no run began')
})

test('a run that is cancelled before anything was handed to a sandbox is cancelled, and nothing was begun', async () => {
  const stop = new AbortController()
  const files = Promise.withResolvers<void>()
  const running = runWith(20, files.promise, stop.signal)
  stop.abort('cancel')
  files.resolve()
  const { outcome, begun } = await running
  expect(begun).toBe(0)
  expect(outcome).toEqual({ end: 'stopped', by: 'cancel', steps: [] })
})

test.each([
  ['an hour on', 3_600_000],
  ['an hour back', -3_600_000],
])(
  "has its own time where the machine's clock is put %s: neither over at once nor without an end",
  async (_which, by) => {
    vi.useFakeTimers({ toFake: ['Date'] })
    try {
      for (const wall_s of [2, 4, 8]) {
        const files = Promise.withResolvers<void>()
        const running = runWith(wall_s, files.promise)
        const from = performance.now()
        vi.setSystemTime(Date.now() + by)
        await pause(300)
        files.resolve()
        const { outcome, begun } = await running
        if (begun === 0) continue
        expect(outcome).toMatchObject({ end: 'stopped', by: 'time' })
        expect(performance.now() - from).toBeGreaterThan(wall_s * 1000 - 100)
        return
      }
      expect.unreachable('no run began')
    } finally {
      vi.useRealTimers()
    }
  },
)
test('a file that no frame to the broker holds is withheld, and ends nothing', async () => {
  const sent: string[] = []
  const artifacts = openArtifacts(null, maxPayload * 2, (path) => {
    sent.push(path)
    return Promise.resolve()
  })
  await artifacts.put('large', Buffer.alloc(maxPayload + 1))
  await artifacts.put('largest', Buffer.alloc(maxPayload))
  expect(sent).toEqual(['largest'])
  expect(artifacts.withheld).toBe(1)
})

test('[G-egress-policy] each request of a run is decided at the time it is made', async () => {
  const { job } = prepare({ files: {}, argv: [['a.js']] })
  const plan = { ...job.plan, services: policyPlan.services, credentials: [] }
  const decided: PolicyInput['context'][] = []
  const refused: Decision = { effect: 'deny', reasons: [] } as unknown as Decision
  const calling: Executor = {
    ...executor,
    async run(_job, ports) {
      await ports.started(0)
      for (let call = 0; call < 2; call++) {
        const url = 'http://127.0.0.1:3128/vault/x'
        await ports.egress.fetch({ url, method: 'GET', headers: [], body: Buffer.alloc(0) }, ports.signal)
        if (call === 0) await pause(1100)
      }
      return { end: 'exited', steps: [], reason: null }
    },
  }
  // The run was decided an hour ago.
  const egress_input = { ...input({ nowMs: Date.now() - 3_600_000 }), phase: 'egress' } as const
  const started = Math.floor(Date.now() / 1000)
  await runJob(
    {
      job: { ...job, plan },
      secrets: [],
      generation: { number: 1, digest: digestOf('generation'), packs: [] },
      egress_input,
    },
    calling,
    {
      read: () => Promise.resolve(Buffer.alloc(0)),
      started: () => Promise.resolve(),
      output: () => undefined,
      file: () => Promise.resolve(),
      decide(asked) {
        decided.push(asked.context)
        expect(checkInput(asked)).toMatchObject({ ok: true })
        return Promise.resolve(refused)
      },
    },
    new AbortController().signal,
  )
  const [first = 0, second = 0] = decided.map(({ time }) => time.unix_s)
  expect(decided).toHaveLength(2)
  expect(first).toBeGreaterThanOrEqual(started)
  expect(second).toBeGreaterThan(first)
  expect(decided[0]?.counters).toEqual(egress_input.context.counters)
})

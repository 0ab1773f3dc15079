import { afterAll, expect, test } from 'vitest'
import { digestOf } from '../../src/digest.ts'
import type { Dispatch, RunEnd } from '../../src/execution/job.ts'
import { createIsolateExecutor } from '../../src/executor/isolate/isolate.ts'
import { runJob } from '../../src/executor/run.ts'
import type { PolicyInput } from '../../src/policy/policy.ts'
import { prepare } from './fixture.ts'

const executor = createIsolateExecutor({
  env: { PATH: '/usr/bin:/bin', HOME: '/', LANG: 'C.UTF-8' },
  owner: `run${process.pid}`,
})
afterAll(async () => await executor.close())

/** A run of one second whose file comes only after `filesMs`. */
async function runWith(filesMs: number, signal = new AbortController().signal): Promise<RunEnd & { begun: number }> {
  const prepared = prepare({ files: { 'a.js': 'for (;;);' }, argv: [['a.js']], limits: { wall_s: 1 } })
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
        await new Promise((resolve) => setTimeout(resolve, filesMs))
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
  const { outcome, begun } = await runWith(1500)
  expect(begun).toBe(0)
  expect(outcome).toMatchObject({ end: 'not_started', error: { code: 'target_unavailable' } })
})

test('a run whose time is over while its code runs has timed out', async () => {
  const { outcome, begun } = await runWith(0)
  expect(begun).toBe(1)
  expect(outcome).toMatchObject({ end: 'stopped', by: 'time' })
})

test('a run that is cancelled before anything was handed to a sandbox is cancelled, and nothing was begun', async () => {
  const stop = new AbortController()
  setTimeout(() => stop.abort('cancel'), 50)
  const { outcome, begun } = await runWith(300, stop.signal)
  expect(begun).toBe(0)
  expect(outcome).toEqual({ end: 'stopped', by: 'cancel', steps: [] })
})

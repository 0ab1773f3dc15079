import { readFileSync } from 'node:fs'
import { afterAll, describe, expect, test } from 'vitest'
import { digestJson } from '../../src/digest.ts'
import { startRunHost } from '../../src/execution/host.ts'
import type { RunEnd } from '../../src/execution/job.ts'
import type { Limits } from '../../src/plan/plan.ts'
import { prepare } from '../executor/fixture.ts'
import { input } from '../policy/fixtures/input.ts'

/*
 * many hostile runs of all kinds at once, and honest ones among them. Each hostile one has the end it has alone;
 * the honest ones get what is theirs and nothing of the others. How long they take is the processor's affair: the
 * suite says nothing of it on a machine with other work.
 */

const host = startRunHost({ owner: `together${process.pid}` })
afterAll(async () => await host.close())

const generation = { number: 1, digest: digestJson([]), packs: [] }
const hostile: Readonly<Record<string, { readonly limits?: Partial<Limits>; readonly end: unknown }>> = {
  'I-03-nested-arrays.js': { end: { end: 'stopped', by: 'memory' } },
  'I-04-map.js': { end: { end: 'stopped', by: 'memory' } },
  'I-06-loop.js': { limits: { wall_s: 10 }, end: { end: 'stopped', by: 'time' } },
  'I-09-never-settles.js': { limits: { wall_s: 10 }, end: { end: 'stopped', by: 'time' } },
  'I-10-forged-memory.js': { end: { end: 'exited', reason: 'guest_error' } },
  'I-12-million-calls.js': { end: { end: 'exited', reason: 'callback_quota' } },
}

async function run(
  files: Readonly<Record<string, string | Buffer>>,
  limits: Partial<Limits> = {},
): Promise<RunEnd & { text: string; names: readonly string[] }> {
  const [main = ''] = Object.keys(files)
  const prepared = prepare({ files, argv: [[main]], limits: { memory_mb: 32, cpu_s: 60, wall_s: 100, ...limits } })
  let text = ''
  const names: string[] = []
  const end = await host.run(
    { job: prepared.job, secrets: [], generation, egress_input: input({ phase: 'egress' }) },
    (digest) => Promise.resolve(prepared.bytes.get(digest) ?? Buffer.alloc(0)),
    {
      started: () => undefined,
      output: (_step, _stream, bytes) => (text += Buffer.from(bytes).toString()),
      file(path) {
        names.push(path)
        return Promise.resolve()
      },
    },
  )
  return { ...end, text, names }
}

const honest = (word: string): string =>
  `let sum = 0; for (let i = 0; i < 1e6; i++) sum += i % 7
writ.writeFile('/out/${word}.txt', '${word}'); console.log('${word}', sum)`

describe('many hostile runs at once', () => {
  test(
    'end each as it does alone, and honest ones among them get what is theirs [G-isolate-holds]',
    { timeout: 120_000 },
    async () => {
      const pid = host.pid
      const words = ['one', 'two', 'three', 'four', 'five', 'six']
      const [bad, good] = await Promise.all([
        Promise.all(
          [0, 1].flatMap(() =>
            Object.entries(hostile).map(async ([name, { limits, end }]) => {
              const source = readFileSync(new URL(`./programs/isolate/${name}`, import.meta.url))
              return { name, got: (await run({ [name]: source }, limits)).outcome, end }
            }),
          ),
        ),
        Promise.all(words.map(async (word) => await run({ [`${word}.js`]: honest(word) }))),
      ])
      for (const { name, got, end } of bad) expect([name, got]).toMatchObject([name, end])
      expect(good.map(({ outcome, text, names }) => ({ end: outcome.end, text, names }))).toEqual(
        words.map((word) => ({ end: 'exited', text: `${word} 2999997\n`, names: [`${word}.txt`] })),
      )
      expect(host.pid).toBe(pid)
      expect((await run({ 'next.js': honest('next') })).outcome).toMatchObject({ end: 'exited', steps: [{ exit: 0 }] })
    },
  )
})

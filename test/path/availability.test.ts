import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import type { Digest } from '../../src/digest.ts'
import type { Checked } from '../../src/execution/job.ts'
import { availabilityOf, openAvailability } from '../../src/path/availability.ts'
import type { Unavailable } from '../../src/path/availability.ts'
import { targetState } from '../../src/plan/available.ts'
import { loadCatalog } from '../../src/plan/catalog.ts'
import type { Catalog } from '../../src/plan/catalog.ts'

const folder = mkdtempSync(join(tmpdir(), 'writ-availability-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

function catalogOf(...images: readonly string[]): Catalog {
  const targets = images.map(
    (image, at) => `  t${String(at)}: { about: x, executor: docker, image: ${image}, intents: [run_script] }`,
  )
  writeFileSync(join(folder, 'catalog.yaml'), `targets:\n${targets.join('\n')}\n`)
  return loadCatalog(join(folder, 'catalog.yaml'))
}

function checked(images: readonly string[], problem: string | null = null): readonly Checked[] {
  return [
    {
      executor: 'docker',
      findings: problem === null ? [] : [{ level: 'problem', what: problem, fix: null }],
      facts: {
        images: new Map(
          images.map((name) => [
            name,
            {
              name,
              id: `sha256:${'1'.repeat(64)}`,
              store: 'graphdriver' as const,
              digest: null,
              arch: 'amd64',
              agent: `sha256:${'a'.repeat(64)}` as Digest,
            },
          ]),
        ),
        runtimes: new Set<string>(),
      },
    },
  ]
}

function world(first: Catalog) {
  let now = 0
  let catalog = first
  let images: readonly string[] = []
  let problem: string | null = null
  const questions: (readonly string[])[] = []
  const said: (readonly Unavailable[])[] = []
  const answers: (() => Promise<readonly Checked[]>)[] = []
  const able = openAvailability(
    {
      check: async (names = []) => {
        questions.push(names)
        return await (answers.shift() ?? (async () => await Promise.resolve(checked(images, problem))))()
      },
    },
    { now: () => now, monotonic: () => now },
    () => catalog,
    (unavailable) => said.push(unavailable),
  )
  return {
    able,
    questions,
    said,
    answers,
    after: (ms: number) => (now += ms),
    edit: (next: Catalog) => (catalog = next),
    has: (...names: readonly string[]) => (images = names),
    broken: (what: string | null) => (problem = what),
  }
}

test('one question is asked a minute where all is there, and another as soon as other images are named', async () => {
  const one = world(catalogOf('a'))
  one.has('a', 'b')
  await Promise.all([one.able(), one.able(), one.able()])
  one.after(59_000)
  await one.able()
  expect(one.questions).toEqual([['a']])
  one.edit(catalogOf('a', 'b'))
  await one.able()
  expect(one.questions).toEqual([['a'], ['a', 'b']])
  one.after(60_001)
  await one.able()
  expect(one.questions.length).toBe(3)
  expect(one.said).toEqual([[]])
})

test('an image that is not there is looked for again within seconds, and the log is told once of each state', async () => {
  const one = world(catalogOf('writ/python'))
  const target = [...catalogOf('writ/python').targets.values()][0]
  if (target === undefined) throw new Error('no target')
  expect(targetState(target, await one.able()).available).toBe(false)
  one.after(1000)
  await one.able()
  expect(one.questions.length).toBe(1)
  one.has('writ/python')
  one.after(5000)
  expect(targetState(target, await one.able()).available).toBe(true)
  one.broken('the engine stopped')
  one.after(61_000)
  await one.able()
  expect(one.said).toEqual([
    [
      {
        target: 't0',
        lacks: 'image',
        why: 'the engine has no image "writ/python", or no agent of this Writ is in it',
        fix: 'Run "writ images build python".',
      },
    ],
    [],
    [
      {
        target: 't0',
        lacks: 'engine',
        why: 'the engine stopped',
        fix: '"writ doctor" says what this machine lacks and how to get it.',
      },
    ],
  ])
})

test('a run host that dies over the question is asked once more, and a failure is not remembered', async () => {
  const one = world(catalogOf('a'))
  one.has('a')
  const dies = async (): Promise<never> => await Promise.reject(new Error('gone'))
  one.answers.push(dies)
  expect((await one.able()).get('docker')?.available).toBe(true)
  one.after(61_000)
  one.answers.push(dies, dies)
  await expect(one.able()).rejects.toThrow('gone')
  expect((await one.able()).get('docker')?.available).toBe(true)
  expect(one.questions.length).toBe(5)
})

test('a problem makes an executor unavailable, a warning does not', () => {
  const able = availabilityOf([
    { executor: 'a', findings: [{ level: 'warning', what: 'old', fix: null }], facts: null },
    { executor: 'b', findings: [{ level: 'problem', what: 'dead', fix: null }], facts: null },
  ])
  expect([able.get('a')?.available, able.get('b')]).toEqual([true, { available: false, why: 'dead', facts: null }])
})

import { setTimeout as pause } from 'node:timers/promises'
import { afterEach, beforeAll, beforeEach, expect, test, vi } from 'vitest'
import type { TestContext } from 'vitest'
import type { DockerExecutor } from '../../../src/executor/docker/docker.ts'
import { until } from '../../wait.ts'
import { listen, prepare } from '../fixture.ts'
import type { Prepared } from '../fixture.ts'
import { openBetween } from './between.ts'
import { contained, newOwner, place } from './place.ts'
import type { Place } from './place.ts'

/*
 * Containers that wait for a run, and what is swept: over a real engine.
 */

// Containers take seconds each on a slow machine.
vi.setConfig({ testTimeout: 120_000, hookTimeout: 120_000 })

let at: Place | { readonly lacking: string }
let executor: DockerExecutor
let owner: string
let now = 0
const clock = { now: () => now, monotonic: () => now }
const minutes = 60_000

beforeAll(async () => {
  at = await place()
})
beforeEach(() => {
  if ('lacking' in at) return
  owner = newOwner()
  executor = at.open({ owner, clock, tendMs: 30, set: { warm: 1 } })
})
afterEach(async () => {
  if ('lacking' in at) return
  await executor.close()
  const left = await at.containers(owner)
  if (left.length > 0) throw new Error(`left: ${left.join(' ')}`)
})

function real(ctx: TestContext): Place {
  return 'lacking' in at ? ctx.skip(at.lacking) : at
}

function program(
  here: Place,
  memory_mb = 64,
  script = 'hostname > /out/ran; head -c 8 /proc/sys/kernel/random/uuid',
): Prepared {
  return contained(
    prepare({ files: { run: script }, argv: [['sh', 'run']], limits: { memory_mb } }, 'docker'),
    here.image,
  )
}

async function ran(prepared: Prepared): Promise<void> {
  expect(await executor.run(prepared.job, listen(prepared).io)).toMatchObject({ end: 'exited', steps: [{ exit: 0 }] })
  await executor.settled()
}

test('nothing waits before a run was asked for; then one container of exactly its body does, and serves one run [G-container-once]', async (ctx) => {
  const here = real(ctx)
  await executor.settled()
  expect(await here.containers(owner)).toEqual([])
  await ran(program(here))
  const [first] = executor.waiting
  expect(await here.containers(owner)).toEqual([first])

  const events = await here.docker.getEvents({ filters: { label: [`dev.writ.owner=${owner}`], type: ['container'] } })
  const seen: string[] = []
  events.on('data', (line: Buffer) => seen.push(...String(line).trim().split('\n')))
  await ran(program(here))
  const [second] = executor.waiting
  expect(second).not.toBe(first)
  // The one that waited was killed by nobody and removed; the next is another.
  expect(await here.containers(owner)).toEqual([second])
  await until('the first is removed', () =>
    seen.some((line) => line.includes(String(first)) && line.includes('"status":"destroy"')),
  )
  expect(seen.filter((line) => line.includes('"status":"create"') && !line.includes(String(second)))).toEqual([])
  events.removeAllListeners()
  ;(events as unknown as { destroy(): void }).destroy()
})

test('a run of another body is not given what waits, however small the difference', async (ctx) => {
  const here = real(ctx)
  await ran(program(here, 64))
  const [first] = executor.waiting
  await ran(program(here, 65))
  expect(executor.waiting).toHaveLength(2)
  expect(executor.waiting).toContain(first)
})

test('what waits ten minutes is thrown away, and nothing is kept for a body that nobody asked for in as long', async (ctx) => {
  const here = real(ctx)
  await ran(program(here))
  const [first] = executor.waiting
  now += 9 * minutes
  await pause(100)
  expect(executor.waiting).toEqual([first])
  now += 1 * minutes
  await until('it is thrown away', async () => (await here.containers(owner)).length === 0)
  expect(executor.waiting).toEqual([])
})

test('a container that dies while it waits is forgotten, and the next run starts its own', async (ctx) => {
  const here = real(ctx)
  await ran(program(here))
  const [first] = executor.waiting
  await here.docker.getContainer(String(first)).kill()
  await until('it is forgotten', () => executor.waiting.length === 0)
  await ran(program(here))
})

test('without any that are kept waiting, each run starts its own and leaves none', async (ctx) => {
  const here = real(ctx)
  await executor.close()
  executor = here.open({ owner, set: { warm: 0 } })
  await ran(program(here))
  expect(executor.waiting).toEqual([])
  expect(await here.containers(owner)).toEqual([])
})

test('closing ends what waits and leaves no container', async (ctx) => {
  const here = real(ctx)
  await ran(program(here))
  expect(await here.containers(owner)).toHaveLength(1)
  await executor.close()
  expect(await here.containers(owner)).toEqual([])
  const prepared = program(here)
  await expect(executor.run(prepared.job, listen(prepared).io)).rejects.toThrow('shutting down')
})

test('a new run host removes what a dead one of the same broker left, running or not, and nothing of anybody else [G-container-swept]', async (ctx) => {
  const here = real(ctx)
  await executor.close()
  const other = newOwner()
  const make = async (label: string, started: boolean): Promise<string> => {
    const made = await here.docker.createContainer({
      Image: here.image.id,
      Cmd: ['sleep', '600'],
      Labels: label === '' ? {} : { 'dev.writ.owner': label },
      HostConfig: { NetworkMode: 'none' },
    })
    if (started) await made.start()
    return made.id
  }
  const mine = [await make(owner, true), await make(owner, false)]
  const theirs = [await make(other, true), await make(`${owner}x`, false), await make('', false)]
  try {
    executor = here.open({ owner })
    await executor.settled()
    const all = new Set((await here.docker.listContainers({ all: true })).map(({ Id }) => Id))
    expect(mine.filter((id) => all.has(id))).toEqual([])
    expect(theirs.filter((id) => !all.has(id))).toEqual([])
  } finally {
    for (const id of theirs) await here.docker.getContainer(id).remove({ force: true })
  }
})

test('what was left is removed once an engine is back that was away when the run host began [G-container-swept]', async (ctx) => {
  const here = real(ctx)
  await executor.close()
  const left = await here.docker.createContainer({
    Image: here.image.id,
    Cmd: ['true'],
    Labels: { 'dev.writ.owner': owner },
  })
  const between = await openBetween(here.engine.host)
  try {
    between.cut()
    executor = here.open({
      owner,
      set: { host: between.host },
      times: { quick: 10_000, long: 30_000, ready: 30_000, confirm: 1000, again: 100 },
    })
    await executor.settled()
    expect(await here.containers(owner)).toEqual([left.id])
    between.mend()
    await until('it is removed', async () => (await here.containers(owner)).length === 0)
  } finally {
    await between.close()
  }
})

test('a run host that ends removes its own containers, also one whose start came late, and none of the next one of its broker [G-container-swept]', async (ctx) => {
  const here = real(ctx)
  await ran(program(here))
  expect(await here.containers(owner)).toHaveLength(1)
  const own = (await here.docker.getContainer(String(executor.waiting[0])).inspect()).Name.slice(1)
  // Its broker is killed and the next one begins; the first has still to notice.
  const next = here.open({ owner })
  try {
    await next.settled()
    const prepared = program(here, 64, 'echo begun; sleep 5; echo end')
    const seen = listen(prepared)
    const running = next.run(prepared.job, seen.io)
    await until('it runs', () => seen.size > 0)
    const [live] = await here.containers(owner)
    const late = await here.docker.createContainer({
      name: `${own.slice(0, -16)}00112233aabbccdd`,
      Image: here.image.id,
      Cmd: ['true'],
      Labels: { 'dev.writ.owner': owner },
    })
    await executor.close()
    expect(await here.containers(owner)).toEqual([live])
    expect(late.id).not.toBe(live)
    expect(await running).toMatchObject({ end: 'exited', reason: null, steps: [{ exit: 0 }] })
    expect(seen.text()).toBe('begun\nend\n')
  } finally {
    await next.close()
  }
})

test('what was made to be read of an image and left behind is removed by any run host, once it is old [G-container-swept]', async (ctx) => {
  const here = real(ctx)
  await executor.close()
  const make = async (labels: Record<string, string>, started: boolean): Promise<string> => {
    const made = await here.docker.createContainer({
      Image: here.image.id,
      Cmd: ['sleep', '600'],
      Labels: labels,
      HostConfig: { NetworkMode: 'none' },
    })
    if (started) await made.start()
    return made.id
  }
  const look = { 'dev.writ.owner': newOwner(), 'dev.writ.look': '' }
  const [left, other, runs] = [await make(look, false), await make({}, false), await make(look, true)]
  const all = async (): Promise<readonly string[]> => {
    const there = new Set((await here.docker.listContainers({ all: true })).map(({ Id }) => Id))
    return [left, other, runs].filter((id) => there.has(id))
  }
  const between = await openBetween(here.engine.host)
  try {
    executor = here.open({ owner, set: { host: between.host } })
    await executor.settled()
    expect(await all()).toEqual([left, other, runs])
    await executor.close()
    between.answer = (path, body) =>
      path.endsWith('/info')
        ? { ...(body as object), SystemTime: new Date(Date.now() + 11 * minutes).toISOString() }
        : body
    executor = here.open({ owner, set: { host: between.host } })
    await executor.settled()
    expect(await all()).toEqual([other, runs])
  } finally {
    await executor.close()
    await between.close()
    for (const id of await all()) await here.docker.getContainer(id).remove({ force: true })
  }
})

test(
  'fifty runs at once each get a container of their own, and all are gone after [G-nothing-left]',
  { timeout: 120_000 },
  async (ctx) => {
    const here = real(ctx)
    const outcomes = await Promise.all(
      Array.from({ length: 50 }, async (_, index) => {
        const prepared = program(here, 32, `echo ${index}; ls /work/project | wc -l`)
        const seen = listen(prepared)
        const outcome = await executor.run(prepared.job, seen.io)
        return [outcome.end, seen.text()]
      }),
    )
    expect(outcomes).toEqual(outcomes.map((_, index) => ['exited', `${index}\n1\n`]))
  },
)

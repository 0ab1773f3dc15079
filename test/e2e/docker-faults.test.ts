import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { afterAll, beforeAll, beforeEach, describe, expect, it, type TestContext } from 'vitest'
import type { JsonObject } from '../../src/digest.ts'
import { type Dockerd, dockerdMissing, groupsOfEngine, startDockerd } from '../servers/docker.ts'
import { type Engine, engine, engineAt } from '../servers/engine.ts'
import { viewsAreTheSteps } from './crash/invariants.ts'
import { final, type Line, openLine } from './crash/line.ts'
import { makePlace, type Place } from './crash/place.ts'
import { alive, brokerOf, familyOf, kill } from './crash/processes.ts'

const image = 'writ/base'
let dockerd: Dockerd | null = null
let own: Engine
let given = ''
let lacking: string | null = null
let place: Place
let line: Line

beforeAll(async () => {
  lacking = dockerdMissing()
  const found = await engine({ images: [`${image}:latest`], runsc: true })
  if ('lacking' in found) lacking = found.lacking
  if (lacking !== null || 'lacking' in found) return
  given = found.host
  dockerd = await startDockerd()
  copy(given, dockerd.host)
  own = await live(dockerd)
  place = makePlace({
    name: 'writ-docker-faults-',
    config: `docker: { host: "${dockerd.host}", warm: 0 }\n`,
    targets: target('runc', 'staging') + target('runsc', 'staging', 'runsc') + target('guarded', 'production'),
  })
  line = openLine(place)
}, 120_000)

afterAll(async () => {
  if (dockerd === null) return
  line.close()
  place.writ(['stop'])
  await dockerd.stop()
  rmSync(place.root, { recursive: true, force: true })
}, 60_000)

function target(name: string, env: string, runtime?: string): string {
  return `
  ${name}:
    about: A container
    labels: { env: ${env} }
    executor: docker
    image: ${image}
${runtime === undefined ? '' : `    container: { oci_runtime: ${runtime} }\n`}    intents: [run_script]
    limits: { wall_s: 120, memory_mb: 64 }
`
}

/** The image, from one engine to another. */
function copy(from: string, to: string): void {
  const saved = execFileSync('docker', ['-H', from, 'save', image], { maxBuffer: 1 << 30 })
  execFileSync('docker', ['-H', to, 'load', '-q'], { input: saved, stdio: ['pipe', 'ignore', 'inherit'] })
}

async function live(of: Dockerd): Promise<Engine> {
  const found = await engineAt(of.host)
  if (found === null) throw new Error('the engine does not answer')
  return found
}

async function asked(target: string, script: string): Promise<JsonObject> {
  const submitted = await line.call('submit_task', {
    project_name: 'faults',
    goal: 'Run a script',
    target_ref: target,
    execution_intent: 'run_script',
    inputs: { script: 'main.sh' },
    files: [{ path: 'main.sh', content: `#!/bin/sh\n# ${String(Math.random())}\n${script}\n` }],
  })
  return await line.call('start_execution', { task_id: submitted['task_id'] as string })
}

async function start(target: string, script: string): Promise<string> {
  const started = await asked(target, script)
  if (typeof started['execution_id'] !== 'string') throw new Error(JSON.stringify(started))
  return started['execution_id']
}

/** Nothing ran: that the engine is gone was found when the run was to begin, or a moment before, when the minute was over. */
async function refuses(target: string): Promise<void> {
  const started = await asked(target, 'echo begun')
  if (typeof started['execution_id'] === 'string') expect(await ended(started['execution_id'])).toEqual(refused)
  else expect(started).toMatchObject({ error: { code: 'target_unavailable' }, ran: false })
}

/** Waits until the script has said `begun`, which it does first. */
async function begun(execution: string): Promise<void> {
  for (const until = performance.now() + 30_000; performance.now() < until; await pause(50)) {
    const status = await line.call('get_status', { execution_id: execution, cursor: 'start', max_bytes: 1024 })
    if (JSON.stringify(status).includes('begun')) return
  }
  throw new Error('it did not begin')
}

/** How it ended, with the receipt that says the same. */
async function ended(execution: string): Promise<{ state: unknown; ran: unknown; code: unknown }> {
  const status = await final(line, execution)
  const result = await line.call('get_result', { execution_id: execution })
  expect(result['receipt']).toBeDefined()
  expect(JSON.stringify(result)).not.toContain('docker.sock')
  const reasons = (status['reasons'] ?? result['reasons'] ?? []) as readonly JsonObject[]
  return { state: status['state'], ran: status['ran'], code: reasons[0]?.['code'] ?? null }
}

/** A run that is served, no container of this Writ in the engine, and a log that verifies from its first entry. */
async function whole(): Promise<void> {
  const execution = await start('runc', 'echo works')
  expect(await final(line, execution)).toMatchObject({ state: 'succeeded' })
  await empty()
  expect(place.writ(['verify'])).toMatchObject({ code: 0, out: expect.stringMatching(/^VALID:LOGGED/) as string })
  expect(viewsAreTheSteps(place.folder.ledger)).toBe(true)
}

async function empty(): Promise<void> {
  for (const until = performance.now() + 30_000; ; await pause(100)) {
    const left = (await own.ask('GET', '/containers/json?all=1')) as readonly JsonObject[]
    if (left.length === 0) return
    if (performance.now() > until) throw new Error(`${String(left.length)} containers are left`)
  }
}

/** The engine of these tests; skips where there is none. */
function use(ctx: TestContext): Dockerd {
  if (lacking !== null || dockerd === null) return ctx.skip(lacking ?? 'there is no engine')
  return dockerd
}

/** One that failed with a test is brought back, and what the broker had learned of it forgotten. */
beforeEach(async () => {
  if (dockerd === null) return
  const there = await engineAt(dockerd.host)
  if (there !== null) return
  await dockerd.restart()
  own = await live(dockerd)
  line.close()
  place.writ(['stop'])
}, 60_000)

/** What nothing was started of: its own outcome, and a receipt that says so. */
const refused = { state: 'failed', ran: false, code: 'target_unavailable' }

describe.each(['runc', 'runsc'] as const)('a container engine that fails under %s', (runtime) => {
  it('serves before anything fails', { timeout: 90_000 }, async (ctx) => {
    use(ctx)
    expect(await ended(await start(runtime, 'echo begun'))).toMatchObject({ state: 'succeeded' })
    await whole()
  })

  it(
    '[G-unknown-never-again] dies in the middle: the run ends unknown, and is not run again',
    { timeout: 120_000 },
    async (ctx) => {
      const at = use(ctx)
      const execution = await start(runtime, 'echo begun; sleep 100; echo late')
      await begun(execution)
      at.kill()
      expect(await ended(execution)).toMatchObject({ state: 'unknown' })
      await at.restart()
      own = await live(at)
      await whole()
      expect(await final(line, execution)).toMatchObject({ state: 'unknown' })
    },
  )

  it(
    'is dead when the run is to begin: nothing ran, and once it is back everything does',
    { timeout: 120_000 },
    async (ctx) => {
      const at = use(ctx)
      // Planned while it lived: what was learned of an engine holds for a minute.
      await final(line, await start(runtime, 'true'))
      at.kill()
      await refuses(runtime)
      await at.restart()
      own = await live(at)
      await whole()
    },
  )

  it('answers late in the middle: the run goes on and ends as it does', { timeout: 90_000 }, async (ctx) => {
    const at = use(ctx)
    const execution = await start(runtime, 'echo begun; sleep 3; echo late')
    await begun(execution)
    at.freeze()
    await pause(4000)
    at.resume()
    expect(await ended(execution)).toMatchObject({ state: 'succeeded' })
    await whole()
  })

  it('has no room on its disk: nothing ran', { timeout: 120_000 }, async (ctx) => {
    const at = use(ctx)
    await final(line, await start(runtime, 'true'))
    await empty()
    const folder = join(at.folder, 'data', 'containers')
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=4k', 'writ-test', folder])
    try {
      writeFileSync(join(folder, 'full'), Buffer.alloc(4096))
      expect(await ended(await start(runtime, 'echo begun'))).toEqual(refused)
    } finally {
      execFileSync('umount', ['-l', folder])
    }
    await whole()
  })

  it('may start no more processes: nothing ran', { timeout: 120_000 }, async (ctx) => {
    const at = use(ctx)
    await final(line, await start(runtime, 'true'))
    await empty()
    const limits = groupsOfEngine(at.folder)
      .map((group) => join(group, 'pids.max'))
      .filter((file) => existsSync(file))
    expect(limits.length).toBeGreaterThan(0)
    const before = limits.map((file) => readFileSync(file, 'utf8'))
    for (const file of limits) writeFileSync(file, '1')
    try {
      expect(await ended(await start(runtime, 'echo begun'))).toEqual(refused)
    } finally {
      for (const [index, file] of limits.entries()) writeFileSync(file, (before[index] ?? 'max').trim())
    }
    await whole()
  })

  it(
    '[G-nothing-left] goes on when the run host is killed: the run ends unknown, and its container is gone',
    { timeout: 120_000 },
    async (ctx) => {
      use(ctx)
      const execution = await start(runtime, 'echo begun; sleep 100; echo late')
      await begun(execution)
      const broker = brokerOf(place.configFile)
      const host = broker === null ? null : familyOf(broker).host
      if (host === null) throw new Error('there is no run host')
      kill(host)
      expect(await ended(execution)).toMatchObject({ state: 'unknown' })
      expect(alive(host)).toBe(false)
      await whole()
    },
  )
})

describe('a container engine', () => {
  it(
    'that answers nothing when the run is to begin is not waited for without end: nothing ran',
    { timeout: 200_000 },
    async (ctx) => {
      const at = use(ctx)
      await final(line, await start('runc', 'true'))
      at.freeze()
      const asked = performance.now()
      try {
        expect(await ended(await start('runc', 'echo begun'))).toEqual(refused)
      } finally {
        at.resume()
      }
      expect(performance.now() - asked).toBeLessThan(100_000)
      await whole()
    },
  )
})

describe('an image', () => {
  it('that is gone since it was planned with is not looked for: nothing ran', { timeout: 120_000 }, async (ctx) => {
    const at = use(ctx)
    await final(line, await start('runc', 'true'))
    await own.ask('DELETE', `/images/${image}?force=true`)
    try {
      expect(await ended(await start('runc', 'echo begun'))).toEqual(refused)
    } finally {
      copy(given, at.host)
    }
    await whole()
  })

  it(
    'whose name means another one since the approval is not what runs: the one that was approved is',
    { timeout: 120_000 },
    async (ctx) => {
      use(ctx)
      const execution = await start('guarded', 'echo begun')
      const status = await line.call('get_status', { execution_id: execution })
      const approval = (status['approval'] as JsonObject)['approval_id'] as string
      const planned = idOf(await own.ask('GET', `/images/${image}/json`))
      const made = (await own.ask('POST', '/containers/create', { Image: image, Labels: { other: 'yes' } })) as {
        Id: string
      }
      await own.ask('POST', `/commit?container=${made.Id}&repo=${image}&tag=latest`)
      await own.ask('DELETE', `/containers/${made.Id}?force=true`)
      expect(idOf(await own.ask('GET', `/images/${image}/json`))).not.toBe(planned)
      const ran: string[] = []
      const watching = setInterval(() => {
        void own.ask('GET', '/containers/json?all=1').then(
          (list) => ran.push(...(list as readonly { ImageID: string }[]).map((one) => one.ImageID)),
          () => undefined,
        )
      }, 10)
      try {
        expect(await place.answer(approval, 'approve')).toBe('satisfied')
        expect(await ended(execution)).toMatchObject({ state: 'succeeded' })
      } finally {
        clearInterval(watching)
        await own.ask('POST', `/images/${planned}/tag?repo=${image}&tag=latest`)
      }
      expect(new Set(ran)).toEqual(new Set([planned]))
      await whole()
    },
  )
})

function idOf(image: unknown): string {
  return (image as { readonly Id: string }).Id
}

import { afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import type { TestContext } from 'vitest'
import type { JsonObject } from '../../../src/digest.ts'
import { WritError } from '../../../src/error.ts'
import type { DockerExecutor, DockerTimes } from '../../../src/executor/docker/docker.ts'
import type { Outcome } from '../../../src/execution/job.ts'
import type { ContainerSettings } from '../../../src/plan/container.ts'
import { until } from '../../wait.ts'
import { listen, prepare } from '../fixture.ts'
import type { Prepared, Seen } from '../fixture.ts'
import { leak, openBetween } from './between.ts'
import type { Between } from './between.ts'
import { contained, newOwner, place } from './place.ts'
import type { Place } from './place.ts'

/*
 * An engine that does not do what it should. Between Writ and the real one stands a program that hangs, fails, lies or
 * cuts the line where a test says so.
 */

// Containers take seconds each on a slow machine.
vi.setConfig({ testTimeout: 120_000, hookTimeout: 120_000 })

/** Where nothing is waited for in vain but that an end is confirmed. */
const times: DockerTimes = { quick: 10_000, long: 30_000, ready: 30_000, confirm: 1500, again: 200 }
/** Where it does not do what it should. */
const short: DockerTimes = { quick: 1000, long: 2500, ready: 3000, confirm: 1500, again: 200 }
const nothing: ContainerSettings = { oci_runtime: null, cpus_m: 1000 }

let at: Place | { readonly lacking: string }
let between: Between
let executor: DockerExecutor
let owner: string

beforeAll(async () => {
  at = await place()
})
beforeEach(async () => {
  if ('lacking' in at) return
  owner = newOwner()
  between = await openBetween(at.engine.host)
  executor = at.open({ owner, times, set: { host: between.host } })
  await executor.settled()
})
afterEach(async () => {
  if ('lacking' in at) return
  between.rule = () => 'pass'
  between.mend()
  // What the engine kept from being removed, the next sweep takes.
  await renew(at, times)
  await executor.close()
  await between.close()
  const left = await at.containers(owner)
  if (left.length > 0) throw new Error(`left: ${left.join(' ')}`)
})

function real(ctx: TestContext): Place {
  return 'lacking' in at ? ctx.skip(at.lacking) : at
}

function program(here: Place, script: string, container = nothing): Prepared {
  const project = { files: { run: script }, argv: [['sh', 'run']], limits: { wall_s: 300 } }
  return contained(prepare(project, 'docker'), here.image, container)
}

/** Begins a run and resolves once it has printed something; rejects where it ends before. */
async function begin(prepared: Prepared, seen: Seen): Promise<{ readonly running: Promise<Outcome> }> {
  const running = executor.run(prepared.job, seen.io)
  let over = false
  const ended = running.finally(() => (over = true))
  await Promise.race([ended, until('the run has printed', () => over || seen.size > 0)])
  if (seen.size === 0) throw new Error(`the run ended before it printed: ${JSON.stringify(await running)}`)
  ended.catch(() => undefined)
  return { running }
}

async function empty(here: Place): Promise<void> {
  await until('no container is left', async () => (await here.containers(owner)).length === 0, { everyMs: 100 })
}

/** Another executor, for the same owner, that has these times. */
async function renew(here: Place, own: DockerTimes): Promise<void> {
  await executor.close()
  executor = here.open({ owner, times: own, set: { host: between.host } })
  await executor.settled()
}

describe('before anything has started', () => {
  const places = ['/info', '/version', '/json$', '/create', '/attach', '/start'] as const
  for (const way of ['hang', 'fail', 'garbage', 'drop'] as const)
    test(`an engine that answers with "${way}" at any place makes a run that was not started, and nothing of its words is told [G-engine-words]`, async (ctx) => {
      const here = real(ctx)
      for (const path of places) {
        // What one has learned of the engine it does not ask again.
        await renew(here, short)
        between.rule = (_method, asked) => (new RegExp(path).test(asked) ? way : 'pass')
        const prepared = program(here, 'echo no')
        const seen = listen(prepared)
        const error = await executor.run(prepared.job, seen.io).then(
          () => null,
          (reason: unknown) => reason,
        )
        expect([path, error instanceof WritError && error.code]).toEqual([path, 'target_unavailable'])
        expect(`${(error as WritError).message} ${(error as WritError).remedy}`).not.toContain(leak.slice(6, 20))
        expect((error as WritError).message).not.toMatch(/[/\\]/)
        expect(seen.started).toEqual([])
        between.rule = () => 'pass'
        await executor.check()
      }
      await empty(here)
    })

  test('a check of an engine that hangs says so in time, with what to do', async (ctx) => {
    const here = real(ctx)
    await renew(here, short)
    between.rule = () => 'hang'
    const begun = performance.now()
    const findings = await executor.check()
    expect(performance.now() - begun).toBeLessThan(5 * short.quick)
    expect(findings).toMatchObject([{ level: 'problem' }])
    expect(findings[0]?.fix).toContain('docker.host')
    between.rule = () => 'pass'
    await until(
      'it is found well again',
      async () => !(await executor.check()).some(({ level }) => level === 'problem'),
    )
  })

  test('a run that is cancelled while the engine is slow ends at once', async (ctx) => {
    const here = real(ctx)
    await renew(here, { ...times, long: 5000 })
    between.rule = (_method, path) => (path.endsWith('/start') ? 'hang' : 'pass')
    const prepared = program(here, 'echo no')
    const seen = listen(prepared)
    const running = executor.run(prepared.job, seen.io)
    await until('the start hangs', () => between.requests.some((asked) => asked.endsWith('/start')))
    seen.stop.abort('cancel')
    // That the start is given up would reject.
    expect(await running).toEqual({ end: 'stopped', by: 'cancel', steps: [] })
    expect(seen.started).toEqual([])
    await empty(here)
  })
})

describe('an engine that makes something else than it was asked for', () => {
  const host = (body: unknown): Record<string, unknown> => (body as { HostConfig: Record<string, unknown> }).HostConfig
  const weaker: Readonly<Record<string, (body: Record<string, unknown>) => void>> = {
    'its own capabilities': (body) => (host(body)['CapDrop'] = []),
    'one more capability': (body) => (host(body)['CapAdd'] = ['NET_ADMIN']),
    'no filter of system calls': (body) =>
      (host(body)['SecurityOpt'] = ['no-new-privileges:true', 'seccomp=unconfined']),
    'new privileges': (body) => (host(body)['SecurityOpt'] = (host(body)['SecurityOpt'] as string[]).slice(1)),
    'the processes of the machine': (body) => (host(body)['PidMode'] = 'host'),
    'a folder of the machine': (body) => (host(body)['Binds'] = ['/etc:/host:ro']),
    'a root that can be written': (body) => (host(body)['ReadonlyRootfs'] = false),
    'more memory': (body) => (host(body)['Memory'] = host(body)['MemorySwap'] = 2 ** 30),
    'no masked paths': (body) => (host(body)['MaskedPaths'] = []),
    'another user': (body) => (body['User'] = '0:0'),
    'another program': (body) => (body['Cmd'] = ['more']),
    'a volume': (body) => (body['Volumes'] = { '/data': {} }),
    'no label': (body) => (body['Labels'] = {}),
  }
  test('is given nothing of a run: what was created is held against what was asked for [G-container-as-planned]', async (ctx) => {
    const here = real(ctx)
    for (const [what, change] of Object.entries(weaker)) {
      between.ask = (path, body) => {
        if (path.endsWith('/create') && (body as { Hostname?: string }).Hostname === 'writ')
          change(body as Record<string, unknown>)
        return body
      }
      const prepared = program(here, 'echo no')
      const seen = listen(prepared)
      const told = await executor.run(prepared.job, seen.io).then(
        () => 'ran',
        (reason: unknown) => String(reason),
      )
      expect([what, told, seen.started]).toEqual([what, expect.stringContaining('else than it was asked for'), []])
    }
    between.ask = (_path, body) => body
    await executor.settled()
  })

  const lies: Readonly<Record<string, readonly [(body: Record<string, unknown>) => void, string]>> = {
    privileges: [weaker['new privileges'] ?? (() => undefined), 'not held as it was planned'],
    'the filter': [weaker['no filter of system calls'] ?? (() => undefined), 'without its filter'],
    'the user': [weaker['another user'] ?? (() => undefined), 'not held as it was planned'],
    'the kernel in user space': [(body) => delete host(body)['Runtime'], 'not under the kernel in user space'],
  }
  test.for(Object.keys(lies))(
    'and lies about %s is found out by what the agent sees [G-container-as-planned]',
    async (what, ctx) => {
      const here = real(ctx)
      const [change, told] = lies[what] ?? [() => undefined, '']
      let asked: Record<string, unknown> = {}
      between.ask = (path, body) => {
        if (!path.endsWith('/create') || (body as { Hostname?: string }).Hostname !== 'writ') return body
        asked = structuredClone(body) as Record<string, unknown>
        change(body as Record<string, unknown>)
        return body
      }
      between.answer = (path, body) => {
        if (!/containers\/.*\/json$/.test(path)) return body
        const made = body as { Config: JsonObject; HostConfig: JsonObject }
        return {
          ...made,
          Config: { ...made.Config, User: asked['User'] },
          HostConfig: { ...made.HostConfig, ...(asked['HostConfig'] as JsonObject) },
        }
      }
      const prepared = program(
        here,
        'echo no',
        what === 'the kernel in user space' ? { oci_runtime: 'runsc', cpus_m: 1000 } : nothing,
      )
      const seen = listen(prepared)
      await expect(executor.run(prepared.job, seen.io)).rejects.toThrow(told)
      expect(seen.started).toEqual([])
      between.answer = null
    },
  )
})

describe('while a run is under way', () => {
  test('a line that is cut and mended ends the run as a crash, with its container seen gone', async (ctx) => {
    const here = real(ctx)
    await renew(here, { ...times, confirm: 20_000 })
    const prepared = program(here, 'echo begun; sleep 300')
    const seen = listen(prepared)
    const { running } = await begin(prepared, seen)
    between.cut()
    setTimeout(() => between.mend(), 500)
    expect(await running).toMatchObject({ end: 'exited', reason: 'sandbox_crash', steps: [{ exit: null }] })
    await empty(here)
  })

  test('[G-end-confirmed] a line that stays cut makes the end unknown, and the container is removed when the engine is back [G-container-swept]', async (ctx) => {
    const here = real(ctx)
    const prepared = program(here, 'echo begun; sleep 300')
    const seen = listen(prepared)
    const { running } = await begin(prepared, seen)
    between.cut()
    expect(await running).toMatchObject({ end: 'unknown', steps: [{ exit: null }] })
    between.mend()
    await empty(here)
  })

  test('an engine that does not say whether a killed container is gone makes the end unknown [G-end-confirmed]', async (ctx) => {
    const here = real(ctx)
    await renew(here, { ...times, quick: 2000 })
    const prepared = program(here, 'echo begun; sleep 300')
    const seen = listen(prepared)
    between.rule = (_method, path) => (/\/(?:kill|wait)$/.test(path) ? 'hang' : 'pass')
    const { running } = await begin(prepared, seen)
    between.rule = (_method, path) => (/\/(?:kill|wait|json)$/.test(path) ? 'hang' : 'pass')
    seen.stop.abort('time')
    const outcome = await running
    expect(outcome).toMatchObject({ end: 'unknown', steps: [{ exit: null }] })
    between.rule = () => 'pass'
    await empty(here)
  })

  test('an engine that fails to wait is asked again', async (ctx) => {
    const here = real(ctx)
    between.rule = (_method, path) => (path.endsWith('/wait') ? 'fail' : 'pass')
    const prepared = program(here, 'echo done')
    expect(await executor.run(prepared.job, listen(prepared).io)).toMatchObject({ end: 'exited', reason: null })
  })

  test('a container that somebody kills or removes ends its run as a crash', async (ctx) => {
    const here = real(ctx)
    for (const way of ['kill', 'remove'] as const) {
      const prepared = program(here, 'echo begun; sleep 300')
      const seen = listen(prepared)
      const { running } = await begin(prepared, seen)
      for (const id of await here.containers(owner))
        await here.docker.getContainer(id)[way]({ force: true } as Record<string, unknown>)
      expect(await running).toMatchObject({ end: 'exited', reason: 'sandbox_crash', steps: [{ exit: null }] })
    }
    await empty(here)
  })
})

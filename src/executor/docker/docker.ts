import { setTimeout as pause } from 'node:timers/promises'
import type { Clock } from '../../clock.ts'
import { systemClock } from '../../clock.ts'
import type { CheckFinding } from '../../credential/credential.ts'
import type { DockerSettings } from '../../execution/engine.ts'
import type { StepExit } from '../../execution/execution.ts'
import type { Job, Outcome } from '../../execution/job.ts'
import type { PlanImage } from '../../plan/plan.ts'
import type { Executor, RunIo } from '../executor.ts'
import { ownerLabel, plannedContainer } from './body.ts'
import type { Planned } from './body.ts'
import { findingsOf, unreachable } from './check.ts'
import { EngineError, openClient } from './client.ts'
import type { EngineClient, EngineInfo, EngineTimes, EngineVersion } from './client.ts'
import { asUnavailable, containerName, containerPrefix, startContainer, unavailable } from './container.ts'
import type { Container, ContainerTimes } from './container.ts'
import { agentJobOf, converse } from './conversation.ts'
import type { Told } from './conversation.ts'
import { encodeFrame } from './frame.ts'
import type { AgentJob } from './frame.ts'
import { lookInside, sweepLooks } from './inside.ts'
import { openPool } from './pool.ts'
import { reach } from './reach.ts'

export interface DockerOptions {
  readonly settings: DockerSettings
  /** The whole environment of a program that is started to reach the engine. */
  readonly env: Readonly<Record<string, string>>
  /** Labels what is this broker's, so that only it is swept. Letters, digits and `-`. */
  readonly owner: string
  readonly clock?: Clock
  /** Milliseconds between looks at what waits too long. */
  readonly tendMs?: number
  readonly times?: DockerTimes
}

/** How long is waited for an engine, in milliseconds. */
export interface DockerTimes extends EngineTimes, ContainerTimes {
  /** Between sweeps, where one did not succeed. */
  readonly again: number
}

export interface DockerExecutor extends Executor {
  facts: NonNullable<Executor['facts']>
  /** Ids of the containers that wait for a run. */
  readonly waiting: readonly string[]
  /** Resolves once what ended is removed, or left to the next sweep, and what is to wait does. */
  settled(): Promise<void>
}

/** What a run begins with. */
interface Ready {
  readonly planned: Planned
  readonly contents: readonly Uint8Array[]
  readonly agentJob: AgentJob
  readonly container: Container
}

/** An agent that was told everything ends in milliseconds; one that went away by itself is on its way out. */
const doneMs = 3000
const goneMs = 300
/** A pause before a taken container is replaced, so that its start does not compete with what ends the run. */
const refillMs = 50
const refillLateMs = 1000
const usualTimes: DockerTimes = { quick: 10_000, long: 60_000, ready: 60_000, confirm: 15_000, again: 5000 }

/**
 * Runs in single-use containers of a Docker Engine, with nothing mounted, no network and an agent that is the container's
 * first process. A container is seen not to run any more before its outcome is told; it is removed right after.
 */
export function createDockerExecutor(options: DockerOptions): DockerExecutor {
  const { settings, env, owner, times = usualTimes } = options
  /** Names of the containers that are in use: everything else with this owner's label is a leftover. */
  const mine = new Set<string>()
  const prefix = containerPrefix(owner)
  const work = new Set<Promise<unknown>>()
  let opening: Promise<EngineClient | null> | null = null
  let machine: Promise<{ readonly version: EngineVersion; readonly info: EngineInfo }> | null = null
  let sweepAgain: NodeJS.Timeout | null = null
  let open = true
  /** Starts at once: one for each processor of the engine. With twice as many all of them took longer together. */
  let mostStarts = 2
  const starts = openGate(() => mostStarts)

  const images = lookInside(owner, hold)
  const pool = openPool({
    size: settings.warm,
    clock: options.clock ?? systemClock,
    tendMs: options.tendMs ?? 30_000,
    start: async (planned) => {
      const starting = starts(async () => await start(planned))
      follow(starting)
      return await starting
    },
    discard,
  })

  function hold(): { readonly name: string; readonly release: () => void } {
    const name = containerName(prefix)
    mine.add(name)
    return { name, release: () => void mine.delete(name) }
  }

  /** Keeps what goes on beside the runs in sight of `settled`. */
  function follow(task: Promise<unknown>): void {
    const followed = task.catch(() => undefined).finally(() => work.delete(followed))
    work.add(followed)
  }

  async function connect(): Promise<EngineClient> {
    opening ??= openClient(settings, env, times)
    const client = await opening
    if (client === null) throw unavailable('the container engine may not be reached as it is configured')
    return client
  }

  async function learn(client: EngineClient): Promise<{ readonly version: EngineVersion; readonly info: EngineInfo }> {
    machine ??= Promise.all([client.version(), client.info()]).then(([version, info]) => ({ version, info }))
    machine.catch(() => (machine = null))
    const known = await machine
    mostStarts = Math.min(Math.max(known.info.NCPU ?? 2, 2), 64)
    return known
  }

  async function start(planned: Planned): Promise<Container> {
    if (!open) throw unavailable('the sandbox is shutting down')
    const client = await connect()
    const { info } = await learn(client)
    const { name, release } = hold()
    try {
      return await startContainer({ client, owner, planned, name, times, hostKernel: info.KernelVersion ?? null })
    } catch (error) {
      release()
      lost()
      throw error
    }
  }

  /** Ends what nobody wants an outcome of. */
  function discard(container: Container): void {
    container.leave()
    follow(remove(container))
  }

  async function remove(container: Container): Promise<void> {
    const client = await connect()
    await client.remove(container.id).catch(lost)
    mine.delete(container.name)
  }

  /** Something may be left that only a sweep can find. What was learned of the engine may be of another by then. */
  function lost(): void {
    machine = null
    if (!open || sweepAgain !== null) return
    sweepAgain = setTimeout(() => {
      sweepAgain = null
      follow(sweep())
    }, times.again)
    sweepAgain.unref()
  }

  /**
   * Removes what is there in this broker's name and in nobody's hands. A run host that ends removes its own alone: another
   * may have begun by then, of a broker that took the place of one that was killed.
   */
  async function sweep(): Promise<void> {
    try {
      const client = await connect()
      const found = await client.list(`${ownerLabel}=${owner}`)
      const left = found.filter(({ names }) =>
        open ? !names.some((name) => mine.has(name)) : names.some((name) => name.startsWith(prefix)),
      )
      await Promise.all(left.map(async ({ id }) => await client.remove(id)))
      if (open) await sweepLooks(client)
    } catch {
      lost()
    }
  }

  /** What was checked once of an engine holds until it is lost. */
  async function admit(client: EngineClient): Promise<void> {
    const { version, info } = await learn(client)
    if (findingsOf(settings, version, info).some(({ level }) => level === 'problem'))
      throw unavailable('the container engine cannot hold a sandbox as it has to be held')
  }

  async function prepare(job: Job, io: RunIo): Promise<Omit<Ready, 'container'>> {
    const planned = plannedContainer(job.plan)
    if (job.plan.hosts.length > 0) throw unavailable('a container reaches services only')
    const contents = await Promise.all(job.plan.files.map(async (file) => await io.files.read(file.sha256)))
    try {
      const client = await connect()
      await admit(client)
      const inside = await images.inside(client, planned.image.id)
      if (inside === null || inside.agent !== planned.image.agent)
        throw unavailable('the image that was planned with cannot be run any more')
      const agentJob = agentJobOf(job, inside.path)
      // What cannot be sent is found out before anything starts.
      encodeFrame({ type: 'job', job: agentJob })
      return { planned, contents, agentJob }
    } catch (error) {
      if (error instanceof EngineError && error.kind === 'silent') lost()
      throw error instanceof EngineError ? asUnavailable(error) : error
    }
  }

  /** All of a run but its start; null where it was stopped before, and then what comes of it is got rid of. */
  async function ready(job: Job, io: RunIo): Promise<Ready | null> {
    const { signal } = io
    if (signal.aborted) return null
    const { promise: aborted, resolve } = Promise.withResolvers<null>()
    const onAbort = (): void => resolve(null)
    signal.addEventListener('abort', onAbort)
    const getting = prepare(job, io).then(async (prepared) =>
      signal.aborted ? null : { ...prepared, container: await pool.take(prepared.planned) },
    )
    const got = await Promise.race([getting, aborted]).finally(() => signal.removeEventListener('abort', onAbort))
    if (got !== null && !signal.aborted) return got
    follow(
      getting.then((late) => {
        if (late !== null) discard(late.container)
      }),
    )
    return null
  }

  follow(sweep())
  return {
    kind: 'docker',
    isolation: 'container',
    get waiting() {
      return pool.waiting
    },
    async check() {
      const way = reach(settings, env)
      if ('refused' in way) return [{ level: 'problem', what: way.refused, fix: way.fix }] satisfies CheckFinding[]
      way.close()
      try {
        machine = null
        const { version, info } = await learn(await connect())
        follow(sweep())
        return findingsOf(settings, version, info)
      } catch {
        lost()
        return [unreachable(settings)]
      }
    },
    async facts(names) {
      const client = await connect()
      const { info } = await learn(client)
      const found = new Map<string, PlanImage>()
      for (const name of new Set(names)) {
        const image = await images.named(client, info, name)
        if (image !== null) found.set(name, image)
      }
      return { images: found, runtimes: new Set(['', ...Object.keys(info.Runtimes)]) }
    },
    async run(job, io) {
      const got = await ready(job, io)
      if (got === null) return { end: 'stopped', by: io.signal.reason === 'time' ? 'time' : 'cancel', steps: [] }
      const { container, planned, contents, agentJob } = got
      const late = setTimeout(() => pool.refill(planned), refillLateMs)
      try {
        io.applied?.(container.isolation)
        await io.started(0)
        const told = await converse(container, job, io, agentJob, contents)
        const patience = told.complete ? doneMs : told.reason === null ? 0 : goneMs
        const gone = await container.end(patience)
        if (!gone) lost()
        return await outcomeOf(job, told, gone, container)
      } finally {
        clearTimeout(late)
        discard(container)
        follow(pause(refillMs, null, { ref: false }).then(() => pool.refill(planned)))
      }
    },
    async settled() {
      while (work.size > 0) await Promise.all(work)
    },
    async close() {
      open = false
      if (sweepAgain !== null) clearTimeout(sweepAgain)
      await pool.close()
      await this.settled()
      // A start that the engine was too slow for may have come to be after all.
      const client = await opening?.catch(() => null)
      if (client !== null && client !== undefined) await sweep()
      client?.close()
    },
  }
}

/** What Writ saw: the agent's word for what steps did, the engine's for whether the container is gone and how. */
async function outcomeOf(job: Job, told: Told, gone: boolean, container: Container): Promise<Outcome> {
  const steps: readonly StepExit[] = told.cut === null ? told.steps : [...told.steps, told.cut]
  if (!gone) return { end: 'unknown', steps }
  if (told.stopped !== null) return { end: 'stopped', by: told.stopped, steps }
  const last = told.steps.at(-1)
  const success = job.plan.steps[told.steps.length - 1]?.success ?? []
  const failed = !told.complete || last === undefined || last.exit === null || !success.includes(last.exit)
  // Where all did well, a child that died of it is the workload's own affair: engines say `OOMKilled` then too.
  if (failed && (await container.outOfMemory())) {
    const ended = steps.map((step, at) => (at === steps.length - 1 ? { ...step, exit: null } : step))
    return { end: 'stopped', by: 'memory', steps: ended }
  }
  return { end: 'exited', steps, reason: told.complete ? null : (told.reason ?? 'sandbox_crash') }
}

/** Runs at most so many at once, the rest in the order they came. */
function openGate(most: () => number): <T>(task: () => Promise<T>) => Promise<T> {
  const waiting: (() => void)[] = []
  let under = 0
  const next = (): void => {
    for (; under < most() && waiting.length > 0; under++) waiting.shift()?.()
  }
  return async (task) => {
    const turn = new Promise<void>((resolve) => waiting.push(resolve))
    next()
    await turn
    try {
      return await task()
    } finally {
      under--
      next()
    }
  }
}

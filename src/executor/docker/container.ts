import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import type { Duplex } from 'node:stream'
import { setTimeout as pause } from 'node:timers/promises'
import { WritError } from '../../error.ts'
import { containerUser, isolationOf } from '../../plan/container.ts'
import type { Isolation } from '../../plan/plan.ts'
import { createBody } from './body.ts'
import type { Planned } from './body.ts'
import { EngineError } from './client.ts'
import type { EngineClient } from './client.ts'
import { difference } from './created.ts'
import type { AgentFrame, HostFrame, Ready } from './frame.ts'
import { splitStreams } from './streams.ts'
import { openWire } from './wire.ts'

/** A container whose agent waits for a job, or has one. It serves one run. */
export interface Container {
  readonly id: string
  readonly name: string
  readonly planned: Planned
  /** What the agent's kernel shows it to be under. */
  readonly isolation: Isolation
  /** Where the agent's frames go; set by the run that took it. */
  take: (frame: AgentFrame) => void
  /** Resolves when more may be sent. What nobody is there for any more is dropped. */
  send(frame: HostFrame): Promise<void>
  /** Bytes that may be sent to a connection now. */
  room(connection: number): number
  /** Resolves when nothing comes of the agent any more, or what came was not to be believed. */
  readonly closed: Promise<void>
  /**
   * Resolves once it is seen to run no more, which is true; false where that could not be learned because the engine is
   * silent. It is killed after so many milliseconds, at once for 0.
   */
  end(patienceMs: number): Promise<boolean>
  /** Whether something in it was killed for want of memory. Told once it runs no more. */
  outOfMemory(): Promise<boolean>
  /** Lets go of its streams, which its agent takes for the end. */
  leave(): void
}

export interface StartOptions {
  readonly client: EngineClient
  readonly owner: string
  readonly planned: Planned
  /** Names the container, so that no sweep takes it for a leftover. */
  readonly name: string
  /** The kernel of the engine's machine, or null where it is not told. */
  readonly hostKernel: string | null
  readonly times: ContainerTimes
}

/** Milliseconds. */
export interface ContainerTimes {
  /** From the start to the agent's first word. */
  readonly ready: number
  /** As long as an end is tried to be learned. */
  readonly confirm: number
}

const againMs = 200
const nobody = (): void => undefined

/** What the names begin with that one run host gives: of the containers of one broker, it tells its own by that. */
export function containerPrefix(owner: string): string {
  return `writ-${owner}-${randomBytes(4).toString('hex')}-`
}

export function containerName(prefix: string): string {
  return prefix + randomBytes(8).toString('hex')
}

/**
 * Creates, checks, attaches and starts a container, and hears its agent. Nothing of a run is in it yet.
 *
 * @throws WritError `target_unavailable`; then nothing of it is left, or the next sweep takes it
 */
export async function startContainer(options: StartOptions): Promise<Container> {
  const { client, planned, name, owner } = options
  let id: string | null = null
  let stream: Duplex | null = null
  try {
    const body = createBody(planned, owner)
    id = await client.create(name, body)
    const [made, attached] = await Promise.all([client.inspect(id, 'long'), client.attach(id)])
    stream = attached
    const other = difference(body, made)
    if (other !== null) throw unavailable(`the container engine made something else than it was asked for (${other})`)
    return await begin(options, id, attached)
  } catch (error) {
    stream?.destroy()
    if (id !== null) await client.remove(id).catch(nobody)
    if (error instanceof WritError) throw error
    throw asUnavailable(error)
  }
}

async function begin(options: StartOptions, id: string, stream: Duplex): Promise<Container> {
  const { client, planned } = options
  const { promise: ready, resolve: heard, reject: unheard } = Promise.withResolvers<Isolation>()
  ready.catch(nobody)
  const { promise: closed, resolve: close } = Promise.withResolvers<void>()
  const gone = new AbortController()
  let drained: Promise<void> | null = null
  const shut = (): void => {
    gone.abort()
    stream.destroy()
    unheard(unavailable('the sandbox did not start'))
    close()
  }

  const container: Container & { isolation: Isolation } = {
    id,
    name: options.name,
    planned,
    isolation: 'container',
    closed,
    take(frame) {
      if (frame.type !== 'ready') return shut()
      try {
        heard(isolationSeen(frame, planned, options.hostKernel))
      } catch (error) {
        unheard(error)
      }
    },
    room: (connection) => wire.room(connection),
    async send(frame) {
      if (stream.destroyed) return
      const bytes = wire.encode(frame)
      if (bytes === null || stream.write(bytes)) return
      // One promise for all that wait: one of each would be kept for as long as the container lives.
      await (drained ??= once(stream, 'drain', { signal: gone.signal })
        .catch(nobody)
        .then(() => void (drained = null)))
    },
    async end(patienceMs) {
      if (patienceMs === 0) shut()
      try {
        if (patienceMs > 0) await Promise.race([stopped, pause(patienceMs)])
        return await confirm()
      } finally {
        waiting.abort()
        shut()
      }
    },
    async outOfMemory() {
      const seen = await client.inspect(id).catch(() => null)
      return seen?.State.OOMKilled === true
    },
    leave() {
      waiting.abort()
      shut()
    },
  }

  // The stream is read from before the start to the end, whatever it brings: one that nobody reads holds up the engine's
  // every answer about the container, its removal too.
  const wire = openWire((frame) => container.take(frame))
  const split = splitStreams((name, bytes) => {
    // What the agent says on standard error is of its own troubles and is nobody's output.
    if (name === 'stdout') wire.take(bytes)
  })
  stream.on('error', shut)
  stream.once('end', shut)
  stream.once('close', shut)
  stream.on('data', (chunk: Buffer) => {
    try {
      split(chunk)
    } catch {
      shut()
    }
  })

  await client.start(id)
  const waiting = new AbortController()
  /** True once seen not to run, false where the engine stopped saying. */
  const stopped = client.stopped(id, waiting.signal).then(
    () => true,
    () => false,
  )

  async function confirm(): Promise<boolean> {
    for (const until = performance.now() + options.times.confirm; ; await pause(againMs)) {
      if (await Promise.race([stopped, Promise.resolve(false)])) return true
      try {
        await client.kill(id)
        if (await Promise.race([stopped, pause(againMs, false)])) return true
        const { State } = await client.inspect(id)
        if (!State.Running) return true
      } catch (error) {
        if (error instanceof EngineError && error.kind === 'missing') return true
      }
      if (performance.now() > until) return false
    }
  }

  const late = setTimeout(shut, options.times.ready)
  try {
    container.isolation = await ready
    // Nothing was asked yet.
    container.take = shut
    return container
  } finally {
    clearTimeout(late)
  }
}

/**
 * What the agent sees around it, against what was planned: a container that is not what policy and approvers were shown
 * is never given a job.
 *
 * @throws WritError `target_unavailable`
 */
function isolationSeen(ready: Ready, planned: Planned, hostKernel: string | null): Isolation {
  const wanted = isolationOf(planned.container.oci_runtime)
  const { kernel, uid, no_new_privs, seccomp, dumpable, arch } = ready
  const userKernel = /\bgvisor\b/i.test(kernel)
  if (wanted === 'user-kernel' && !userKernel)
    throw unavailable('the sandbox is not under the kernel in user space that was planned')
  if (wanted === 'vm' && (hostKernel === null || kernel === hostKernel || userKernel))
    throw unavailable('the sandbox is not in the virtual machine that was planned')
  if (uid !== containerUser || !no_new_privs || dumpable || arch !== planned.image.arch)
    throw unavailable('the sandbox is not held as it was planned')
  // Under gVisor and in a virtual machine the host's kernel is not reached by system calls of the workload, and the
  // profile is not applied inside: gVisor shows 0.
  if (wanted === 'container' && !userKernel && seccomp !== 2)
    throw unavailable('the sandbox is without its filter of system calls')
  return userKernel ? 'user-kernel' : wanted
}

export function asUnavailable(error: unknown): WritError {
  if (!(error instanceof EngineError)) return unavailable('the sandbox could not be started')
  switch (error.kind) {
    case 'missing':
      return unavailable('the image that was planned with is not there any more')
    case 'refused':
      return unavailable('the container engine refused to make the sandbox')
    case 'silent':
      return unavailable('the container engine does not answer')
  }
}

export function unavailable(message: string): WritError {
  return new WritError('target_unavailable', message)
}

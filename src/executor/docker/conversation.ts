import type { StepExit } from '../../execution/execution.ts'
import type { Job } from '../../execution/job.ts'
import { environmentText } from '../../plan/value.ts'
import type { RunIo } from '../executor.ts'
import type { Container } from './container.ts'
import { openConnections } from './egress.ts'
import type { Connections } from './egress.ts'
import { channels, maxData, windowBytes } from './frame.ts'
import type { AgentFrame, AgentJob, HostFrame } from './frame.ts'
import { gather, packFiles } from './outputs.ts'

type Stop = 'time' | 'memory' | 'output' | 'cancel'

/** What the frames of one run came to; whether memory ran out is the engine's to say. */
export interface Told {
  readonly steps: readonly StepExit[]
  /** The step that was under way, or null. */
  readonly cut: StepExit | null
  readonly stopped: Exclude<Stop, 'memory'> | null
  /** Null where everything there was to say was said. */
  readonly reason: 'no_space' | 'sandbox_crash' | null
  /** True where the agent was done and ends by itself. */
  readonly complete: boolean
}

const mostFiles = 1000
/** Bytes that are handed on before the agent is told that it may send as much again. */
const tellAt = windowBytes / 4

/**
 * Hands a run to the agent of a container and hears it out: files, steps one by one, connections, outputs. Returns when
 * the agent is done, is not to be believed, is gone, or the run was stopped; the container is the caller's to end.
 * Rejects only where `io.started` does.
 */
export async function converse(
  container: Container,
  job: Job,
  io: RunIo,
  agentJob: AgentJob,
  contents: readonly Uint8Array[],
): Promise<Told> {
  const { plan } = job
  const { limits } = plan
  const steps: StepExit[] = []
  const outputs = gather({ bytes: limits.artifact_kb * 1024, files: mostFiles })
  const { promise: over, resolve: finish, reject: fail } = Promise.withResolvers<void>()
  let isOver = false
  let stopped: Told['stopped'] = null
  let reason: Told['reason'] = 'sandbox_crash'
  let began = performance.now()

  const send = (frame: HostFrame): void => {
    container.send(frame).catch(fail)
  }
  const connections: Connections | null =
    plan.services.length === 0
      ? null
      : openConnections(io.egress, {
          data: (connection, bytes) => send({ type: 'egress_data', connection, bytes }),
          end: (connection) => send({ type: 'egress_end', connection }),
          reset: (connection) => send({ type: 'egress_reset', connection }),
          window: (connection, bytes) => send({ type: 'window', channel: connection, bytes }),
          room: (connection) => container.room(connection),
        })

  const end = (why: Told['reason'], by: Told['stopped'] = null): void => {
    if (isOver) return
    isOver = true
    reason = why
    stopped = by
    finish()
  }
  const onAbort = (): void => end(null, io.signal.reason === 'time' ? 'time' : 'cancel')

  /** The first step was told of before anything was handed over. */
  async function begin(step: number): Promise<void> {
    if (step > 0) await io.started(step)
    if (isOver) return
    began = performance.now()
    send({ type: 'step', step: step + 1 })
  }

  const handedOn = new Map<number, number>()
  /** What is handed on here is done with, so as much again may be sent. */
  function more(channel: number, bytes: Uint8Array): void {
    const sum = (handedOn.get(channel) ?? 0) + bytes.length
    handedOn.set(channel, sum < tellAt ? sum : 0)
    if (sum >= tellAt) send({ type: 'window', channel, bytes: sum })
  }

  function exited(frame: Extract<AgentFrame, { type: 'exited' }>): void {
    const planned = plan.steps[steps.length]
    if (planned === undefined) return
    if (frame.stopped !== null) return end(null, 'time')
    // As a shell says it: a step that a signal ended has an exit all the same, and none that is called a success.
    const exit = frame.exit ?? 128 + (frame.signal ?? 0)
    steps.push({ title: planned.title, exit, ms: Math.round(performance.now() - began) })
    if (steps.length < plan.steps.length && planned.success.includes(exit)) {
      begin(steps.length).catch(fail)
      return
    }
    send({ type: 'collect' })
  }

  function take(frame: AgentFrame): void {
    if (isOver) return
    switch (frame.type) {
      case 'ready':
        return
      case 'prepared':
        begin(0).catch(fail)
        return
      case 'stdout':
      case 'stderr':
        io.output.write(steps.length, frame.type, frame.bytes)
        if (io.output.full && plan.engine['stop_on_output'] === true) return end(null, 'output')
        return more(channels[frame.type], frame.bytes)
      case 'exited':
        return exited(frame)
      case 'archive':
        return outputs.add(frame.bytes) ? more(channels.archive, frame.bytes) : end('sandbox_crash')
      case 'archive_end': {
        const { links, special, names, over_limit } = frame.left_out
        io.artifacts.withhold?.(links + special + names + over_limit)
        return
      }
      case 'done':
        return end(null)
      case 'failed':
        return end(frame.code === 'no_space' ? 'no_space' : 'sandbox_crash')
      case 'egress_open':
        return connections?.open(frame.connection)
      case 'egress_data':
        return connections?.data(frame.connection, frame.bytes)
      case 'egress_end':
        return connections?.end(frame.connection)
      case 'egress_reset':
        return connections?.reset(frame.connection)
      case 'window':
        return connections?.raised(frame.connection)
    }
  }

  container.take = take
  void container.closed.then(() => end('sandbox_crash'))
  io.signal.addEventListener('abort', onAbort)
  if (io.signal.aborted) onAbort()
  try {
    if (!isOver) handOver(container, job, agentJob, contents, () => isOver).catch(fail)
    await over
    const told = { steps, stopped, reason, complete: reason === null && stopped === null }
    if (told.complete && !(await keep(outputs, io))) return { ...told, cut: null, reason: 'sandbox_crash' }
    const at = plan.steps[steps.length]
    const begun = !told.complete && at !== undefined
    return { ...told, cut: begun ? { title: at.title, exit: null, ms: Math.round(performance.now() - began) } : null }
  } finally {
    isOver = true
    io.signal.removeEventListener('abort', onAbort)
    connections?.close()
  }
}

async function handOver(
  container: Container,
  job: Job,
  agentJob: AgentJob,
  contents: readonly Uint8Array[],
  isOver: () => boolean,
): Promise<void> {
  await container.send({ type: 'job', job: agentJob })
  for await (const chunk of packFiles(job.plan.files, contents))
    for (let at = 0; at < chunk.length && !isOver(); at += maxData)
      await container.send({ type: 'files', bytes: chunk.subarray(at, at + maxData) })
  if (!isOver()) await container.send({ type: 'files_end' })
}

/** False where the archive is not one that an agent makes. */
async function keep(outputs: ReturnType<typeof gather>, io: RunIo): Promise<boolean> {
  const files = await outputs.unpack()
  if (files === null) return false
  for (const { path, bytes } of files) await io.artifacts.put(path, bytes)
  return true
}

/** A job in the words of the agent. */
export function agentJobOf(job: Job, path: string): AgentJob {
  const { plan, placeholders } = job
  const env = new Map<string, string>([
    ['PATH', path],
    ['HOME', '/work/home'],
    ['LANG', 'C.UTF-8'],
  ])
  for (const { name, value } of plan.environment) env.set(name, environmentText(value, placeholders))
  env.set('WRIT_OUT', '/out')
  return {
    env: Object.fromEntries(env),
    steps: plan.steps.map(({ argv }) => ({ argv })),
    stdin: plan.stdin,
    egress: plan.services.length > 0,
    limits: {
      cpu_s: plan.limits.cpu_s,
      wall_s: plan.limits.wall_s,
      artifact_bytes: plan.limits.artifact_kb * 1024,
      artifact_files: mostFiles,
    },
  }
}

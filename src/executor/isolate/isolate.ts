import { readFileSync } from 'node:fs'
import type { CheckFinding } from '../../credential/credential.ts'
import { WritError } from '../../error.ts'
import type { StepExit } from '../../execution/execution.ts'
import type { Job, Outcome } from '../../execution/job.ts'
import { environmentText } from '../../plan/value.ts'
import type { Executor, RunIo } from '../executor.ts'
import { findCage } from './cage.ts'
import type { CageMaker } from './cage.ts'
import { openPool, workerShareMb } from './pool.ts'
import type { Worker } from './pool.ts'
import { fetchLimits } from './wire.ts'
import type { FromWorker, WorkerEnd, WorkerJob } from './wire.ts'

export interface IsolateOptions {
  /** Workers kept warm. */
  readonly poolSize?: number
  /** The whole environment of a worker. */
  readonly env: Readonly<Record<string, string>>
  /** Names what this broker's workers leave behind, so that only it sweeps them. Letters, digits and `-`. */
  readonly owner: string
  readonly cages?: CageMaker
}

const watchMs = 50
/** Bytes of files on their way to a worker beyond which it is waited for. */
const sentAhead = 1024 * 1024

/** JavaScript and TypeScript in isolated-vm: one worker process per run, ended and seen gone before the outcome is told. */
export function createIsolateExecutor(options: IsolateOptions): Executor & { readonly waiting: readonly number[] } {
  const cages = options.cages ?? findCage()
  const prefix = `writ-${options.owner}-`
  cages.sweep(prefix, new Set())
  const pool = openPool({ size: options.poolSize ?? 1, env: options.env, cages, prefix })

  return {
    kind: 'isolate',
    isolation: 'process',
    get waiting() {
      return pool.waiting
    },
    check: () => Promise.resolve(findings(cages)),
    async run(job, io) {
      const { plan } = job
      if (plan.hosts.length > 0) throw new WritError('target_unavailable', 'an isolate reaches services only')
      const files: (readonly [string, Uint8Array])[] = await Promise.all(
        plan.files.map(async (file) => [file.path, await io.files.read(file.sha256)] as const),
      )
      if (io.signal.aborted) return { end: 'stopped', by: abortedBy(io.signal), steps: [] }
      const taking = pool.take(plan.limits.memory_mb, plan.limits.cpu_s)
      const worker = await unlessAborted(taking, io.signal)
      if (worker === null) {
        // A sandbox that is slow to start holds up no cancel; nothing of the run was in it, and it goes when it is there.
        taking.then((late) => pool.end(late)).catch(() => undefined)
        return { end: 'stopped', by: abortedBy(io.signal), steps: [] }
      }
      try {
        await io.started(0)
        return await runIn(worker, job, io, files)
      } finally {
        await pool.end(worker)
      }
    },
    close: () => pool.close(),
  }

  async function runIn(
    worker: Worker,
    job: Job,
    io: RunIo,
    files: readonly (readonly [string, Uint8Array])[],
  ): Promise<Outcome> {
    const { plan } = job
    const steps: StepExit[] = []
    const fetches = new Map<number, AbortController>()
    const artifacts = { count: 0, bytes: 0 }
    let current = 0
    let reason: string | null = null
    let ending: WorkerEnd | null = null
    let stopped: 'time' | 'memory' | 'output' | 'cancel' | null = null
    let stepStarted = performance.now()

    const stop = (by: 'time' | 'memory' | 'output' | 'cancel'): void => {
      if (stopped !== null || ending !== null) return
      stopped = by
      worker.child.kill()
    }
    const onAbort = (): void => stop(abortedBy(io.signal))
    io.signal.addEventListener('abort', onAbort)
    if (io.signal.aborted) onAbort()
    const cpuBefore = observe(worker.child.pid).cpuS
    const watch = setInterval(() => {
      const seen = observe(worker.child.pid)
      if (seen.cpuS - cpuBefore > plan.limits.cpu_s) stop('time')
      if (worker.cage.kind === 'rlimit' && seen.privateMb > plan.limits.memory_mb + workerShareMb) stop('memory')
    }, watchMs)

    worker.take = async (header: FromWorker, payload: Buffer): Promise<void> => {
      if (ending !== null || stopped !== null) return
      switch (header.t) {
        case 'ready':
          return
        case 'started':
          if (header.step !== current || header.step >= plan.steps.length)
            throw new WritError('internal', 'a step out of order')
          stepStarted = performance.now()
          if (header.step > 0) await io.started(header.step)
          return
        case 'output':
          io.output.write(current, header.stream, payload)
          if (io.output.full && plan.engine['stop_on_output'] === true) stop('output')
          return
        case 'fetch':
          if (fetches.size >= fetchLimits.together || fetches.has(header.id))
            void worker.pipe.send({ t: 'answer', id: header.id, status: 0, headers: [] })
          else void fetchFor(header, payload)
          return
        case 'unfetch':
          fetches.get(header.id)?.abort()
          return
        case 'exited':
          if (header.step !== current || steps.length !== current)
            throw new WritError('internal', 'an exit out of order')
          steps.push({
            title: plan.steps[current]?.title ?? '',
            exit: header.exit,
            ms: Math.round(performance.now() - stepStarted),
          })
          reason = header.reason
          current++
          return
        case 'artifact':
          artifacts.count++
          artifacts.bytes += payload.length
          if (artifacts.count > 1000 || artifacts.bytes > plan.limits.artifact_kb * 1024)
            throw new WritError('internal', 'more outputs than the limit')
          await io.artifacts.put(header.path, Buffer.from(payload))
          return
        case 'end':
          ending = header.why
          worker.child.kill()
          return
      }
    }

    async function fetchFor(header: FromWorker & { t: 'fetch' }, body: Buffer): Promise<void> {
      const controller = new AbortController()
      fetches.set(header.id, controller)
      try {
        const answer = await io.egress.fetch(
          { method: header.method, url: header.url, headers: header.headers, body: Buffer.from(body) },
          controller.signal,
        )
        await worker.pipe.send(
          { t: 'answer', id: header.id, status: answer.status, headers: answer.headers },
          answer.body,
        )
      } catch {
        await worker.pipe.send({ t: 'answer', id: header.id, status: 0, headers: [] })
      } finally {
        fetches.delete(header.id)
      }
    }

    try {
      for (const [path, bytes] of files) {
        const sent = worker.pipe.send({ t: 'file', path }, bytes)
        if (worker.pipe.backlog > sentAhead) await sent
      }
      void worker.pipe.send({ t: 'go', job: workerJob(job) })
      const [{ signal }] = await Promise.all([worker.child.exited, worker.pipe.closed])
      if (ending === 'exited' && steps.length > 0) return { end: 'exited', steps, reason }
      const cut: StepExit = {
        title: plan.steps[current]?.title ?? '',
        exit: null,
        ms: Math.round(performance.now() - stepStarted),
      }
      const all = current < plan.steps.length ? [...steps, cut] : steps
      if (stopped !== null) return { end: 'stopped', by: stopped, steps: all }
      if (ending === 'memory' || worker.cage.kills() > 0 || /out of memory/i.test(worker.child.complaint()))
        return { end: 'stopped', by: 'memory', steps: all }
      if (ending === 'cpu' || signal === 'SIGXCPU') return { end: 'stopped', by: 'time', steps: all }
      if (ending === 'callback_quota') return { end: 'exited', steps: all, reason: 'callback_quota' }
      return { end: 'exited', steps: all, reason: 'sandbox_crash' }
    } finally {
      clearInterval(watch)
      io.signal.removeEventListener('abort', onAbort)
      for (const controller of fetches.values()) controller.abort()
    }
  }
}

/** What a sandbox sees of the plan's environment: text, the way to a service, a placeholder; never a value. */
function workerJob(job: Job): WorkerJob {
  const { plan } = job
  const env: Record<string, string> = {}
  const put = (name: string, value: string): void => {
    Object.defineProperty(env, name, { value, enumerable: true, configurable: true, writable: true })
  }
  for (const { name, value } of plan.environment) put(name, environmentText(value, job.placeholders))
  put('WRIT_OUT', '/out')
  return { steps: plan.steps, env, stdin: plan.stdin ?? '', inputs: plan.task.inputs, limits: plan.limits }
}

/** What is waited for, or null where the run was ended first. */
async function unlessAborted<T>(waited: Promise<T>, signal: AbortSignal): Promise<T | null> {
  const { promise, resolve } = Promise.withResolvers<null>()
  const stop = (): void => resolve(null)
  signal.addEventListener('abort', stop)
  if (signal.aborted) stop()
  try {
    return await Promise.race([promise, waited])
  } finally {
    signal.removeEventListener('abort', stop)
  }
}

function abortedBy(signal: AbortSignal): 'time' | 'cancel' {
  return signal.reason === 'time' ? 'time' : 'cancel'
}

/** What the kernel says of a worker; zero where it says nothing (then the worker's own watch and the deadline hold). */
function observe(pid: number): { readonly cpuS: number; readonly privateMb: number } {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    const ticks = Number(fields[11]) + Number(fields[12])
    const anon = /^RssAnon:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]
    return { cpuS: ticks / 100, privateMb: Number(anon ?? 0) / 1024 }
  } catch {
    return { cpuS: 0, privateMb: 0 }
  }
}

function findings(cages: CageMaker): readonly CheckFinding[] {
  switch (cages.kind) {
    case 'cgroup1':
    case 'cgroup2':
      return [
        {
          level: 'ok',
          what: `isolates run under a memory group of their own (control groups, version ${cages.kind === 'cgroup1' ? 1 : 2})`,
          fix: null,
        },
      ]
    case 'rlimit':
      return [
        {
          level: 'warning',
          what: 'isolates run under resource limits: Writ may not make control groups here, so memory is watched, not held by the kernel',
          fix: 'Run the broker as a systemd service with Delegate=memory pids, or as a user that may make control groups.',
        },
      ]
  }
}

import { Worker } from 'node:worker_threads'
import { siblingModule } from '../module.ts'
import type { DecisionErrorCode } from './policy.ts'
import type { PackResult, Reply, Request } from './worker.ts'

export type Answer =
  | { readonly ok: true; readonly results: readonly PackResult[] }
  | { readonly ok: false; readonly error: DecisionErrorCode }

export interface LoadFault {
  /** Index of the module, or -1 where none of them is to blame alone. */
  readonly pack: number
  readonly message: string
}

/** Worker threads that hold instances and nothing else. Ends and replaces the one that does not answer. */
export interface Pool {
  /** Instantiates and checks the modules in one worker, then in all. Null when they are good. Never rejects. */
  load(set: number, modules: readonly WebAssembly.Module[]): Promise<LoadFault | null>
  /** One round trip for all modules of the set. Never rejects. */
  decide(set: number, input: string): Promise<Answer>
  drop(set: number): void
  close(): Promise<void>
}

/** Instantiating runs code of the module too. */
const loadDeadlineMs = 2000
/** A timer that fires this much later than asked was kept from it by a busy machine. */
const starvedMs = 20

/** Decisions wait this many deadlines for a free worker, and no more of them than this: a flood denies, it does not pile up. */
const waitDeadlines = 20
const maxWaiting = 1000
const maxRestartMs = 5000

interface Job {
  readonly request: Extract<Request, { kind: 'load' | 'decide' }>
  settle(reply: Reply | { readonly kind: 'lost'; readonly error: DecisionErrorCode }): void
  readonly deadlineMs: number
  /** Runs while the job waits for a worker. */
  timer: NodeJS.Timeout | null
  /** `performance.now()` at which the worker that has it is late. */
  due: number
  /** The deadline was moved already, because this thread had been given no time. */
  starved: boolean
}

interface Slot {
  readonly worker: Worker
  ready: boolean
  job: Job | null
  readonly sets: Set<number>
  /** One timer for the jobs that follow one another: when it is due, it looks whether the job it finds is late. */
  watch: { readonly timer: NodeJS.Timeout; readonly due: number } | null
}

/**
 * Starts one worker, and up to `threads` of them when something has to wait: most brokers never need a second. They keep
 * the process alive only while something is asked.
 */
export function openPool(options: { readonly threads: number; readonly deadlineMs: number }): Pool {
  const slots = new Set<Slot>()
  const waiting: Job[] = []
  const modules = new Map<number, readonly WebAssembly.Module[]>()
  let newest = 0
  let open = 0
  let restarts = 0
  let wanted = Math.min(1, options.threads)
  let closed = false
  let restart: NodeJS.Timeout | null = null

  const post = (slot: Slot, request: Request): void => {
    slot.worker.postMessage(request, [])
  }

  /** The set as it is known to this worker, before the first decision on it. */
  const supply = (slot: Slot, set: number): void => {
    const known = modules.get(set)
    if (known === undefined || slot.sets.has(set)) return
    slot.sets.add(set)
    post(slot, { kind: 'load', set, modules: known })
  }

  const keepAlive = (change: 1 | -1): void => {
    open += change
    if (open === 1 && change === 1) for (const { worker } of slots) worker.ref()
    if (open === 0) for (const { worker } of slots) worker.unref()
  }

  const finish = (job: Job, reply: Parameters<Job['settle']>[0]): void => {
    if (job.timer !== null) clearTimeout(job.timer)
    job.timer = null
    keepAlive(-1)
    job.settle(reply)
  }

  const lose = (slot: Slot, error: DecisionErrorCode): void => {
    if (!slots.delete(slot)) return
    const { job } = slot
    slot.job = null
    if (slot.watch !== null) clearTimeout(slot.watch.timer)
    void slot.worker.terminate()
    if (job !== null) finish(job, { kind: 'lost', error })
    // A worker that never got ready is a fault of the machine; do not spin on it.
    restarts = slot.ready ? 0 : restarts + 1
    refill()
  }

  const watch = (slot: Slot, due: number): void => {
    // A timer that is due no later finds this job too, and looks again when its time has come.
    if (slot.watch !== null && slot.watch.due <= due) return
    if (slot.watch !== null) clearTimeout(slot.watch.timer)
    const timer = setTimeout(() => {
      slot.watch = null
      const { job } = slot
      if (job === null) return
      const now = performance.now()
      if (now < job.due) {
        watch(slot, job.due)
        return
      }
      // A timer that comes this late says that the machine had no time for us, nor for the worker: what was not given is added, once.
      if (now - job.due > starvedMs && !job.starved) {
        job.starved = true
        job.due = now + Math.min(job.deadlineMs, now - job.due)
        watch(slot, job.due)
        return
      }
      // An answer that already waits in the port is taken first: the time was this thread's, not the worker's.
      setImmediate(() => {
        if (slot.job === job) lose(slot, 'deadline')
      })
    }, due - performance.now())
    timer.unref()
    slot.watch = { timer, due }
  }

  const start = (slot: Slot, job: Job): void => {
    slot.job = job
    if (job.request.kind === 'decide') supply(slot, job.request.set)
    if (job.timer !== null) clearTimeout(job.timer)
    job.timer = null
    job.due = performance.now() + job.deadlineMs
    watch(slot, job.due)
    post(slot, job.request)
  }

  const next = (): void => {
    for (const slot of slots) {
      if (waiting.length === 0) return
      if (!slot.ready || slot.job !== null) continue
      const job = waiting.shift()
      if (job !== undefined) start(slot, job)
    }
  }

  const heard = (slot: Slot, reply: Reply): void => {
    switch (reply.kind) {
      case 'ready':
        slot.ready = true
        restarts = 0
        if (modules.has(newest)) supply(slot, newest)
        next()
        return
      case 'loaded':
        if (reply.fault === null) slot.sets.add(reply.set)
        // Answers to `supply` are not waited for: a set that is not there answers nothing, and that is an error.
        if (slot.job?.request.kind !== 'load' || slot.job.request.set !== reply.set) return
        break
      case 'decided':
        break
    }
    const { job } = slot
    if (job === null) return
    slot.job = null
    finish(job, reply)
    next()
  }

  const spawn = (): void => {
    const worker = new Worker(siblingModule(import.meta.url, './worker'), {
      name: 'policy',
      env: {},
      argv: [],
      execArgv: [],
      // Bounds what an answer can cost in this process; the modules' memory is bounded by its own maximum.
      resourceLimits: { maxOldGenerationSizeMb: 96, maxYoungGenerationSizeMb: 16, stackSizeMb: 4 },
    })
    const slot: Slot = { worker, ready: false, job: null, sets: new Set(), watch: null }
    slots.add(slot)
    worker.on('message', (reply: Reply) => {
      heard(slot, reply)
    })
    worker.on('error', () => {
      lose(slot, 'policy_throw')
    })
    worker.on('exit', () => {
      lose(slot, 'policy_throw')
    })
    if (open === 0) worker.unref()
  }

  const refill = (): void => {
    if (closed || restart !== null) return
    const fill = (): void => {
      restart = null
      if (closed) return
      while (slots.size < wanted) spawn()
    }
    if (restarts === 0) {
      fill()
      return
    }
    restart = setTimeout(fill, Math.min(maxRestartMs, 50 * 2 ** restarts))
  }

  const enqueue = async (request: Job['request'], deadlineMs: number): Promise<Parameters<Job['settle']>[0]> => {
    return await new Promise((resolve) => {
      if (closed || waiting.length >= maxWaiting) {
        resolve({ kind: 'lost', error: 'deadline' })
        return
      }
      const job: Job = {
        request,
        settle: resolve,
        deadlineMs,
        timer: null,
        due: Number.POSITIVE_INFINITY,
        starved: false,
      }
      keepAlive(1)
      waiting.push(job)
      next()
      if (waiting.includes(job)) {
        // What is loaded waits for the first worker to get ready, and is no reason for a second.
        if (request.kind === 'decide' && wanted < options.threads) {
          wanted++
          refill()
        }
        job.timer = setTimeout(
          () => {
            waiting.splice(waiting.indexOf(job), 1)
            finish(job, { kind: 'lost', error: 'deadline' })
          },
          Math.max(loadDeadlineMs, options.deadlineMs * waitDeadlines),
        )
      }
    })
  }

  refill()

  return {
    async load(set, given) {
      const reply = await enqueue({ kind: 'load', set, modules: given }, loadDeadlineMs)
      if (reply.kind !== 'loaded') return { pack: -1, message: 'the modules do not start in time' }
      if (reply.fault !== null) return reply.fault
      modules.set(set, given)
      newest = set
      for (const slot of slots) if (slot.ready) supply(slot, set)
      return null
    },
    async decide(set, input) {
      const reply = await enqueue({ kind: 'decide', set, input }, options.deadlineMs)
      switch (reply.kind) {
        case 'decided':
          return { ok: true, results: JSON.parse(reply.results) as readonly PackResult[] }
        case 'lost':
          return { ok: false, error: reply.error }
        case 'loaded':
        case 'ready':
          return { ok: false, error: 'policy_throw' }
      }
    },
    drop(set) {
      modules.delete(set)
      if (set === newest) newest = Math.max(0, ...modules.keys())
      for (const slot of slots) if (slot.sets.delete(set)) post(slot, { kind: 'drop', set })
    },
    async close() {
      closed = true
      if (restart !== null) clearTimeout(restart)
      for (const job of waiting.splice(0)) finish(job, { kind: 'lost', error: 'deadline' })
      const all = [...slots]
      slots.clear()
      for (const { job, watch } of all) {
        if (watch !== null) clearTimeout(watch.timer)
        if (job !== null) finish(job, { kind: 'lost', error: 'deadline' })
      }
      await Promise.all(all.map(async ({ worker }) => await worker.terminate()))
    },
  }
}

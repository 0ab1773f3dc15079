import type { Child } from '../../execution/child.ts'
import { startChild } from '../../execution/child.ts'
import type { Pipe } from '../../execution/pipe.ts'
import { openPipe } from '../../execution/pipe.ts'
import { WritError } from '../../error.ts'
import { siblingModule } from '../../module.ts'
import { checkFromWorker } from './check.ts'
import type { Cage, CageMaker } from './cage.ts'
import { addressSpaceKb } from './cage.ts'
import { maxHeader, maxPayload } from './wire.ts'
import type { FromWorker, ToWorker } from './wire.ts'

/** A worker process that has run nothing yet. It serves one run and is killed. */
export interface Worker {
  readonly child: Child
  readonly pipe: Pipe<ToWorker>
  readonly cage: Cage
  /** What it was started for; where resource limits hold it, they cannot be raised any more. */
  readonly memoryMb: number
  /** Seconds of processor time that the kernel grants it, whoever watches or does not. */
  readonly cpuS: number
  /** Where its frames go; set by the run that took it. */
  take: (header: FromWorker, payload: Buffer) => void | Promise<void>
}

export interface PoolOptions {
  /** Workers kept waiting. */
  readonly size: number
  readonly env: Readonly<Record<string, string>>
  readonly cages: CageMaker
  /** Begins the name of every group made here. */
  readonly prefix: string
}

export interface Pool {
  /** A worker that is ready, for a run of so many megabytes and seconds of processor time. Rejects `target_unavailable`. */
  take(memoryMb: number, cpuS: number): Promise<Worker>
  /** Kills a worker and resolves when it is seen gone. */
  end(worker: Worker): Promise<void>
  /** Pids of the workers that wait for a run, or will soon. */
  readonly waiting: readonly number[]
  close(): Promise<void>
}

/** Megabytes a worker itself needs beside what its guest may have. */
export const workerShareMb = 96
const bootMs = 15_000
/** Seconds of processor time beyond those of its run after which the kernel ends a worker that nobody ends; then it kills. */
const bootCpuS = 10
const killCpuS = 5
/** A pause before a taken worker is replaced, so that its start does not compete with a short run that just began. */
const refillMs = 50

// Nothing of the machine is left to a worker that breaks out of V8 but what its user may do: no core, no file it could
// write, few descriptors. The shell becomes Node by `exec`, so the pid stays.
const limits = 'ulimit -c 0; ulimit -n 64; ulimit -f 0'

export function openPool(options: PoolOptions): Pool {
  let open = true
  let count = 0
  let lastMb = 256
  // Where it was raised once it stays so: a run that needs more than the worker that waits has to wait for another.
  let cpuS = 60
  const spares: Promise<Worker>[] = []
  const live = new Set<Worker>()
  const busy = new Set<Worker>()
  const removals = new Set<Promise<void>>()

  async function start(memoryMb: number): Promise<Worker> {
    const cage = options.cages.make(`${options.prefix}${process.pid}-${count++}`)
    cage.limit(memoryMb + workerShareMb)
    const shift = cage.joins.map((_, at) => `echo $$ > "$${at + 1}" || exit 97`).join('; ')
    const space = cage.kind === 'rlimit' ? `ulimit -v ${addressSpaceKb + memoryMb * 1024} 2>/dev/null` : ':'
    const own = cpuS + bootCpuS
    const cpu = `ulimit -S -t ${own}; ulimit -H -t ${own + killCpuS}`
    const script = `${shift === '' ? ':' : `${shift}; shift ${cage.joins.length}`}; ${limits}; ${cpu}; ${space}; exec "$@"`
    const node = [
      process.execPath,
      '--no-node-snapshot',
      '--disable-proto=delete',
      // Each thread has to be woken and ended before the worker is gone, and a run has little to share out among them.
      '--v8-pool-size=1',
      // Nor has anybody business with an inspector in there.
      '--disable-sigusr1',
      '--disable-wasm-trap-handler',
      // What strips types is WebAssembly that runs once: compiling it well costs 20 MB of an idle worker.
      '--liftoff-only',
      '--wasm-lazy-compilation',
      // What strips types needs no 4 GB of address space, which resource limits would not grant.
      '--wasm-max-mem-pages=4096',
      '--no-warnings',
    ]
    const child = startChild({
      command: '/bin/sh',
      args: [
        '-c',
        script,
        'writ-worker',
        ...cage.joins,
        ...node,
        siblingModule(import.meta.url, './worker'),
        String(memoryMb),
      ],
      env: options.env,
      cwd: '/',
    })
    if (child === null) {
      void cage.remove()
      throw new WritError('target_unavailable', 'the sandbox could not be started')
    }
    const { promise, resolve, reject } = Promise.withResolvers<Worker>()
    const worker: Worker = {
      child,
      cage,
      memoryMb,
      cpuS,
      pipe: openPipe<FromWorker, ToWorker>(child.stream, {
        check: checkFromWorker,
        maxHeader,
        maxPayload,
        take: (header, payload) => worker.take(header, payload),
      }),
      take(header) {
        if (header.t === 'ready') resolve(worker)
      },
    }
    live.add(worker)
    void worker.pipe.send({ t: 'rehearse' })
    const late = setTimeout(() => child.kill(), bootMs)
    void child.exited.then(() => {
      clearTimeout(late)
      live.delete(worker)
      // One that was taken keeps its group until `end`: the run asks it whether the kernel killed in there.
      if (!busy.delete(worker)) void cage.remove()
      reject(new WritError('target_unavailable', 'the sandbox did not start', { cause: child.complaint() }))
    })
    return await promise.finally(() => clearTimeout(late))
  }

  function fill(): void {
    for (let missing = open ? options.size - spares.length : 0; missing > 0; missing--) {
      const spare = start(lastMb)
      // A spare that dies while it waits is forgotten; the next run starts its own and hears why that fails.
      spare
        .then((worker) => worker.child.exited)
        .then(
          () => drop(spare),
          () => drop(spare),
        )
      spares.push(spare)
    }
  }

  function drop(spare: Promise<Worker>): void {
    const at = spares.indexOf(spare)
    if (at >= 0) void spares.splice(at, 1)
  }

  fill()
  return {
    async take(wanted, wantedCpuS) {
      if (!open) throw new WritError('target_unavailable', 'the sandbox is shutting down')
      lastMb = wanted
      cpuS = Math.max(cpuS, wantedCpuS)
      const spare = spares.shift()
      setTimeout(fill, refillMs).unref()
      let worker = await (spare ?? start(wanted)).catch(async () => await start(wanted))
      const tooSmall = worker.cpuS < wantedCpuS || (worker.cage.kind === 'rlimit' && worker.memoryMb < wanted)
      if (tooSmall) worker.child.kill()
      if (tooSmall || !live.has(worker)) worker = await start(wanted)
      try {
        if (worker.memoryMb !== wanted) worker.cage.limit(wanted + workerShareMb)
      } catch (failure) {
        // Nobody will end it, and its group goes with it.
        worker.child.kill()
        throw failure
      }
      busy.add(worker)
      return worker
    },
    async end(worker) {
      worker.child.kill()
      await worker.child.exited
      await worker.pipe.closed
      // The process is gone, which is what an outcome waits for; its empty group need not be.
      const removal = worker.cage.remove()
      removals.add(removal)
      void removal.then(() => removals.delete(removal))
    },
    get waiting() {
      return [...live].filter((worker) => !busy.has(worker)).map((worker) => worker.child.pid)
    },
    async close() {
      open = false
      await Promise.all([...live].map((worker) => this.end(worker)))
      await Promise.all(removals)
    },
  }
}

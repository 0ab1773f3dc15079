import { writeSync } from 'node:fs'
import { setInterval } from 'node:timers'
import { openPipe } from '../../execution/pipe.ts'
import { parentStream } from '../../execution/child.ts'
import { openGuest, openRehearsedGuest } from './guest.ts'
import type { Guest, GuestEnd } from './guest.ts'
import { openRequests } from './requests.ts'
import { maxHeader, maxPayload } from './wire.ts'
import type { FromWorker, ToWorker, WorkerJob } from './wire.ts'

/*
 * A worker process: waits with a warm isolate, takes one run, and is then ended by the run host. It holds no secret, and
 * its environment has none. When the run host is gone the worker goes too.
 */

const highWater = 1024 * 1024
const files = new Map<string, Buffer>()
const outputs = new Map<string, Buffer>()
let taken = false
let cpuAtStart = process.cpuUsage()

const pipe = openPipe<ToWorker, FromWorker>(parentStream(), {
  check: (header) => header as ToWorker,
  maxHeader,
  maxPayload,
  take(header, payload) {
    switch (header.t) {
      case 'rehearse':
        return prepare()
      case 'file':
        files.set(header.path, Buffer.from(payload))
        return
      case 'answer':
        requests.answered(
          header.id,
          header.status === 0 ? '' : JSON.stringify({ status: header.status, headers: header.headers }),
          payload,
        )
        return
      case 'go':
        if (taken) return
        taken = true
        void run(header.job).catch(() => process.abort())
        return
    }
  },
})
const requests = openRequests((frame, body) => void pipe.send(frame, body))
void pipe.closed.then(() => process.kill(process.pid, 'SIGKILL'))

/** V8 gave up on an isolate. The process cannot be used any more; a handler that returned would leave it asleep. */
function fatal(): void {
  void pipe.send({ t: 'end', why: 'memory' })
  writeSync(2, 'isolate out of memory\n')
  process.abort()
}

const memoryMb = Number(process.argv[2])
let spare: Guest | null = null

async function prepare(): Promise<void> {
  if (spare !== null || taken) return
  spare = await openRehearsedGuest(memoryMb, fatal)
  await pipe.send({ t: 'ready' })
}

async function run(job: WorkerJob): Promise<void> {
  cpuAtStart = process.cpuUsage()
  const watch = setInterval(() => {
    const used = process.cpuUsage(cpuAtStart)
    if (used.user + used.system > job.limits.cpu_s * 1_000_000) void pipe.send({ t: 'end', why: 'cpu' })
  }, 50)
  watch.unref()
  for (const [step, { argv, success }] of job.steps.entries()) {
    const [script = '', ...args] = argv
    void pipe.send({ t: 'started', step })
    const startedAt = performance.now()
    const fits = spare !== null && spare.memoryMb === job.limits.memory_mb
    if (!fits) spare?.dispose()
    const guest = fits && spare !== null ? spare : await openGuest(job.limits.memory_mb, fatal)
    spare = null
    const end: GuestEnd = await guest.run({
      entry: script.replace(/^\.\//, ''),
      files,
      outputs,
      begin: { env: job.env, args, stdin: step === 0 ? job.stdin : '', inputs: job.inputs, files: [...files.keys()] },
      limits: { outputs: job.limits.artifact_kb * 1024 },
      timeoutMs: job.limits.wall_s * 1000 + 1000,
      io: {
        print: (stream, text) => void pipe.send({ t: 'output', step, stream }, Buffer.from(text)),
        get congested() {
          return pipe.backlog > highWater
        },
        fetch: requests.fetch,
        unfetch: requests.unfetch,
      },
      room,
      answers: requests.begin,
    })
    if (end.why !== 'exited') {
      await pipe.send({ t: 'end', why: end.why })
      return
    }
    void pipe.send({
      t: 'exited',
      step,
      exit: end.exit,
      ms: Math.round(performance.now() - startedAt),
      reason: end.reason,
    })
    if (!success.includes(end.exit)) break
    if (step + 1 < job.steps.length) guest.dispose()
  }
  for (const [path, bytes] of outputs) await pipe.send({ t: 'artifact', path }, bytes)
  await pipe.send({ t: 'end', why: 'exited' })
  // The run host ends it anyway; the time until it hears the frame need not be waited for. An answer it sends to nobody
  // would end the pipe, with all in it that it has not read yet.
  if (!requests.pending) process.kill(process.pid, 'SIGKILL')
}

async function room(): Promise<void> {
  while (pipe.backlog > highWater / 4) await new Promise((resolve) => setTimeout(resolve, 1))
}

import { getCompileCacheDir } from 'node:module'
import { dirname } from 'node:path'
import type { Digest } from '../digest.ts'
import { WritError } from '../error.ts'
import type { ExecutionId } from '../id.ts'
import { siblingModule } from '../module.ts'
import type { Facts } from '../plan/plan.ts'
import { startChild, withoutCore } from './child.ts'
import type { Child } from './child.ts'
import { openDeadlines } from './deadline.ts'
import type { Deadlines, Patience } from './deadline.ts'
import type { DockerSettings } from './engine.ts'
import { checkFromHost, cut, maxHeader, maxPayload } from './host-wire.ts'
import type { FromHost, HostSettings, ToHost } from './host-wire.ts'
import type { RunEnd, RunHost } from './job.ts'
import { lost, lostBefore, openLive, takeFrame } from './live.ts'
import type { Live } from './live.ts'
import { openPipe } from './pipe.ts'
import type { Pipe } from './pipe.ts'

export interface RunHostOptions {
  /** Worker threads that answer phase `egress`. */
  readonly threads?: number
  /** Isolate workers kept warm. */
  readonly poolSize?: number
  /** The whole environment of the run host and of what it starts. */
  readonly env?: Readonly<Record<string, string>>
  /** How the container engine is reached; without it nothing runs in containers. */
  readonly docker?: DockerSettings | null
  /** Names this broker (letters, digits, `-`), so that a new run host sweeps what a dead one left and nothing else. */
  readonly owner?: string
  /** What is waited for before a run host is started that nobody asked anything of yet; nothing unless told. */
  readonly after?: Promise<unknown>
  /** Seconds before a run host that does not answer, or does not end a run, is killed. */
  readonly patience?: Patience
  /** Called when a run host ended that was not closed; `complaint` is for the operator's log only. */
  readonly onExit?: (code: number | null, complaint: string) => void
}

/** What a child process may know of the machine. */
export const scrubbedEnvironment: Readonly<Record<string, string>> = {
  PATH: '/usr/local/bin:/usr/bin:/bin',
  HOME: '/',
  LANG: 'C.UTF-8',
}

/** One run host process and what was asked of it. */
interface Host {
  readonly child: Child
  readonly pipe: Pipe<ToHost>
  readonly runs: Map<ExecutionId, Live>
  readonly questions: Map<number, (answer: { header: FromHost; payload: Buffer } | null) => void>
  readonly generations: Set<Digest>
  readonly deadlines: Deadlines
  /** Ends a run; told again by its end. */
  cancel(execution: ExecutionId): void
}

/** From a clone each process strips types itself; compiling what does that well would cost 20 MB for nothing. */
const sourceFlags = ['--liftoff-only', '--wasm-lazy-compilation']
const closeMs = 2000
/** A run host that has not answered a question by then does not. */
const answerMs = 60_000

/** Starts the run host and keeps one: where it died, the next call starts another. */
export function startRunHost(options: RunHostOptions = {}): RunHost {
  const settings: HostSettings = {
    threads: options.threads ?? 1,
    poolSize: options.poolSize ?? 1,
    docker: options.docker ?? null,
    owner: options.owner ?? `p${process.pid}`,
    env: options.env ?? scrubbedEnvironment,
  }
  let host: Host | null = null
  let open = true
  let last = 0

  function start(): Host | null {
    if (!open) return null
    const child = startChild({
      // It holds values: neither a core file nor an inspector is to have them.
      ...withoutCore(process.execPath, [
        '--disable-proto=delete',
        '--disable-sigusr1',
        '--no-warnings',
        ...(import.meta.url.endsWith('.ts') ? sourceFlags : []),
        siblingModule(import.meta.url, '../executor/host-main'),
        JSON.stringify(settings),
      ]),
      env: { ...settings.env, ...keptCode() },
      cwd: '/',
    })
    if (child === null) return null
    const runs: Host['runs'] = new Map()
    const questions: Host['questions'] = new Map()
    const pipe: Pipe<ToHost> = openPipe<FromHost, ToHost>(child.stream, {
      check: checkFromHost,
      maxHeader,
      maxPayload,
      take: (header, payload) => take(made, header, payload),
    })
    let blame = ''
    const deadlines = openDeadlines({
      ask: (execution) => made.cancel(execution),
      giveUp(why) {
        blame = why
        child.kill()
      },
      patience: options.patience,
    })
    const made: Host = {
      child,
      pipe,
      runs,
      questions,
      generations: new Set(),
      deadlines,
      cancel(execution) {
        deadlines.asked(execution)
        void pipe.send({ t: 'cancel', execution })
      },
    }
    void pipe.closed.then(async () => {
      // Whatever ended the pipe, a run host nobody listens to must not go on.
      if (host === made) host = null
      deadlines.close()
      // One that is told to close ends its workers and their groups first; `close` kills it where it takes too long.
      if (open) child.kill()
      const { code } = await child.exited
      for (const live of runs.values()) live.end(lost(live))
      runs.clear()
      for (const answer of questions.values()) answer(null)
      questions.clear()
      if (open) options.onExit?.(code, blame === '' ? child.complaint() : blame)
    })
    return made
  }

  function current(): Host | null {
    host ??= start()
    return host
  }

  async function ask(
    question: (id: number) => ToHost,
    payload?: Uint8Array,
  ): Promise<{ header: FromHost; payload: Buffer }> {
    const to = current()
    if (to === null) throw new WritError('run_host_lost', 'the run host could not be started')
    const id = ++last
    const answer = new Promise<{ header: FromHost; payload: Buffer } | null>((resolve) => to.questions.set(id, resolve))
    const late = setTimeout(() => to.questions.get(id)?.(null), answerMs)
    if (!(await to.pipe.send(question(id), payload))) to.questions.get(id)?.(null)
    const got = await answer
    clearTimeout(late)
    to.questions.delete(id)
    if (got === null) throw new WritError('run_host_lost', 'the run host ended before it answered')
    if (got.header.t === 'failed') throw new WritError(got.header.code, got.header.message)
    return got
  }

  if (options.after === undefined) current()
  else void options.after.then(() => current())
  return {
    get pid() {
      return host?.child.pid ?? null
    },
    async run(dispatch, files, events) {
      const { execution, plan } = dispatch.job
      const to = current()
      if (to === null || to.runs.has(execution)) return lostBefore()
      const { promise, resolve } = Promise.withResolvers<RunEnd>()
      to.runs.set(execution, openLive(dispatch, files, events, resolve))
      to.deadlines.begin(execution, plan.limits.wall_s)
      const generation = dispatch.generation
      if (!to.generations.has(generation.digest)) {
        to.generations.add(generation.digest)
        void to.pipe.send(
          {
            t: 'generation',
            number: generation.number,
            digest: generation.digest,
            packs: generation.packs.map(({ pack, layer, kind, digest, rules, module }) => ({
              pack,
              layer,
              kind,
              digest,
              rules,
              size: module.length,
            })),
          },
          Buffer.concat(generation.packs.map((pack) => pack.module)),
        )
      }
      const values = dispatch.secrets.map((secret) => secret.reveal())
      const payload = Buffer.concat(values)
      const sent = await to.pipe.send(
        {
          t: 'dispatch',
          job: dispatch.job,
          generation: generation.digest,
          egress_input: dispatch.egress_input,
          secrets: dispatch.secrets.map((secret, at) => ({ name: secret.name, size: values[at]?.length ?? 0 })),
        },
        payload,
      )
      for (const value of [payload, ...values]) value.fill(0)
      if (!sent && !to.runs.get(execution)?.started) {
        to.runs.delete(execution)
        to.deadlines.end(execution)
        // Its end is not told yet, and the next run must not be given to it.
        if (host === to) host = null
        return lostBefore()
      }
      return await promise
    },
    cancel(execution) {
      if (host?.runs.has(execution)) host.cancel(execution)
    },
    async check(images = []) {
      const { header } = await ask((id) => ({ t: 'check', id, images: [...images] }))
      return header.t === 'checked' ? header.results.map((result) => ({ ...result, facts: factsOf(result.facts) })) : []
    },
    async unpack(bytes) {
      const { header, payload } = await ask((id) => ({ t: 'unpack', id }), bytes)
      if (header.t !== 'unpacked') throw new WritError('internal', 'the run host answered something else')
      const parts = cut(
        payload,
        header.entries.map((entry) => entry.size),
      )
      if (parts === null) throw new WritError('internal', 'the run host answered with other sizes')
      return header.entries.map(({ path, executable }, at) => ({
        path,
        executable,
        bytes: parts[at] ?? Buffer.alloc(0),
      }))
    },
    async close() {
      open = false
      const ending = host
      if (ending === null) return
      ending.pipe.close()
      const late = setTimeout(() => ending.child.kill(), closeMs)
      await ending.child.exited
      clearTimeout(late)
    },
  }
}

/** A frame of the run host. A throw ends the pipe and with it the run host: it broke what it was told. */
function take(host: Host, header: FromHost, payload: Buffer): void {
  switch (header.t) {
    case 'checked':
    case 'unpacked':
    case 'failed':
      host.questions.get(header.id)?.({ header, payload: Buffer.from(payload) })
      return
    case 'heard':
      host.deadlines.heard(header.execution)
      return
    case 'started':
    case 'output':
    case 'file':
    case 'read':
    case 'ended': {
      const { execution } = header
      const live = host.runs.get(execution)
      if (live === undefined) return
      takeFrame(live, header, payload, (answer, bytes) => host.pipe.send(answer, bytes))
      if (header.t !== 'ended') return
      host.runs.delete(execution)
      host.deadlines.end(execution)
      return
    }
  }
}

/** Where this process keeps compiled code, the run host does too; what it starts in turn keeps none. */
function keptCode(): Readonly<Record<string, string>> {
  const folder = getCompileCacheDir()
  // The folder that is told is one of this version's, in the one that was given.
  return folder === undefined ? {} : { NODE_COMPILE_CACHE: dirname(folder) }
}

function factsOf(given: (FromHost & { t: 'checked' })['results'][number]['facts']): Facts | null {
  if (given === null) return null
  return { images: new Map(given.images.map((image) => [image.name, image])), runtimes: new Set(given.runtimes) }
}

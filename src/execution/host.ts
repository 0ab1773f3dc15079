import { getCompileCacheDir } from 'node:module'
import { dirname } from 'node:path'
import type { Digest } from '../digest.ts'
import { WritError } from '../error.ts'
import type { ExecutionId } from '../id.ts'
import { siblingModule } from '../module.ts'
import type { Facts, Plan } from '../plan/plan.ts'
import { startChild } from './child.ts'
import type { Child } from './child.ts'
import type { DockerSettings } from './engine.ts'
import { believed, checkFromHost, cut, maxHeader, maxPayload } from './host-wire.ts'
import type { FromHost, HostSettings, ToHost } from './host-wire.ts'
import { nothingCounted } from './job.ts'
import type { Dispatch, FileReader, RunEnd, RunEvents, RunHost } from './job.ts'
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
  /** Called when a run host ended that was not closed; `complaint` is for the operator's log only. */
  readonly onExit?: (code: number | null, complaint: string) => void
}

/** What a child process may know of the machine. */
export const scrubbedEnvironment: Readonly<Record<string, string>> = {
  PATH: '/usr/local/bin:/usr/bin:/bin',
  HOME: '/',
  LANG: 'C.UTF-8',
}

interface Live {
  readonly dispatch: Dispatch
  readonly files: FileReader
  readonly events: RunEvents
  readonly digests: ReadonlySet<Digest>
  readonly end: (end: RunEnd) => void
  /** Reads begun before the run host asked. */
  readonly early: Map<Digest, Promise<Uint8Array>>
  started: boolean
  output: number
  fileBytes: number
  fileCount: number
  readonly paths: Set<string>
}

/** One run host process and what was asked of it. */
interface Host {
  readonly child: Child
  readonly pipe: Pipe<ToHost>
  readonly runs: Map<ExecutionId, Live>
  readonly questions: Map<number, (answer: { header: FromHost; payload: Buffer } | null) => void>
  readonly generations: Set<Digest>
}

/** From a clone each process strips types itself; compiling what does that well would cost 20 MB for nothing. */
const sourceFlags = ['--liftoff-only', '--wasm-lazy-compilation']
const closeMs = 2000
/** A run host that has not answered a question by then does not. */
const answerMs = 60_000
const maxFiles = 1000
/** Bytes of all files of a run that is not worth waiting for. */
const maxEarly = 256 * 1024

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
      command: process.execPath,
      args: [
        '--disable-proto=delete',
        '--no-warnings',
        ...(import.meta.url.endsWith('.ts') ? sourceFlags : []),
        siblingModule(import.meta.url, '../executor/host-main'),
        JSON.stringify(settings),
      ],
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
    const made: Host = { child, pipe, runs, questions, generations: new Set() }
    void pipe.closed.then(async () => {
      // Whatever ended the pipe, a run host nobody listens to must not go on.
      if (host === made) host = null
      // One that is told to close ends its workers and their groups first; `close` kills it where it takes too long.
      if (open) child.kill()
      const { code } = await child.exited
      for (const live of runs.values()) live.end(lost(live))
      runs.clear()
      for (const answer of questions.values()) answer(null)
      questions.clear()
      if (open) options.onExit?.(code, child.complaint())
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
      const digests = new Set(plan.files.map((file) => file.sha256))
      to.runs.set(execution, {
        dispatch,
        files,
        events,
        digests,
        end: resolve,
        early: readEarly(plan, files),
        started: false,
        output: 0,
        fileBytes: 0,
        fileCount: 0,
        paths: new Set(),
      })
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
        // Its end is not told yet, and the next run must not be given to it.
        if (host === to) host = null
        return lostBefore()
      }
      return await promise
    },
    cancel(execution) {
      if (host?.runs.has(execution)) void host.pipe.send({ t: 'cancel', execution })
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
async function take(host: Host, header: FromHost, payload: Buffer): Promise<void> {
  switch (header.t) {
    case 'checked':
    case 'unpacked':
    case 'failed':
      host.questions.get(header.id)?.({ header, payload: Buffer.from(payload) })
      return
    case 'started':
    case 'output':
    case 'file':
    case 'read':
    case 'ended':
      break
  }
  const live = host.runs.get(header.execution)
  if (live === undefined) return
  const { plan } = live.dispatch.job
  switch (header.t) {
    case 'started':
      if (header.step >= plan.steps.length) throw new WritError('internal', 'a step the plan does not have')
      live.started = true
      live.events.started(header.step)
      return
    case 'output':
      live.output += payload.length
      if (header.step >= plan.steps.length || live.output > plan.limits.output_kb * 1024)
        throw new WritError('internal', 'more output than the limit')
      live.events.output(header.step, header.stream, payload)
      return
    case 'file': {
      live.fileBytes += payload.length
      live.fileCount++
      if (live.paths.has(header.path)) throw new WritError('internal', 'a file a second time')
      live.paths.add(header.path)
      if (live.fileBytes > plan.limits.artifact_kb * 1024 || live.fileCount > maxFiles)
        throw new WritError('internal', 'more files than the limit')
      const bytes = Buffer.from(payload)
      // Not awaited: storing one run's file must not hold up the others. The answer lets the run host go on.
      live.events
        .file(header.path, bytes)
        .then(
          () => host.pipe.send({ t: 'stored', id: header.id, ok: true }),
          () => host.pipe.send({ t: 'stored', id: header.id, ok: false }),
        )
        .catch(() => undefined)
      return
    }
    case 'read':
      if (!live.digests.has(header.digest)) throw new WritError('internal', 'a file the plan does not have')
      readOnce(live, header.digest)
        .then(
          (bytes) => host.pipe.send({ t: 'bytes', id: header.id, ok: true }, bytes),
          () => host.pipe.send({ t: 'bytes', id: header.id, ok: false }),
        )
        .catch(() => undefined)
      return
    case 'ended':
      live.end({
        outcome: believed(header, plan.steps, live.started),
        counts: header.counts,
        tests: header.tests,
      })
      host.runs.delete(header.execution)
      return
  }
}

/** Where this process keeps compiled code, the run host does too; what it starts in turn keeps none. */
function keptCode(): Readonly<Record<string, string>> {
  const folder = getCompileCacheDir()
  // The folder that is told is one of this version's, in the one that was given.
  return folder === undefined ? {} : { NODE_COMPILE_CACHE: dirname(folder) }
}

/** Small files are read while the dispatch is on its way. */
function readEarly(plan: Plan, files: FileReader): Map<Digest, Promise<Uint8Array>> {
  if (plan.files.reduce((sum, file) => sum + file.size, 0) > maxEarly) return new Map()
  return new Map(
    plan.files.map(({ sha256 }) => {
      const reading = files(sha256)
      // Told to whoever asks for it.
      reading.catch(() => undefined)
      return [sha256, reading]
    }),
  )
}

function readOnce(live: Live, digest: Digest): Promise<Uint8Array> {
  const early = live.early.get(digest)
  live.early.delete(digest)
  return early ?? live.files(digest)
}

/** A run whose host is gone: what was told to have started may have done anything. */
function lost(live: Live): RunEnd {
  if (!live.started) return lostBefore()
  return { outcome: { end: 'unknown', steps: [] }, counts: nothingCounted }
}

function lostBefore(): RunEnd {
  return {
    outcome: { end: 'not_started', error: new WritError('run_host_lost', 'the run host ended before the run began') },
    counts: nothingCounted,
  }
}

function factsOf(given: (FromHost & { t: 'checked' })['results'][number]['facts']): Facts | null {
  if (given === null) return null
  return { images: new Map(given.images.map((image) => [image.name, image])), runtimes: new Set(given.runtimes) }
}

import type { Digest } from '../digest.ts'
import { WritError } from '../error.ts'
import type { Plan } from '../plan/plan.ts'
import { believed } from './host-wire.ts'
import type { FromHost, ToHost } from './host-wire.ts'
import { nothingCounted } from './job.ts'
import type { Dispatch, FileReader, RunEnd, RunEvents } from './job.ts'
import type { Pipe } from './pipe.ts'

const maxFiles = 1000
/** Bytes of all files of a run that is not worth waiting for. */
const maxEarly = 256 * 1024

/** A run that a run host has, as the broker follows it: everything that comes of it is held against its plan. */
export interface Live {
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

/** A run that was just handed over. */
export function openLive(dispatch: Dispatch, files: FileReader, events: RunEvents, end: (end: RunEnd) => void): Live {
  const { plan } = dispatch.job
  return {
    dispatch,
    files,
    events,
    digests: new Set(plan.files.map((file) => file.sha256)),
    end,
    early: readEarly(plan, files),
    started: false,
    output: 0,
    fileBytes: 0,
    fileCount: 0,
    paths: new Set(),
  }
}

type FrameOfRun = Extract<FromHost, { t: 'started' | 'output' | 'file' | 'read' | 'ended' }>

/** A frame about a run. A throw means that the run host broke what it was told. */
export function takeFrame(live: Live, header: FrameOfRun, payload: Buffer, send: Pipe<ToHost>['send']): void {
  const { plan } = live.dispatch.job
  switch (header.t) {
    case 'started':
      if (header.step >= plan.steps.length) throw new WritError('internal', 'a step the plan does not have')
      live.started = true
      live.events.started(header.step)
      return
    case 'output':
      if (!live.started) throw new WritError('internal', 'output of what never began')
      live.output += payload.length
      if (header.step >= plan.steps.length || live.output > plan.limits.output_kb * 1024)
        throw new WritError('internal', 'more output than the limit')
      live.events.output(header.step, header.stream, payload)
      return
    case 'file': {
      if (!live.started) throw new WritError('internal', 'a file of what never began')
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
          () => send({ t: 'stored', id: header.id, ok: true }),
          () => send({ t: 'stored', id: header.id, ok: false }),
        )
        .catch(() => undefined)
      return
    }
    case 'read':
      if (!live.digests.has(header.digest)) throw new WritError('internal', 'a file the plan does not have')
      readOnce(live, header.digest)
        .then(
          (bytes) => send({ t: 'bytes', id: header.id, ok: true }, bytes),
          () => send({ t: 'bytes', id: header.id, ok: false }),
        )
        .catch(() => undefined)
      return
    case 'ended':
      live.end({
        outcome: believed(header, plan.steps, live.started),
        counts: header.counts,
        tests: header.tests,
      })
      return
  }
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
export function lost(live: Live): RunEnd {
  if (!live.started) return lostBefore()
  return { outcome: { end: 'unknown', steps: [] }, counts: nothingCounted }
}

export function lostBefore(): RunEnd {
  return {
    outcome: { end: 'not_started', error: new WritError('run_host_lost', 'the run host ended before the run began') },
    counts: nothingCounted,
  }
}

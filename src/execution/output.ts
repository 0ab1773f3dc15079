import { createHash } from 'node:crypto'
import { closeSync, constants, mkdirSync, openSync } from 'node:fs'
import { join } from 'node:path'
import type { Digest } from '../digest.ts'
import { WritError, systemCode } from '../error.ts'
import { parseId } from '../id.ts'
import type { ExecutionId } from '../id.ts'
import {
  droppedMark,
  droppedOf,
  failed,
  openSyncer,
  readIndex,
  readRange,
  record,
  segments,
  syncIfThere,
  withFile,
  writeAll,
} from './output-file.ts'
import { characterStart, showFrom, showTail, unfinished } from './visible.ts'

export interface OutputSummary {
  /** Bytes kept. */
  readonly bytes: number
  /** Bytes that came after the limit, or found no space. */
  readonly dropped_bytes: number
  /** Over the bytes kept, both streams in the order they came. */
  readonly sha256: Digest
}

export interface OutputWriter {
  /** Never throws: what cannot be kept is dropped and counted. Readable at once. */
  write(step: number, stream: 'stdout' | 'stderr', bytes: Uint8Array): void
  /** True once something was dropped; all that follows is dropped too. */
  readonly full: boolean
  /** Resolves when every byte kept is on disk. Rejects `ledger_unavailable` where the disk refuses that. */
  close(): Promise<OutputSummary>
}

export interface OutputPage {
  /** Untrusted: made visible, never interpreted. At most as many bytes of UTF-8 as were asked for. */
  readonly text: string
  readonly cursor: string
  readonly more: boolean
  readonly dropped_bytes: number
}

/** What runs printed, already redacted. No steps of the ledger: the digest in the outcome is what accounts for them. */
export interface OutputStore {
  /** Takes each execution once; throws `conflict` for a second writer. `limit` in bytes, both streams together. */
  writer(execution: ExecutionId, limit: number): OutputWriter
  /**
   * A page of the output (docs/mcp.md `cursor`): null is the last 2 KiB, `start` the beginning, a returned
   * cursor what follows it, as often as asked and after a restart too. Throws `invalid_arguments` for any other cursor.
   */
  read(execution: ExecutionId, cursor: string | null, maxBytes: number): OutputPage
  /** The end of one step's output (from 0), or of the whole where `step` is null. */
  tail(execution: ExecutionId, step: number | null, maxBytes: number): string
  /** Of a run whose broker died: what is left of it, synced. For one that never printed, the summary of nothing. */
  summary(execution: ExecutionId): Promise<OutputSummary>
  /** Resolves at the next write or end of the execution's output, or when the signal aborts. */
  changed(execution: ExecutionId, signal: AbortSignal): Promise<void>
}

/** What a reader without a cursor sees: enough for the end of an error. */
const lastBytes = 2048
/** Pages kept at once, of 2 KiB. */
const mostEnds = 256
/** Changes of stream that the end of an output is looked for in. */
const mostSegments = 16_384
const streams = ['stdout', 'stderr'] as const

/**
 * Two files per execution, 0600 in 0700: `<id>.out` holds the bytes, `<id>.idx` says which step and stream they are of.
 * An index record is written before its bytes, so after a crash every byte that is there can be read.
 */
export function openOutputStore(dir: string): OutputStore {
  try {
    mkdirSync(dir, { recursive: true, mode: 0o700 })
  } catch (error) {
    throw failed(error)
  }
  const waiting = new Map<ExecutionId, Set<() => void>>()
  const writing = new Set<ExecutionId>()
  /** Last pages of outputs that nobody writes: they stay what they are, and are asked for again and again. */
  const ends = new Map<string, OutputPage>()

  function wake(execution: ExecutionId): void {
    const woken = waiting.get(execution)
    waiting.delete(execution)
    for (const go of woken ?? []) go()
  }

  function paths(execution: ExecutionId): { readonly bytes: string; readonly index: string } {
    if (parseId('exec', execution) === null) throw new WritError('not_found', 'there is no such execution')
    return { bytes: join(dir, `${execution}.out`), index: join(dir, `${execution}.idx`) }
  }

  return {
    writer(execution, limit) {
      const made = createWriter(dir, paths(execution), limit, {
        wake: () => wake(execution),
        ended: () => void writing.delete(execution),
      })
      writing.add(execution)
      ends.clear()
      return made
    },
    read(execution, cursor, maxBytes) {
      if (cursor !== null || writing.has(execution)) return readPage(paths(execution), cursor, maxBytes)
      const of = `${execution} ${String(maxBytes)}`
      const known = ends.get(of)
      if (known !== undefined) return known
      const page = readPage(paths(execution), null, maxBytes)
      if (ends.size >= mostEnds) ends.clear()
      ends.set(of, page)
      return page
    },
    tail(execution, step, maxBytes) {
      const { bytes, index } = paths(execution)
      return withFile(bytes, (file, size) => {
        const parts: Buffer[] = []
        let left = maxBytes
        for (const segment of segments(readIndex(index, mostSegments), size).toReversed()) {
          if (left <= 0) break
          if (step !== null && segment.step !== step) continue
          const part = readRange(file, Math.max(segment.from, segment.to - left), segment.to)
          parts.unshift(part)
          left -= part.length
        }
        const window = Buffer.concat(parts)
        return showTail(window.subarray(left <= 0 ? characterStart(window, 0) : 0), maxBytes)
      })
    },
    async summary(execution) {
      const { bytes, index } = paths(execution)
      await syncIfThere(bytes)
      const hash = createHash('sha256')
      return withFile(bytes, (file, size) => {
        for (let at = 0; at < size; at += 1 << 16) hash.update(readRange(file, at, Math.min(size, at + (1 << 16))))
        return {
          bytes: size,
          dropped_bytes: droppedOf(readIndex(index)),
          sha256: `sha256:${hash.digest('hex')}` as Digest,
        }
      })
    },
    async changed(execution, signal) {
      if (signal.aborted) return
      await new Promise<void>((resolve) => {
        const set = waiting.get(execution) ?? new Set()
        const go = () => {
          set.delete(go)
          if (set.size === 0 && waiting.get(execution) === set) waiting.delete(execution)
          signal.removeEventListener('abort', go)
          resolve()
        }
        set.add(go)
        waiting.set(execution, set)
        signal.addEventListener('abort', go, { once: true })
      })
    },
  }
}

function readPage({ bytes, index }: Paths, cursor: string | null, maxBytes: number): OutputPage {
  const from = cursor === null ? null : parseCursor(cursor)
  return withFile(bytes, (file, size) => {
    // Once something was dropped, nothing but what was dropped is written any more.
    const dropped_bytes = droppedOf(readIndex(index, 1))
    if (from === null) {
      const shown = Math.min(lastBytes, maxBytes)
      // One byte more than is shown says whether the page begins with a line.
      const window = readRange(file, Math.max(0, size - shown - 1), size)
      const whole = size <= shown ? 0 : lineStart(window)
      return {
        text: showTail(window.subarray(whole), maxBytes),
        cursor: cursorAt(size),
        more: false,
        dropped_bytes,
      }
    }
    // A cut of power may have taken bytes that were never synced; what is left is read on from its end.
    const start = Math.min(from, size)
    const window = readRange(file, start, Math.min(size, start + maxBytes + 4))
    const whole = start + window.length < size ? window.length - unfinished(window) : window.length
    const { text, used } = showFrom(window.subarray(0, whole), maxBytes)
    return { text, cursor: cursorAt(start + used), more: start + used < size, dropped_bytes }
  })
}

/** The first whole line of what was cut out of an output; where that would leave out half of it, the first whole character. */
function lineStart(window: Buffer): number {
  const end = window.indexOf(0x0a)
  return end >= 0 && end < window.length / 2 ? end + 1 : characterStart(window, 1)
}

interface Paths {
  readonly bytes: string
  readonly index: string
}

function createWriter(
  dir: string,
  { bytes: path, index: indexPath }: Paths,
  limit: number,
  { wake, ended }: { readonly wake: () => void; readonly ended: () => void },
): OutputWriter {
  const hash = createHash('sha256')
  const files = create(path, indexPath)
  const syncer = files === null ? null : openSyncer([files.bytes, files.index], dir)
  // A character may arrive in two pieces with the other stream's bytes between them; its beginning is held back.
  const held = new Map<
    string,
    { readonly step: number; readonly stream: 'stdout' | 'stderr'; readonly bytes: Buffer }
  >()
  let last = ''
  let size = 0
  let dropped = 0
  let closed = false

  function keep(step: number, stream: 'stdout' | 'stderr', bytes: Buffer): void {
    if (bytes.length === 0) return
    const room = dropped > 0 || files === null ? 0 : limit - size
    const cut = bytes.length <= room ? bytes : bytes.subarray(0, Math.max(0, room))
    const kept = cut.length < bytes.length ? cut.subarray(0, cut.length - unfinished(cut)) : cut
    const written = files === null || kept.length === 0 ? 0 : store(files, step, stream, kept)
    size += written
    hash.update(kept.subarray(0, written))
    if (written < bytes.length) drop(bytes.length - written)
  }

  function store(to: Files, step: number, stream: 'stdout' | 'stderr', bytes: Buffer): number {
    const segment = `${step} ${stream}`
    if (segment !== last) {
      if (!writeAll(to.index, record(streams.indexOf(stream), step, size)).whole) return 0
      last = segment
    }
    syncer?.touch()
    return writeAll(to.bytes, bytes).written
  }

  function drop(count: number): void {
    const before = dropped
    dropped += count
    // Said at once and again at the end: a crash in between loses the count, never the fact.
    if (before === 0 && files !== null) writeAll(files.index, record(droppedMark, 0, dropped))
    syncer?.touch()
  }

  return {
    get full() {
      return dropped > 0
    },
    write(step, stream, bytes) {
      if (closed) {
        dropped += bytes.length
        return
      }
      const key = `${step} ${stream}`
      const joined = Buffer.concat([held.get(key)?.bytes ?? Buffer.alloc(0), bytes])
      const rest = unfinished(joined)
      if (rest === 0) held.delete(key)
      else held.set(key, { step, stream, bytes: joined.subarray(joined.length - rest) })
      keep(step, stream, joined.subarray(0, joined.length - rest))
      wake()
    },
    async close() {
      if (closed) throw new WritError('internal', 'this output is closed already')
      closed = true
      for (const { step, stream, bytes } of held.values()) keep(step, stream, bytes)
      if (files !== null) {
        if (dropped > 0) writeAll(files.index, record(droppedMark, 0, dropped))
        if (dropped > 0) syncer?.touch()
        try {
          await syncer?.finish()
        } finally {
          closeSync(files.bytes)
          closeSync(files.index)
        }
      }
      ended()
      wake()
      return { bytes: size, dropped_bytes: dropped, sha256: `sha256:${hash.digest('hex')}` as Digest }
    },
  }
}

interface Files {
  readonly bytes: number
  readonly index: number
}

/** Null where the disk has no room for two more files: the run goes on, its output is dropped and counted. */
function create(path: string, indexPath: string): Files | null {
  const opened: number[] = []
  try {
    for (const name of [path, indexPath])
      opened.push(openSync(name, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_APPEND, 0o600))
    return { bytes: opened[0] ?? -1, index: opened[1] ?? -1 }
  } catch (error) {
    for (const file of opened) closeSync(file)
    if (systemCode(error) === 'EEXIST') throw new WritError('conflict', 'this execution has output already')
    if (failed(error).code === 'no_space') return null
    throw failed(error)
  }
}

/** Opaque to callers: the offset of the next byte. It grants nothing, so it needs no secret. */
function cursorAt(offset: number): string {
  return `c${offset.toString(36)}`
}

function parseCursor(cursor: string): number {
  if (cursor === 'start') return 0
  const offset = /^c[0-9a-z]{1,10}$/.test(cursor) ? Number.parseInt(cursor.slice(1), 36) : Number.NaN
  if (!Number.isSafeInteger(offset))
    throw new WritError('invalid_arguments', '"cursor" must be one that an earlier answer gave, or "start"')
  return offset
}

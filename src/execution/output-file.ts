import { closeSync, constants, fstatSync, fsync, openSync, readSync, writeSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { promisify } from 'node:util'
import { WritError, systemCode } from '../error.ts'

/** The two files of an execution's output: `<id>.out` and the index of its segments, `<id>.idx`. */

/** 16 bytes: what (0 stdout, 1 stderr, 2 dropped so far), step, then the offset or the count. */
const recordBytes = 16
export const droppedMark = 2

export function record(what: number, step: number, value: number): Buffer {
  const bytes = Buffer.alloc(recordBytes)
  bytes.writeUInt8(what, 0)
  bytes.writeUInt32BE(step, 4)
  bytes.writeBigUInt64BE(BigInt(value), 8)
  return bytes
}

export interface IndexRecord {
  readonly what: number
  readonly step: number
  readonly value: number
}

/** The records of an index, or the last `most` of them: a run that changes its stream with each byte writes very many. */
export function readIndex(path: string, most: number = Number.MAX_SAFE_INTEGER): readonly IndexRecord[] {
  return withFile(path, (file, size) => {
    // A record that a crash cut short is no record.
    const end = size - (size % recordBytes)
    const bytes = readRange(file, Math.max(0, end - most * recordBytes), end)
    const records: IndexRecord[] = []
    for (let at = 0; at + recordBytes <= bytes.length; at += recordBytes)
      records.push({
        what: bytes.readUInt8(at),
        step: bytes.readUInt32BE(at + 4),
        value: Number(bytes.readBigUInt64BE(at + 8)),
      })
    return records
  })
}

export function droppedOf(records: readonly IndexRecord[]): number {
  return records.findLast(({ what }) => what === droppedMark)?.value ?? 0
}

export function segments(
  records: readonly IndexRecord[],
  size: number,
): readonly { readonly step: number; readonly from: number; readonly to: number }[] {
  const starts = records.filter(({ what }) => what !== droppedMark)
  return starts.map(({ step, value }, i) => ({
    step,
    from: Math.min(value, size),
    to: Math.min(starts[i + 1]?.value ?? size, size),
  }))
}

/** A file that is not there is an empty one: an execution that never ran has printed nothing. */
export function withFile<T>(path: string, use: (file: number | null, size: number) => T): T {
  let file: number | null = null
  try {
    file = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW)
  } catch (error) {
    if (systemCode(error) !== 'ENOENT') throw failed(error)
  }
  try {
    return use(file, file === null ? 0 : fstatSync(file).size)
  } finally {
    if (file !== null) closeSync(file)
  }
}

export function readRange(file: number | null, from: number, to: number): Buffer {
  const bytes = Buffer.alloc(Math.max(0, to - from))
  if (file === null) return bytes.subarray(0, 0)
  let read = 0
  while (read < bytes.length) {
    const got = readSync(file, bytes, read, bytes.length - read, from + read)
    if (got === 0) break
    read += got
  }
  return bytes.subarray(0, read)
}

export function writeAll(file: number, bytes: Uint8Array): { readonly written: number; readonly whole: boolean } {
  let written = 0
  try {
    while (written < bytes.length) written += writeSync(file, bytes, written)
  } catch (error) {
    // A run must not end because its output found no room: the bytes count as dropped, whatever the disk said.
    if (systemCode(error) === null) throw error
  }
  return { written, whole: written === bytes.length }
}

/** Brings to disk what is written, while more of it is written: little is left to wait for at the end. */
export interface Syncer {
  /** Something was written. */
  touch(): void
  /** Resolves when all of it is on disk. Rejects `ledger_unavailable` where any part of it could not be brought there. */
  finish(): Promise<void>
}

/** Milliseconds that more of the same burst is waited for. */
const burstMs = 1
/** Milliseconds between one sync and the next of a run that goes on printing. */
const pauseMs = 250

/** Over open files that were made in `folder`. */
export function openSyncer(files: readonly number[], folder: string): Syncer {
  let dirty = false
  let named = false
  let running: Promise<void> | null = null
  let timer: NodeJS.Timeout | null = null
  // The system tells of a lost write once: it counts, whatever a later sync says.
  let failure: unknown = null

  async function sync(): Promise<void> {
    dirty = false
    const whole = named ? [] : [syncIfThere(folder)]
    named = true
    try {
      await Promise.all([...files.map(async (file) => await flushed(file)), ...whole])
    } catch (error) {
      failure ??= error
    }
  }

  function ahead(ms: number): void {
    if (timer !== null || running !== null) return
    timer = setTimeout(() => {
      timer = null
      running = sync().finally(() => {
        running = null
        if (dirty) ahead(pauseMs)
      })
    }, ms)
    timer.unref()
  }

  return {
    touch() {
      dirty = true
      ahead(burstMs)
    },
    async finish() {
      await running
      if (timer !== null) clearTimeout(timer)
      timer = null
      if (dirty) await sync()
      if (failure !== null) throw failed(failure)
    },
  }
}

const flushed = promisify(fsync)

export async function syncIfThere(path: string): Promise<void> {
  try {
    const handle = await open(path, 'r')
    try {
      await handle.sync()
    } finally {
      await handle.close()
    }
  } catch (error) {
    if (systemCode(error) !== 'ENOENT') throw failed(error)
  }
}

export function failed(error: unknown): WritError {
  if (error instanceof WritError) return error
  if (systemCode(error) === 'ENOSPC' || systemCode(error) === 'EDQUOT')
    return new WritError('no_space', 'the disk that holds the output is full', { cause: error })
  return new WritError('ledger_unavailable', 'the output cannot be read or written', { cause: error })
}

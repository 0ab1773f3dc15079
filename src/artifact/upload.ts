import { createHash } from 'node:crypto'
import { open, readFile, rm } from 'node:fs/promises'
import type { FileHandle } from 'node:fs/promises'
import type { Digest } from '../digest.ts'
import { WritError, systemCode } from '../error.ts'
import type { Upload } from './artifact.ts'

/** What may gather while a write is under way, in bytes and in pieces; with it full the source waits. */
const gatherBytes = 1024 * 1024
const gatherPieces = 512

/**
 * An upload into a file of its own beside the artifacts. What arrives while a write is under way is hashed and gathered
 * for the next; memory holds two such gatherings, and a slow disk slows the sender.
 * @param settle moves the finished file to where its digest names it
 */
export function openUpload(path: string, settle: (path: string, digest: Digest) => Promise<void>): Upload {
  let file: FileHandle | null = null
  let hash = createHash('sha256')
  let offset = 0
  let digest: Digest | null = null

  async function drop(): Promise<void> {
    const opened = file
    file = null
    hash = createHash('sha256')
    offset = 0
    digest = null
    await opened?.close()
    await rm(path, { force: true })
  }

  return {
    get offset() {
      return offset
    },
    async append(pieces, most) {
      if (digest !== null) throw new WritError('internal', 'an upload that is finished takes no more')
      let left = most
      let cut: { readonly failure: unknown } | null = null
      let writer: Writer
      try {
        file ??= await open(path, 'wx', 0o600)
        writer = openWriter(file, offset, (to) => (offset = to))
      } catch (failure) {
        throw storeFailure(failure)
      }
      try {
        for await (const piece of pieces) {
          if (piece.length > left) throw new WritError('too_large', 'more bytes came than were announced')
          left -= piece.length
          hash.update(piece)
          await writer.put(piece)
        }
      } catch (failure) {
        cut = { failure }
      }
      try {
        await writer.end()
      } catch (failure) {
        // What the hash has seen and what the disk has differ now.
        await drop()
        throw storeFailure(failure)
      }
      if (cut !== null) throw cut.failure
    },
    async finish() {
      try {
        file ??= await open(path, 'wx', 0o600)
        await file.sync()
        digest ??= `sha256:${hash.digest('hex')}` as Digest
        return digest
      } catch (failure) {
        await drop()
        throw storeFailure(failure)
      }
    },
    async read() {
      return await readFile(path)
    },
    async keep() {
      if (digest === null || file === null) throw new WritError('internal', 'an upload that is not finished')
      try {
        const kept = digest
        const opened = file
        file = null
        await opened.close()
        await settle(path, kept)
      } catch (failure) {
        await drop()
        throw storeFailure(failure)
      }
    },
    discard: drop,
  }
}

interface Writer {
  /** Rejects what a write failed with, and then writes no more. */
  put(piece: Uint8Array): Promise<void>
  /** Resolves when everything is written. */
  end(): Promise<void>
}

/** One write at a time, in order; `wrote` hears how far the file reaches. */
function openWriter(file: FileHandle, from: number, wrote: (to: number) => void): Writer {
  let gathered: Uint8Array[] = []
  let bytes = 0
  let at = from
  let writing: Promise<void> | null = null
  let failed: { readonly failure: unknown } | null = null

  async function write(): Promise<void> {
    try {
      while (gathered.length > 0) {
        let pieces = gathered
        gathered = []
        bytes = 0
        while (pieces.length > 0) {
          const { bytesWritten } = await file.writev(pieces, at)
          at += bytesWritten
          wrote(at)
          pieces = after(pieces, bytesWritten)
        }
      }
    } catch (failure) {
      failed = { failure }
    } finally {
      writing = null
    }
  }

  async function settled(): Promise<void> {
    await writing
    if (failed !== null) throw failed.failure
  }

  return {
    async put(piece) {
      if (failed !== null) throw failed.failure
      if (piece.length === 0) return
      gathered.push(piece)
      bytes += piece.length
      writing ??= write()
      if (bytes >= gatherBytes || gathered.length >= gatherPieces) await settled()
    },
    end: settled,
  }
}

/** What is left of the pieces after so many bytes of them were written. */
function after(pieces: Uint8Array[], written: number): Uint8Array[] {
  let left = written
  const rest = pieces.findIndex((piece) => (left -= piece.length) < 0)
  if (rest < 0) return []
  const first = pieces[rest] ?? new Uint8Array()
  return [first.subarray(first.length + left), ...pieces.slice(rest + 1)]
}

/** Names no path: the message may reach a caller. What the source of the bytes threw passes as it is. */
export function storeFailure(error: unknown): unknown {
  if (error instanceof WritError || systemCode(error) === null) return error
  if (systemCode(error) === 'ENOSPC' || systemCode(error) === 'EDQUOT')
    return new WritError('no_space', 'the disk that holds the artifacts is full', { cause: error })
  return new WritError('ledger_unavailable', 'the artifacts cannot be read or written', { cause: error })
}

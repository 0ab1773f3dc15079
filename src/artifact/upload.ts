import { createHash } from 'node:crypto'
import { open, readFile, rm } from 'node:fs/promises'
import type { FileHandle } from 'node:fs/promises'
import type { Digest } from '../digest.ts'
import { WritError, systemCode } from '../error.ts'
import type { Upload } from './artifact.ts'

/**
 * An upload into a file of its own beside the artifacts. A piece is hashed while the one before it is being written, and
 * the next is taken only when that is done: memory holds two pieces, and a slow disk slows the sender.
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

  async function write(to: FileHandle, piece: Uint8Array): Promise<void> {
    for (let at = 0; at < piece.length;) at += (await to.write(piece, at, piece.length - at, offset + at)).bytesWritten
    offset += piece.length
  }

  return {
    get offset() {
      return offset
    },
    async append(pieces, most) {
      if (digest !== null) throw new WritError('internal', 'an upload that is finished takes no more')
      let left = most
      let writing: Promise<void> = Promise.resolve()
      let cut: unknown = null
      try {
        const to = (file ??= await open(path, 'wx', 0o600))
        for await (const piece of pieces) {
          if (piece.length > left) throw new WritError('too_large', 'more bytes came than were announced')
          left -= piece.length
          hash.update(piece)
          await writing
          writing = write(to, piece)
          // Awaited below or in the next turn; until then its failure has nobody to hear it.
          writing.catch(() => undefined)
        }
      } catch (failure) {
        cut = failure
      }
      try {
        await writing
      } catch (failure) {
        // What the hash has seen and what the disk has differ now.
        await drop()
        throw storeFailure(failure)
      }
      if (file === null) throw storeFailure(cut)
      if (cut !== null) throw cut
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

/** Names no path: the message may reach a caller. What the source of the bytes threw passes as it is. */
export function storeFailure(error: unknown): unknown {
  if (error instanceof WritError || systemCode(error) === null) return error
  if (systemCode(error) === 'ENOSPC' || systemCode(error) === 'EDQUOT')
    return new WritError('no_space', 'the disk that holds the artifacts is full', { cause: error })
  return new WritError('ledger_unavailable', 'the artifacts cannot be read or written', { cause: error })
}

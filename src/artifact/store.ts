import { createHash, randomBytes } from 'node:crypto'
import { constants, lstatSync, mkdirSync, readdirSync, rmSync, unlinkSync, utimesSync } from 'node:fs'
import { mkdir, open, readdir, rename, rm, statfs } from 'node:fs/promises'
import type { FileHandle } from 'node:fs/promises'
import { join } from 'node:path'
import { digestOf, parseDigest } from '../digest.ts'
import type { Digest } from '../digest.ts'
import { WritError, systemCode } from '../error.ts'
import type { ArtifactStore } from './artifact.ts'
import { openUpload, storeFailure as failed } from './upload.ts'

const incoming = '.incoming-'

/**
 * Artifacts as files named by their digest: `<first two digits>/<64 digits>`, 0600 in 0700. Bytes are hashed while they
 * arrive in a file of another name, synced, and only then take their place, so a name never stands for half of its
 * bytes. What a crash left half written is removed here, which is why only one broker may have the folder open.
 */
export function openFileStore(dir: string): ArtifactStore {
  try {
    mkdirSync(dir, { recursive: true, mode: 0o700 })
    for (const name of readdirSync(dir)) if (name.startsWith(incoming)) rmSync(join(dir, name), { force: true })
  } catch (error) {
    throw failed(error)
  }

  async function settle(from: string, digest: Digest): Promise<void> {
    const hex = digest.slice('sha256:'.length)
    const folder = join(dir, hex.slice(0, 2))
    await mkdir(folder, { recursive: true, mode: 0o700 })
    // Taking the place of equal bytes is harmless, and mends what a bad disk did to the earlier copy.
    await rename(from, join(folder, hex))
    await sync(folder)
    await sync(dir)
  }

  /** A digest from outside names a file only in its one exact form. */
  function placeOf(digest: Digest): string | null {
    const hex = parseDigest(digest)?.slice('sha256:'.length)
    return hex === undefined ? null : join(dir, hex.slice(0, 2), hex)
  }

  async function openFile(digest: Digest): Promise<{ readonly file: FileHandle; readonly size: number }> {
    const place = placeOf(digest)
    if (place === null) throw missing()
    let file: FileHandle
    try {
      file = await open(place, constants.O_RDONLY | constants.O_NOFOLLOW)
    } catch (error) {
      throw systemCode(error) === 'ENOENT' ? missing() : failed(error)
    }
    const stat = await file.stat()
    if (stat.isFile()) return { file, size: stat.size }
    await file.close()
    throw missing()
  }

  return {
    async put(bytes, limit) {
      const path = join(dir, incoming + randomBytes(12).toString('hex'))
      try {
        const stored = await receive(path, bytes, limit)
        await settle(path, stored.sha256)
        return stored
      } catch (error) {
        await rm(path, { force: true })
        throw failed(error)
      }
    },
    async open(digest, from = 0) {
      const { file } = await openFile(digest)
      return file.createReadStream({ start: from })
    },
    async read(digest, limit) {
      const { file, size } = await openFile(digest)
      try {
        if (size > limit) throw new WritError('too_large', 'the artifact is larger than what may be read of it at once')
        const bytes = await file.readFile()
        if (digestOf(bytes) !== digest) throw new WritError('ledger_corrupt', 'an artifact is not what its digest says')
        return bytes
      } catch (error) {
        throw failed(error)
      } finally {
        await file.close()
      }
    },
    async size(digest) {
      try {
        const { file, size } = await openFile(digest)
        await file.close()
        return size
      } catch (error) {
        if (error instanceof WritError && error.code === 'not_found') return null
        throw error
      }
    },
    receive: () => openUpload(join(dir, incoming + randomBytes(12).toString('hex')), settle),
    hold(digest) {
      const place = placeOf(digest)
      if (place === null) return null
      try {
        const stat = lstatSync(place)
        if (!stat.isFile()) return null
        utimesSync(place, new Date(), new Date())
        return stat.size
      } catch (error) {
        if (systemCode(error) === 'ENOENT') return null
        throw failed(error)
      }
    },
    async room() {
      const disk = await statfs(dir)
      return disk.bavail * disk.bsize
    },
    async *list() {
      for (const folder of (await readdir(dir)).filter((name) => /^[0-9a-f]{2}$/.test(name)))
        for (const name of await readdir(join(dir, folder))) {
          const digest = parseDigest(`sha256:${name}`)
          if (digest !== null && name.startsWith(folder)) yield digest
        }
    },
    // Looked at and removed in one go, so that no `hold` comes in between.
    removeStoredBefore(digest, beforeMs) {
      const place = placeOf(digest)
      if (place === null) return false
      try {
        if (!(lstatSync(place).mtimeMs < beforeMs)) return false
        unlinkSync(place)
        return true
      } catch (error) {
        if (systemCode(error) === 'ENOENT') return false
        throw failed(error)
      }
    },
  }
}

async function receive(
  path: string,
  bytes: AsyncIterable<Uint8Array>,
  limit: number,
): Promise<{ readonly sha256: Digest; readonly size: number }> {
  const hash = createHash('sha256')
  let size = 0
  const file = await open(path, 'wx', 0o600)
  try {
    for await (const chunk of bytes) {
      size += chunk.length
      if (size > limit) throw new WritError('too_large', `the file is larger than ${limit} bytes`)
      hash.update(chunk)
      await file.writeFile(chunk)
    }
    await file.sync()
  } finally {
    await file.close()
  }
  return { sha256: `sha256:${hash.digest('hex')}` as Digest, size }
}

async function sync(folder: string): Promise<void> {
  const handle = await open(folder, 'r')
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}

function missing(): WritError {
  return new WritError('not_found', 'there are no bytes of this digest')
}

import { closeSync, fsyncSync, openSync, rmSync, statSync, statfsSync, truncateSync, writeSync } from 'node:fs'
import { randomBytes } from 'node:crypto'
import { dirname, join } from 'node:path'
import { WritError, systemCode } from '../../error.ts'

type Room = 'ok' | 'low'

/**
 * Room that is kept back so that what is running can still be accounted for when the disk is full: a file of real bytes
 * beside the ledger, given up when a commit finds no space, and taken again once twice as much is free.
 */
export interface Reserve {
  /** `low` where less than the reserve is free beside it, or where it is not held. */
  room(): Room
  /** Gives the reserve up; false where it was not held (an operator in need may have removed it). */
  release(): boolean
  /** True where next to nothing is free: an input or output error then means that. */
  exhausted(): boolean
}

export function openReserve(ledger: string, bytes: number): Reserve {
  const folder = dirname(ledger)
  const path = join(folder, 'reserve')

  function free(): number {
    const { bavail, bsize } = statfsSync(folder)
    return bavail * bsize
  }

  function take(): void {
    if (isWhole(path, bytes) || free() < bytes * 2) return
    try {
      const file = openSync(path, 'w', 0o600)
      try {
        // Random bytes: a file system that compresses would keep no room for zeros.
        const block = randomBytes(Math.min(bytes, 1 << 20))
        for (let left = bytes; left > 0; left -= block.length) writeSync(file, block, 0, Math.min(left, block.length))
        fsyncSync(file)
      } finally {
        closeSync(file)
      }
    } catch (error) {
      rmSync(path, { force: true })
      if (systemCode(error) !== 'ENOSPC' && systemCode(error) !== 'EDQUOT')
        throw new WritError('ledger_unavailable', 'the reserve of the ledger cannot be written', { cause: error })
    }
  }

  take()
  return {
    room() {
      take()
      return isWhole(path, bytes) && free() >= bytes ? 'ok' : 'low'
    },
    release() {
      const held = isWhole(path, bytes)
      // Emptied before it is removed: the space is back even where the removal has to wait.
      if (held) truncateSync(path)
      rmSync(path, { force: true })
      return held
    },
    exhausted: () => free() < 1 << 16,
  }
}

function isWhole(path: string, bytes: number): boolean {
  const found = statSync(path, { throwIfNoEntry: false })
  return found !== undefined && found.isFile() && found.size >= bytes && found.blocks * 512 >= bytes
}

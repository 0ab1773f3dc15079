import { closeSync, mkdirSync, openSync } from 'node:fs'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { WritError, systemCode } from '../../error.ts'
import { failureOf } from './database.ts'

/**
 * Created, never opened where it exists: closing any descriptor of a file drops every POSIX lock this process holds on it.
 */
function makeLockFile(file: string): void {
  try {
    closeSync(openSync(file, 'wx', 0o600))
  } catch (error) {
    if (systemCode(error) !== 'EEXIST') throw error
  }
}

/** Held as long as the process lives: a connection nobody refers to would be collected, and its lock with it. */
const holding = new Set<DatabaseSync>()

export interface FolderLock {
  release(): void
}

/**
 * The exclusive lock of a broker on its data folder (made 0700 where there is none). It is SQLite's own lock on a file
 * of its own, held by the kernel for this process: gone with the process however it ended, and blind to process ids
 * that were used before. Throws `broker_running` where another process, or this one, holds it.
 */
export function lockFolder(dir: string): FolderLock {
  let connection: DatabaseSync | null = null
  try {
    mkdirSync(dir, { recursive: true, mode: 0o700 })
    const file = join(dir, 'broker.lock')
    makeLockFile(file)
    connection = new DatabaseSync(file, { timeout: 0 })
    connection.exec('PRAGMA journal_mode = MEMORY; PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE')
  } catch (error) {
    connection?.close()
    const failure = failureOf(error)
    const held = error instanceof Error && 'errcode' in error && (error.errcode === 5 || error.errcode === 6)
    throw held ? new WritError('broker_running', 'another broker holds this data folder', { cause: error }) : failure
  }
  const held = connection
  holding.add(held)
  let released = false
  return {
    release() {
      if (released) return
      released = true
      holding.delete(held)
      held.close()
    },
  }
}

import { closeSync, fdatasyncSync, fsyncSync, ftruncateSync, openSync, statfsSync, statSync, writeSync } from 'node:fs'
import { dirname } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import type { SQLInputValue, StatementSync } from 'node:sqlite'
import { WritError, systemCode } from '../../error.ts'
import { applicationId, migrations } from './schema.ts'

/** One connection with its prepared statements. Row shapes are the schema's, so each query names its own. */
export interface Database {
  run(sql: string, ...values: SQLInputValue[]): void
  // eslint-disable-next-line typescript/no-unnecessary-type-parameters -- names the row's shape, as the doc comment says
  get<Row>(sql: string, ...values: SQLInputValue[]): Row | null
  all<Row>(sql: string, ...values: SQLInputValue[]): Row[]
  /** One or more statements without values. */
  exec(sql: string): void
  readonly inTransaction: boolean
  close(): void
}

/** Milliseconds a statement waits for another program's lock; the event loop waits with it. */
const lockWaitMs = 400

/** Opens the writing connection, makes the file (0600) where there is none, and brings the schema up to date. */
export function openWriter(path: string): { readonly db: Database; readonly migrated: boolean } {
  makeFile(path)
  const db = connect(path, false)
  try {
    // FULL syncs the WAL at each commit: an acknowledged batch survives a power cut. On macOS only F_FULLFSYNC does that.
    // Savepoint journals stay in memory: nothing of the ledger is to lie in a temp folder.
    db.exec(`PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA fullfsync = ON; PRAGMA checkpoint_fullfsync = ON;
             PRAGMA temp_store = MEMORY; PRAGMA trusted_schema = OFF; PRAGMA wal_autocheckpoint = 4000; PRAGMA journal_size_limit = 20000000`)
    allocateLog(db, path)
    return { db, migrated: migrate(db) }
  } catch (error) {
    db.close()
    throw error
  }
}

/** Bytes of the WAL that have their place on disk before they are needed. */
const allocatedBytes = 4 << 20

/**
 * A sync of a file that has grown waits for the file system's own log as well, about as long as for the bytes. SQLite ends
 * reading its WAL at the first frame whose salts and checksum do not fit, so zeros there are no frames ("WAL-mode File
 * Format" §1.1); it is written to by the holder of the folder's lock alone, and its locks are on other files.
 */
function allocateLog(db: Database, path: string): void {
  const log = `${path}-wal`
  // The file is made by the first read.
  pragma(db, 'user_version')
  try {
    const { bavail, bsize } = statfsSync(dirname(path))
    if (statSync(log).size > 0 || bavail * bsize < allocatedBytes * 64) return
    const file = openSync(log, 'r+')
    try {
      const zeros = Buffer.alloc(1 << 20)
      for (let at = 0; at < allocatedBytes; at += zeros.length) writeSync(file, zeros, 0, zeros.length, at)
      fdatasyncSync(file)
    } catch (error) {
      ftruncateSync(file, 0)
      throw error
    } finally {
      closeSync(file)
    }
  } catch (error) {
    // Commits take longer without, and that is all.
    if (systemCode(error) === null) throw error
  }
}

/** Opens a connection that cannot write; works beside a broker and without one. */
export function openReader(path: string): Database {
  const db = connect(path, true)
  try {
    const version = pragma(db, 'user_version')
    if (version === 0)
      throw new WritError('ledger_unavailable', 'there is no ledger yet: no broker has run with this configuration')
    if (version > migrations.length) throw newer()
    return db
  } catch (error) {
    db.close()
    throw failureOf(error)
  }
}

function makeFile(path: string): void {
  try {
    closeSync(openSync(path, 'wx', 0o600))
    const folder = openSync(dirname(path), 'r')
    fsyncSync(folder)
    closeSync(folder)
  } catch (error) {
    if (systemCode(error) !== 'EEXIST') throw failureOf(error)
  }
}

/** True where steps of an older schema were found: their views have to be made again. */
function migrate(db: Database): boolean {
  const version = pragma(db, 'user_version')
  if (version > migrations.length) throw newer()
  if (version > 0 && pragma(db, 'application_id') !== applicationId)
    throw new WritError('ledger_corrupt', 'the ledger file is another program’s database')
  if (version === migrations.length) return false
  db.exec('BEGIN IMMEDIATE')
  try {
    for (const text of migrations.slice(version)) db.exec(text)
    db.exec(`PRAGMA application_id = ${applicationId}; PRAGMA user_version = ${migrations.length}; COMMIT`)
  } catch (error) {
    if (db.inTransaction) db.exec('ROLLBACK')
    throw error
  }
  return version > 0
}

function newer(): WritError {
  return new WritError('ledger_unavailable', 'the ledger was written by a newer Writ', {
    remedy: 'Use the Writ that wrote it, or a newer one.',
  })
}

function pragma(db: Database, name: 'user_version' | 'application_id'): number {
  return db.get<Record<string, number>>(`PRAGMA ${name}`)?.[name] ?? 0
}

function connect(path: string, readOnly: boolean): Database {
  let connection: DatabaseSync
  try {
    connection = new DatabaseSync(path, { readOnly, timeout: lockWaitMs })
  } catch (error) {
    throw failureOf(error)
  }
  const statements = new Map<string, StatementSync>()
  function prepare(sql: string): StatementSync {
    const known = statements.get(sql)
    if (known !== undefined) return known
    const statement = connection.prepare(sql)
    statements.set(sql, statement)
    return statement
  }
  return {
    run: (sql, ...values) => void prepare(sql).run(...values),
    // eslint-disable-next-line typescript/no-unnecessary-type-parameters -- as above
    get: <Row>(sql: string, ...values: SQLInputValue[]) => (prepare(sql).get(...values) ?? null) as Row | null,
    all: <Row>(sql: string, ...values: SQLInputValue[]) => prepare(sql).all(...values) as Row[],
    exec: (sql) => connection.exec(sql),
    get inTransaction() {
      return connection.isTransaction
    },
    close: () => connection.close(),
  }
}

/** The result code of an SQLite failure without its extension, or null for anything else. */
function resultCode(error: unknown): number | null {
  if (systemCode(error) !== 'ERR_SQLITE_ERROR') return null
  return error instanceof Error && 'errcode' in error && typeof error.errcode === 'number' ? error.errcode & 0xff : null
}

/** Codes after which the connection or the disk is to blame, not the statement (SQLite "Result and Error Codes"). */
const diskCodes = new Map<number, 'no_space' | 'ledger_unavailable' | 'ledger_corrupt'>([
  [3, 'ledger_unavailable'], // PERM
  [5, 'ledger_unavailable'], // BUSY
  [6, 'ledger_unavailable'], // LOCKED
  [7, 'ledger_unavailable'], // NOMEM
  [8, 'ledger_unavailable'], // READONLY
  [9, 'ledger_unavailable'], // INTERRUPT
  [10, 'ledger_unavailable'], // IOERR
  [11, 'ledger_corrupt'], // CORRUPT
  [13, 'no_space'], // FULL
  [14, 'ledger_unavailable'], // CANTOPEN
  [15, 'ledger_unavailable'], // PROTOCOL
  [26, 'ledger_corrupt'], // NOTADB
])

/** True where every batch of a transaction is lost, not only the one that was being written. */
export function isDiskFailure(error: unknown): boolean {
  const code = resultCode(error)
  return code !== null && diskCodes.has(code)
}

/** The `WritError` of whatever went wrong below the ledger. Names no path: the message may reach a caller. */
export function failureOf(error: unknown): WritError {
  if (error instanceof WritError) return error
  if (systemCode(error) === 'ENOSPC' || systemCode(error) === 'EDQUOT')
    return new WritError('no_space', 'the disk that holds the ledger is full', { cause: error })
  const code = resultCode(error)
  if (code === null && systemCode(error) === null)
    return new WritError('internal', 'the ledger could not write a step', { cause: error })
  if (code === 5 || code === 6)
    return new WritError('ledger_unavailable', 'another program holds the ledger locked', { cause: error })
  switch (code === null ? 'ledger_unavailable' : (diskCodes.get(code) ?? 'internal')) {
    case 'no_space':
      return new WritError('no_space', 'the disk that holds the ledger is full', { cause: error })
    case 'ledger_corrupt':
      return new WritError('ledger_corrupt', 'the ledger file is damaged', { cause: error })
    case 'ledger_unavailable':
      return new WritError('ledger_unavailable', 'the ledger cannot be opened, read or written', { cause: error })
    case 'internal':
      return new WritError('internal', 'the ledger could not write a step', { cause: error })
  }
}

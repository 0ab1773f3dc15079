import { statSync } from 'node:fs'
import { canonical } from '../../digest.ts'
import { WritError } from '../../error.ts'
import type { Clock } from '../../clock.ts'
import type { ReceiptSigner, SignedReceipt } from '../../receipt/receipt.ts'
import type { Appended, Entry, Ledger, Position, Step } from '../ledger.ts'
import { apply } from './apply.ts'
import { failureOf, isDiskFailure, openReader, openWriter } from './database.ts'
import type { Database } from './database.ts'
import { emptyHead, grown, loadHead, rootOf, storeHead } from './head.ts'
import type { Head } from './head.ts'
import { remember } from './memory.ts'
import { checkBatch, closesARun } from './order.ts'
import { rebuildViews } from './rebuild.ts'
import { openReserve } from './reserve.ts'
import { allSteps, readSteps } from './views.ts'
import { createWatchers } from './watch.ts'

export interface SqliteLedgerOptions {
  /** The database file; its folder also holds the reserve. */
  readonly path: string
  readonly signer: ReceiptSigner
  readonly clock: Clock
  /** Bytes kept back for the accounts of what is running; 4 MiB unless told. */
  readonly reserveBytes?: number
}

interface Batch {
  readonly entries: readonly Entry[]
  readonly resolve: (appended: Appended) => void
  readonly reject: (error: unknown) => void
}

/** What the next step and the next receipt are built on. Taken from the database again after any failed commit. */
interface Edge {
  position: Position
  at_ms: number
  head: Head
}

type Written = { readonly appended: Appended } | { readonly error: unknown }

/** Batches in one transaction: enough to share a sync, few enough that the event loop is not held for long. */
const batchesPerCommit = 256

/**
 * Opens the ledger for its one writer, which holds `lockFolder`. Throws `ledger_unavailable`, `ledger_corrupt`,
 * `no_space`, and `invalid_config` where the receipts in it are another issuer's.
 */
export function openSqliteLedger(options: SqliteLedgerOptions): Ledger {
  const { path, signer, clock } = options
  try {
    const opened = openWriter(path)
    claim(opened.db, signer.origin)
    return writer(opened.db, opened.migrated)
  } catch (error) {
    throw failureOf(error)
  }

  function writer(first: Database, migrated: boolean): Ledger {
    let db: Database | null = first
    const reader = openReader(path)
    const memory = remember(reader)
    const reserve = openReserve(path, options.reserveBytes ?? 4 << 20)
    let edge: Edge | null = loadEdge(first)
    let committed: Position = edge.position
    let queue: Batch[] = []
    let scheduled = false
    let closed = false
    const watchers = createWatchers(() => committed)
    const file = statSync(path)

    /** A file that was taken away would go on taking steps, and lose them all when it is closed. */
    function checkFile(): void {
      const now = statSync(path, { throwIfNoEntry: false })
      if (now?.ino !== file.ino || now.dev !== file.dev)
        throw new WritError('ledger_unavailable', 'the ledger file was removed or replaced while it was in use', {
          remedy: 'Stop the broker, put the data folder back as it was, and start it again.',
        })
    }

    function schedule(): void {
      if (scheduled) return
      scheduled = true
      // One turn of the event loop collects what is in flight; the sync is then paid once for all of it.
      setImmediate(() => {
        scheduled = false
        flush()
      })
    }

    function flush(): void {
      const batches = queue.splice(0, batchesPerCommit)
      if (batches.length === 0) return
      if (queue.length > 0) schedule()
      let results: readonly Written[]
      try {
        results = commit(batches)
      } catch (error) {
        const failure = failureOf(error)
        results = batches.map(() => ({ error: failure }))
      } finally {
        // After a failure as well: whether the commit reached the disk is not known then.
        memory.forget()
      }
      let woke = false
      for (const [i, batch] of batches.entries()) {
        const result = results[i]
        if (result === undefined) batch.reject(new WritError('internal', 'a batch was not written'))
        else if ('error' in result) batch.reject(result.error)
        else {
          batch.resolve(result.appended)
          woke = true
        }
      }
      if (woke) watchers.wake()
    }

    /** Commits, and where the disk is full gives up the reserve and commits once more what may use it. */
    function commit(batches: readonly Batch[]): readonly Written[] {
      try {
        return transact(batches, reserve.room() === 'ok')
      } catch (error) {
        const full = failureOf(error).code === 'no_space' || (isDiskFailure(error) && reserve.exhausted())
        if (full && reserve.release()) return transact(batches, false)
        throw full ? new WritError('no_space', 'the disk that holds the ledger is full', { cause: error }) : error
      }
    }

    /**
     * One transaction. Batches are written without a savepoint each, as nearly always all are good; where one is refused,
     * all is undone and written again with savepoints, so that the refused one alone is left out.
     */
    function transact(batches: readonly Batch[], roomy: boolean, careful = false): readonly Written[] {
      checkFile()
      const connection = (db ??= openWriter(path).db)
      try {
        connection.run('BEGIN IMMEDIATE')
        // Another program that wrote here would make positions and heads of ours a lie.
        if (edge !== null && edge.position !== lastPosition(connection)) edge = null
        const now = (edge ??= loadEdge(connection))
        const results = batches.map((batch): Written =>
          roomy || closesARun(batch.entries)
            ? careful
              ? write(connection, now, batch.entries)
              : { appended: writeSteps(connection, now, batch.entries) }
            : {
                error: new WritError(
                  'no_space',
                  'the disk that holds the ledger is nearly full: nothing new is started',
                ),
              },
        )
        if (results.some((result) => 'appended' in result)) storeHead(connection, now.head)
        connection.run('COMMIT')
        committed = now.position
        return results
      } catch (error) {
        edge = null
        if (careful || isDiskFailure(error) || !connection.inTransaction) {
          recover(connection, error)
          throw error
        }
        connection.exec('ROLLBACK')
      }
      return transact(batches, roomy, true)
    }

    function recover(connection: Database, error: unknown): void {
      const full = failureOf(error).code === 'no_space'
      try {
        if (connection.inTransaction) connection.exec('ROLLBACK')
        if (full) return
        // After an I/O error nothing the connection remembers of the file can be relied on.
        connection.close()
      } catch (cause) {
        if (!isDiskFailure(cause)) throw cause
      }
      db = null
    }

    function write(connection: Database, now: Edge, entries: readonly Entry[]): Written {
      const before: Edge = { ...now }
      connection.run('SAVEPOINT batch')
      try {
        const appended = writeSteps(connection, now, entries)
        connection.run('RELEASE batch')
        return { appended }
      } catch (error) {
        if (isDiskFailure(error) || !connection.inTransaction) throw error
        connection.run('ROLLBACK TO batch')
        connection.run('RELEASE batch')
        Object.assign(now, before)
        return { error: failureOf(error) }
      }
    }

    function writeSteps(connection: Database, now: Edge, entries: readonly Entry[]): Appended {
      const steps: Step[] = []
      const receipts: SignedReceipt[] = []
      const at_ms = Math.max(clock.now(), now.at_ms)
      now.at_ms = at_ms
      for (const entry of entries) {
        let step: Step
        if (entry.kind === 'sign') {
          const account = typeof entry.account === 'function' ? entry.account([...receipts]) : entry.account
          const head = { origin: signer.origin, size: now.head.size, root: rootOf(now.head).toString('base64') }
          const receipt = signer.sign(account, head, at_ms)
          if (receipt.index !== head.size)
            throw new WritError('internal', 'a receipt was signed for another place in the log')
          receipts.push(receipt)
          now.head = grown(now.head, receipt.jws)
          if (receipt.disclosures.length > 0)
            connection.run(
              'INSERT INTO disclosures (log_index, body) VALUES (?, ?)',
              receipt.index,
              JSON.stringify(receipt.disclosures),
            )
          step = { kind: 'receipt', receipt: { ...receipt, disclosures: [] }, execution: entry.execution, at_ms }
        } else step = entry
        steps.push(step)
        now.position++
        const execution = apply(connection, step, { position: now.position, at_ms })
        const body = step.kind === 'receipt' ? receiptBody(step) : canonical(step)
        if (!body.isWellFormed()) throw new WritError('internal', 'a step holds a lone surrogate')
        connection.run(
          'INSERT INTO steps (position, at_ms, execution, kind, body) VALUES (?, ?, ?, ?, ?)',
          now.position,
          at_ms,
          execution,
          step.kind,
          body,
        )
      }
      checkBatch(connection, steps)
      return { position: now.position, receipts }
    }

    function rebuild(): void {
      checkFile()
      const connection = (db ??= openWriter(path).db)
      try {
        edge = null
        rebuildViews(connection)
      } catch (error) {
        recover(connection, error)
        throw failureOf(error)
      } finally {
        memory.forget()
      }
    }

    if (migrated) rebuild()

    return {
      async append(...entries) {
        if (closed) throw new WritError('ledger_unavailable', 'the ledger is closed')
        return await new Promise<Appended>((resolve, reject) => {
          queue.push({ entries, resolve, reject })
          schedule()
        })
      },
      read: (execution, after) => readSteps(reader, execution, after),
      steps: (after, limit) => allSteps(reader, after, limit),
      watch: (signal) => watchers.watch(signal),
      views: memory.views,
      room: () => reserve.room(),
      rebuild,
      close() {
        if (closed) return
        closed = true
        while (queue.length > 0) flush()
        watchers.end()
        reader.close()
        db?.close()
      },
    }
  }
}

/** RFC 8785 text of a step whose members are known, in their order: texts of ASCII and whole numbers need nothing more. */
function receiptBody({ at_ms, execution, kind, receipt }: Step & { kind: 'receipt' }): string {
  const { digest, disclosures, id, index, jws } = receipt
  return JSON.stringify({
    at_ms,
    execution,
    kind,
    receipt: { digest, disclosures, id, index, jws, kind: receipt.kind },
  })
}

/** Writes whose receipts these are when the ledger is new, and refuses another issuer's later. */
function claim(db: Database, origin: string): void {
  const known = db.get<{ origin: string }>('SELECT origin FROM origin')?.origin
  if (known === undefined) db.run('INSERT INTO origin (only, origin) VALUES (1, ?)', origin)
  else if (known !== origin)
    throw new WritError(
      'invalid_config',
      'the receipts in this data folder are of another issuer than the keys in use',
      {
        remedy: 'Restore the keys folder and issuer that belong to this data folder, or name a new data folder.',
      },
    )
}

function lastPosition(db: Database): Position {
  return db.get<{ position: number | null }>('SELECT MAX(position) AS position FROM steps')?.position ?? 0
}

function loadEdge(db: Database): Edge {
  const position = lastPosition(db)
  const at_ms = db.get<{ at_ms: number }>('SELECT at_ms FROM steps WHERE position = ?', position)?.at_ms ?? 0
  return { position, at_ms, head: position === 0 ? emptyHead : loadHead(db) }
}

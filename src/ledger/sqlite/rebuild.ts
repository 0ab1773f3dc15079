import { digestOf } from '../../digest.ts'
import { WritError } from '../../error.ts'
import { apply } from './apply.ts'
import type { Database } from './database.ts'
import { emptyHead, grown, storeHead } from './head.ts'
import { parseStep } from './rows.ts'
import { viewTables } from './schema.ts'

/** Steps read at a time: bounds the memory of a rebuild. */
const page = 500

/**
 * Empties every view and walks the steps again, in one transaction. Throws `ledger_corrupt` where the steps do not
 * follow each other, or a receipt does not stand where the log has it; then nothing is changed.
 */
export function rebuildViews(db: Database): void {
  db.exec('BEGIN IMMEDIATE')
  try {
    for (const table of viewTables) db.exec(`DELETE FROM ${table}`)
    let head = emptyHead
    let position = 0
    for (;;) {
      const rows = db.all<{ position: number; at_ms: number; body: string }>(
        'SELECT position, at_ms, body FROM steps WHERE position > ? ORDER BY position LIMIT ?',
        position,
        page,
      )
      for (const row of rows) {
        if (row.position !== position + 1) throw new WritError('ledger_corrupt', 'a step of the ledger is missing')
        position = row.position
        const step = parseStep(row.body)
        apply(db, step, row)
        if (step.kind !== 'receipt') continue
        const { receipt } = step
        if (receipt.index !== head.size || receipt.digest !== digestOf(receipt.jws))
          throw new WritError('ledger_corrupt', 'a receipt does not stand where the log has it')
        head = grown(head, receipt.jws)
      }
      if (rows.length < page) break
    }
    if (position > 0) storeHead(db, head)
    db.exec('COMMIT')
  } catch (error) {
    if (db.inTransaction) db.exec('ROLLBACK')
    if (error instanceof WritError && error.code === 'conflict')
      throw new WritError('ledger_corrupt', 'the steps of the ledger contradict each other', { cause: error })
    throw error
  }
}

import { hash } from 'node:crypto'
import { WritError } from '../../error.ts'
import { leafHash } from '../../receipt/tree.ts'
import type { Database } from './database.ts'

/**
 * The head of the receipt log, kept beside the receipts in the same transaction, so that opening a log of a million
 * entries hashes none of them. The tree is RFC 6962's: `peaks` are the roots of its perfect subtrees, largest first.
 */
export interface Head {
  readonly size: number
  readonly peaks: readonly Buffer[]
}

export const emptyHead: Head = { size: 0, peaks: [] }

/** Used for each node in turn: its bytes are hashed before it is written to again. */
const node = Buffer.alloc(65, 1)

function nodeHash(left: Uint8Array, right: Uint8Array): Buffer {
  node.set(left, 1)
  node.set(right, 33)
  return hash('sha256', node, 'buffer')
}

export function grown(head: Head, entry: string): Head {
  const peaks = [...head.peaks]
  let carry = leafHash(entry)
  // Sizes may pass 2^32, where the bit operators would wrap.
  for (let rest = head.size; rest % 2 === 1; rest = (rest - 1) / 2) carry = nodeHash(peaks.pop() ?? carry, carry)
  peaks.push(carry)
  return { size: head.size + 1, peaks }
}

/** 32 bytes; the empty tree's root is the hash of nothing. */
export function rootOf(head: Head): Buffer {
  if (head.peaks.length === 0) return hash('sha256', '', 'buffer')
  return head.peaks.reduceRight((right, left) => nodeHash(left, right))
}

export function storeHead(db: Database, head: Head): void {
  db.run(
    `INSERT INTO head (only, size, root, peaks) VALUES (1, ?, ?, ?)
     ON CONFLICT (only) DO UPDATE SET size = excluded.size, root = excluded.root, peaks = excluded.peaks`,
    head.size,
    rootOf(head),
    Buffer.concat(head.peaks),
  )
}

/** Rejects `ledger_corrupt` where size, peaks, root and the number of receipts do not belong together. */
export function loadHead(db: Database): Head {
  const row = db.get<{ size: number; root: Uint8Array; peaks: Uint8Array }>('SELECT size, root, peaks FROM head')
  const entries = db.get<{ n: number | null }>('SELECT MAX(log_index) + 1 AS n FROM receipts')?.n ?? 0
  if (row === null && entries === 0) return emptyHead
  if (row === null) throw damaged()
  const bytes = Buffer.from(row.peaks)
  const peaks = Array.from({ length: Math.floor(bytes.length / 32) }, (_, i) => bytes.subarray(i * 32, i * 32 + 32))
  const head: Head = { size: row.size, peaks }
  if (bytes.length % 32 !== 0 || peaks.length !== bitsSet(row.size) || row.size !== entries) throw damaged()
  if (!rootOf(head).equals(row.root)) throw damaged()
  return head
}

function bitsSet(n: number): number {
  let count = 0
  for (let rest = n; rest > 0; rest = Math.floor(rest / 2)) count += rest % 2
  return count
}

function damaged(): WritError {
  return new WritError('ledger_corrupt', 'the stored head of the receipt log does not fit its receipts')
}

import type { Digest, JsonObject } from '../digest.ts'
import type { ReceiptId } from '../id.ts'

/** All kinds are reserved from the first release; a verifier never skips one it does not know. */
export const receiptKinds = [
  'genesis',
  'decision',
  'approval',
  'outcome',
  'denials',
  'policy',
  'key',
  'freeze',
  'epoch',
  'erasure',
] as const
export type ReceiptKind = (typeof receiptKinds)[number]

/** The head of the receipt log before an entry: the entry's own index is `size`. `root` is RFC 6962, base64. */
export interface LogHead {
  readonly origin: string
  readonly size: number
  readonly root: string
}

/** What a receipt accounts for, before the log's head and the signature are added. */
export interface Account {
  readonly kind: ReceiptKind
  /** On whose behalf (`sub`) and by which agent (`act.sub`); null for the broker's own events. */
  readonly subject: string | null
  readonly agent: string | null
  /** The task (`txn`), or null. */
  readonly task: string | null
  /** When it happened, Unix milliseconds (`toe` in seconds). */
  readonly happened_at_ms: number
  /** in-toto subjects: name and lower-case hex SHA-256. */
  readonly subjects: readonly { readonly name: string; readonly digest: Digest }[]
  /** Members of `predicate` in clear. */
  readonly clear: JsonObject
  /** Members of `predicate` withheld as salted RFC 9901 digests; the disclosures go to the side store. */
  readonly salted: JsonObject
  /** What a client only claimed. */
  readonly asserted: JsonObject
}

export interface SignedReceipt {
  readonly id: ReceiptId
  readonly index: number
  readonly kind: ReceiptKind
  /** The compact JWS without disclosures: the log entry, byte for byte. */
  readonly jws: string
  /** Digest of the JWS bytes: what other receipts refer to it by. */
  readonly digest: Digest
  /** RFC 9901 disclosures, base64url, for auditors only. */
  readonly disclosures: readonly string[]
}

/** Signs accounts for the head they will have. Pure but for the key; called inside the ledger's transaction. */
export interface ReceiptSigner {
  sign(account: Account, head: LogHead, nowMs: number): SignedReceipt
  readonly origin: string
}

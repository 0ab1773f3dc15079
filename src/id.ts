import { randomBytes } from 'node:crypto'

declare const brand: unique symbol
type Id<K extends string> = string & { readonly [brand]: K }

export type TaskId = Id<'task'>
export type ExecutionId = Id<'exec'>
export type ApprovalId = Id<'apr'>
export type ReceiptId = Id<'rcpt'>
/** Quoted to a caller as `ref`; names the decision in the operator's records. */
export type DecisionId = Id<'dec'>
export type LeaseId = Id<'lease'>
export type TokenId = Id<'tok'>

interface Kinds {
  task: TaskId
  exec: ExecutionId
  apr: ApprovalId
  rcpt: ReceiptId
  dec: DecisionId
  lease: LeaseId
  tok: TokenId
}

const alphabet = 'abcdefghijklmnopqrstuvwxyz234567'

/** `exec_` and 10 base32 characters (50 random bits): short enough for a small model to repeat without a slip. */
export function newId<K extends keyof Kinds>(kind: K): Kinds[K] {
  let text = ''
  for (const byte of randomBytes(10)) text += alphabet[byte & 31]
  return `${kind}_${text}` as Kinds[K]
}

/** The id if `text` is one of that kind, else null. */
export function parseId<K extends keyof Kinds>(kind: K, text: string): Kinds[K] | null {
  return new RegExp(`^${kind}_[a-z2-7]{10}$`).test(text) ? (text as Kinds[K]) : null
}

/** UUID version 7 (RFC 9562 §5.7): 48 bits of Unix milliseconds, then random. */
export function uuidv7(nowMs: number): string {
  const bytes = randomBytes(16)
  bytes.writeUIntBE(nowMs, 0, 6)
  bytes[6] = ((bytes[6] ?? 0) & 0x0f) | 0x70
  bytes[8] = ((bytes[8] ?? 0) & 0x3f) | 0x80
  const hex = bytes.toString('hex')
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`
}

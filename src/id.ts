import { randomBytes, randomFillSync } from 'node:crypto'

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

const idEnd = /^[a-z2-7]{10}$/
const alphabet = 'abcdefghijklmnopqrstuvwxyz234567'

/** Random bytes drawn for many ids at once: the call costs more than the bytes. Each byte is used for one id and then cleared. */
const drawn = Buffer.alloc(1280)
let used = drawn.length

function random10(): Buffer {
  if (used === drawn.length) {
    randomFillSync(drawn)
    used = 0
  }
  used += 10
  return drawn.subarray(used - 10, used)
}

/** `exec_` and 10 base32 characters (50 random bits): short enough for a small model to repeat without a slip. */
export function newId<K extends keyof Kinds>(kind: K): Kinds[K] {
  let text = ''
  const bytes = random10()
  for (const byte of bytes) text += alphabet[byte & 31]
  bytes.fill(0)
  return `${kind}_${text}` as Kinds[K]
}

/** The id if `text` is one of that kind, else null. */
export function parseId<K extends keyof Kinds>(kind: K, text: string): Kinds[K] | null {
  return text.startsWith(`${kind}_`) && idEnd.test(text.slice(kind.length + 1)) ? (text as Kinds[K]) : null
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

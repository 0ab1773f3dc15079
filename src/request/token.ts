import { randomBytes, timingSafeEqual } from 'node:crypto'
import { crc32 } from 'node:zlib'
import type { Digest } from '../digest.ts'
import { digestOf } from '../digest.ts'
import type { TokenId } from '../id.ts'

/**
 * What a token of Writ stands for. The token itself is kept nowhere: `hash` is all there is of it. A plain SHA-256 is
 * enough, unlike for a password: 256 random bits leave nothing to search, whatever the speed of the hash.
 */
export interface Token {
  readonly id: TokenId
  readonly hash: Digest
  readonly tenant: string
  readonly subject: { readonly type: 'user' | 'service'; readonly id: string }
  readonly agent: string
  readonly roles: readonly string[]
  /** Unix milliseconds. */
  readonly created_at_ms: number
  readonly expires_at_ms: number
}

/** A token as it stands now; `revoked_at_ms` is null where it was not revoked. */
export interface TokenRow extends Token {
  readonly revoked_at_ms: number | null
}

/** The roles a subject had, through one agent, in the newest valid access token of an authorisation server. */
export interface SeenRoles {
  readonly tenant: string
  readonly subject: string
  readonly agent: string
  readonly roles: readonly string[]
  /** When the access token was issued (`iat`), Unix milliseconds: one issued earlier never replaces a later one. */
  readonly as_of_ms: number
  /** After this the roles count as gone. */
  readonly until_ms: number
}

const prefix = 'writ_'
const alphabet = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz'
/** 62^43 > 2^256. */
const secretLength = 43
const checkLength = 6
/** For secret scanners: this, then the checksum, tells a token of Writ from any other text. */
const tokenForm = /^writ_[0-9A-Za-z]{49}$/

/**
 * A new token: `writ_`, 256 random bits as 43 base62 digits, and the CRC-32 of those 43 characters as 6 base62 digits.
 * Matches `\bwrit_[0-9A-Za-z]{49}\b`; the checksum lets a scanner (and us) tell it from look-alikes without asking anyone.
 */
export function newToken(): string {
  const secret = base62(BigInt(`0x${randomBytes(32).toString('hex')}`), secretLength)
  return `${prefix}${secret}${checksum(secret)}`
}

/** The digest a token is kept and found by, or null where `text` is not spelled like a token or its checksum is wrong. */
export function tokenHash(text: string): Digest | null {
  if (!tokenForm.test(text) || text.length !== prefix.length + secretLength + checkLength) return null
  const secret = text.slice(prefix.length, prefix.length + secretLength)
  return checksum(secret) === text.slice(prefix.length + secretLength) ? digestOf(text) : null
}

/** Where two hashes are compared; made once, for it is done at each request. */
const compared = [Buffer.alloc('sha256:'.length + 64), Buffer.alloc('sha256:'.length + 64)] as const

/** Whether two hashes are the same, in a time that does not tell where they differ. */
export function sameHash(a: Digest, b: Digest): boolean {
  if (a.length !== compared[0].length || b.length !== compared[1].length) return false
  compared[0].write(a, 'latin1')
  compared[1].write(b, 'latin1')
  return timingSafeEqual(...compared)
}

function checksum(secret: string): string {
  return base62(BigInt(crc32(secret)), checkLength)
}

function base62(value: bigint, length: number): string {
  let text = ''
  for (let rest = value; text.length < length; rest /= 62n) text = `${alphabet[Number(rest % 62n)] ?? ''}${text}`
  return text
}

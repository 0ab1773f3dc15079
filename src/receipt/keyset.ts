import type { Json, JsonObject } from '../digest.ts'
import { JwsError, parseCompact, parsePayload, publicKey, signCompact, thumbprint, verifyEd25519 } from '../jws.ts'
import type { PublicKey, SigningKey } from '../jws.ts'

/** What a key may sign: the root key sets and the genesis receipt, the receipt key receipts, the log key checkpoints. */
export type KeyRole = 'root' | 'receipt' | 'log'

/** A key of a broker, valid for the indexes `[from, until)` of its receipt log; `until` null means still valid. */
export interface KeyEntry {
  readonly x: string
  readonly kid: string
  readonly role: KeyRole
  readonly from: number
  readonly until: number | null
}

/** The public keys of one broker; old keys are never removed. */
export interface KeySet {
  readonly root: PublicKey
  readonly issuedAt: number
  readonly keys: readonly KeyEntry[]
}

const keysAudience = 'urn:writ:aud:keys'
/** A key set may grow with the rotations of many years. */
const maxKeySetBytes = 512 * 1024

export function brokerUrn(rootKid: string): string {
  return `urn:writ:${rootKid}`
}

/** Signs a key set (`writ-keys+jwt`) with the root. `issuedAt` in seconds. */
export function signKeySet(root: SigningKey, keys: readonly KeyEntry[], issuedAt: number): string {
  const payload = { iss: brokerUrn(root.kid), aud: keysAudience, iat: issuedAt, keys: keys.map(toJwk) }
  return signCompact('writ-keys+jwt', JSON.stringify(payload), root)
}

/** The JWK of a key, with Writ's members `role`, `from` and `until` (absent while the key is in force). */
export function toJwk(entry: KeyEntry): JsonObject {
  const until = entry.until === null ? {} : { until: entry.until }
  const { kid, role, from, x } = entry
  return { kty: 'OKP', crv: 'Ed25519', alg: 'Ed25519', use: 'sig', kid, x, role, from, ...until }
}

/**
 * Verifies a key set against the thumbprint of its root; null takes the root it names, which proves only that the set
 * is whole. The set brings its root key along, taken because its recomputed thumbprint is the one demanded.
 * Throws `JwsError`.
 */
export function openKeySet(jws: string, pinned: string | null): KeySet {
  const parts = parseCompact(jws, 'writ-keys+jwt', maxKeySetBytes)
  const rootKid = pinned ?? parts.header.kid
  if (parts.header.kid !== rootKid) throw new JwsError('KID', 'the key set is signed by another root')
  const claims = parsePayload(parts.payloadBytes)
  const keys = parseKeyEntries(claims['keys'] ?? null)
  checkRanges(keys)
  const rootEntry = keys.find((key) => key.role === 'root' && key.kid === rootKid)
  if (rootEntry === undefined) throw new JwsError('KID', 'the key set does not hold its root')
  const root = publicKey(rootEntry.x)
  if (!verifyEd25519(root, parts.signingInput, parts.signature))
    throw new JwsError('SIG', 'the signature of the key set is wrong')
  const { iat } = claims
  if (claims['iss'] !== brokerUrn(rootKid) || claims['aud'] !== keysAudience || typeof iat !== 'number')
    throw new JwsError('JSON', 'the key set is not one of this root')
  return { root, issuedAt: iat, keys }
}

const jwkMembers = new Set(['kty', 'crv', 'alg', 'use', 'kid', 'x', 'role', 'from', 'until'])

/** At each index of the log one key signs receipts: what a second one could sign there would be a second history. */
function checkRanges(keys: readonly KeyEntry[]): void {
  const receipts = keys.filter((key) => key.role === 'receipt').toSorted((a, b) => a.from - b.from)
  for (const [at, next] of receipts.entries()) {
    const before = receipts[at - 1]
    if (before !== undefined && (before.until === null || before.until > next.from))
      throw new JwsError('KID', 'two keys for receipts are in force at one index')
  }
}

/** Throws `JwsError` where a key is of another kind, mislabelled, or stands there twice. */
export function parseKeyEntries(value: Json): readonly KeyEntry[] {
  if (!Array.isArray(value) || value.length === 0) throw new JwsError('JSON', 'no list of keys')
  const entries = (value as readonly Json[]).map(parseKeyEntry)
  if (new Set(entries.map((entry) => entry.kid)).size !== entries.length)
    throw new JwsError('KID', 'a key stands in the set twice')
  return entries
}

function parseKeyEntry(value: Json): KeyEntry {
  if (value === null || typeof value !== 'object' || Array.isArray(value))
    throw new JwsError('JSON', 'a key that is not an object')
  const jwk = value as JsonObject
  for (const name of Object.keys(jwk))
    if (!jwkMembers.has(name)) throw new JwsError('HEADER', 'a key with a member outside the profile')
  if (jwk['kty'] !== 'OKP' || jwk['crv'] !== 'Ed25519')
    throw new JwsError('KEY_ALG', 'a key that is not an Ed25519 key')
  if (jwk['alg'] !== undefined && jwk['alg'] !== 'Ed25519') throw new JwsError('KEY_ALG', 'a key for another algorithm')
  if (jwk['use'] !== undefined && jwk['use'] !== 'sig') throw new JwsError('KEY_ALG', 'a key for another use')
  const { x } = jwk
  if (typeof x !== 'string') throw new JwsError('JSON', 'a key without "x"')
  // Recomputed, so that a file cannot give a key another key's name.
  const kid = thumbprint({ x })
  if (jwk['kid'] !== undefined && jwk['kid'] !== kid) throw new JwsError('KID', 'a key under the name of another')
  const role = jwk['role'] ?? 'receipt'
  if (role !== 'root' && role !== 'receipt' && role !== 'log') throw new JwsError('JSON', 'a key with an unknown role')
  const from = jwk['from'] ?? 0
  const until = jwk['until'] ?? null
  if (typeof from !== 'number' || from < 0 || !(until === null || (typeof until === 'number' && until >= from)))
    throw new JwsError('JSON', 'a key with an impossible range of indexes')
  return { x, kid, role, from, until }
}

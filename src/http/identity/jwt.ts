import type { CryptoKey } from 'jose'
import { sha256 } from '../../digest.ts'
import type { JsonObject } from '../../digest.ts'
import { WritError } from '../../error.ts'
import { parseIJson } from '../../json.ts'
import { object } from './keys.ts'
import { algorithms } from './settings.ts'
import type { Algorithm } from './settings.ts'

/** Longer than any access token that fits the header limits of common servers. */
const maxTokenBytes = 8 * 1024
/** Clocks of two machines may differ by this much. */
const skewS = 60

/** When a token counts no longer by our own clock, Unix milliseconds: one that was taken is not over before that. */
export function overAt(exp: number): number {
  return Math.floor((exp + skewS) * 1000)
}

const maxAudiences = 16
/** Names of certificates are no instruction to fetch or to trust anything, and some issuers always send them. */
const headerMembers = new Set(['alg', 'typ', 'kid', 'x5t', 'x5t#S256'])

/** A JWT that is spelled right; nothing in it is authentic before `verify` said so. */
export interface Unverified {
  readonly token: string
  readonly alg: Algorithm
  readonly typ: string
  readonly kid: string
  /** Only to choose whose keys to ask for. */
  readonly issuer: string
}

/**
 * Takes a compact JWT apart, or says null: exactly three parts of canonical base64url, I-JSON without a member twice, a
 * header of `alg`, `typ`, `kid` (and certificate thumbprints) and nothing else, so never `jku`, `x5u`, `jwk`, `x5c`,
 * `crit`, `b64`, `zip` or `cty` (RFC 8725 §3.10); `alg` one of the asymmetric ones.
 */
export function readJwt(token: string): Unverified | null {
  if (token.length > maxTokenBytes || !/^[\w-]+\.[\w-]+\.[\w-]+$/.test(token)) return null
  const parts = token.split('.')
  const header = decode(parts[0])
  const claims = decode(parts[1])
  if (header === null || claims === null || bytesOf(parts[2]) === null) return null
  const { alg, typ, kid } = header
  if (Object.keys(header).some((name) => !headerMembers.has(name))) return null
  const known = algorithms.find((name) => name === alg)
  const issuer = claims['iss']
  if (known === undefined || typeof typ !== 'string' || typeof kid !== 'string' || kid.length > 256) return null
  return typeof issuer === 'string' ? { token, alg: known, typ, kid, issuer } : null
}

/** Signatures remembered; the one longest unused is forgotten first. */
const maxVerified = 2048

/**
 * Gives the claims if the signature is this key's, null where it is not. A client shows the same token with each request,
 * so a signature that was right is remembered, by the token's hash and for that very key object: once the keys are fetched
 * again it is checked again. Only the signature is: times, audience and all else are looked at each time.
 */
export function openVerifier(): (jwt: Unverified, key: CryptoKey) => Promise<JsonObject | null> {
  const verified = new Map<string, { readonly key: CryptoKey; readonly claims: JsonObject }>()
  return async (jwt, key) => {
    const name = sha256(jwt.token).toString('base64')
    const known = verified.get(name)
    if (known?.key === key) {
      verified.delete(name)
      verified.set(name, known)
      return known.claims
    }
    // The claims as our own parser reads them: what jose would give may hold a member twice.
    const claims = (await isSigned(jwt, key)) ? decode(jwt.token.split('.')[1]) : null
    if (claims === null) return null
    verified.set(name, { key, claims })
    const [oldest] = verified.keys()
    if (verified.size > maxVerified && oldest !== undefined) verified.delete(oldest)
    return claims
  }
}

async function isSigned(jwt: Unverified, key: CryptoKey): Promise<boolean> {
  // Loaded with the first token: a broker without HTTP never sees one.
  const { compactVerify } = await import('jose')
  try {
    await compactVerify(jwt.token, key, { algorithms: [jwt.alg] })
    return true
  } catch {
    return false
  }
}

/** `at+jwt` (RFC 9068 §4), in the two spellings of RFC 7515 §4.1.9; `jwt` besides where the configuration says so. */
export function typeAccepted(typ: string, accepted: 'at+jwt' | 'jwt'): boolean {
  const name = typ.toLowerCase().replace(/^application\//, '')
  return name === 'at+jwt' || (accepted === 'jwt' && name === 'jwt')
}

export type ClaimProblem = 'issuer' | 'audience' | 'expired' | 'not_yet' | 'claims' | 'bound'

/**
 * What is wrong with verified claims, or null. `exp` and `iat` have to be there; a token bound to a key (`cnf`, RFC 7800)
 * is refused, since nothing here checks the proof and taking it as a bearer token would undo the binding (RFC 9449 §7.1).
 */
export function claimProblem(
  claims: JsonObject,
  expected: { readonly issuer: string; readonly audience: string; readonly nowMs: number },
): ClaimProblem | null {
  if (claims['iss'] !== expected.issuer) return 'issuer'
  const { aud, exp, nbf, iat } = claims
  const audiences = typeof aud === 'string' ? [aud] : Array.isArray(aud) && aud.length <= maxAudiences ? aud : []
  if (!audiences.includes(expected.audience)) return 'audience'
  const now = expected.nowMs / 1000
  if (typeof exp !== 'number' || typeof iat !== 'number') return 'claims'
  if (nbf !== undefined && typeof nbf !== 'number') return 'claims'
  if (overAt(exp) <= expected.nowMs) return 'expired'
  if (iat - skewS > now || (nbf ?? 0) - skewS > now) return 'not_yet'
  if (Object.hasOwn(claims, 'cnf')) return 'bound'
  return null
}

/** The scopes of a token: `scope` (RFC 8693 §4.2), or `scp` as some issuers have it. */
export function scopesOf(claims: JsonObject): ReadonlySet<string> {
  const said = claims['scope'] ?? claims['scp']
  if (typeof said === 'string') return new Set(said.split(' ').filter((one) => one !== ''))
  return new Set(Array.isArray(said) ? said.filter((one) => typeof one === 'string') : [])
}

function decode(part: string | undefined): JsonObject | null {
  const bytes = bytesOf(part)
  if (bytes === null) return null
  try {
    return object(parseIJson(bytes, { maxBytes: maxTokenBytes, maxDepth: 8, refuseProto: true }))
  } catch (malformed) {
    if (malformed instanceof WritError) return null
    throw malformed
  }
}

/** One spelling only: unused bits of the last character could otherwise be chosen freely. */
function bytesOf(part: string | undefined): Buffer | null {
  if (part === undefined) return null
  const bytes = Buffer.from(part, 'base64url')
  return bytes.toString('base64url') === part ? bytes : null
}

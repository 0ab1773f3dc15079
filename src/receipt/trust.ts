import type { Json, JsonObject } from '../digest.ts'
import { WritError } from '../error.ts'
import { parseIJson } from '../json.ts'
import { JwsError, publicKey } from '../jws.ts'
import type { PublicKey } from '../jws.ts'
import { openKeySet, parseKeyEntries } from './keyset.ts'
import type { KeyEntry } from './keyset.ts'

/** A key a verifier was given; one that is not sound is known, and trusted for nothing. */
export type TrustedKey =
  | { readonly entry: KeyEntry; readonly key: PublicKey; readonly refusal: null }
  | { readonly entry: KeyEntry; readonly key: null; readonly refusal: JwsError }

/** Whom a verifier believes. It comes from the verifier's own side, never from what is verified. */
export interface Trust {
  /** `root`: a thumbprint got out of band; `jwks`: a key file; `self`: this machine's own configuration. */
  readonly pin: 'root' | 'jwks' | 'self' | 'none'
  readonly root: PublicKey | null
  readonly keys: ReadonlyMap<string, TrustedKey>
  /** The issuer URL expected, where one is known. */
  readonly issuer: string | null
  /** Why the keys given are not to be used at all, or null. */
  readonly refusal: string | null
}

/**
 * Trust from what `writ verify` was given: `root` a thumbprint, `file` the bytes of a key file (`keys.jwt`, what
 * `writ keys --json` prints or `/.well-known/jwks.json` serves, or, without `root`, any JWKS),
 * `own` the key set of this machine's configuration. Without `root` and `file` it is the configuration's own word
 * (`self`); with nothing at all, trust in nobody. Keys that cannot be used (a set another root signed, a file that is
 * none) make every verdict `UNTRUSTED` `KEYS`.
 */
export function openTrust(given: {
  readonly root?: string | undefined
  readonly file?: Uint8Array | undefined
  readonly own?: string | undefined
  readonly issuer?: string | undefined
}): Trust {
  const issuer = given.issuer ?? null
  const root = given.root ?? null
  const pin = root !== null ? 'root' : given.file !== undefined ? 'jwks' : given.own !== undefined ? 'self' : 'none'
  const nobody: Trust = { pin, root: null, keys: new Map(), issuer, refusal: null }
  try {
    if (given.file !== undefined) {
      const text = Buffer.from(given.file).toString('latin1').trim()
      if (!text.startsWith('{')) return fromKeySet(text, root, pin, issuer)
      const file = readKeyFile(given.file)
      // The set a root signed is worth more than the list beside it.
      const { key_set: signed } = file
      return typeof signed === 'string' ? fromKeySet(signed, root, pin, issuer) : fromJwks(file, root, issuer)
    }
    if (given.own !== undefined) return fromKeySet(given.own.trim(), root, pin, issuer)
    return root === null ? nobody : { ...nobody, refusal: 'the root is named, and no key set was given' }
  } catch (error) {
    if (error instanceof JwsError) return { ...nobody, refusal: error.message }
    throw error
  }
}

function fromKeySet(jws: string, root: string | null, pin: Trust['pin'], issuer: string | null): Trust {
  const set = openKeySet(jws, root)
  return { pin, root: set.root, keys: trusted(set.keys), issuer, refusal: null }
}

/**
 * RFC 7517 §5: keys of other kinds and members that are not known are passed over; a private key is not. Nobody signed
 * this list, so under a pinned root it proves nothing: whoever wrote it could have put a key of theirs beside the root.
 */
function fromJwks(file: JsonObject, root: string | null, issuer: string | null): Trust {
  if (root !== null)
    throw new JwsError(
      'KID',
      'the root demanded has not signed this list of keys: give keys.jwt, or a file with its "key_set"',
    )
  const list = file['keys']
  if (!Array.isArray(list)) throw new JwsError('JSON', 'the key file holds no list of keys')
  const keys = trusted(parseKeyEntries((list as readonly Json[]).filter(isEd25519).map(knownMembers)))
  const named = [...keys.values()].find(({ entry }) => entry.role === 'root')
  return { pin: 'jwks', root: named?.key ?? null, keys, issuer, refusal: null }
}

function readKeyFile(bytes: Uint8Array): JsonObject {
  try {
    const file = parseIJson(bytes, { maxBytes: 1024 * 1024, refuseProto: true })
    if (file !== null && typeof file === 'object' && !Array.isArray(file)) return file as JsonObject
  } catch (error) {
    if (!(error instanceof WritError)) throw error
    throw new JwsError('JSON', `the key file is ${error.message}`)
  }
  throw new JwsError('JSON', 'the key file is not a JSON object')
}

function isEd25519(key: Json): key is JsonObject {
  if (key === null || typeof key !== 'object' || Array.isArray(key)) return false
  const jwk = key as JsonObject
  if (jwk['d'] !== undefined) throw new JwsError('HEADER', 'the key file holds a private key')
  return jwk['kty'] === 'OKP' && jwk['crv'] === 'Ed25519'
}

function knownMembers(jwk: JsonObject): JsonObject {
  const { kty, crv, x, kid, alg, use, role, from, until } = jwk
  return Object.fromEntries(
    Object.entries({ kty, crv, x, kid, alg, use, role, from, until }).filter(
      (member): member is [string, Json] => member[1] !== undefined,
    ),
  )
}

function trusted(entries: readonly KeyEntry[]): ReadonlyMap<string, TrustedKey> {
  return new Map(entries.map((entry) => [entry.kid, trust(entry)]))
}

export function trust(entry: KeyEntry): TrustedKey {
  try {
    return { entry, key: publicKey(entry.x), refusal: null }
  } catch (error) {
    if (error instanceof JwsError) return { entry, key: null, refusal: error }
    throw error
  }
}

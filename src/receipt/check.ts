import { digestOf } from '../digest.ts'
import type { Digest, Json, JsonObject } from '../digest.ts'
import { JwsError, parseCompact, parsePayload, verifyEd25519 } from '../jws.ts'
import { brokerUrn, openKeySet } from './keyset.ts'
import type { KeyEntry } from './keyset.ts'
import { ProfileError, readClaims } from './profile.ts'
import type { Claims, KeyPredicate } from './schema.ts'
import { createFrontier } from './tree.ts'
import type { Trust, TrustedKey } from './trust.ts'
import { Finding } from './verdict.ts'

/** A receipt whose signature, profile, issuer and key held, taken alone. */
export interface Checked {
  readonly jws: string
  readonly digest: Digest
  readonly index: number
  readonly claims: Claims
  readonly payloadBytes: Uint8Array
  readonly key: TrustedKey
}

const emptyRoot = createFrontier().root().toString('base64')

/**
 * Everything that can be said of one receipt without another: form, key, signature, then the claims, in that order, so
 * that nothing unauthentic is interpreted. Throws `Finding`.
 */
export function checkReceipt(jws: string, trust: Trust): Checked {
  try {
    const parts = parseCompact(jws, 'writ-receipt+jwt')
    const key = keyOf(parts.header.kid, trust)
    if (key.key === null) throw key.refusal
    if (!verifyEd25519(key.key, parts.signingInput, parts.signature))
      throw new Finding('SIG', 'the signature is not one of this key over these bytes')
    const payload = parsePayload(parts.payloadBytes)
    checkRole(key.entry, payload)
    const claims = readClaims(payload)
    checkIssuer(claims.iss, trust)
    const index = claims.predicate.log.size
    if (index < key.entry.from || (key.entry.until !== null && index >= key.entry.until))
      throw new Finding('KEY_EPOCH', `the key was not in force at index ${index}`, index)
    const { predicate } = claims
    if (predicate.kind === 'genesis' && (predicate.log.root !== emptyRoot || predicate.root !== key.entry.kid))
      throw new Finding('HEAD', 'a genesis that does not begin an empty log of its root', 0)
    if (predicate.kind === 'key') readChange(predicate, key.entry, index, trust)
    return { jws, digest: digestOf(jws), index, claims, payloadBytes: parts.payloadBytes, key }
  } catch (error) {
    if (error instanceof JwsError || error instanceof ProfileError) throw new Finding(error.code, error.message)
    throw error
  }
}

function keyOf(kid: string, trust: Trust): TrustedKey {
  if (trust.refusal !== null) throw new Finding('KEYS', trust.refusal)
  if (trust.pin === 'none') throw new Finding('NO_TRUST', 'no root and no key file was given to trust')
  const key = trust.keys.get(kid)
  if (key === undefined) throw new Finding('UNKNOWN_KEY', 'the key is not among those trusted')
  return key
}

function checkRole(key: KeyEntry, payload: JsonObject): void {
  const predicate: Json | undefined = payload['predicate']
  const kind =
    predicate !== null && typeof predicate === 'object' && !Array.isArray(predicate)
      ? (predicate as JsonObject)['kind']
      : null
  if (key.role !== (kind === 'genesis' ? 'root' : 'receipt'))
    throw new Finding('KEY_ROLE', `a ${key.role} key does not sign this`)
}

function checkIssuer(iss: string, trust: Trust): void {
  if (iss === trust.issuer) return
  const expected = trust.root === null ? null : brokerUrn(trust.root.kid)
  if (iss.startsWith('urn:writ:') ? expected !== null && iss !== expected : trust.issuer !== null)
    throw new Finding('ISS', 'the issuer is not the broker whose keys these are')
}

/**
 * The root's word inside a `key` receipt: the outgoing key, which signs it, ends after this index and the incoming one
 * begins there. Returns both entries; throws `KEY_CHAIN` without the root's signature.
 */
export function readChange(
  predicate: KeyPredicate,
  signer: KeyEntry,
  index: number,
  trust: Trust,
): readonly [KeyEntry, KeyEntry] {
  if (trust.root === null)
    throw new Finding('KEY_CHAIN', 'no root is known that could confirm the change of keys', index)
  try {
    const { keys } = openKeySet(predicate.change, trust.root.kid)
    const outgoing = keys.find(
      (key) => key.kid === predicate.outgoing && key.role === 'receipt' && key.until === index + 1,
    )
    const incoming = keys.find(
      (key) => key.kid === predicate.incoming && key.role === 'receipt' && key.from === index + 1,
    )
    if (outgoing !== undefined && incoming !== undefined && outgoing.kid === signer.kid) return [outgoing, incoming]
  } catch (error) {
    if (!(error instanceof JwsError)) throw error
    throw new Finding('KEY_CHAIN', 'the root did not sign the change of keys', index)
  }
  throw new Finding('KEY_CHAIN', 'the root confirmed another change of keys', index)
}

import { canonical, digestJson, digestOf } from '../digest.ts'
import type { Json, JsonObject } from '../digest.ts'
import { WritError } from '../error.ts'
import { JwsError, parseCompact, parsePayload, publicKey, verifyEd25519 } from '../jws.ts'
import type { PublicKey } from '../jws.ts'
import { parseIJson } from '../json.ts'
import type { Checked } from './check.ts'
import { disclosureDigest } from './claims.ts'
import type { CheckedApproval } from './meaning.ts'
import { Finding } from './verdict.ts'

/** What may lie beside a receipt and is checked against it: disclosures, its in-toto twin, the approver's own statement. */

/** RFC 9901 §7.1 with every disclosure accounted for: each stands in `_sd` once and names no member that is in clear. */
export function checkDisclosures(receipt: Checked, disclosures: readonly string[]): ReadonlyMap<string, Json> {
  const withheld = new Set(receipt.claims.predicate._sd)
  const disclosed = new Map<string, Json>()
  for (const disclosure of disclosures) {
    if (!withheld.delete(disclosureDigest(disclosure)))
      throw new Finding('DISCLOSURE', 'a disclosure that the receipt does not withhold', receipt.index)
    const [salt, name, value] = parseDisclosure(disclosure, receipt.index)
    if (
      typeof salt !== 'string' ||
      typeof name !== 'string' ||
      value === undefined ||
      name in receipt.claims.predicate ||
      disclosed.has(name)
    )
      throw new Finding('DISCLOSURE', 'a disclosure that is not of one withheld member', receipt.index)
    disclosed.set(name, value)
  }
  return disclosed
}

function parseDisclosure(disclosure: string, index: number): readonly Json[] {
  const bytes = Buffer.from(disclosure, 'base64url')
  try {
    const value = parseIJson(bytes, { refuseProto: true })
    if (bytes.toString('base64url') === disclosure && Array.isArray(value) && value.length === 3)
      return value as readonly Json[]
  } catch (error) {
    if (!(error instanceof WritError)) throw error
  }
  throw new Finding('DISCLOSURE', 'a disclosure that is not a salt, a name and a value', index)
}

export const inTotoPayloadType = 'application/vnd.in-toto+json'

/** DSSE v1 pre-authentication encoding: cannot be confused with a JWS signing input, so one key may sign both. */
export function preAuthEncoding(payload: Uint8Array): Buffer {
  const prefix = `DSSEv1 ${Buffer.byteLength(inTotoPayloadType)} ${inTotoPayloadType} ${payload.length} `
  return Buffer.concat([Buffer.from(prefix), payload])
}

/** The DSSE envelope beside a receipt holds the same payload bytes, signed by the same key. Throws `TWIN`. */
export function checkTwin(receipt: Checked, envelope: Uint8Array | string): void {
  const fail = (message: string): never => {
    throw new Finding('TWIN', message, receipt.index)
  }
  let twin: JsonObject
  try {
    twin = parseIJson(envelope, { maxBytes: 64 * 1024, maxDepth: 8, refuseProto: true }) as JsonObject
  } catch (error) {
    if (error instanceof WritError) return fail(`the twin is ${error.message}`)
    throw error
  }
  const { payload, payloadType, signatures } = {
    payload: null,
    payloadType: null,
    signatures: null,
    ...twin,
  } as Record<string, Json>
  if (payloadType !== inTotoPayloadType || payload !== Buffer.from(receipt.payloadBytes).toString('base64'))
    return fail('the twin holds another payload')
  const { kid } = receipt.key.entry
  const mine = Array.isArray(signatures)
    ? (signatures as readonly JsonObject[]).filter((entry) => entry?.['keyid'] === kid)
    : []
  const text = mine[0]?.['sig']
  if (mine.length !== 1 || typeof text !== 'string' || receipt.key.key === null)
    return fail('the twin has not one signature of the key')
  const signature = Buffer.from(text, 'base64')
  if (
    signature.toString('base64') !== text ||
    !verifyEd25519(receipt.key.key, preAuthEncoding(receipt.payloadBytes), signature)
  )
    return fail('the signature of the twin is wrong')
}

/** The keys of those who may approve, from their `x`. Throws `KEY_WEAK`. */
export function approverKeys(xs: readonly string[]): readonly PublicKey[] {
  try {
    return xs.map((x) => publicKey(x))
  } catch (error) {
    if (error instanceof JwsError) throw new Finding(error.code, `an approver's key: ${error.message}`)
    throw error
  }
}

/** Seconds by which the broker lets an approver's clock be ahead of its own. */
const clockAhead_s = 120

/**
 * The approver's own statement behind an approval receipt (`writ-approval+jwt`). Without any approvers' keys only what
 * it says is compared. Throws `APPROVAL_SIG`, `APPROVAL_BIND`, and `UNKNOWN_APPROVER` for a key that is none of theirs.
 */
export function checkStatement(receipt: CheckedApproval, jws: string, approvers: readonly PublicKey[]): void {
  const { claims, index } = receipt
  const { predicate } = claims
  if (digestOf(jws) !== predicate.statement)
    throw new Finding('APPROVAL_BIND', 'the statement is not the one received', index)
  const statement = readStatement(jws, approvers, index)
  const at = claims.toe
  const bound: readonly (readonly [string, Json])[] = [
    ['log_origin', claims.iss],
    ['execution_id', predicate.invocationId],
    ['plan', `sha256:${claims.subject[0]?.digest.sha256 ?? ''}`],
    ['requirement', predicate.requirement],
    ['verdict', predicate.verdict],
    ['max_uses', 1],
  ]
  for (const [name, value] of bound)
    if (statement[name] !== value)
      throw new Finding('APPROVAL_BIND', `"${name}" of the statement is not that of the receipt`, index)
  const stage = statement['stage'] ?? null
  // A long name stands in the receipt as its digest.
  if (typeof predicate.stage === 'string' ? stage !== predicate.stage : digestJson(stage) !== predicate.stage.digest)
    throw new Finding('APPROVAL_BIND', '"stage" of the statement is not that of the receipt', index)
  const { issued_at: issued, expires_at: expires } = statement
  if (typeof issued !== 'number' || typeof expires !== 'number' || at > expires || issued > expires)
    throw new Finding('APPROVAL_BIND', 'the statement had expired', index)
  if (issued > at + clockAhead_s)
    throw new Finding('APPROVAL_BIND', 'the statement was made after it was received', index)
}

function readStatement(jws: string, approvers: readonly PublicKey[], index: number): JsonObject {
  try {
    const parts = parseCompact(jws, 'writ-approval+jwt')
    const key = approvers.find(({ kid }) => kid === parts.header.kid)
    if (key === undefined && approvers.length > 0)
      throw new Finding('UNKNOWN_APPROVER', 'the statement is signed by none of the approvers known', index)
    if (key !== undefined && !verifyEd25519(key, parts.signingInput, parts.signature))
      throw new Finding('APPROVAL_SIG', "the approver's signature is wrong", index)
    const statement = parsePayload(parts.payloadBytes)
    if (statement['typ'] === 'writ-approval/v1' && canonical(statement) === parts.payloadBytes.toString('utf8'))
      return statement
  } catch (error) {
    if (error instanceof JwsError) throw new Finding('APPROVAL_SIG', error.message, index)
    throw error
  }
  throw new Finding('APPROVAL_SIG', 'the statement is not in its one canonical form', index)
}

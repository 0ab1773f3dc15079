import { hash, randomBytes } from 'node:crypto'
import type { JsonObject } from '../digest.ts'
import { uuidv7 } from '../id.ts'
import { audience, predicateType, statementType } from './schema.ts'
import type { Account, LogHead } from './receipt.ts'

/** The payload of a receipt and the RFC 9901 disclosures of what it withholds. */
export interface BuiltClaims {
  readonly payload: JsonObject
  readonly disclosures: readonly string[]
}

/**
 * JWT claims and in-toto Statement in one object (docs/receipts.md). `iat` is never before `toe`, also when the wall
 * clock went back between event and signature.
 */
export function buildClaims(account: Account, head: LogHead, nowMs: number): BuiltClaims {
  const iat = Math.floor(nowMs / 1000)
  const { digests, disclosures } = withhold(account.salted)
  const asserted = Object.keys(account.asserted).length === 0 ? {} : { asserted: account.asserted }
  const payload = {
    iss: head.origin,
    ...(account.subject === null ? {} : { sub: account.subject }),
    ...(account.agent === null ? {} : { act: { sub: account.agent } }),
    aud: audience,
    iat,
    toe: Math.min(Math.floor(account.happened_at_ms / 1000), iat),
    jti: uuidv7(nowMs),
    ...(account.task === null ? {} : { txn: account.task }),
    _type: statementType,
    subject: account.subjects.map(({ name, digest }) => ({ name, digest: { sha256: digest.slice('sha256:'.length) } })),
    predicateType,
    predicate: {
      kind: account.kind,
      log: { origin: head.origin, size: head.size, root: head.root },
      ...account.clear,
      ...asserted,
      ...(digests.length === 0 ? {} : { _sd: digests }),
    },
    ...(digests.length === 0 ? {} : { _sd_alg: 'sha-256' }),
  }
  return { payload, disclosures }
}

/** RFC 9901 §4.2: 128 random bits a disclosure, digests sorted so that their order says nothing. */
function withhold(salted: JsonObject): {
  readonly digests: readonly string[]
  readonly disclosures: readonly string[]
} {
  const names = Object.keys(salted)
  const salts = randomBytes(16 * names.length)
  const disclosures = names.map((name, i) =>
    Buffer.from(JSON.stringify([salts.toString('base64url', 16 * i, 16 * (i + 1)), name, salted[name]])).toString(
      'base64url',
    ),
  )
  return { disclosures, digests: disclosures.map(disclosureDigest).sort() }
}

/** RFC 9901 §4.2.3: over the base64url text of the disclosure. */
export function disclosureDigest(disclosure: string): string {
  return hash('sha256', disclosure, 'base64url')
}

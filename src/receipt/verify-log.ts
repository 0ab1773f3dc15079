import { digestOf } from '../digest.ts'
import { checkReceipt, readChange } from './check.ts'
import type { Checked } from './check.ts'
import { approverKeys, checkStatement } from './evidence.ts'
import { createMeaning, isApproval } from './meaning.ts'
import { createFrontier } from './tree.ts'
import { trust as trustKey } from './trust.ts'
import type { Trust, TrustedKey } from './trust.ts'
import { Finding } from './verdict.ts'
import type { Report } from './verdict.ts'
import { issuerNotShown, neverShown, report } from './verify.ts'

/** What may be given beside a log. */
export interface LogEvidence {
  /** Executions whose outcome is not due yet. */
  readonly open?: ReadonlySet<string> | undefined
  /** Receipts got elsewhere (by a caller, an approver, an earlier audit): each has to be in this log. */
  readonly held?: readonly string[] | undefined
  /** Approvers' statements (compact JWS) and the `x` of approvers' keys. */
  readonly statements?: readonly string[] | undefined
  readonly approvers?: readonly string[] | undefined
}

const oneLogOnly = 'that nobody was shown another log of this root: only receipts held elsewhere could tell'

/**
 * Verifies a whole receipt log from its first entry: each receipt, each embedded head against the tree recomputed here,
 * the changes of keys, and what the receipts mean to one another. Where the root is known, keys that came into force
 * after the key set was issued are learned from the root's word inside the log. Never throws for what it is given.
 */
export function verifyLog(
  entries: Iterable<{ readonly index: number; readonly jws: string }>,
  trust: Trust,
  evidence: LogEvidence = {},
): Report {
  return report(trust, () => {
    const walk = createWalk(trust, evidence)
    for (const { index, jws } of entries) {
      try {
        walk.take(index, jws)
      } catch (error) {
        if (error instanceof Finding && error.at === null) throw new Finding(error.code, error.message, index)
        throw error
      }
    }
    return walk.end()
  })
}

function createWalk(trust: Trust, evidence: LogEvidence) {
  const keys = new Map(trust.keys)
  const learning: Trust = { ...trust, keys }
  const frontier = createFrontier()
  const meaning = createMeaning()
  const ids = new Set<string>()
  /** Keys that the log itself brought: those of its genesis, and each that a `key` receipt let in. */
  const announced = new Set<string>()
  const kinds: Record<string, number> = {}
  const digests: string[] = []
  const approvers = approverKeys(evidence.approvers ?? [])
  const statements = new Map((evidence.statements ?? []).map((jws) => [digestOf(jws) as string, jws]))
  let unsigned = 0
  let newest = 0
  let origin: string | null = null

  return {
    take(index: number, jws: string): void {
      if (index > frontier.size)
        throw new Finding('GAP', `the entry at index ${frontier.size} is missing`, frontier.size)
      const receipt = checkReceipt(jws, learning)
      const { iss, iat, jti, predicate } = receipt.claims
      if (
        index < frontier.size ||
        predicate.log.size !== index ||
        predicate.log.root !== frontier.root().toString('base64')
      )
        throw new Finding('HEAD', 'the head inside the receipt is not that of the log before it', index)
      if (index === 0 && predicate.kind !== 'genesis')
        throw new Finding('HEAD', 'the log does not begin with its genesis', 0)
      origin ??= iss
      if (iss !== origin) throw new Finding('ISS', 'the issuer is not that of the log', index)
      if (ids.has(jti)) throw new Finding('REPLAY', 'a receipt id for the second time', index)
      ids.add(jti)
      // The one writer of a log never signs with a time before its newest entry's, whatever its clock does.
      if (iat < newest) throw new Finding('TIME', 'signed before the entry that stands before it', index)
      newest = iat
      if (index > 0 && !announced.has(receipt.key.entry.kid))
        throw new Finding('KEY_CHAIN', 'signed by a key that the log did not bring', index)
      followKeys(receipt, learning, keys, announced)
      meaning.take(receipt)
      if (isApproval(receipt)) {
        const statement = statements.get(receipt.claims.predicate.statement)
        if (statement !== undefined) checkStatement(receipt, statement, approvers)
        if (statement === undefined || approvers.length === 0) unsigned++
      }
      kinds[predicate.kind] = (kinds[predicate.kind] ?? 0) + 1
      if (evidence.held !== undefined) digests.push(receipt.digest)
      frontier.append(jws)
    },
    end(): Omit<Report, 'code' | 'why' | 'pinned'> {
      if (origin === null) throw new Finding('GAP', 'the log is empty', 0)
      checkHeld(evidence.held ?? [], learning, digests)
      meaning.end(evidence.open ?? new Set())
      return {
        verdict: 'VALID:LOGGED',
        at: null,
        key: null,
        words: null,
        checked: [
          ...(kinds['approval'] !== undefined && unsigned === 0 ? ['APPROVER'] : []),
          ...(evidence.held === undefined ? [] : ['HELD']),
        ],
        refersTo: [],
        notShown: [
          ...issuerNotShown(origin, trust),
          ...(unsigned === 0 ? [] : [`that a person signed each approval: ${unsigned} could not be checked`]),
          oneLogOnly,
          ...neverShown,
        ],
        log: { size: frontier.size, root: frontier.root().toString('base64'), kinds },
      }
    },
  }
}

/** A key comes into force right after the `key` receipt that brings it, and no other way. */
function followKeys(receipt: Checked, trust: Trust, keys: Map<string, TrustedKey>, announced: Set<string>): void {
  const { index, claims } = receipt
  if (claims.predicate.kind === 'genesis') for (const { kid } of claims.predicate.keys) announced.add(kid)
  if (claims.predicate.kind === 'key') {
    for (const entry of readChange(claims.predicate, receipt.key.entry, index, trust)) {
      keys.set(entry.kid, trustKey(entry))
      announced.add(entry.kid)
    }
    return
  }
  for (const { entry } of keys.values())
    if (entry.role === 'receipt' && entry.from === index + 1)
      throw new Finding('KEY_CHAIN', 'a key comes into force without its receipt', index)
}

/** A receipt of this root that the log does not hold, at an index the log has, is its signer's own proof of a second history. */
function checkHeld(held: readonly string[], trust: Trust, digests: readonly string[]): void {
  for (const jws of held) {
    const receipt = checkReceipt(jws, trust)
    const found = digests[receipt.index]
    if (found === undefined)
      throw new Finding('STALE', 'a receipt held elsewhere is newer than this log', receipt.index)
    if (found !== receipt.digest)
      throw new Finding('FORK', 'a receipt held elsewhere contradicts the log at its index', receipt.index)
  }
}

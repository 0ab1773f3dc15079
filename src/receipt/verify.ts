import { digestJson } from '../digest.ts'
import { checkReceipt } from './check.ts'
import type { Checked } from './check.ts'
import { approverKeys, checkDisclosures, checkStatement, checkTwin } from './evidence.ts'
import { checkPair, checkUse, isApproval, isDecision, isOutcome } from './meaning.ts'
import type { CheckedApproval, CheckedDecision } from './meaning.ts'
import type { Trust } from './trust.ts'
import { Finding, classOf } from './verdict.ts'
import type { Report } from './verdict.ts'
import { referencesOf, wordsOf } from './words.ts'

/** What may be given beside one receipt. */
export interface Evidence {
  /** RFC 9901 disclosures; those appended to the receipt with `~` are added to them. */
  readonly disclosures?: readonly string[] | undefined
  /** A DSSE envelope over the same payload. */
  readonly twin?: Uint8Array | string | undefined
  /** Receipts it refers to: the decision of an outcome, the approvals of a decision. */
  readonly related?: readonly string[] | undefined
  /** Approvers' statements (compact JWS) and the `x` of approvers' keys. */
  readonly statements?: readonly string[] | undefined
  readonly approvers?: readonly string[] | undefined
}

/** What no receipt and no log can show. */
export const neverShown = [
  'that no action went past Writ',
  'that what callers and services told Writ was true',
  'that the machine of the broker was honest when it signed',
]
const oneReceiptOnly = 'that it stands in the receipt log, and that nothing was left out of that log'

/** Verifies one receipt offline, with or without what it refers to. Never throws for what it is given. */
export function verifyReceipt(text: string, trust: Trust, evidence: Evidence = {}): Report {
  return report(trust, () => {
    const [jws = '', ...appended] = text.split('~')
    // A presentation of RFC 9901 ends in `~`; anything behind it would be a key binding, which receipts do not have.
    if (appended.length > 0 && appended.pop() !== '') throw new Finding('FORM', 'something follows the last disclosure')
    const receipt = checkReceipt(jws, trust)
    const checked: string[] = []
    const disclosures = [...appended, ...(evidence.disclosures ?? [])]
    if (disclosures.length > 0) {
      checkDisclosures(receipt, disclosures)
      checked.push('DISCLOSURES')
    }
    if (evidence.twin !== undefined) {
      checkTwin(receipt, evidence.twin)
      checked.push('TWIN')
    }
    const given = checkRelated(receipt, trust, evidence, checked)
    return {
      verdict: 'VALID:SIGNED',
      at: receipt.index,
      key: { kid: receipt.key.entry.kid, role: receipt.key.entry.role },
      words: wordsOf(receipt),
      checked,
      refersTo: referencesOf(receipt, given),
      notShown: [...issuerNotShown(receipt.claims.iss, trust), oneReceiptOnly, ...neverShown],
      log: null,
    }
  })
}

/** Pairs a receipt with those given beside it; returns the digests of what was checked. */
function checkRelated(receipt: Checked, trust: Trust, evidence: Evidence, checked: string[]): ReadonlySet<string> {
  const given = new Set<string>()
  const related = (evidence.related ?? []).map((jws) => checkReceipt(jws, trust))
  if (isOutcome(receipt))
    for (const decision of related.filter(isDecision)) {
      checkPair(receipt, decision)
      given.add(decision.digest)
      checked.push('DECISION')
    }
  if (isDecision(receipt)) {
    const approvals = related.filter(isApproval)
    for (const approval of approvals) checkUse(receipt, approval)
    const used = usedOf(receipt, approvals)
    for (const { digest } of used) {
      given.add(digest)
      checked.push('APPROVAL')
    }
    const { approvals: named } = receipt.claims.predicate
    if (!Array.isArray(named) && used.length > 0) given.add(named.digest)
  }
  if (isApproval(receipt)) {
    const approvers = approverKeys(evidence.approvers ?? [])
    for (const statement of evidence.statements ?? []) {
      checkStatement(receipt, statement, approvers)
      given.add(receipt.claims.predicate.statement)
      checked.push(approvers.length > 0 ? 'APPROVER' : 'STATEMENT')
    }
  }
  return given
}

/**
 * Those of the approvals given that the decision names. More than a receipt has room for it names by one digest over all of
 * them: then all are, or, where some are missing, nobody can say that any of them is.
 */
function usedOf(decision: CheckedDecision, approvals: readonly CheckedApproval[]): readonly CheckedApproval[] {
  const { approvals: named } = decision.claims.predicate
  const fail = (): never => {
    throw new Finding('APPROVAL_BIND', 'the decision does not use this approval', decision.index)
  }
  if (Array.isArray(named)) {
    const uses = ({ digest, index }: CheckedApproval): boolean =>
      named.some((one) => one.digest === digest && one.index === index)
    return approvals.every(uses) ? approvals : fail()
  }
  const all = [...new Map(approvals.map((one) => [one.index, one])).values()].sort((a, b) => a.index - b.index)
  if (digestJson(all.map(({ digest, index }) => ({ digest, index }))) === named.digest) return all
  return all.length < named.count ? [] : fail()
}

/** A URL says nothing by itself about whose keys sign under it. */
export function issuerNotShown(iss: string, trust: Trust): readonly string[] {
  return iss.startsWith('urn:writ:') || trust.issuer !== null
    ? []
    : ['that the issuer named is the one meant: no issuer was pinned']
}

/** A report from what `make` finds out, or from the `Finding` it throws. */
export function report(trust: Trust, make: () => Omit<Report, 'code' | 'why' | 'pinned'>): Report {
  try {
    return { ...make(), code: null, why: null, pinned: trust.pin }
  } catch (error) {
    if (!(error instanceof Finding)) throw error
    const { code, message, at } = error
    return {
      verdict: classOf(code),
      code,
      why: message,
      at,
      key: null,
      pinned: trust.pin,
      words: null,
      checked: [],
      refersTo: [],
      notShown: [],
      log: null,
    }
  }
}

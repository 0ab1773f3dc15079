import { digestJson } from '../digest.ts'
import type { Checked } from './check.ts'
import type { ApprovalPredicate, DecisionPredicate, OutcomePredicate } from './schema.ts'
import { planSubject } from './schema.ts'
import { Finding } from './verdict.ts'

/**
 * What receipts mean to one another: an outcome accounts for the final decision of its own run, an approval is for one
 * plan and one requirement and is used once, a decision rests on a policy that was in force, nothing allowed is left open.
 */

type Of<P> = Checked & { readonly claims: { readonly predicate: P } }
export type CheckedDecision = Of<DecisionPredicate>
export type CheckedApproval = Of<ApprovalPredicate>
export type CheckedOutcome = Of<OutcomePredicate>

export function isDecision(receipt: Checked): receipt is CheckedDecision {
  return receipt.claims.predicate.kind === 'decision'
}

export function isApproval(receipt: Checked): receipt is CheckedApproval {
  return receipt.claims.predicate.kind === 'approval'
}

export function isOutcome(receipt: Checked): receipt is CheckedOutcome {
  return receipt.claims.predicate.kind === 'outcome'
}

/** Seconds a clock may have been set back between a decision and its outcome; what was signed when, `iat`, bears none. */
const clockSetBack_s = 86_400

/** An outcome against the decision it names. */
export function checkPair(outcome: CheckedOutcome, decision: CheckedDecision): void {
  const { decisionRef, invocationId, effect } = outcome.claims.predicate
  const [first] = outcome.claims.subject
  if (decisionRef.index >= outcome.index)
    throw new Finding('ORDER', 'the outcome came before its decision', outcome.index)
  if (decisionRef.digest !== decision.digest || decisionRef.index !== decision.index)
    throw new Finding('PAIR', 'the outcome names another decision', outcome.index)
  if (outcome.claims.iat < decision.claims.iat || outcome.claims.toe < decision.claims.toe - clockSetBack_s)
    throw new Finding('ORDER', 'the outcome came before its decision', outcome.index)
  if (decision.claims.predicate.invocationId !== invocationId || decision.claims.txn !== outcome.claims.txn)
    throw new Finding('PAIR', 'the outcome names the decision of another run', outcome.index)
  if (!sameCaller(outcome, decision))
    throw new Finding('PAIR', 'the outcome is on behalf of another than its decision', outcome.index)
  if (first?.name === planSubject && planOf(outcome) !== planOf(decision))
    throw new Finding('PAIR', 'the outcome is of another plan than its decision', outcome.index)
  if (effect !== 'none' && decision.claims.predicate.result !== 'allow')
    throw new Finding('ORDER', 'something ran that no decision allowed', outcome.index)
}

/** A decision against one approval it uses. */
export function checkUse(decision: CheckedDecision, approval: CheckedApproval): void {
  const mine = decision.claims.predicate
  const given = approval.claims.predicate
  const fail = (message: string): never => {
    throw new Finding('APPROVAL_BIND', message, decision.index)
  }
  if (given.verdict !== 'approve') fail('the decision uses a verdict that says no')
  if (planOf(approval) !== planOf(decision)) fail('the approval is for another plan')
  if (given.invocationId !== mine.invocationId || approval.claims.txn !== decision.claims.txn)
    fail('the approval is for another run')
  if (!sameCaller(approval, decision)) fail('the approval is for a run on behalf of another')
  if (given.requirement !== mine.requirement) fail('the approval answers another requirement')
  if (approval.index >= decision.index || approval.claims.iat > decision.claims.iat)
    fail('the approval came after the decision')
}

/** Subject and agent are those of the plan, so every receipt of a run names the same. */
function sameCaller({ claims: one }: Checked, { claims: other }: Checked): boolean {
  return one.sub === other.sub && one.act?.sub === other.act?.sub
}

function planOf(receipt: Checked): string {
  return receipt.claims.subject.map((subject) => subject.digest.sha256).join()
}

interface Run {
  readonly last: CheckedDecision
  readonly approvals: CheckedApproval[]
}

/** Follows a log from its first entry. `take` and `end` throw `Finding`. */
export interface Meaning {
  take(receipt: Checked): void
  /** `open`: executions whose outcome is not due yet. */
  end(open: ReadonlySet<string>): void
}

export function createMeaning(): Meaning {
  const runs = new Map<string, Run>()
  const ended = new Set<string>()
  const early = new Map<string, CheckedApproval[]>()
  const approvalsByDigest = new Map<string, CheckedApproval>()
  const usedApprovals = new Set<string>()
  const statements = new Set<string>()
  const ranPlans = new Set<string>()
  const generations = new Map<number, string>()

  function takeDecision(decision: CheckedDecision): void {
    const { predicate } = decision.claims
    const run = runs.get(predicate.invocationId)
    if (ended.has(predicate.invocationId))
      throw new Finding('ORDER', 'a decision after the outcome of its run', decision.index)
    if (run !== undefined && planOf(run.last) !== planOf(decision))
      throw new Finding('PAIR', 'two decisions of one run are about two plans', decision.index)
    if (predicate.result === 'allow' || predicate.result === 'pending') {
      if (generations.get(predicate.generation) !== predicate.policy)
        throw new Finding('POLICY_EPOCH', 'the decision rests on a policy that was not in force', decision.index)
    }
    const given = run?.approvals ?? early.get(predicate.invocationId) ?? []
    useApprovals(decision, given)
    early.delete(predicate.invocationId)
    runs.set(predicate.invocationId, { last: decision, approvals: given })
  }

  /** Every approval named is there and fits; what allows spends it. */
  function useApprovals(decision: CheckedDecision, given: readonly CheckedApproval[]): void {
    const { approvals, requirement, result } = decision.claims.predicate
    const references = Array.isArray(approvals) ? approvals : longList(decision, approvals, given)
    const missing = result === 'allow' && requirement !== null && references.length === 0
    if (missing || (requirement === null && references.length > 0))
      throw new Finding('APPROVAL_BIND', 'what was required and what was approved do not come together', decision.index)
    for (const reference of references) {
      const approval = approvalsByDigest.get(reference.digest)
      if (approval === undefined || approval.index !== reference.index)
        throw new Finding('APPROVAL_BIND', 'the decision uses an approval that is not in the log', decision.index)
      checkUse(decision, approval)
      if (usedApprovals.has(approval.digest))
        throw new Finding('APPROVAL_BIND', 'an approval is used a second time', decision.index)
    }
    if (new Set(references.map(({ digest }) => digest)).size !== references.length)
      throw new Finding('APPROVAL_BIND', 'one approval is counted twice', decision.index)
    if (result === 'allow') for (const { digest } of references) usedApprovals.add(digest)
  }

  function takeApproval(approval: CheckedApproval): void {
    const { invocationId, statement } = approval.claims.predicate
    if (statements.has(statement))
      throw new Finding('APPROVAL_BIND', 'one statement stands behind two approvals', approval.index)
    statements.add(statement)
    approvalsByDigest.set(approval.digest, approval)
    const given = runs.get(invocationId)?.approvals ?? early.get(invocationId) ?? []
    given.push(approval)
    if (!runs.has(invocationId)) early.set(invocationId, given)
  }

  function takeGeneration(number: number, digest: string, index: number): void {
    if ((generations.get(number) ?? digest) !== digest)
      throw new Finding('POLICY_EPOCH', 'one generation of policy is two', index)
    generations.set(number, digest)
  }

  function takeOutcome(outcome: CheckedOutcome): void {
    const { invocationId, effect } = outcome.claims.predicate
    if (ended.has(invocationId)) throw new Finding('PAIR', 'a second outcome of one run', outcome.index)
    const run = runs.get(invocationId)
    if (run === undefined) throw new Finding('ORDER', 'an outcome without a decision before it', outcome.index)
    checkPair(outcome, run.last)
    if (effect !== 'none') {
      const plan = planOf(run.last)
      if (ranPlans.has(plan)) throw new Finding('PAIR', 'one plan ran twice', outcome.index)
      ranPlans.add(plan)
    }
    // A run that has ended is remembered by name only, so that a log of any length can be followed.
    ended.add(invocationId)
    runs.delete(invocationId)
    for (const approval of run.approvals) approvalsByDigest.delete(approval.digest)
  }

  return {
    take(receipt) {
      if (isDecision(receipt)) takeDecision(receipt)
      else if (isOutcome(receipt)) takeOutcome(receipt)
      else if (isApproval(receipt)) takeApproval(receipt)
      else {
        const { predicate, subject } = receipt.claims
        if (predicate.kind === 'policy' && predicate.generation !== undefined)
          takeGeneration(predicate.generation, `sha256:${subject[0]?.digest.sha256 ?? ''}`, receipt.index)
      }
    },
    end(open) {
      for (const [invocation, run] of runs)
        if (run.last.claims.predicate.result === 'allow' && !open.has(invocation))
          throw new Finding('DANGLING', 'an allowed run has no outcome', run.last.index)
    },
  }
}

/** A list too long for the receipt stands there as a digest; the log itself holds what it was made of. */
function longList(
  decision: CheckedDecision,
  { digest, count }: { readonly digest: string; readonly count: number },
  given: readonly CheckedApproval[],
) {
  const { requirement } = decision.claims.predicate
  const references = given
    .filter(({ claims: { predicate } }) => predicate.verdict === 'approve' && predicate.requirement === requirement)
    // Those of an earlier approval, which was asked anew because one of them counted no more, stand before those used.
    .slice(-count)
    .map((approval) => ({ digest: approval.digest, index: approval.index }))
  if (digestJson(references) !== digest)
    throw new Finding('APPROVAL_BIND', 'the approvals used are not those in the log', decision.index)
  return references
}

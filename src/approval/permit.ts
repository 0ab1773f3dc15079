import type { Digest } from '../digest.ts'
import { WritError } from '../error.ts'
import type { ExecutionId } from '../id.ts'
import type { Plan } from '../plan/plan.ts'
import type { Decision } from '../policy/policy.ts'

declare const brand: unique symbol

/** The single-use proof that a plan may run now. Only `settle` makes one; a look-alike is refused by `spend`. */
export interface Permit {
  readonly [brand]: 'permit'
  readonly execution: ExecutionId
  readonly plan: Plan
  readonly digest: Digest
  readonly decision: Decision
  readonly dies_at_ms: number
}

/** A permit dies this long after the decision it stands on. */
export const permitLifeMs = 10_000

const minted = new WeakSet<object>()

/** A permit where the decision on exactly this plan is a clean allow, else null. */
export function settle(
  execution: ExecutionId,
  plan: Plan,
  digest: Digest,
  decision: Decision,
  monotonicMs: number,
): Permit | null {
  if (decision.effect !== 'allow' || decision.error !== null || decision.phase !== 'execution') return null
  // The one assertion that mints: the compiler, this set and the ledger's unique index are the three keepers.
  const permit = Object.freeze({ execution, plan, digest, decision, dies_at_ms: monotonicMs + permitLifeMs }) as Permit
  minted.add(permit)
  return permit
}

/** Uses a permit up. Throws `denied` for a second use, for one that has died, and for what `settle` did not make. */
export function spend(permit: Permit, monotonicMs: number): void {
  if (!minted.delete(permit)) throw new WritError('denied', 'this permit was spent before, or was never given')
  if (monotonicMs > permit.dies_at_ms) throw new WritError('denied', 'this permit has died')
}

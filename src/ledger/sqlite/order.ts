import { isFinal } from '../../execution/execution.ts'
import type { ExecutionId } from '../../id.ts'
import type { Entry, Step } from '../ledger.ts'
import { executionRow, refuse } from './facts.ts'
import type { Database } from './database.ts'

/**
 * The order of effects that only a whole batch can keep (docs/architecture.md "Order of effects", steps 2 and 6): a run begins with its
 * permit and decision receipt, and ends with its outcome receipt, in one transaction. Throws `conflict`.
 */
export function checkBatch(db: Database, steps: readonly Step[]): void {
  const receipted = (execution: ExecutionId, kind: 'decision' | 'outcome') =>
    steps.some((step) => step.kind === 'receipt' && step.execution === execution && step.receipt.kind === kind)
  for (const step of steps) {
    if (step.kind === 'permit_spent') {
      if (executionRow(db, step.execution).state !== 'running') refuse('a permit is spent where its execution starts')
      if (!receipted(step.execution, 'decision')) refuse('no run without a decision receipt')
    } else if (step.kind === 'state' && step.state === 'running') {
      if (!steps.some((other) => other.kind === 'permit_spent' && other.execution === step.execution))
        refuse('no run without a permit')
    } else if (step.kind === 'state' && isFinal(step.state) && executionRow(db, step.execution).permit !== null) {
      if (!receipted(step.execution, 'outcome')) refuse('no end of a run without an outcome receipt')
    }
  }
}

/**
 * What may use the reserve: a batch that ends something and begins nothing. Everything else waits for space, so that
 * neither a flood of refusals nor a new run can take the room an outcome needs.
 */
export function closesARun(entries: readonly Entry[]): boolean {
  const ends = (entry: Entry) =>
    entry.kind === 'outcome' ||
    entry.kind === 'leased' ||
    entry.kind === 'lease_ended' ||
    entry.kind === 'approval_closed' ||
    // A token that was stolen has to end, whatever the disk is like.
    entry.kind === 'token_revoked' ||
    (entry.kind === 'state' && isFinal(entry.state))
  const begins = (entry: Entry) =>
    entry.kind === 'task' ||
    entry.kind === 'planned' ||
    entry.kind === 'permit_spent' ||
    entry.kind === 'lease_intended' ||
    entry.kind === 'approval_opened' ||
    entry.kind === 'token_created'
  return entries.some(ends) && !entries.some(begins)
}

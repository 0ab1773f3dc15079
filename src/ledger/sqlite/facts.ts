import { WritError } from '../../error.ts'
import type { ExecutionState } from '../../execution/execution.ts'
import type { ExecutionId } from '../../id.ts'
import type { Position } from '../ledger.ts'
import type { Database } from './database.ts'

/** Where a step stands: all a view may depend on beside the step itself and the views before it. */
export interface Place {
  readonly position: Position
  readonly at_ms: number
}

export function refuse(message: string): never {
  throw new WritError('conflict', message)
}

interface ExecutionFacts {
  readonly tenant: string
  readonly owner: string
  readonly task: string
  readonly plan: string
  readonly state: ExecutionState | null
  readonly permit: number | null
  readonly outcome: number | null
  readonly outcome_receipt: string | null
}

export function executionRow(db: Database, id: ExecutionId): ExecutionFacts {
  return (
    db.get<ExecutionFacts>(
      'SELECT tenant, owner, task, plan, state, permit, outcome, outcome_receipt FROM executions WHERE id = ?',
      id,
    ) ?? refuse('this execution was never planned')
  )
}

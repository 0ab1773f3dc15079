import type { Approval, ApprovalState, Verdict } from '../../approval/approval.ts'
import type { Digest } from '../../digest.ts'
import type { Execution, ExecutionState } from '../../execution/execution.ts'
import { WritError } from '../../error.ts'
import type { ApprovalId, ExecutionId, LeaseId, ReceiptId, TaskId } from '../../id.ts'
import type { ReceiptKind } from '../../receipt/receipt.ts'
import type { LeaseRow, Position, ReceiptRow, Step, StoredStep } from '../ledger.ts'
import type { Database } from './database.ts'

/** What the views hold of a thing, and the thing as it is read: small facts from the view, the rest from its steps. */

export function parseStep(body: string): Step {
  return JSON.parse(body) as Step
}

export function storedSteps(
  rows: readonly { readonly position: number; readonly at_ms: number; readonly body: string }[],
): readonly StoredStep[] {
  return rows.map(({ position, at_ms, body }) => ({ position, at_ms, step: parseStep(body) }))
}

/** The step at a position, which a view named; rejects `ledger_corrupt` where it is not of that kind. */
export function stepAt<K extends Step['kind']>(db: Database, position: Position, kind: K): Step & { kind: K } {
  const row = db.get<{ body: string }>('SELECT body FROM steps WHERE position = ?', position)
  const step = row === null ? null : parseStep(row.body)
  if (step === null || step.kind !== kind)
    throw new WritError('ledger_corrupt', 'a view of the ledger does not fit its steps')
  return step as Step & { kind: K }
}

export interface ExecutionColumns {
  readonly id: ExecutionId
  readonly tenant: string
  readonly owner: string
  readonly task: TaskId
  readonly plan: Digest
  readonly state: ExecutionState
  readonly ran: number
  readonly reasons: string
  readonly approval: ApprovalId | null
  readonly created_at_ms: number
  readonly changed_at_ms: number
  readonly outcome: number | null
  readonly outcome_receipt: string | null
}

export function executionOf(db: Database, row: ExecutionColumns): Execution {
  return {
    id: row.id,
    task: row.task,
    tenant: row.tenant,
    owner: row.owner,
    plan: row.plan,
    state: row.state,
    ran: row.ran === 1,
    reasons: JSON.parse(row.reasons) as Execution['reasons'],
    approval: row.approval,
    created_at_ms: row.created_at_ms,
    changed_at_ms: row.changed_at_ms,
    report: row.outcome === null ? null : stepAt(db, row.outcome, 'outcome').report,
    outcome_receipt: row.outcome_receipt,
    // Where a run stands is not a step: only the broker that runs it knows.
    progress: null,
  }
}

export interface ApprovalColumns {
  readonly id: ApprovalId
  readonly state: ApprovalState
  readonly execute_by_ms: number | null
  readonly position: number
}

export function approvalOf(db: Database, row: ApprovalColumns): Approval {
  const opened = stepAt(db, row.position, 'approval_opened').approval
  const given = db.all<{ position: number }>(
    'SELECT position FROM verdicts WHERE approval = ? ORDER BY position',
    row.id,
  )
  const verdicts: readonly Verdict[] = given.map(({ position }) => stepAt(db, position, 'verdict').verdict)
  return { ...opened, state: row.state, execute_by_ms: row.execute_by_ms, verdicts }
}

export interface ReceiptColumns {
  readonly log_index: number
  readonly id: ReceiptId
  readonly kind: ReceiptKind
  readonly execution: ExecutionId | null
  readonly at_ms: number
  readonly digest: Digest
  readonly position: number
}

export function receiptOf(db: Database, row: ReceiptColumns): ReceiptRow {
  const { jws } = stepAt(db, row.position, 'receipt').receipt
  return {
    id: row.id,
    index: row.log_index,
    kind: row.kind,
    execution: row.execution,
    task: taskClaim(jws),
    at_ms: row.at_ms,
    jws,
    digest: row.digest,
  }
}

/** The claim `txn` of a receipt this ledger stored; only read, the signature is the verifier's business. */
function taskClaim(jws: string): string | null {
  const payload = jws.split('.')[1]
  if (payload === undefined) return null
  try {
    const claims: unknown = JSON.parse(Buffer.from(payload, 'base64url').toString('utf8'))
    return typeof claims === 'object' && claims !== null && 'txn' in claims && typeof claims.txn === 'string'
      ? claims.txn
      : null
  } catch (error) {
    if (error instanceof SyntaxError) return null
    throw error
  }
}

export interface LeaseColumns {
  readonly id: LeaseId
  readonly execution: ExecutionId
  readonly credentials: string
  readonly state: LeaseRow['state']
}

export function leaseOf(row: LeaseColumns): LeaseRow {
  return { ...row, credentials: JSON.parse(row.credentials) as readonly string[] }
}

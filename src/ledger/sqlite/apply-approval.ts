import type { ApprovalState } from '../../approval/approval.ts'
import type { ExecutionId } from '../../id.ts'
import type { Step } from '../ledger.ts'
import type { Database } from './database.ts'
import { executionRow, refuse } from './facts.ts'
import type { Place } from './facts.ts'

interface ApprovalFacts {
  readonly execution: ExecutionId
  readonly state: ApprovalState
}

function approvalRow(db: Database, id: string): ApprovalFacts {
  return (
    db.get<ApprovalFacts>('SELECT execution, state FROM approvals WHERE id = ?', id) ??
    refuse('this approval was never opened')
  )
}

export function applyOpened(db: Database, { approval }: Step & { kind: 'approval_opened' }, { position }: Place): void {
  const { plan, tenant } = executionRow(db, approval.execution)
  if (approval.plan !== plan || approval.tenant !== tenant) refuse('an approval is for its execution’s plan')
  if (approval.state !== 'open' || approval.verdicts.length > 0) refuse('an approval is opened without verdicts')
  if (db.get('SELECT 1 FROM approvals WHERE id = ?', approval.id) !== null) refuse('this approval is open already')
  if (db.get("SELECT 1 FROM approvals WHERE execution = ? AND state = 'open'", approval.execution) !== null)
    refuse('this execution waits for an approval already')
  db.run(
    "INSERT INTO approvals (id, execution, tenant, state, execute_by_ms, satisfied, position) VALUES (?, ?, ?, 'open', ?, NULL, ?)",
    approval.id,
    approval.execution,
    approval.tenant,
    approval.execute_by_ms,
    position,
  )
  db.run('UPDATE executions SET approval = ? WHERE id = ?', approval.id, approval.execution)
}

export function applyVerdict(db: Database, step: Step & { kind: 'verdict' }, { position }: Place): ExecutionId {
  const { execution, state } = approvalRow(db, step.approval)
  if (step.verdict.statement.approval_id !== step.approval) refuse('a verdict is for the approval it names')
  if (state !== 'open') refuse(`this approval is ${state}`)
  if (db.get('SELECT 1 FROM verdicts WHERE approval = ? AND person = ?', step.approval, step.verdict.by) !== null)
    refuse('one person fills one stage')
  db.run('INSERT INTO verdicts (approval, person, position) VALUES (?, ?, ?)', step.approval, step.verdict.by, position)
  return execution
}

/** A satisfied approval may still run out, or its plan be superseded, before the run starts. */
const closings: Readonly<Record<ApprovalState, readonly ApprovalState[]>> = {
  open: ['satisfied', 'rejected', 'expired', 'superseded'],
  satisfied: ['expired', 'superseded'],
  rejected: [],
  expired: [],
  superseded: [],
}

export function applyClosed(db: Database, step: Step & { kind: 'approval_closed' }, { position }: Place): ExecutionId {
  const { execution, state } = approvalRow(db, step.approval)
  if (!closings[state].includes(step.state)) refuse(`an approval that is ${state} cannot become ${step.state}`)
  db.run(
    'UPDATE approvals SET state = ?, execute_by_ms = ?, satisfied = COALESCE(satisfied, ?) WHERE id = ?',
    step.state,
    step.execute_by_ms,
    step.state === 'satisfied' ? position : null,
    step.approval,
  )
  return execution
}

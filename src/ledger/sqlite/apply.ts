import { isFinal, transitions } from '../../execution/execution.ts'
import { WritError } from '../../error.ts'
import { canonical, digestJson } from '../../digest.ts'
import type { ExecutionId } from '../../id.ts'
import type { Position, Step } from '../ledger.ts'
import { applyClosed, applyOpened, applyVerdict } from './apply-approval.ts'
import { applyRolesSeen, applyTokenCreated, applyTokenRevoked } from './apply-token.ts'
import type { Database } from './database.ts'
import { executionRow, refuse } from './facts.ts'
import type { Place } from './facts.ts'

/**
 * Brings the views up to one step and returns the execution it belongs to. Throws `conflict` where the views refuse it;
 * the caller rolls back. Writing and rebuilding both come through here, so a view can depend on steps alone.
 */
export function apply(db: Database, step: Step, place: Place): ExecutionId | null {
  switch (step.kind) {
    case 'task':
      applyTask(db, step, place)
      return null
    case 'planned':
      applyPlanned(db, step, place)
      return step.execution
    case 'decided':
      if (step.execution !== null) executionRow(db, step.execution)
      if (db.get('SELECT 1 FROM decisions WHERE id = ?', step.decision.id) !== null)
        refuse('this decision is recorded already')
      db.run(
        'INSERT INTO decisions (id, execution, effect, position) VALUES (?, ?, ?, ?)',
        step.decision.id,
        step.execution,
        step.decision.effect,
        place.position,
      )
      return step.execution
    case 'state':
      applyState(db, step, place)
      return step.execution
    case 'approval_opened':
      applyOpened(db, step, place)
      return step.approval.execution
    case 'verdict':
      return applyVerdict(db, step, place)
    case 'approval_closed':
      return applyClosed(db, step, place)
    case 'permit_spent':
      applyPermit(db, step, place)
      return step.execution
    case 'lease_intended':
      if (executionRow(db, step.execution).permit === null) refuse('a lease needs a spent permit')
      if (db.get('SELECT 1 FROM leases WHERE id = ?', step.lease) !== null) refuse('this lease is recorded already')
      db.run(
        "INSERT INTO leases (id, execution, credentials, state, position) VALUES (?, ?, ?, 'intended', ?)",
        step.lease,
        step.execution,
        canonical(step.credentials),
        place.position,
      )
      return step.execution
    case 'leased':
      return applyLease(db, step.lease, ['intended'], 'leased')
    case 'lease_ended':
      return applyLease(db, step.lease, ['intended', 'leased', 'pending'], step.revocation)
    case 'outcome':
      applyOutcome(db, step, place)
      return step.execution
    case 'idempotency':
      applyKey(db, step)
      return null
    case 'refused':
      db.run(
        'INSERT INTO refusals (position, tenant, caller, at_ms) VALUES (?, ?, ?, ?)',
        place.position,
        step.tenant,
        step.caller,
        step.at_ms,
      )
      return null
    case 'generation':
      setNewest(db, 'generation', step.number, step.digest)
      return null
    case 'approver_set':
      setNewest(db, 'approver_set', null, step.digest)
      return null
    case 'token_created':
      applyTokenCreated(db, step, place)
      return null
    case 'token_revoked':
      applyTokenRevoked(db, step, place)
      return null
    case 'roles_seen':
      applyRolesSeen(db, step, place)
      return null
    case 'receipt':
      applyReceipt(db, step, place)
      return step.execution
  }
}

function applyTask(db: Database, { task }: Step & { kind: 'task' }, { position }: Place): void {
  const before = db.get<{ tenant: string; owner: string; revision: number }>(
    'SELECT tenant, owner, revision FROM tasks WHERE id = ?',
    task.id,
  )
  if (before === null)
    db.run(
      'INSERT INTO tasks (id, tenant, owner, revision, first, position) VALUES (?, ?, ?, ?, ?, ?)',
      task.id,
      task.tenant,
      task.owner,
      task.revision,
      position,
      position,
    )
  else {
    if (before.tenant !== task.tenant || before.owner !== task.owner) refuse('a task keeps its owner')
    // Two changes made from one revision cannot both take effect.
    if (task.revision !== before.revision + 1) refuse('the task has changed since it was read')
    db.run('UPDATE tasks SET revision = ?, position = ? WHERE id = ?', task.revision, position, task.id)
  }
  for (const file of task.files) own(db, file.sha256, task.tenant, task.id, task.owner, position)
}

function own(db: Database, digest: string, tenant: string, task: string, owner: string, position: Position): void {
  db.run(
    'INSERT INTO artifacts (digest, tenant, task, owner, position) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING',
    digest,
    tenant,
    task,
    owner,
    position,
  )
}

function applyPlanned(db: Database, step: Step & { kind: 'planned' }, { position, at_ms }: Place): void {
  const { execution, plan, digest } = step
  if (digestJson(plan) !== digest) throw new WritError('internal', 'the digest is not the plan’s')
  if (db.get('SELECT 1 FROM executions WHERE id = ?', execution) !== null) refuse('this execution is planned already')
  db.run('INSERT INTO plans (digest, position) VALUES (?, ?) ON CONFLICT DO NOTHING', digest, position)
  db.run(
    `INSERT INTO executions (id, tenant, owner, task, target, plan, state, ran, reasons, created_at_ms, changed_at_ms, position)
     VALUES (?, ?, ?, ?, ?, ?, NULL, 0, '[]', ?, ?, ?)`,
    execution,
    plan.tenant,
    plan.task.owner,
    plan.task.id,
    plan.target.ref,
    digest,
    at_ms,
    at_ms,
    position,
  )
  for (const file of plan.files) own(db, file.sha256, plan.tenant, plan.task.id, plan.task.owner, position)
}

function applyState(db: Database, step: Step & { kind: 'state' }, { at_ms }: Place): void {
  const { state } = executionRow(db, step.execution)
  const legal = state !== null && isFinal(state) ? [] : transitions[state ?? 'new']
  if (!legal.includes(step.state)) refuse(`an execution that is ${state ?? 'new'} cannot become ${step.state}`)
  db.run(
    'UPDATE executions SET state = ?, ran = ?, reasons = ?, changed_at_ms = ? WHERE id = ?',
    step.state,
    Number(step.ran),
    canonical(step.reasons),
    at_ms,
    step.execution,
  )
}

function applyPermit(db: Database, step: Step & { kind: 'permit_spent' }, { position }: Place): void {
  const { plan, permit } = executionRow(db, step.execution)
  if (permit !== null) refuse('the permit of this execution is spent')
  if (step.plan !== plan) refuse('a permit is for its execution’s plan')
  const decision = db.get<{ execution: string | null; effect: string }>(
    'SELECT execution, effect FROM decisions WHERE id = ?',
    step.decision,
  )
  if (decision === null || decision.execution !== step.execution || decision.effect !== 'allow')
    refuse('a permit needs a decision that allows its execution')
  db.run('UPDATE executions SET permit = ? WHERE id = ?', position, step.execution)
}

function applyLease(db: Database, lease: string, from: readonly string[], to: string): ExecutionId {
  const row = db.get<{ execution: ExecutionId; state: string }>(
    'SELECT execution, state FROM leases WHERE id = ?',
    lease,
  )
  if (row === null) refuse('this lease was never intended')
  if (!from.includes(row.state)) refuse(`a lease that is ${row.state} cannot become ${to}`)
  db.run('UPDATE leases SET state = ? WHERE id = ?', to, lease)
  return row.execution
}

function applyOutcome(db: Database, step: Step & { kind: 'outcome' }, { position }: Place): void {
  const execution = executionRow(db, step.execution)
  if (execution.outcome !== null) refuse('this execution has an outcome already')
  db.run('UPDATE executions SET outcome = ? WHERE id = ?', position, step.execution)
  for (const file of step.report.files)
    own(db, file.sha256, execution.tenant, execution.task, execution.owner, position)
}

function applyKey(db: Database, step: Step & { kind: 'idempotency' }): void {
  const { tenant, subject, key, request, result } = step
  const taken = db.get<{ request: string; result: string }>(
    'SELECT request, result FROM idempotency WHERE tenant = ? AND subject = ? AND key = ?',
    tenant,
    subject,
    key,
  )
  // The same request with another result is a second call that raced the first: only one may take effect.
  if (taken !== null && (taken.request !== request || taken.result !== result)) refuse('this idempotency key is taken')
  if (taken === null)
    db.run(
      'INSERT INTO idempotency (tenant, subject, key, request, result) VALUES (?, ?, ?, ?, ?)',
      tenant,
      subject,
      key,
      request,
      result,
    )
}

function setNewest(db: Database, what: string, number: number | null, digest: string): void {
  db.run(
    'INSERT INTO newest (what, number, digest) VALUES (?, ?, ?) ON CONFLICT (what) DO UPDATE SET number = excluded.number, digest = excluded.digest',
    what,
    number,
    digest,
  )
}

function applyReceipt(
  db: Database,
  { receipt, execution, at_ms }: Step & { kind: 'receipt' },
  { position }: Place,
): void {
  if (execution !== null) {
    const row = executionRow(db, execution)
    if (receipt.kind === 'outcome') {
      if (row.outcome_receipt !== null) refuse('this execution has an outcome receipt already')
      db.run('UPDATE executions SET outcome_receipt = ? WHERE id = ?', receipt.id, execution)
    }
  }
  db.run(
    'INSERT INTO receipts (log_index, id, kind, execution, at_ms, digest, position) VALUES (?, ?, ?, ?, ?, ?, ?)',
    receipt.index,
    receipt.id,
    receipt.kind,
    execution,
    at_ms,
    receipt.digest,
    position,
  )
}

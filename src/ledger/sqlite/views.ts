import type { Digest } from '../../digest.ts'
import { WritError } from '../../error.ts'
import type { ExecutionId, TaskId } from '../../id.ts'
import type { Plan } from '../../plan/plan.ts'
import type { Position, Step, StoredStep, Views } from '../ledger.ts'
import { failureOf, openReader } from './database.ts'
import type { Database } from './database.ts'
import { loadHead, rootOf } from './head.ts'
import { approvalOf, executionOf, leaseOf, receiptOf, stepAt, storedSteps } from './rows.ts'
import { tokenViews } from './token-views.ts'
import type { ApprovalColumns, ExecutionColumns, LeaseColumns, ReceiptColumns } from './rows.ts'

/** The views of a ledger and its steps, for who only reads. */
export interface OpenViews extends Views {
  /**
   * Rejects `ledger_corrupt` where the file's own structure does not hold or the head of the log does not fit its receipts.
   * Reads the file once; what the receipts say is for `verifyLog` to judge.
   */
  check(): void
  read(execution: ExecutionId, after?: Position): readonly StoredStep[]
  steps(after: Position, limit: number): readonly StoredStep[]
  /** Every set of approvers there ever was, oldest first. */
  approverSets(): readonly (Step & { readonly kind: 'approver_set' })[]
  /** All that `read` asks for is of one moment, whatever a broker writes meanwhile. */
  atOnce<T>(read: () => T): T
  close(): void
}

/**
 * Opens a ledger for reading, beside the broker that holds it or without one. Throws `ledger_unavailable` where there
 * is none yet or it cannot be read, `ledger_corrupt` where the file is no ledger.
 */
export function openViews(path: string): OpenViews {
  const db = openReader(path)
  return {
    check: () =>
      guarded(() => {
        const found = db.get<{ quick_check: string }>('PRAGMA quick_check(1)')?.quick_check
        if (found !== 'ok') throw new WritError('ledger_corrupt', 'the ledger file is damaged', { cause: found })
        loadHead(db)
      }),
    ...views(db),
    read: (execution, after) => readSteps(db, execution, after),
    steps: (after, limit) => allSteps(db, after, limit),
    approverSets: () =>
      guarded(() =>
        db
          .all<{ position: number }>("SELECT position FROM steps WHERE kind = 'approver_set' ORDER BY position")
          .map(({ position }) => stepAt(db, position, 'approver_set')),
      ),
    atOnce(read) {
      guarded(() => db.exec('BEGIN'))
      try {
        return read()
      } finally {
        db.exec('ROLLBACK')
      }
    },
    close: () => db.close(),
  }
}

export function readSteps(db: Database, execution: ExecutionId, after: Position = 0): readonly StoredStep[] {
  return guarded(() =>
    storedSteps(
      db.all(
        'SELECT position, at_ms, body FROM steps WHERE execution = ? AND position > ? ORDER BY position',
        execution,
        after,
      ),
    ),
  )
}

export function allSteps(db: Database, after: Position, limit: number): readonly StoredStep[] {
  return guarded(() =>
    storedSteps(
      db.all('SELECT position, at_ms, body FROM steps WHERE position > ? ORDER BY position LIMIT ?', after, limit),
    ),
  )
}

/** What SQLite throws becomes a `WritError` without a path in it. */
export function guarded<T>(read: () => T): T {
  try {
    return read()
  } catch (error) {
    throw failureOf(error)
  }
}

const executionColumns =
  'id, tenant, owner, task, plan, state, ran, reasons, approval, created_at_ms, changed_at_ms, outcome, outcome_receipt'
const receiptColumns = 'log_index, id, kind, execution, at_ms, digest, position'
const approvalColumns = 'id, state, execute_by_ms, position'

/** `equals({a: 1, b: undefined})`: the SQL and the values of the conditions that are there. */
function conditions(parts: Readonly<Record<string, string | readonly string[] | undefined>>): {
  readonly where: string
  readonly values: readonly string[]
} {
  const sql: string[] = []
  const values: string[] = []
  for (const [column, wanted] of Object.entries(parts)) {
    if (wanted === undefined) continue
    const list = typeof wanted === 'string' ? [wanted] : wanted
    sql.push(`${column} IN (${list.map(() => '?').join(', ')})`)
    values.push(...list)
  }
  return { where: sql.length === 0 ? 'TRUE' : sql.join(' AND '), values }
}

export function views(db: Database): Views {
  const answers: Views = {
    task(id) {
      const row = db.get<{ position: number }>('SELECT position FROM tasks WHERE id = ?', id)
      return row === null ? null : stepAt(db, row.position, 'task').task
    },
    tasks(tenant, limit) {
      const rows = db.all<{ position: number }>(
        'SELECT position FROM tasks WHERE tenant = ? ORDER BY first DESC LIMIT ?',
        tenant,
        limit,
      )
      return rows.map(({ position }) => stepAt(db, position, 'task').task)
    },
    execution(id) {
      const row = db.get<ExecutionColumns>(
        `SELECT ${executionColumns} FROM executions WHERE id = ? AND state IS NOT NULL`,
        id,
      )
      return row === null ? null : executionOf(db, row)
    },
    executions(filter, limit) {
      const { where, values } = conditions({
        tenant: filter.tenant,
        owner: filter.owner,
        task: filter.task,
        state: filter.state,
      })
      const rows = db.all<ExecutionColumns>(
        `SELECT ${executionColumns} FROM executions WHERE state IS NOT NULL AND ${where} ORDER BY position DESC LIMIT ?`,
        ...values,
        limit,
      )
      return rows.map((row) => executionOf(db, row))
    },
    plan: (digest) => plan(db, digest),
    approval(id) {
      const row = db.get<ApprovalColumns>(`SELECT ${approvalColumns} FROM approvals WHERE id = ?`, id)
      return row === null ? null : approvalOf(db, row)
    },
    approvals(filter, limit) {
      const { where, values } = conditions({ tenant: filter.tenant, state: filter.state, execution: filter.execution })
      const rows = db.all<ApprovalColumns>(
        `SELECT ${approvalColumns} FROM approvals WHERE ${where} ORDER BY position DESC LIMIT ?`,
        ...values,
        limit,
      )
      return rows.map((row) => approvalOf(db, row))
    },
    lastApprovedPlan: (task) => lastApprovedPlan(db, task),
    decisions(execution) {
      const rows = db.all<{ position: number }>(
        'SELECT position FROM decisions WHERE execution = ? ORDER BY position',
        execution,
      )
      return rows.map(({ position }) => {
        const { decision, input } = stepAt(db, position, 'decided')
        return { decision, input }
      })
    },
    receipt(id) {
      const row = db.get<ReceiptColumns>(`SELECT ${receiptColumns} FROM receipts WHERE id = ?`, id)
      return row === null ? null : receiptOf(db, row)
    },
    receiptsOf(execution) {
      return db
        .all<ReceiptColumns>(`SELECT ${receiptColumns} FROM receipts WHERE execution = ? ORDER BY log_index`, execution)
        .map((row) => receiptOf(db, row))
    },
    receipts(from, limit) {
      return db
        .all<ReceiptColumns>(
          `SELECT ${receiptColumns} FROM receipts WHERE log_index >= ? ORDER BY log_index LIMIT ?`,
          from,
          limit,
        )
        .map((row) => receiptOf(db, row))
    },
    disclosures(id) {
      const row = db.get<{ body: string }>(
        'SELECT body FROM disclosures WHERE log_index = (SELECT log_index FROM receipts WHERE id = ?)',
        id,
      )
      return row === null ? [] : (JSON.parse(row.body) as readonly string[])
    },
    leases(states) {
      const { where, values } = conditions({ state: states })
      return db
        .all<LeaseColumns>(
          `SELECT id, execution, credentials, state FROM leases WHERE ${where} ORDER BY position`,
          ...values,
        )
        .map(leaseOf)
    },
    idempotency(tenant, subject, key) {
      const row = db.get<{ request: Digest; result: string }>(
        'SELECT request, result FROM idempotency WHERE tenant = ? AND subject = ? AND key = ?',
        tenant,
        subject,
        key,
      )
      return row === null ? null : { request: row.request, result: row.result }
    },
    counters: (tenant, subject, nowMs) => countersAt(db, tenant, subject, nowMs).counters,
    approverSet: () =>
      db.get<{ digest: Digest }>("SELECT digest FROM newest WHERE what = 'approver_set'")?.digest ?? null,
    generation() {
      const row = db.get<{ number: number; digest: Digest }>(
        "SELECT number, digest FROM newest WHERE what = 'generation'",
      )
      return row === null ? null : { number: row.number, digest: row.digest }
    },
    artifactOwner(digest, tenant, prefer) {
      const row = db.get<{ task: TaskId; owner: string }>(
        'SELECT task, owner FROM artifacts WHERE digest = ? AND tenant = ? ORDER BY owner IS ? DESC, position DESC LIMIT 1',
        digest,
        tenant,
        prefer ?? null,
      )
      return row === null ? null : { task: row.task, owner: row.owner }
    },
    ...tokenViews(db),
    logHead() {
      const head = loadHead(db)
      const origin = db.get<{ origin: string }>('SELECT origin FROM origin')?.origin
      if (origin === undefined) throw new WritError('ledger_corrupt', 'the ledger does not say whose it is')
      return { origin, size: head.size, root: rootOf(head).toString('base64') }
    },
    newestTimeMs: () => db.get<{ at_ms: number }>('SELECT at_ms FROM steps ORDER BY position DESC LIMIT 1')?.at_ms ?? 0,
  }
  return Object.fromEntries(
    Object.entries(answers).map(([name, answer]: [string, (...args: never[]) => unknown]) => [
      name,
      (...args: never[]) => guarded(() => answer(...args)),
    ]),
  ) as unknown as Views
}

/** What a subject did lately, and until when that stands if nothing is written: when the oldest thing counted falls out of its time. */
export function countersAt(
  db: Database,
  tenant: string,
  subject: string,
  nowMs: number,
): { readonly counters: ReturnType<Views['counters']>; readonly until_ms: number } {
  const since = (ms: number, at: string, from: string): { readonly n: number; readonly until_ms: number } => {
    const row = db.get<{ n: number; oldest: number | null }>(
      `SELECT COUNT(*) AS n, MIN(${at}) AS oldest FROM ${from} AND ${at} > ?`,
      tenant,
      subject,
      nowMs - ms,
    )
    return { n: row?.n ?? 0, until_ms: (row?.oldest ?? Number.POSITIVE_INFINITY) + ms }
  }
  const started = since(3_600_000, 'created_at_ms', 'executions WHERE tenant = ? AND owner = ?')
  const denied = since(600_000, 'changed_at_ms', "executions WHERE tenant = ? AND owner = ? AND state = 'denied'")
  const refused = since(600_000, 'at_ms', 'refusals WHERE tenant = ? AND caller = ?')
  const running = "SELECT COUNT(*) AS n FROM executions WHERE tenant = ? AND owner = ? AND state = 'running'"
  return {
    counters: {
      executions_60m: started.n,
      denied_10m: denied.n + refused.n,
      running: db.get<{ n: number }>(running, tenant, subject)?.n ?? 0,
    },
    until_ms: Math.min(started.until_ms, denied.until_ms, refused.until_ms),
  }
}

function plan(db: Database, digest: string): Plan | null {
  const row = db.get<{ position: number }>('SELECT position FROM plans WHERE digest = ?', digest)
  return row === null ? null : stepAt(db, row.position, 'planned').plan
}

function lastApprovedPlan(db: Database, task: TaskId): Plan | null {
  const now = db.get<{ position: number }>('SELECT position FROM tasks WHERE id = ?', task)
  if (now === null) return null
  const row = db.get<{ plan: string }>(
    `SELECT executions.plan FROM approvals JOIN executions ON executions.id = approvals.execution
     WHERE executions.task = ? AND executions.target = ? AND approvals.satisfied IS NOT NULL ORDER BY approvals.satisfied DESC LIMIT 1`,
    task,
    stepAt(db, now.position, 'task').task.target_ref,
  )
  return row === null ? null : plan(db, row.plan)
}

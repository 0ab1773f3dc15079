import { DatabaseSync } from 'node:sqlite'
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { digestOf } from '../../../src/digest.ts'
import { type Execution, isFinal } from '../../../src/execution/execution.ts'
import { parseId } from '../../../src/id.ts'
import { openWriter } from '../../../src/ledger/sqlite/database.ts'
import { rebuildViews } from '../../../src/ledger/sqlite/rebuild.ts'
import { viewTables } from '../../../src/ledger/sqlite/schema.ts'
import { openViews } from '../../../src/ledger/sqlite/views.ts'
import type { Effects } from './effects.ts'
import type { Place } from './place.ts'

/** What the broker has told a client, and must know for ever. */
export interface Acknowledged {
  /** The unique line of a task's script, by task id. */
  readonly tasks: Map<string, string>
  /** The last state told, by execution id. */
  readonly executions: Map<string, string>
  /** Verdicts, by approval id. */
  readonly verdicts: Map<string, 'approve' | 'reject'>
}

/**
 * What must hold whenever no run is alive. Returns every breach in words, none where all is well. `only` bounds the
 * look to some tasks; nothing can have changed for the others since the last whole look.
 */
export function breaches(
  place: Place,
  told: Acknowledged,
  effects: Effects,
  only: readonly string[] | null,
): readonly string[] {
  const found: string[] = []
  const views = openViews(place.folder.ledger)
  try {
    const tasks = only ?? [...told.tasks.keys()]
    for (const task of tasks) {
      const id = parseId('task', task)
      if (id === null || views.task(id) === null) {
        found.push(`${task} was acknowledged and is not there`)
        continue
      }
      const executions = views.executions({ task: id }, 100)
      const line = told.tasks.get(task) ?? ''
      const ran = executions.filter((execution) => execution.ran).length
      const count = effects.seen.get(line) ?? 0
      if (count > ran)
        found.push(`${task}: its effect was seen ${String(count)} times, and ${String(ran)} of its executions ran`)
      if (executions.some((execution) => execution.state === 'succeeded') && count !== 1)
        found.push(`${task} succeeded and its effect was seen ${String(count)} times`)
      for (const execution of executions) {
        const receipts = views.receiptsOf(execution.id)
        const kinds = receipts.map((receipt) => receipt.kind)
        const steps = views.read(execution.id)
        const permits = steps.filter(({ step }) => step.kind === 'permit_spent').length
        const outcomes = kinds.filter((kind) => kind === 'outcome').length
        const at = `${execution.id} (${execution.state})`
        if (execution.state === 'succeeded')
          found.push(...filesMissing(place, execution, line).map((it) => `${at} ${it}`))
        if (!kinds.includes('decision')) found.push(`${at} has no decision receipt`)
        if (permits > 1) found.push(`${at} spent ${String(permits)} permits`)
        if (execution.ran && permits !== 1) found.push(`${at} ran without a permit`)
        if (outcomes > 1) found.push(`${at} has ${String(outcomes)} outcome receipts`)
        if (isFinal(execution.state) && execution.state !== 'denied' && outcomes !== 1)
          found.push(`${at} has no outcome receipt`)
        if (execution.report !== null && outcomes !== 1) found.push(`${at} has a result and no outcome receipt`)
        if (!isFinal(execution.state) && outcomes > 0) found.push(`${at} has an outcome receipt and is not final`)
        if (execution.state === 'running' || execution.state === 'queued') found.push(`${at} is still alive`)
      }
    }
    for (const [execution, state] of told.executions) {
      const id = parseId('exec', execution)
      const now = id === null ? null : views.execution(id)
      if (now === null) found.push(`${execution} was acknowledged and is not there`)
      else if (
        (isFinal(state as never) || state === 'running') &&
        now.state !== state &&
        !(state === 'running' && isFinal(now.state) && now.ran)
      )
        found.push(`${execution} was told to be ${state} and is ${now.state}, ran ${String(now.ran)}`)
    }
    for (const [approval, verdict] of told.verdicts) {
      const id = parseId('apr', approval)
      const now = id === null ? null : views.approval(id)
      if (now?.verdicts.some((one) => one.statement.verdict === verdict) !== true)
        found.push(`the acknowledged verdict on ${approval} is not there`)
    }
    for (const lease of views.leases(['intended', 'leased', 'pending']))
      found.push(`${lease.id} of ${lease.execution} is ${lease.state}`)
    if (effects.strangers > 0) found.push(`${String(effects.strangers)} requests came without the credential`)
  } finally {
    views.close()
  }
  return found
}

/** A run that succeeded left one file with its line in it, known by its digest and there to be read. */
function filesMissing(place: Place, execution: Execution, line: string): readonly string[] {
  const files = execution.report?.files ?? []
  const left = files.find((file) => file.path === 'seen.txt')
  if (left === undefined || files.length !== 1) return [`left ${String(files.length)} files and not its one`]
  if (left.sha256 !== digestOf(line)) return ['left another file than it wrote']
  const hex = left.sha256.slice('sha256:'.length)
  return existsSync(join(place.folder.artifacts, hex.slice(0, 2), hex)) ? [] : ['left a file that is not kept']
}

/** Every row of every view, in an order of its own. */
function rows(db: DatabaseSync): string {
  return viewTables
    .map((table) => {
      const list = db
        .prepare(`SELECT * FROM ${table}`)
        .all()
        .map((row) => JSON.stringify(row))
      return [table, ...list.toSorted()].join('\n')
    })
    .join('\n\n')
}

/** Whether the views of a ledger, the broker at work or not, are what its steps make of them. */
export function viewsAreTheSteps(ledger: string): boolean {
  const folder = mkdtempSync(join(tmpdir(), 'writ-rebuild-'))
  const copy = join(folder, 'ledger.db')
  const read = (): string => {
    const db = new DatabaseSync(copy, { readOnly: true })
    try {
      return rows(db)
    } finally {
      db.close()
    }
  }
  try {
    const live = new DatabaseSync(ledger, { readOnly: true, timeout: 5000 })
    live.prepare('VACUUM INTO ?').run(copy)
    live.close()
    const before = read()
    const { db } = openWriter(copy)
    rebuildViews(db)
    db.close()
    return read() === before
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

import type { Digest } from '../digest.ts'
import { isFinal } from '../execution/execution.ts'
import type { ExecutionId, TaskId } from '../id.ts'
import type { Ledger, Position, Step } from '../ledger/ledger.ts'

interface Held {
  readonly sha256: Digest
  readonly size: number
}

/**
 * Which artifacts are anybody's, and how many bytes a tenant holds: the files of every task at its revision in force, of
 * every plan, and of every result. Made from the steps alone; the same bytes count once a tenant.
 */
export interface Holdings {
  /** Reads the steps that were written since. Gives way to other work after every page. */
  refresh(): Promise<void>
  /** Bytes. */
  bytesOf(tenant: string): number
  holds(tenant: string, digest: Digest): boolean
  refers(digest: Digest): boolean
}

const page = 200

export function openHoldings(ledger: Pick<Ledger, 'steps'>): Holdings {
  const tenants = new Map<
    string,
    { bytes: number; readonly files: Map<Digest, { readonly size: number; uses: number }> }
  >()
  const tasks = new Map<TaskId, readonly Held[]>()
  /** Tenants of executions whose result is still to come. */
  const open = new Map<ExecutionId, string>()
  let position: Position = 0
  let reading: Promise<void> = Promise.resolve()

  function add(tenant: string, files: readonly Held[]): void {
    const held = tenants.get(tenant) ?? { bytes: 0, files: new Map<Digest, { readonly size: number; uses: number }>() }
    tenants.set(tenant, held)
    for (const { sha256, size } of files) {
      const known = held.files.get(sha256)
      if (known !== undefined) known.uses++
      else {
        held.files.set(sha256, { size, uses: 1 })
        held.bytes += size
      }
    }
  }

  function take(tenant: string, files: readonly Held[]): void {
    const held = tenants.get(tenant)
    for (const { sha256 } of files) {
      const known = held?.files.get(sha256)
      if (held === undefined || known === undefined || --known.uses > 0) continue
      held.files.delete(sha256)
      held.bytes -= known.size
    }
  }

  function note(step: Step): void {
    if (step.kind === 'task') {
      const { id, tenant, files } = step.task
      add(tenant, files)
      take(tenant, tasks.get(id) ?? [])
      tasks.set(id, files)
    } else if (step.kind === 'planned') {
      open.set(step.execution, step.plan.tenant)
      add(step.plan.tenant, step.plan.files)
    } else if (step.kind === 'outcome') add(open.get(step.execution) ?? '', step.report.files)
    else if (step.kind === 'state' && isFinal(step.state)) open.delete(step.execution)
  }

  async function read(): Promise<void> {
    for (;;) {
      const steps = ledger.steps(position, page)
      for (const { position: at, step } of steps) {
        note(step)
        position = at
      }
      if (steps.length < page) return
      await new Promise((resolve) => setImmediate(resolve))
    }
  }

  return {
    async refresh() {
      reading = reading.then(read, read)
      await reading
    },
    bytesOf: (tenant) => tenants.get(tenant)?.bytes ?? 0,
    holds: (tenant, digest) => tenants.get(tenant)?.files.has(digest) === true,
    refers(digest) {
      for (const { files } of tenants.values()) if (files.has(digest)) return true
      return false
    },
  }
}

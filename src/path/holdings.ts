import { createHash } from 'node:crypto'
import { type Digest, digestJson, type JsonObject } from '../digest.ts'
import { isFinal } from '../execution/execution.ts'
import type { ExecutionId, TaskId } from '../id.ts'
import type { Ledger, Position, Step, StoredStep } from '../ledger/ledger.ts'

interface Held {
  readonly sha256: Digest
  readonly size: number
}

interface Tenant {
  /** Bytes of files. */
  bytes: number
  /** Bytes of what runs printed and of the records of tasks and executions: nothing takes them away again. */
  kept: number
  readonly files: Map<Digest, { readonly size: number; uses: number }>
}

/**
 * Which artifacts are anybody's, and how many bytes a tenant holds: the files of every task at its revision in force, of
 * every plan, and of every result, the same bytes once a tenant; what runs printed; the records of its tasks and executions.
 * Made from the steps alone.
 */
export interface Holdings {
  /** Reads the steps that were written since. Gives way to other work after every page. */
  refresh(): Promise<void>
  /** Bytes. */
  bytesOf(tenant: string): number
  holds(tenant: string, digest: Digest): boolean
  refers(digest: Digest): boolean
  /** All of it as a text that `openHoldings` goes on from. */
  save(): string
}

const page = 200
const version = 1

/**
 * @param saved what an earlier `save` gave: steps are read from there on. One that is damaged, or was made from other steps
 *   than these, counts as none.
 */
export function openHoldings(ledger: Pick<Ledger, 'steps'>, saved: string | null = null): Holdings {
  const tenants = new Map<string, Tenant>()
  const tasks = new Map<TaskId, readonly Held[]>()
  /** Tenants of executions that are not at their end. */
  const open = new Map<ExecutionId, string>()
  /** The one that ended last: its receipt comes after its final state. */
  let ended: readonly [ExecutionId, string] | null = null
  let last: StoredStep | null = null
  let reading: Promise<void> = Promise.resolve()
  if (saved !== null) restore(saved)

  function of(tenant: string): Tenant {
    const known = tenants.get(tenant)
    if (known !== undefined) return known
    const made: Tenant = { bytes: 0, kept: 0, files: new Map() }
    tenants.set(tenant, made)
    return made
  }

  function add(tenant: string, files: readonly Held[]): void {
    const held = of(tenant)
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
    } else if (step.kind === 'outcome') {
      const tenant = open.get(step.execution) ?? ''
      add(tenant, step.report.files)
      of(tenant).kept += step.report.output.bytes
    }
    const tenant = whose(step)
    if (tenant !== null) of(tenant).kept += JSON.stringify(step).length
    if (step.kind !== 'state' || !isFinal(step.state)) return
    ended = [step.execution, open.get(step.execution) ?? '']
    open.delete(step.execution)
  }

  function whose(step: Step): string | null {
    if (step.kind === 'task') return step.task.tenant
    if (step.kind === 'idempotency') return step.tenant
    const execution = 'execution' in step ? step.execution : null
    if (execution === null) return null
    return open.get(execution) ?? (ended?.[0] === execution ? ended[1] : null)
  }

  async function read(): Promise<void> {
    for (;;) {
      const steps = ledger.steps(last?.position ?? 0, page)
      for (const one of steps) {
        note(one.step)
        last = one
      }
      if (steps.length < page) return
      await new Promise((resolve) => setImmediate(resolve))
    }
  }

  function restore(text: string): void {
    const end = text.lastIndexOf('\n')
    if (end < 0 || hashed(text.slice(0, end)) !== text.slice(end + 1)) return
    const state = JSON.parse(text.slice(0, end)) as Saved
    const at = state.version === version ? ledger.steps(state.position - 1, 1)[0] : undefined
    if (at?.position !== state.position || fingerprint(at) !== state.step) return
    last = at
    for (const [name, kept, files] of state.tenants) {
      const tenant = of(name)
      tenant.kept = kept
      for (const [digest, size, uses] of files) {
        tenant.files.set(digest, { size, uses })
        tenant.bytes += size
      }
    }
    for (const [id, files] of state.tasks) tasks.set(id, files)
    for (const [id, tenant] of state.open) open.set(id, tenant)
    ended = state.ended
  }

  return {
    async refresh() {
      reading = reading.then(read, read)
      await reading
    },
    bytesOf(tenant) {
      const held = tenants.get(tenant)
      return held === undefined ? 0 : held.bytes + held.kept
    },
    holds: (tenant, digest) => tenants.get(tenant)?.files.has(digest) === true,
    refers(digest) {
      for (const { files } of tenants.values()) if (files.has(digest)) return true
      return false
    },
    save() {
      const state: Saved = {
        version,
        position: last?.position ?? 0,
        step: last === null ? '' : fingerprint(last),
        tenants: [...tenants].map(([name, { kept, files }]) => [
          name,
          kept,
          [...files].map(([digest, { size, uses }]) => [digest, size, uses] as const),
        ]),
        tasks: [...tasks].map(([id, files]) => [id, files.map(({ sha256, size }) => ({ sha256, size }))]),
        open: [...open],
        ended,
      }
      const text = JSON.stringify(state)
      return `${text}\n${hashed(text)}`
    },
  }
}

interface Saved {
  readonly version: number
  /** Of the last step it was made from, and what tells that step from another ledger's. */
  readonly position: Position
  readonly step: string
  readonly tenants: readonly (readonly [string, number, readonly (readonly [Digest, size: number, uses: number])[]])[]
  readonly tasks: readonly (readonly [TaskId, readonly Held[]])[]
  readonly open: readonly (readonly [ExecutionId, string])[]
  readonly ended: readonly [ExecutionId, string] | null
}

function fingerprint({ at_ms, step }: StoredStep): string {
  return digestJson({ at_ms, step: step as unknown as JsonObject })
}

function hashed(text: string): string {
  return createHash('sha256').update(text).digest('hex')
}

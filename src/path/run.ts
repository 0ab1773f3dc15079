import { setTimeout as pause } from 'node:timers/promises'
import { type Permit, settle, spend } from '../approval/permit.ts'
import { WritError } from '../error.ts'
import type { Execution } from '../execution/execution.ts'
import type { ExecutionId } from '../id.ts'
import type { Entry } from '../ledger/ledger.ts'
import { usedEntriesChanged } from '../plan/resolve.ts'
import { pinned } from '../policy/decision.ts'
import type { Generation, PolicyInput } from '../policy/policy.ts'
import type { Caller } from '../request/caller.ts'
import { settled } from './ask.ts'
import { closeUnbegun, closeWithoutRun } from './close.ts'
import { execute } from './execute.ts'
import { executionInput, type ExecutionInput } from './input.ts'
import { nowOf, type Parts } from './parts.ts'
import { openQueue } from './queue.ts'
import { inTurn } from './turn.ts'
import { underway } from './underway.ts'

export interface Runner {
  /** True where this run could begin now without waiting, on what it was decided on. */
  free(permit: Permit, by: ExecutionInput): boolean
  enqueue(execution: ExecutionId): void
  /** A commit failed that would have queued it, or started it, and may have reached the disk all the same. */
  doubt(execution: ExecutionId): void
  /** Commits `opening` with the spent permit and the state `running`, then runs; resolves when committed. */
  start(permit: Permit, by: ExecutionInput, opening: readonly Entry[]): Promise<void>
  /** @param said why, in the words of whoever cancels it */
  cancel(execution: ExecutionId, said?: string): void
  /** Begins nothing more, cancels what runs, and resolves when no run is alive. What waits goes on waiting in the ledger. */
  stop(): Promise<void>
  readonly running: number
  readonly queued: number
}

/** Milliseconds after which what could not be taken is tried again. */
const retryMs = 1000
/** Times policy may miss its deadline for what waits, which people may have approved, before that counts as its no. */
const lateAnswers = 5

export function openRunner(parts: Parts): Runner {
  const queue = openQueue()
  const live = new Map<ExecutionId, AbortController>()
  /** The tenant of each execution that runs or is being taken. */
  const places = new Map<ExecutionId, string>()
  /** What waits for its turn, or for another try. */
  const waiting = new Set<ExecutionId>()
  const doubted = new Set<ExecutionId>()
  const late = new Map<ExecutionId, number>()
  let starting = 0
  let stopped = false

  /** One tenant's long runs make another wait for its first place only where many tenants run at once. */
  const room = (has: number): boolean =>
    !stopped && live.size + starting < (has === 0 ? 2 * parts.maxRunning : parts.maxRunning)
  const placesOf = (tenant: string): number => [...places.values()].filter((one) => one === tenant).length
  /** Policy, catalog and roles change while a decision is waited for: null where what it stands on is so no more. */
  const inForce = ({ plan, decision }: Permit, by: ExecutionInput): Generation | null => {
    const { generation } = parts.policy
    const same = generation?.digest === decision.policy && !usedEntriesChanged(plan, parts.catalog()) && by.stillHeld()
    return same ? generation : null
  }
  const free = (permit: Permit, by: ExecutionInput): boolean =>
    room(placesOf(permit.plan.tenant)) && queue.length === 0 && inForce(permit, by) !== null

  /** It stands in the ledger as queued, so it is owed another try: a full disk may have room by then. */
  const again = (id: ExecutionId): void => {
    waiting.add(id)
    setTimeout(() => {
      if (stopped) return
      try {
        enqueue(id)
      } catch (failure) {
        parts.log.error({ err: failure, execution: id }, 'a queued execution cannot be looked up; it is tried again')
        again(id)
      }
    }, retryMs).unref()
  }

  /** Looked at when the ledger answers again: whoever asked for it was told that it had failed. */
  const doubt = (id: ExecutionId): void => {
    doubted.add(id)
    setTimeout(() => {
      if (stopped || !doubted.has(id)) return
      settleDoubt(id).catch((failure: unknown) => {
        parts.log.error(
          { err: failure, execution: id },
          'what a failed commit left cannot be settled; it is tried again',
        )
        doubt(id)
      })
    }, retryMs).unref()
  }
  const settleDoubt = async (id: ExecutionId): Promise<void> => {
    const execution = parts.ledger.views.execution(id)
    if (execution?.state === 'queued' && !waiting.has(id) && !places.has(id)) enqueue(id)
    if (execution?.state === 'running' && !places.has(id)) await closeUnbegun(parts, execution)
    doubted.delete(id)
  }

  /** True as long as a machine that has no time for policy may explain that it did not answer. */
  const missed = (id: ExecutionId): boolean => {
    const times = (late.get(id) ?? 0) + 1
    late.set(id, times)
    return times < lateAnswers
  }

  const pump = (): void => {
    for (;;) {
      const found = queue.next(places.values(), room)
      if (found === null) return
      const next = found.execution
      places.set(next, found.tenant)
      waiting.delete(next)
      starting++
      take(next)
        .catch((failure: unknown) => {
          parts.log.error({ err: failure, execution: next }, 'a queued execution could not be taken; it is tried again')
          again(found.execution)
        })
        .finally(() => {
          starting--
          if (!live.has(next)) places.delete(next)
          pump()
        })
    }
  }

  const start = async (permit: Permit, by: ExecutionInput, opening: readonly Entry[]): Promise<void> => {
    const generation = inForce(permit, by)
    if (generation === null) throw new WritError('conflict', 'policy, catalog or roles changed while this was decided')
    spend(permit, parts.clock.monotonic())
    const cancelled = new AbortController()
    // Before the commit: the next one that looks for room, a cancel and a stop have to find it.
    live.set(permit.execution, cancelled)
    places.set(permit.execution, permit.plan.tenant)
    try {
      await parts.ledger.append(
        ...opening,
        { kind: 'permit_spent', execution: permit.execution, plan: permit.digest, decision: permit.decision.id },
        { kind: 'state', execution: permit.execution, state: 'running', ran: true, reasons: [] },
      )
    } catch (unwritten) {
      live.delete(permit.execution)
      places.delete(permit.execution)
      doubt(permit.execution)
      throw unwritten
    }
    doubted.delete(permit.execution)
    void execute(parts, permit, { input: by.input, generation }, cancelled.signal)
      .catch((failure: unknown) =>
        parts.log.error(
          { err: failure, execution: permit.execution },
          'a run could not be closed; it is closed when the broker starts again',
        ),
      )
      .finally(() => {
        live.delete(permit.execution)
        places.delete(permit.execution)
        parts.changes.progress(permit.execution, null)
        pump()
      })
    parts.changes.wake(permit.execution)
  }

  /** Policy is asked again right before the run, with the approvals filled in; the old answer counts for nothing. */
  const take = async (id: ExecutionId): Promise<void> => {
    await inTurn(`execution ${id}`, async () => {
      const execution = parts.ledger.views.execution(id)
      const plan = execution === null ? null : parts.ledger.views.plan(execution.plan)
      if (execution === null || plan === null || execution.state !== 'queued') return void late.delete(id)
      if (usedEntriesChanged(plan, parts.catalog()))
        return await closeWithoutRun(parts, execution, 'superseded', 'catalog_changed')
      const approval = parts.ledger.views.approvals({ execution: id, state: 'satisfied' }, 1)[0] ?? null
      if (isOver(parts, execution)) return await closeWithoutRun(parts, execution, 'expired', 'expired_before_use')
      const task = parts.ledger.views.task(execution.task)
      if (task === null) throw new WritError('ledger_corrupt', 'an execution without its task')
      const caller = callerOf(parts, execution)
      const run = { execution: id, plan, digest: execution.plan }
      const by = executionInput(parts, caller, { task, plan, digest: run.digest, approval })
      using _ = underway(parts.ledger, { tenant: execution.tenant, owner: execution.owner, fresh: false })
      const answer = pinned(await parts.policy.decide(by.input), approval?.requirement_digest ?? null)
      if (answer.error === 'deadline' && missed(id)) {
        parts.log.warn({ execution: id }, 'policy had no time for a queued execution; it is asked again')
        return again(id)
      }
      late.delete(id)
      // Policy took its time, which may have been the rest of it.
      if (isOver(parts, execution)) return await closeWithoutRun(parts, execution, 'expired', 'expired_before_use')
      const { decision, entries } = settled(parts, caller, run, answer, by)
      if (decision.effect === 'allow') {
        const permit = settle(id, plan, run.digest, decision, parts.clock.monotonic())
        if (permit === null) throw new WritError('internal', 'an allow that gives no permit')
        return await start(permit, by, entries)
      }
      await parts.ledger.append(...entries)
      parts.changes.wake(id)
    })
  }

  const enqueue = (execution: ExecutionId): void => {
    queue.push(execution, parts.ledger.views.execution(execution)?.tenant ?? '')
    waiting.add(execution)
    pump()
  }

  const cancel = (execution: ExecutionId, said = ''): void => {
    // Before it is dispatched the run host does not know it; after that the signal says no more than why.
    live.get(execution)?.abort(said)
    parts.host.cancel(execution)
  }

  return {
    free,
    start,
    enqueue,
    doubt,
    cancel,
    async stop() {
      stopped = true
      // What was being taken when this was called may still begin, and is cancelled then.
      for (; live.size + starting > 0; await pause(10)) for (const execution of live.keys()) cancel(execution)
    },
    get running() {
      return live.size
    },
    get queued() {
      return queue.length
    },
  }
}

/** Whether what was approved has had its time to begin. */
export function isOver(parts: Parts, { id, approval }: Execution): boolean {
  // Most of what waits was never asked about.
  if (approval === null) return false
  const [given] = parts.ledger.views.approvals({ execution: id, state: 'satisfied' }, 1)
  return given !== undefined && (given.execute_by_ms ?? 0) < nowOf(parts)
}

/**
 * Who started an execution, as the first decision on it saw them, with those of the roles that are held now through that
 * agent: one lost since the start no longer counts, and one got since does not either. How old the authentication was
 * stays what it was: people took the time since.
 */
function callerOf(parts: Parts, execution: Execution): Caller {
  const first = parts.ledger.views
    .decisions(execution.id)
    .find((one) => one.decision.phase === 'execution' && one.input !== null)
  if (first?.input == null) throw new WritError('ledger_corrupt', 'an execution without its first decision')
  const { subject } = JSON.parse(first.input) as PolicyInput
  const { tenant, auth, agent, roles } = subject.properties
  const held = parts.rolesOf(tenant, subject.id, agent.id)
  return {
    tenant,
    subject: { type: subject.type, id: subject.id },
    roles: roles.filter((role) => held.includes(role)),
    agent: { id: agent.id, asserted: { client: '', version: '' } },
    auth: { method: auth.method, atMs: parts.clock.now() - auth.age_s * 1000, shown: null },
  }
}

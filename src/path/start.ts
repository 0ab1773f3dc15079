import { randomBytes } from 'node:crypto'
import { digestJson } from '../digest.ts'
import { WritError } from '../error.ts'
import { isFinal, liveStates, type Execution } from '../execution/execution.ts'
import { type ExecutionId, newId, parseId } from '../id.ts'
import type { Entry } from '../ledger/ledger.ts'
import type { Resolution } from '../plan/plan.ts'
import { planView } from '../plan/resolve.ts'
import type { Decision } from '../policy/policy.ts'
import type { Arguments } from '../request/call.ts'
import type { Caller } from '../request/caller.ts'
import type { Task } from '../request/task.ts'
import type { Missing } from '../plan/plan.ts'
import type { PlanView } from '../execution/result.ts'
import { settle } from '../approval/permit.ts'
import { settled } from './ask.ts'
import { executionInput } from './input.ts'
import type { Parts } from './parts.ts'
import type { Runner } from './run.ts'
import { foresee, ownTask, resolveTask } from './submit.ts'
import { inTurn, inTurnOfKey } from './turn.ts'
import { startsOf, underway } from './underway.ts'
import { closeWithoutRun } from './close.ts'

export type Started =
  | { readonly kind: 'incomplete'; readonly task: Task; readonly missing: readonly Missing[] }
  | { readonly kind: 'foreseen'; readonly task: Task; readonly plan: PlanView; readonly decision: Decision }
  | { readonly kind: 'execution'; readonly id: ExecutionId; readonly existing: boolean }

/** One plan runs once: what has run, or may still run, is returned and not repeated. */
export async function startExecution(
  parts: Parts,
  runner: Runner,
  caller: Caller,
  args: Arguments['start_execution'],
): Promise<Started> {
  // The task first, then the key: nothing that has a key waits for a task.
  const key = args.idempotency_key
  const turn = async (work: () => Promise<Started>): Promise<Started> =>
    await inTurn(`task ${args.task_id}`, async () => await inTurnOfKey(caller, key, work))
  return await turn(async () => {
    const task = ownTask(parts, caller, args.task_id)
    const request = digestJson({ tool: 'start_execution', task: task.id, again: args.again ?? false })
    if (args.dry_run === true) return await foresight(parts, caller, task)
    if (key !== undefined) {
      const before = parts.ledger.views.idempotency(caller.tenant, caller.subject.id, key)
      const id = before?.request === request ? parseId('exec', before.result) : null
      if (id !== null) return { kind: 'execution', id, existing: true }
      if (before !== null)
        throw new WritError('idempotency_conflict', '"idempotency_key" was used before with other arguments.')
    }
    if (args.again === true && key === undefined)
      throw new WritError(
        'invalid_arguments',
        '"again" needs a fresh "idempotency_key", so that a repeated call cannot run twice.',
      )

    const latest = parts.ledger.views.executions({ tenant: task.tenant, task: task.id }, 1)[0] ?? null
    const unchanged = latest !== null && (await stillThePlan(parts, caller, task, latest))
    if (latest !== null && unchanged && (!isFinal(latest.state) || (latest.ran && args.again !== true)))
      return { kind: 'execution', id: latest.id, existing: true }

    const frozen = await resolveTask(parts, caller, task, randomBytes(16).toString('hex'))
    if (frozen.state === 'incomplete') return { kind: 'incomplete', task, missing: frozen.missing }
    const waits = latest !== null && !isFinal(latest.state) && latest.state !== 'running'
    await checkRoom(parts, caller.tenant, waits ? 1 : 0)
    // Only for a start there is room for: who is refused keeps the run that waits.
    if (waits) await closeWithoutRun(parts, latest, 'superseded', 'task_changed')
    const id = await begin(parts, runner, caller, task, frozen, key === undefined ? null : { key, request })
    return { kind: 'execution', id, existing: false }
  })
}

async function foresight(parts: Parts, caller: Caller, task: Task): Promise<Started> {
  const resolution = await resolveTask(parts, caller, task, '0'.repeat(32))
  if (resolution.state === 'incomplete') return { kind: 'incomplete', task, missing: resolution.missing }
  const decision = await foresee(parts, caller, task, resolution)
  return { kind: 'foreseen', task, plan: planView(resolution.plan, resolution.digest), decision }
}

/** The plan of the newest execution, made again with its own nonce, has the same digest: nothing it stands on changed. */
async function stillThePlan(parts: Parts, caller: Caller, task: Task, latest: Execution): Promise<boolean> {
  const plan = parts.ledger.views.plan(latest.plan)
  if (plan === null) return false
  const again = await resolveTask(parts, caller, task, plan.nonce)
  // The revision counts uploads; files put back as they were make the same plan.
  return again.state === 'ready' && digestJson({ ...again.plan, task: plan.task }) === latest.plan
}

async function begin(
  parts: Parts,
  runner: Runner,
  caller: Caller,
  task: Task,
  frozen: Extract<Resolution, { state: 'ready' }>,
  idempotency: { readonly key: string; readonly request: ReturnType<typeof digestJson> } | null,
): Promise<ExecutionId> {
  // Nothing is waited for from here until this start counts for the next.
  checkTenant(parts, caller.tenant)
  const execution = newId('exec')
  const { plan, digest } = frozen
  const by = executionInput(parts, caller, { task, plan, digest })
  using _ = underway(parts.ledger, { tenant: task.tenant, owner: task.owner, fresh: true })
  const answer = await parts.policy.decide(by.input)
  const { decision, entries } = settled(parts, caller, { execution, plan, digest }, answer, by)
  const opening: readonly Entry[] = [
    { kind: 'planned', execution, plan, digest, key: idempotency?.key ?? null },
    ...(idempotency === null
      ? []
      : [
          {
            kind: 'idempotency' as const,
            tenant: caller.tenant,
            subject: caller.subject.id,
            key: idempotency.key,
            request: idempotency.request,
            result: execution,
          },
        ]),
    ...entries,
  ]
  switch (decision.effect) {
    case 'allow': {
      const queued: Entry = { kind: 'state', execution, state: 'queued', ran: false, reasons: [] }
      const permit = settle(execution, plan, digest, decision, parts.clock.monotonic())
      if (permit !== null && runner.free(permit, by)) {
        // Nothing lies between this decision and the run, so it is the final one: decision, permit and start are one transaction.
        await runner.start(permit, by, [...opening, queued])
        return execution
      }
      refuseCrowd(parts, caller)
      await parts.ledger.append(...opening, queued).catch((unwritten: unknown) => {
        runner.doubt(execution)
        throw unwritten
      })
      runner.enqueue(execution)
      break
    }
    case 'pending':
      refuseCrowd(parts, caller)
      await parts.ledger.append(...opening)
      break
    case 'deny':
    case 'error':
      // Others that were decided meanwhile may have used the pace up.
      checkPace(parts, caller.tenant)
      parts.deniedPace.note(caller.tenant)
      await parts.ledger.append(...opening)
      break
  }
  parts.changes.wake(execution)
  return execution
}

/**
 * What a start is refused by whatever policy says of it.
 * @param giving executions of the tenant that would give way to it
 */
async function checkRoom(parts: Parts, tenant: string, giving: number): Promise<void> {
  checkPace(parts, tenant)
  if (parts.ledger.room() === 'low')
    throw new WritError('no_space', 'the data folder has no room for the records of another run')
  await parts.storage.checkLeft(tenant)
  checkTenant(parts, tenant, giving)
}

function checkPace(parts: Parts, tenant: string): void {
  if (!parts.deniedPace.room(tenant))
    throw new WritError('rate_limited', 'Too many denied executions in the last minute.')
}

/** Executions of one subject that may wait, for people or for a place; more would only take room and others' turn. */
const maxWaiting = 100

/** Executions of one tenant that run or wait: what all its subjects together may put between others and their turn. */
function checkTenant(parts: Parts, tenant: string, giving = 0): void {
  const most = parts.storage.quotas().executions
  const live = parts.ledger.views.executions({ tenant, state: liveStates }, most + giving).length - giving
  if (live + startsOf(parts.ledger, tenant).fresh < most) return
  throw new WritError('quota_exceeded', `Your tenant has ${String(most)} executions that run or wait already.`, {
    remedy: 'Wait until some have run, or cancel those nobody needs any more.',
  })
}

function refuseCrowd(parts: Parts, caller: Caller): void {
  const mine = { tenant: caller.tenant, owner: caller.subject.id }
  const waiting = parts.ledger.views.executions({ ...mine, state: ['awaiting_approval', 'queued'] }, maxWaiting)
  if (waiting.length >= maxWaiting)
    throw new WritError('rate_limited', `${String(maxWaiting)} of your executions wait already.`, {
      remedy: 'Wait until some have run, or cancel those you no longer need.',
    })
}

import { answerable, inputApprovals, openApproval } from '../approval/requirement.ts'
import { type Permit, settle, spend } from '../approval/permit.ts'
import type { Approval } from '../approval/approval.ts'
import { endLease, leaseCredentials } from '../credential/lease.ts'
import type { Lease } from '../credential/credential.ts'
import { newPlaceholder } from '../credential/placeholder.ts'
import { WritError } from '../error.ts'
import { isFinal, type Execution, type FinalState, type OutputFile, type RunReport } from '../execution/execution.ts'
import type { Outcome, RunEnd } from '../execution/job.ts'
import type { OutputWriter } from '../execution/output.ts'
import { type ExecutionId, type LeaseId, newId } from '../id.ts'
import type { Entry } from '../ledger/ledger.ts'
import { narrowLimits } from '../plan/limits.ts'
import type { Plan } from '../plan/plan.ts'
import { usedEntriesChanged } from '../plan/resolve.ts'
import { buildInput } from '../policy/input.ts'
import type { Decision, PolicyInput, Reason } from '../policy/policy.ts'
import type { Caller } from '../request/caller.ts'
import { closeWithoutRun, outcomeOf } from './close.ts'
import { type Parts, reasonOf } from './parts.ts'
import { targetResource } from './resource.ts'
import { bytesOf } from './submit.ts'
import { decided } from './start.ts'
import { inTurn } from './turn.ts'

export interface Runner {
  /** True where a run could begin now without waiting. */
  free(): boolean
  enqueue(execution: ExecutionId): void
  /** Commits `opening` with the spent permit and the state `running`, then runs; resolves when committed. */
  start(permit: Permit, input: PolicyInput, opening: readonly Entry[]): Promise<void>
  cancel(execution: ExecutionId): void
  /** Resolves when no run is alive. */
  settled(): Promise<void>
  readonly running: number
  readonly queued: number
}

export function openRunner(parts: Parts): Runner {
  const queue: ExecutionId[] = []
  const live = new Map<ExecutionId, Promise<void>>()
  let starting = 0

  const free = (): boolean => live.size + starting < parts.maxRunning && queue.length === 0

  const pump = (): void => {
    while (live.size + starting < parts.maxRunning) {
      const next = queue.shift()
      if (next === undefined) return
      starting++
      take(next)
        .catch((failure: unknown) => parts.log.error({ err: failure, execution: next }, 'a queued execution could not be taken'))
        .finally(() => {
          starting--
          pump()
        })
    }
  }

  const start = async (permit: Permit, input: PolicyInput, opening: readonly Entry[]): Promise<void> => {
    spend(permit, parts.clock.monotonic())
    await parts.ledger.append(
      ...opening,
      { kind: 'permit_spent', execution: permit.execution, plan: permit.digest, decision: permit.decision.id },
      { kind: 'state', execution: permit.execution, state: 'running', ran: true, reasons: [] },
    )
    const run = execute(parts, permit, input)
      .catch((failure: unknown) => parts.log.error({ err: failure, execution: permit.execution }, 'a run could not be closed; it is closed when the broker starts again'))
      .finally(() => {
        live.delete(permit.execution)
        parts.changes.progress(permit.execution, null)
        pump()
      })
    live.set(permit.execution, run)
    parts.changes.wake(permit.execution)
  }

  /** Policy is asked again right before the run, with the approvals filled in; the old answer counts for nothing. */
  const take = async (id: ExecutionId): Promise<void> => {
    await inTurn(`execution ${id}`, async () => {
      const execution = parts.ledger.views.execution(id)
      const plan = execution === null ? null : parts.ledger.views.plan(execution.plan)
      if (execution === null || plan === null || execution.state !== 'queued') return
      if (usedEntriesChanged(plan, parts.catalog())) return await closeWithoutRun(parts, execution, 'superseded', 'catalog_changed')
      const approval = parts.ledger.views.approvals({ execution: id, state: 'satisfied' }, 1)[0] ?? null
      if (approval !== null && (approval.execute_by_ms ?? 0) < parts.clock.now()) return await closeWithoutRun(parts, execution, 'expired', 'expired_before_use')
      const caller = callerOf(parts, plan)
      const input = executionInput(parts, caller, plan, execution, approval)
      const answer = await parts.policy.decide(input)
      const decision = pinned(answer, approval)
      const opening = decided(parts, caller, id, decision, input, { plan, digest: execution.plan })
      switch (decision.effect) {
        case 'allow': {
          const permit = settle(id, plan, execution.plan, decision, parts.clock.monotonic())
          if (permit === null) return
          return await start(permit, input, opening)
        }
        case 'pending':
          return await askAgain(execution, plan, decision, opening)
        case 'deny':
        case 'error':
          await parts.ledger.append(...opening, { kind: 'state', execution: id, state: 'denied', ran: false, reasons: decision.reasons })
          parts.changes.wake(id)
      }
    })
  }

  const askAgain = async (execution: Execution, plan: Plan, decision: Decision, opening: readonly Entry[]): Promise<void> => {
    const { requirement, requirement_digest } = decision
    if (requirement === null || requirement_digest === null) throw new WritError('internal', 'a pending decision without a requirement')
    const approval = openApproval({ execution: execution.id, plan, digest: execution.plan, requirement, requirement_digest, nowMs: parts.clock.now() })
    if (!answerable(approval, parts.approvers())) {
      const reason: Reason = {
        code: 'no_eligible_approver',
        message: 'Policy now asks other people to approve this, and nobody enrolled may.',
        remedy: 'Ask the operator to enrol an approver: "writ approvals enroll NAME".',
        ref: decision.id,
      }
      await parts.ledger.append(...opening, { kind: 'state', execution: execution.id, state: 'denied', ran: false, reasons: [reason] })
    } else {
      await parts.ledger.append(...opening, { kind: 'approval_opened', approval }, { kind: 'state', execution: execution.id, state: 'awaiting_approval', ran: false, reasons: decision.reasons })
    }
    parts.changes.wake(execution.id)
  }

  return {
    free,
    start,
    enqueue(execution) {
      queue.push(execution)
      pump()
    },
    cancel(execution) {
      parts.host.cancel(execution)
    },
    async settled() {
      while (live.size > 0) await Promise.allSettled(live.values())
    },
    get running() {
      return live.size
    },
    get queued() {
      return queue.length
    },
  }
}

/** An allow that stands on approvals counts only for the very requirement people answered; another asks anew. */
function pinned(decision: Decision, approval: Approval | null): Decision {
  if (decision.effect !== 'allow' || decision.requirement_digest === null) return decision
  if (approval !== null && approval.requirement_digest === decision.requirement_digest) return decision
  return { ...decision, effect: 'pending' }
}

/** Who a plan runs for, with the roles held now: a role lost since the start no longer counts. */
function callerOf(parts: Parts, plan: Plan): Caller {
  return {
    tenant: plan.tenant,
    subject: { type: 'user', id: plan.task.owner },
    roles: parts.rolesOf(plan.task.owner),
    agent: { id: plan.task.agent, asserted: { client: '', version: '' } },
    auth: { method: 'socket', atMs: parts.clock.now() },
  }
}

function executionInput(parts: Parts, caller: Caller, plan: Plan, execution: Execution, approval: Approval | null): PolicyInput {
  const nowMs = parts.clock.now()
  const task = parts.ledger.views.task(execution.task)
  if (task === null) throw new WritError('ledger_corrupt', 'an execution without its task')
  return buildInput({
    phase: 'execution',
    caller,
    action: { name: 'start_execution', arguments: {} },
    resource: targetResource(parts.catalog(), caller, plan.target.ref),
    nowMs,
    counters: parts.ledger.views.counters(caller.tenant, caller.subject.id, nowMs),
    task: { ...task, inputs: plan.task.inputs, files: plan.files },
    plan: { plan, digest: execution.plan },
    approvals: approval === null ? [] : inputApprovals(approval, (verdict) => approverRoles(parts, verdict.by, verdict.evidence)),
  })
}

function approverRoles(parts: Parts, subject: string, evidence: string): readonly string[] {
  if (evidence === 'bearer') return parts.rolesOf(subject)
  return parts.approvers().find((approver) => approver.subject === subject)?.roles ?? []
}

/** Steps 3 to 6 of the order of effects. Whatever happens in between, an outcome receipt is committed before any result is. */
async function execute(parts: Parts, permit: Permit, input: PolicyInput): Promise<void> {
  const { execution, plan, decision } = permit
  const writer = parts.outputs.writer(execution, plan.limits.output_kb * 1024)
  const files: OutputFile[] = []
  let lease: Lease | null = null
  let end: RunEnd
  try {
    lease = await leaseFor(parts, permit)
    end = await dispatch(parts, permit, input, lease, writer, files)
  } catch (failure) {
    const error = failure instanceof WritError ? failure : new WritError('internal', 'the run could not be prepared', { cause: failure })
    end = { outcome: { end: 'not_started', error }, counts: nothingCounted }
  }
  const output = await writer.close()
  const revocation = lease === null ? null : await endLease(lease)
  const outcome = end.outcome
  const state = stateOf(outcome, plan)
  const ran = outcome.end !== 'not_started'
  const report: RunReport = {
    steps: outcome.end === 'not_started' ? [] : outcome.steps,
    files: files.toSorted((a, b) => (a.path < b.path ? -1 : 1)),
    output: { bytes: output.bytes, dropped_bytes: output.dropped_bytes + end.counts.dropped_bytes, redactions: end.counts.redactions, sha256: output.sha256 },
    egress: end.counts.egress,
    isolation_applied: end.counts.isolation_applied,
    reason: reasonCode(outcome, state),
    withheld_files: end.counts.withheld_files,
  }
  const row = parts.ledger.views.execution(execution)
  if (row === null || isFinal(row.state)) return
  await committed(parts, [
    ...(lease === null ? [] : [{ kind: 'lease_ended' as const, lease: lease.id, revocation: revocation ?? 'pending' }]),
    { kind: 'outcome', execution, report },
    { kind: 'state', execution, state, ran, reasons: reasonsOf(parts, outcome, decision) },
    { kind: 'sign', execution, account: outcomeOf(parts, row, { status: state, ran, report, revocation: revocation ?? 'done' }) },
  ])
  parts.changes.wake(execution)
}

const nothingCounted: RunEnd['counts'] = {
  egress: { allowed: 0, blocked: 0, refusals: [] },
  isolation_applied: 'host',
  withheld_files: 0,
  redactions: 0,
  dropped_bytes: 0,
}

async function leaseFor(parts: Parts, permit: Permit): Promise<Lease | null> {
  const asked = permit.plan.credentials.map((credential) => credential.name)
  const names = asked.filter((name) => permit.decision.credentials.includes(name))
  if (names.length === 0) return null
  const id: LeaseId = newId('lease')
  await parts.ledger.append({ kind: 'lease_intended', lease: id, execution: permit.execution, credentials: names })
  try {
    const lease = await leaseCredentials(permit.plan, names, parts.sources, permit.execution, {
      id,
      wallS: permit.plan.limits.wall_s,
      signal: AbortSignal.timeout(30_000),
    })
    const ends = lease.secrets.map((secret) => secret.expires_at_ms).filter((at) => at !== null)
    await parts.ledger.append({ kind: 'leased', lease: id, expires_at_ms: ends.length === 0 ? null : Math.min(...ends) })
    return lease
  } catch (failure) {
    // All or nothing: what a source gave before another failed has been given back by then.
    await parts.ledger.append({ kind: 'lease_ended', lease: id, revocation: 'done' })
    throw failure
  }
}

async function dispatch(parts: Parts, permit: Permit, input: PolicyInput, lease: Lease | null, writer: OutputWriter, files: OutputFile[]): Promise<RunEnd> {
  const { execution, plan, digest, decision } = permit
  const generation = parts.policy.generation
  if (generation === null) throw new WritError('policy_unavailable', 'there is no policy in force')
  const placeholders = Object.fromEntries((lease?.secrets ?? []).map((secret) => [secret.name, newPlaceholder()]))
  const limits = narrowLimits(plan.limits, decision.limits)
  return await parts.host.run(
    {
      job: { execution, plan: { ...plan, limits }, plan_digest: digest, placeholders },
      secrets: lease?.secrets.map((secret) => secret.value) ?? [],
      generation,
      egress_input: { ...input, phase: 'egress', action: { name: 'fetch', properties: { arguments: {} } } },
    },
    bytesOf(parts),
    {
      started(step) {
        parts.changes.progress(execution, { step: step + 1, of: plan.steps.length, title: plan.steps[step]?.title ?? '' })
      },
      output(step, stream, bytes) {
        writer.write(step, stream, bytes)
        parts.changes.wake(execution)
      },
      async file(path, bytes) {
        const stored = await parts.artifacts.put(chunk(bytes), limits.artifact_kb * 1024)
        files.push({ path, sha256: stored.sha256, size: stored.size })
      },
    },
  )
}

// eslint-disable-next-line typescript/require-await -- the store takes an asynchronous stream
async function* chunk(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes
}

/** Outcome → state, as contracts/execution.md has it: what ended a run is what Writ saw. */
function stateOf(outcome: Outcome, plan: Plan): FinalState {
  switch (outcome.end) {
    case 'not_started':
      return 'failed'
    case 'exited': {
      const all = outcome.steps.length === plan.steps.length
      const good = outcome.steps.every((step, at) => step.exit !== null && (plan.steps[at]?.success ?? []).includes(step.exit))
      return all && good ? 'succeeded' : 'failed'
    }
    case 'stopped':
      return outcome.by === 'time' ? 'timed_out' : outcome.by === 'cancel' ? 'cancelled' : 'failed'
    case 'unknown':
      return 'unknown'
  }
}

function reasonCode(outcome: Outcome, state: FinalState): string | null {
  switch (outcome.end) {
    case 'not_started':
      return outcome.error.code
    case 'exited':
      return state === 'succeeded' ? null : (outcome.reason ?? 'exit_status')
    case 'stopped':
      return outcome.by
    case 'unknown':
      return 'run_host_lost'
  }
}

function reasonsOf(parts: Parts, outcome: Outcome, decision: Decision): readonly Reason[] {
  switch (outcome.end) {
    case 'not_started':
      return [reasonOf(parts, outcome.error)]
    case 'exited':
      return []
    case 'stopped':
      return [
        {
          code: outcome.by,
          message: { time: 'The run was ended at its time limit.', memory: 'The run was ended at its memory limit.', output: 'The run was ended at its output limit.', cancel: 'The run was cancelled.' }[outcome.by],
          remedy: outcome.by === 'cancel' ? 'Start again when you want it to run.' : 'Make the work smaller, or ask the operator for a higher limit.',
          ref: decision.id,
        },
      ]
    case 'unknown':
      return [{ code: 'run_host_lost', message: 'Writ lost the run before it saw how it ended.', remedy: 'Look at the target before you start it again.', ref: decision.id }]
  }
}

/** No receipt, no result: an outcome that cannot be written now is tried again until it can be. */
async function committed(parts: Parts, entries: readonly Entry[]): Promise<void> {
  for (let pause = 100; ; pause = Math.min(pause * 2, 10_000)) {
    try {
      await parts.ledger.append(...entries)
      return
    } catch (failure) {
      if (!(failure instanceof WritError) || (failure.code !== 'no_space' && failure.code !== 'ledger_unavailable')) throw failure
      parts.log.error({ err: failure }, 'an outcome waits for the ledger')
      await new Promise((resolve) => setTimeout(resolve, pause))
    }
  }
}

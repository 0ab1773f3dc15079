import type { Resource, Waiting } from '../broker.ts'
import { WritError } from '../error.ts'
import { type Execution, isFinal, liveStates } from '../execution/execution.ts'
import type { Results } from '../execution/result.ts'
import type { Arguments } from '../request/call.ts'
import type { Caller } from '../request/caller.ts'
import { decideRequest } from './admit.ts'
import { showApproval } from './answer.ts'
import { closeWithoutRun } from './close.ts'
import { findExecution, findReceipt, findTask } from './found.ts'
import { isMine, type Parts } from './parts.ts'
import { approvalResource, artifactUri, parseUri, resourceOf } from './resource.ts'
import type { Runner } from './run.ts'
import { describe, ownTask } from './submit.ts'
import { inTurn } from './turn.ts'
import { approvalView, executionView, nextOf } from './view.ts'

const maxWaitMs = 50_000
const progressEveryMs = 5_000
export async function getStatus(
  parts: Parts,
  caller: Caller,
  args: Arguments['get_status'],
  waiting: Waiting,
): Promise<Results['get_status']> {
  const asked = (['execution_id', 'task_id', 'approval_id'] as const).filter((name) => args[name] !== undefined)
  if (asked.length > 1)
    throw new WritError('invalid_arguments', `"${asked.join('" and "')}" do not go together: give one of them.`)
  if (args.approval_id !== undefined) {
    const { approval, payload } = await showApproval(parts, args.approval_id, caller.tenant)
    const execution = parts.ledger.views.execution(approval.execution)
    if (execution === null) throw new WritError('ledger_corrupt', 'an approval without its execution')
    return {
      ...executionView(parts, execution),
      approval: approvalView(approval),
      payload,
      next:
        approval.state === 'open'
          ? { tell_user: approvalView(approval).how }
          : { tool: 'get_status', arguments: { execution_id: execution.id } },
    }
  }
  const execution =
    args.execution_id !== undefined
      ? executionOf(parts, caller, args.execution_id)
      : args.task_id !== undefined
        ? latestOf(parts, caller, args.task_id)
        : null
  if (execution !== null) return await statusOf(parts, execution, args, waiting)
  if (args.task_id !== undefined)
    return { ...(await describe(parts, caller, ownTask(parts, caller, args.task_id))), final: false }
  return await overview(parts, caller)
}

async function overview(parts: Parts, caller: Caller): Promise<Results['get_status']> {
  const mine = parts.ledger.views.executions({ tenant: caller.tenant, owner: caller.subject.id }, 20)
  const waitingForYou = []
  for (const approval of parts.ledger.views.approvals({ tenant: caller.tenant, state: 'open' }, 50)) {
    const decision = await decideRequest(
      parts,
      caller,
      { name: 'respond_to_approval', arguments: { approval_id: approval.id } },
      approvalResource(parts.ledger.views, caller.tenant, approval.id),
    )
    if (decision.effect === 'allow' && !approval.excluded.subjects.includes(caller.subject.id))
      waitingForYou.push(approvalView(approval))
  }
  return {
    recent: mine.map((execution) => ({
      execution_id: execution.id,
      task_id: execution.task,
      project_name: parts.ledger.views.task(execution.task)?.project_name ?? '',
      state: execution.state,
      at: new Date(execution.changed_at_ms).toISOString(),
    })),
    waiting_for_you: waitingForYou,
    next:
      mine[0] === undefined
        ? { tool: 'list_targets', arguments: {} }
        : { tool: 'get_status', arguments: { execution_id: mine[0].id } },
  }
}

/** Waits for a change of state, for the end, or for `max_bytes` of new log, whichever is first; then tells all there is. */
export async function statusOf(
  parts: Parts,
  found: Execution,
  args: {
    readonly cursor?: string | undefined
    readonly max_bytes?: number | undefined
    readonly wait_ms?: number | undefined
  },
  waiting: Waiting,
): Promise<Results['get_status']> {
  const until = parts.clock.monotonic() + Math.min(args.wait_ms ?? 0, maxWaitMs)
  const maxBytes = Math.min(args.max_bytes ?? 8192, 8192)
  let nextProgress = parts.clock.monotonic() + progressEveryMs
  const from = args.cursor ?? null
  let { state } = found
  // Ledger and output are looked at when something changed and at the end: a thousand that wait cost no reading.
  for (let woken = true; ;) {
    const now = parts.clock.monotonic()
    if (woken || now >= until) {
      const execution = parts.ledger.views.execution(found.id) ?? found
      state = execution.state
      const moved = state !== found.state || isFinal(state)
      const log = parts.outputs.read(execution.id, from, maxBytes)
      if (moved || now >= until || waiting.signal.aborted || (from !== null && log.more)) {
        const view = executionView(parts, execution)
        const { dropped_bytes, ...page } = log
        return {
          ...view,
          ...(log.text === '' && from === null ? {} : { log: dropped_bytes > 0 ? log : page }),
          next: nextOf(execution, view, log.cursor),
        }
      }
    }
    if (now >= nextProgress) {
      const progress = parts.changes.progressOf(found.id)
      waiting.progress(
        progress === null ? state : `${state}: step ${progress.step} of ${progress.of}, ${progress.title}`,
      )
      nextProgress = now + progressEveryMs
    }
    woken = await change(parts, found.id, Math.min(until, nextProgress) - now, from !== null, waiting.signal)
  }
}

/** Output comes in many small pieces: who waits for it is woken for some of them at once. */
const gatherMs = 100

/** Resolves on a change of the execution and, where asked for, on new output; false where only time went by. */
async function change(
  parts: Parts,
  id: Execution['id'],
  ms: number,
  output: boolean,
  signal: AbortSignal,
): Promise<boolean> {
  if (!output) return await parts.changes.wait(id, ms, signal)
  const over = new AbortController()
  const either = AbortSignal.any([signal, over.signal])
  const printed = parts.outputs.changed(id, either).then(() => 'printed' as const)
  const first = await Promise.race([parts.changes.wait(id, ms, either), printed])
  over.abort()
  if (first !== 'printed') return first
  await parts.changes.wait(id, Math.min(ms, gatherMs), signal)
  return true
}

export async function cancelExecution(
  parts: Parts,
  runner: Runner,
  caller: Caller,
  args: Arguments['cancel_execution'],
  waiting: Waiting,
): Promise<Results['cancel_execution']> {
  const execution = executionOf(parts, caller, args.execution_id)
  await inTurn(`execution ${execution.id}`, async () => {
    const now = parts.ledger.views.execution(execution.id) ?? execution
    if (now.state === 'awaiting_approval' || now.state === 'queued')
      await closeWithoutRun(parts, now, 'cancelled', 'cancelled', args.reason)
    else if (now.state === 'running') runner.cancel(now.id, args.reason)
  })
  return await statusOf(parts, parts.ledger.views.execution(execution.id) ?? execution, { wait_ms: 5_000 }, waiting)
}

/** The execution, which the request phase has already found to be one the caller may ask about. */
export function executionOf(parts: Parts, caller: Caller, text: string): Execution {
  const execution = findExecution(parts.ledger.views, caller.tenant, text)
  if (execution === null) throw new WritError('not_found', 'There is no such execution among yours.')
  return execution
}

function latestOf(parts: Parts, caller: Caller, text: string): Execution | null {
  const task = findTask(parts.ledger.views, caller.tenant, text)
  if (task === null) throw new WritError('not_found', 'There is no such task among yours.')
  return parts.ledger.views.executions({ task: task.id }, 1)[0] ?? null
}

export async function readResource(parts: Parts, caller: Caller, uri: string): Promise<Resource | null> {
  const parsed = parseUri(uri)
  if (parsed === null) return null
  const decision = await decideRequest(
    parts,
    caller,
    { name: 'resources/read', arguments: { uri } },
    resourceOf(parts.ledger.views, parts.catalog(), caller, { name: 'resources/read', arguments: { uri } }),
  )
  if (decision.effect !== 'allow') return null
  if (parsed.kind === 'receipt') {
    const found = findReceipt(parts.ledger.views, caller.tenant, parsed.id)
    return found === null ? null : { uri, mime: 'application/jwt', text: found.receipt.jws }
  }
  const execution = findExecution(parts.ledger.views, caller.tenant, parsed.execution)
  const file = execution?.report?.files.find((candidate) => candidate.path === parsed.path)
  if (execution === null || file === undefined || !isFinal(execution.state) || file.size > 3 * 1024 * 1024) return null
  const bytes = await parts.artifacts.read(file.sha256, file.size)
  const text = bytes.toString('utf8')
  return Buffer.from(text, 'utf8').equals(bytes)
    ? { uri, mime: 'text/plain', text }
    : { uri, mime: 'application/octet-stream', base64: bytes.toString('base64') }
}

/** Receipts and files of the caller's own latest executions. */
export async function listResources(
  parts: Parts,
  caller: Caller,
): Promise<readonly { readonly uri: string; readonly name: string; readonly mime: string }[]> {
  const listed: { uri: string; name: string; mime: string }[] = []
  for (const execution of parts.ledger.views.executions({ tenant: caller.tenant, owner: caller.subject.id }, 20)) {
    if (!isMine(caller, execution) || (liveStates as readonly string[]).includes(execution.state)) continue
    for (const receipt of parts.ledger.views.receiptsOf(execution.id))
      listed.push({
        uri: `writ://receipts/${receipt.id}`,
        name: `${receipt.kind} receipt of ${execution.id}`,
        mime: 'application/jwt',
      })
    for (const file of execution.report?.files ?? [])
      listed.push({ uri: artifactUri(execution.id, file.path), name: file.path, mime: 'application/octet-stream' })
  }
  return await Promise.resolve(listed.slice(0, 200))
}

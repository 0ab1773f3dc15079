import type { Resource, Waiting } from '../broker.ts'
import { WritError } from '../error.ts'
import { type Execution, isFinal, liveStates, type OutputFile } from '../execution/execution.ts'
import type { Results } from '../execution/result.ts'
import { targetState } from '../plan/available.ts'
import { describeTarget } from '../plan/resolve.ts'
import type { Arguments } from '../request/call.ts'
import type { Caller } from '../request/caller.ts'
import { decideRequest, mayView, mustView } from './admit.ts'
import { showApproval } from './answer.ts'
import { closeWithoutRun } from './close.ts'
import { findExecution, findReceipt, findTask } from './found.ts'
import { isMine, type Parts, unknownTarget } from './parts.ts'
import { approvalResource, artifactUri, parseUri, resourceOf } from './resource.ts'
import type { Runner } from './run.ts'
import { ownTask, previewNonce, resolveTask } from './submit.ts'
import type { TransferDesk } from './desk.ts'
import { inTurn } from './turn.ts'
import { approvalView, executionView, nextOf } from './view.ts'

const maxWaitMs = 50_000
const progressEveryMs = 5_000
/** Bytes of all texts that ride in one result: a run that leaves a thousand files must not fill its caller's context. */
const maxInlineBytes = 32_768

/** Every target the caller may see: an item of a listing is decided like anything else, as action `view`. */
export async function listTargets(
  parts: Parts,
  caller: Caller,
  args: Arguments['list_targets'],
): Promise<Results['list_targets']> {
  const catalog = parts.catalog()
  const able = await parts.availability()
  if (args.target_ref !== undefined) {
    await mustView(parts, caller, args.target_ref)
    const target = describeTarget(catalog, args.target_ref, able)
    if (target === null) throw unknownTarget()
    const [intent] = target.intents
    return {
      target,
      next:
        target.available && intent !== undefined
          ? {
              tool: 'submit_task',
              arguments: { target_ref: args.target_ref, execution_intent: intent.execution_intent },
            }
          : { tell_user: 'This target is not available now; choose another one, or ask the operator of this Writ.' },
    }
  }
  const targets = []
  for (const [ref, target] of catalog.targets) {
    if (!(await mayView(parts, caller, ref))) continue
    targets.push({
      target_ref: ref,
      about: target.about,
      intents: target.intents,
      available: targetState(target, able).available,
    })
  }
  return {
    targets,
    next:
      targets.length === 0
        ? { tell_user: 'You may use no target here; ask the operator of this Writ.' }
        : { tool: 'list_targets', arguments: { target_ref: targets[0]?.target_ref ?? '' } },
  }
}

export async function getStatus(
  parts: Parts,
  caller: Caller,
  args: Arguments['get_status'],
  waiting: Waiting,
): Promise<Results['get_status']> {
  if (args.approval_id !== undefined) {
    if (args.execution_id !== undefined || args.task_id !== undefined)
      throw new WritError('invalid_arguments', '"approval_id" stands alone: leave out "execution_id" and "task_id".')
    const { approval, payload } = await showApproval(parts, args.approval_id, caller.tenant)
    const execution = parts.ledger.views.execution(approval.execution)
    if (execution === null) throw new WritError('ledger_corrupt', 'an approval without its execution')
    return {
      ...executionView(parts, execution),
      approval: approvalView(approval),
      payload,
      next: {
        tell_user: approval.state === 'open' ? approvalView(approval).how : `This approval is ${approval.state}.`,
      },
    }
  }
  const execution =
    args.execution_id !== undefined
      ? executionOf(parts, caller, args.execution_id)
      : args.task_id !== undefined
        ? latestOf(parts, caller, args.task_id)
        : null
  if (execution !== null) return await statusOf(parts, execution, args, waiting)
  if (args.task_id !== undefined) return await notStarted(parts, caller, args.task_id)
  return await overview(parts, caller)
}

/** A task of which nothing was started: whether it could be, and what it lacks. */
async function notStarted(parts: Parts, caller: Caller, text: string): Promise<Results['get_status']> {
  const task = ownTask(parts, caller, text)
  const resolution = await resolveTask(parts, caller, task, previewNonce)
  if (resolution.state === 'incomplete')
    return {
      task_id: task.id,
      state: 'incomplete',
      final: false,
      missing: resolution.missing,
      next: { tool: 'upload_artifact', arguments: { task_id: task.id } },
    }
  return {
    task_id: task.id,
    state: 'ready',
    final: false,
    next: { tool: 'start_execution', arguments: { task_id: task.id, wait_ms: 20_000 } },
  }
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
        return { ...view, ...(log.text === '' && from === null ? {} : { log }), next: nextOf(execution, view) }
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

export async function getResult(
  parts: Parts,
  transfers: TransferDesk,
  caller: Caller,
  args: Arguments['get_result'],
): Promise<Results['get_result']> {
  const execution = executionOf(parts, caller, args.execution_id)
  const view = executionView(parts, execution)
  const report = execution.report
  if (!isFinal(execution.state)) return { ...view, next: nextOf(execution, view) }
  if (args.file !== undefined) return { ...view, ...(await readFile(parts, transfers, caller, execution, args)) }
  // The result is released only with the receipt that accounts for it.
  const receipt =
    parts.ledger.views.receiptsOf(execution.id).findLast((row) => row.kind === 'outcome' || row.kind === 'decision') ??
    null
  if (receipt === null) throw new WritError('internal', 'a final execution without a receipt')
  const failing = report?.steps.findIndex((step) => step.exit !== 0) ?? -1
  const files = []
  let room = maxInlineBytes
  for (const file of report?.files ?? []) {
    const small = file.size > room ? {} : await smallText(parts, file)
    if (small.text !== undefined) room -= file.size
    files.push({ ...file, uri: artifactUri(execution.id, file.path), ...small })
  }
  return {
    ...view,
    ...(report === null
      ? {}
      : {
          steps: report.steps,
          tail: parts.outputs.tail(execution.id, failing < 0 ? null : failing, 4096),
          files,
          withheld: { redacted: report.output.redactions, blocked: report.egress.blocked + report.withheld_files },
        }),
    receipt: { receipt_id: receipt.id, digest: receipt.digest, uri: `writ://receipts/${receipt.id}` },
    jws: receipt.jws,
    next:
      view.state === 'succeeded'
        ? { tell_user: 'Done. The receipt accounts for this run; anyone can check it with "writ verify".' }
        : nextAfterFailure(execution),
  }
}

function nextAfterFailure(execution: Execution): NonNullable<Results['get_result']['next']> {
  if (!execution.ran) return { tell_user: execution.reasons[0]?.remedy ?? 'It did not run.' }
  return { tool: 'upload_artifact', arguments: { task_id: execution.task } }
}

/** Text files of at most 4 KiB ride in the result itself. */
async function smallText(
  parts: Parts,
  file: { readonly sha256: Parameters<Parts['artifacts']['read']>[0]; readonly size: number },
): Promise<{ text?: string }> {
  if (file.size > 4096) return {}
  const bytes = await parts.artifacts.read(file.sha256, 4096)
  const text = bytes.toString('utf8')
  return Buffer.from(text, 'utf8').equals(bytes) && !text.includes('\u0000') ? { text } : {}
}

/** A piece of a file; with the first piece of one that does not fit into it, a URL for the whole. */
async function readFile(
  parts: Parts,
  transfers: TransferDesk,
  caller: Caller,
  execution: Execution,
  args: Arguments['get_result'],
): Promise<Pick<Results['get_result'], 'file' | 'next'>> {
  const file = fileOf(execution, args.file ?? '')
  const part = await filePart(parts, file, args.offset ?? 0, args.max_bytes ?? 8192)
  const given = part.more && part.offset === 0 ? await transfers.issueDownload(caller, execution, file) : null
  if (given === null) return { file: part, next: { tell_user: 'This is a piece of the file asked for.' } }
  return {
    file: { ...part, download_url: given.url, expires_at: given.expires_at },
    next: { tell_user: `This is the first piece. The whole file: curl -OJ '${given.url}'` },
  }
}

function fileOf(execution: Execution, path: string): OutputFile {
  const file = execution.report?.files.find((candidate) => candidate.path === path)
  if (file === undefined)
    throw new WritError('not_found', 'There is no such file among those of this execution.', {
      remedy: 'Take a path that get_result lists under "files".',
    })
  return file
}

async function filePart(
  parts: Parts,
  file: OutputFile,
  offset: number,
  maxBytes: number,
): Promise<NonNullable<Results['get_result']['file']>> {
  const size = Math.min(maxBytes, 1_048_576)
  const from = Math.min(offset, file.size)
  const pieces: Buffer[] = []
  let have = 0
  for await (const piece of await parts.artifacts.open(file.sha256, from)) {
    const bytes = piece as Buffer
    pieces.push(bytes.subarray(0, size - have))
    have += Math.min(bytes.length, size - have)
    if (have >= size) break
  }
  const bytes = Buffer.concat(pieces)
  const text = bytes.toString('utf8')
  const plain = Buffer.from(text, 'utf8').equals(bytes) && !text.includes('\u0000')
  return {
    path: file.path,
    offset: from,
    size: file.size,
    more: from + bytes.length < file.size,
    ...(plain ? { text } : { base64: bytes.toString('base64') }),
  }
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
      await closeWithoutRun(parts, now, 'cancelled', 'cancelled')
    else if (now.state === 'running') runner.cancel(now.id)
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

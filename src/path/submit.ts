import { type Digest, digestJson, digestOf } from '../digest.ts'
import { WritError } from '../error.ts'
import { newId, parseId } from '../id.ts'
import { type Next, type PlanView, type Results, sentences } from '../execution/result.ts'
import { manifestPaths } from '../plan/detect.ts'
import { constrain } from '../plan/limits.ts'
import type { Resolution } from '../plan/plan.ts'
import { planView, resolve } from '../plan/resolve.ts'
import { roomProblem } from '../plan/room.ts'
import type { Decision } from '../policy/policy.ts'
import type { Arguments, UploadIn } from '../request/call.ts'
import type { Caller } from '../request/caller.ts'
import { applyFiles, maxCallBytes } from '../request/files.ts'
import { newTask, reviseTask } from '../request/submit.ts'
import type { Task } from '../request/task.ts'
import { mayView, mustView } from './admit.ts'
import { findTask } from './found.ts'
import { executionInput } from './input.ts'
import { missingViews, nextForTask } from './next.ts'
import { type Parts, unknownTarget } from './parts.ts'
import type { Allowance } from './storage.ts'
import type { UploadTicket } from './ticket.ts'
import type { Given, TransferDesk } from './desk.ts'
import { inTurn, inTurnOfKey } from './turn.ts'

export async function submitTask(
  parts: Parts,
  caller: Caller,
  args: Arguments['submit_task'],
): Promise<Results['submit_task']> {
  const request = digestJson({ tool: 'submit_task', args })
  const key = args.idempotency_key
  return await inTurnOfKey(caller, key, async () => {
    if (key !== undefined) {
      const before = parts.ledger.views.idempotency(caller.tenant, caller.subject.id, key)
      if (before !== null) {
        const task =
          before.request === request ? parts.ledger.views.task(parseId('task', before.result) ?? newId('task')) : null
        if (task === null)
          throw new WritError('idempotency_conflict', `"idempotency_key" was used before with other arguments.`)
        const task_files = task.files.map(({ path, size, sha256 }) => ({ path, size, sha256 }))
        return { ...(await describe(parts, caller, task)), existing: true, task_files }
      }
    }
    await checkTarget(parts, caller, args)
    using allowance = await parts.storage.allowance(caller.tenant)
    const put = putBytes(parts, allowance)
    const { files } = await applyFiles([], { files: args.files }, bytesOf(parts), put)
    const task = newTask(caller, args, { id: newId('task'), nowMs: parts.clock.now(), files })
    await parts.ledger.append(
      { kind: 'task', task },
      ...(key === undefined
        ? []
        : [
            {
              kind: 'idempotency' as const,
              tenant: caller.tenant,
              subject: caller.subject.id,
              key,
              request,
              result: task.id,
            },
          ]),
    )
    return await describe(parts, caller, task)
  })
}

/** A target the caller may not see and one that does not exist are refused in the same words. */
async function checkTarget(parts: Parts, caller: Caller, args: Arguments['submit_task']): Promise<void> {
  await mustView(parts, caller, args.target_ref)
  const target = parts.catalog().targets.get(args.target_ref)
  if (target === undefined) throw unknownTarget()
  if (!target.intents.includes(args.execution_intent))
    throw new WritError(
      'unknown_intent',
      `"execution_intent" has to be one of this target's: ${target.intents.join(', ')}.`,
    )
}

export async function uploadArtifact(
  parts: Parts,
  transfers: TransferDesk,
  caller: Caller,
  args: Arguments['upload_artifact'],
): Promise<Results['upload_artifact']> {
  return await inTurn(`task ${args.task_id}`, async () => {
    const task = ownTask(parts, caller, args.task_id)
    // Told, because whoever meant to change something would go on with what there was.
    if ([args.files, args.remove, args.archive, args.upload].every((one) => one === undefined))
      throw new WritError('invalid_arguments', 'Nothing is given: one of "files", "remove", "archive" or "upload".')
    // Archives are foreign bytes: the run host unpacks them, never the broker.
    const unpacked =
      args.archive === undefined
        ? undefined
        : await parts.host.unpack(Buffer.from(args.archive.content_base64, 'base64'))
    using allowance = await parts.storage.allowance(caller.tenant)
    const { files, changed } = await applyFiles(
      task.files,
      { files: args.files, remove: args.remove, unpacked, under: args.archive?.path },
      bytesOf(parts),
      putBytes(parts, allowance),
    )
    // First, because a call that is refused a URL leaves the task as it was.
    const given =
      args.upload === undefined ? null : await transfers.issueUpload(caller, { ...task, files }, args.upload)
    const revised = await revise(parts, task, files, changed)
    const described = { ...(await describe(parts, caller, revised)), changed }
    return args.upload === undefined || given === null
      ? described
      : withUpload(parts, revised, args.upload, given, described)
  })
}

/** What changed nothing makes no new revision. */
async function revise(
  parts: Parts,
  task: Task,
  files: Task['files'],
  changed: readonly { readonly change: string }[],
): Promise<Task> {
  if (changed.every((file) => file.change === 'unchanged')) return task
  const revised = reviseTask(task, files)
  await parts.ledger.append({ kind: 'task', task: revised })
  return revised
}

function withUpload(
  parts: Parts,
  task: Task,
  upload: UploadIn,
  { url, expires_at }: Given,
  described: Results['upload_artifact'],
): Results['upload_artifact'] {
  // Better now than after a gigabyte: what the run could not take anyway.
  const target = parts.catalog().targets.get(task.target_ref)
  const whole = [...task.files, { path: upload.path, size: upload.size }]
  const room =
    target === undefined || upload.unpack === true
      ? null
      : roomProblem(target.executor, constrain(target.limits, task.constraints), whole)
  return {
    ...described,
    missing: [...(described.missing ?? []), ...missingViews(room === null ? [] : [room])],
    upload_url: url,
    expires_at,
    next: {
      tell_user: `Send the ${upload.size} bytes by HTTP PUT, once: curl -T FILE '${url}'. The answer is like this one.`,
    },
  }
}

/** An upload that is complete and has the right digest becomes part of its task as the task now stands. */
export async function attachUpload(
  parts: Parts,
  allowance: Allowance,
  { caller, task: id, path, size, sha256, unpack, upload }: UploadTicket,
): Promise<Results['upload_artifact']> {
  return await inTurn(`task ${id}`, async () => {
    const task = ownTask(parts, caller, id)
    if (!unpack) allowance.take(sha256, size)
    const { files, changed } = await applyFiles(
      task.files,
      unpack
        ? { unpacked: await parts.host.unpack(await upload.read()), under: path }
        : { stored: [{ path, sha256, size }] },
      bytesOf(parts),
      putBytes(parts, allowance),
    )
    if (!unpack) await upload.keep()
    return { ...(await describe(parts, caller, await revise(parts, task, files, changed))), changed }
  })
}

/** The task, which the request phase has already found to be the caller's to use. */
export function ownTask(parts: Parts, caller: Caller, text: string): Task {
  const task = findTask(parts.ledger.views, caller.tenant, text)
  if (task === null) throw new WritError('not_found', 'There is no such task among yours.')
  return task
}

export function bytesOf(parts: Parts): (digest: Digest) => Promise<Buffer> {
  return async (digest) => await parts.artifacts.read(digest, maxCallBytes)
}

function putBytes(
  parts: Parts,
  allowance: Allowance,
): (bytes: Uint8Array) => Promise<{ sha256: Digest; size: number }> {
  return async (bytes) => {
    const sha256 = digestOf(bytes)
    allowance.take(sha256, bytes.length)
    const known = parts.artifacts.hold(sha256)
    if (known !== null) return { sha256, size: known }
    return await parts.artifacts.put(one(bytes), maxCallBytes)
  }
}

// eslint-disable-next-line typescript/require-await -- the store takes an asynchronous stream
async function* one(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes
}

/** Resolves a task against the catalog as it stands; reads only the few manifest files detection looks at. */
export async function resolveTask(parts: Parts, caller: Caller, task: Task, nonce: string): Promise<Resolution> {
  const contents = new Map<string, string>()
  for (const path of manifestPaths(task.files, task.inputs)) {
    const file = task.files.find((candidate) => candidate.path === path)
    if (file !== undefined && file.size <= 262_144)
      contents.set(path, (await parts.artifacts.read(file.sha256, 262_144)).toString('utf8'))
  }
  const catalog = parts.catalog()
  const able = await parts.availability()
  const resolution = resolve({ task, contents, catalog, nonce, availability: able })
  if (resolution.state === 'ready') return resolution
  // What is missing may name other targets that would do: only those the caller may see.
  const visible = new Set<string>()
  for (const ref of catalog.targets.keys()) if (await mayView(parts, caller, ref)) visible.add(ref)
  return resolve({ task, contents, catalog, nonce, availability: able, visible })
}

/** What policy would say of the plan if it were started now; recorded nowhere. */
export async function foresee(
  parts: Parts,
  caller: Caller,
  task: Task,
  resolution: Extract<Resolution, { state: 'ready' }>,
): Promise<Decision> {
  const { plan, digest } = resolution
  return await parts.policy.decide(executionInput(parts, caller, { task, plan, digest }).input)
}

/** A plan is frozen only when a run is started, so what is described here has a throw-away nonce. */
const previewNonce = '0'.repeat(32)

/** Where a task stands before it is started: what it lacks, else what policy would say. */
export async function describe(parts: Parts, caller: Caller, task: Task): Promise<Results['submit_task']> {
  const resolution = await resolveTask(parts, caller, task, previewNonce)
  if (resolution.state === 'incomplete')
    return {
      task_id: task.id,
      state: 'incomplete',
      missing: missingViews(resolution.missing),
      next: nextForTask(task, resolution.missing),
    }
  const decision = await foresee(parts, caller, task, resolution)
  const plan: PlanView = planView(resolution.plan, resolution.digest)
  return {
    task_id: task.id,
    state: 'ready',
    missing: [],
    plan,
    effect: decision.effect,
    ...(decision.reasons.length > 0 ? { reasons: decision.reasons } : {}),
    next: nextForPlan(task.id, decision),
  }
}

/** What would be refused is not started to find out. */
export function nextForPlan(task_id: string, { effect, reasons: [reason] }: Decision): Next {
  if (effect === 'allow' || effect === 'pending')
    return { tool: 'start_execution', arguments: { task_id, wait_ms: 20_000 } }
  const why = reason === undefined ? 'ask the operator.' : `${sentences(reason)} (ref ${reason.ref})`
  return { tell_user: `Policy would refuse this run: ${why}` }
}

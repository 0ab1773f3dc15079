import type { Message } from '../broker.ts'
import type { Json, JsonObject } from '../digest.ts'
import type { Views } from '../ledger/ledger.ts'
import type { Catalog } from '../plan/catalog.ts'
import type { PolicyInput } from '../policy/policy.ts'
import type { Caller } from '../request/caller.ts'
import { findApproval, findExecution, findReceipt, findTask } from './found.ts'

export type PolicyResource = PolicyInput['resource']

const nothing: PolicyResource = { type: 'none', id: '', properties: { owner: null, tenant: null, labels: {} } }

/**
 * What a message is about, as policy sees it. An id nobody has given out has no owner and no tenant, so a pack that
 * compares owners denies it exactly as it denies a stranger's; nor has one of another tenant.
 */
export function resourceOf(views: Views, catalog: Catalog, caller: Caller, message: Message): PolicyResource {
  const { arguments: args, name } = message
  const text = (key: string): string | null => {
    const value = Object.hasOwn(args, key) ? args[key] : undefined
    return typeof value === 'string' ? value : null
  }
  const target = text('target_ref')
  if ((name === 'submit_task' || name === 'list_targets') && target !== null)
    return targetResource(catalog, caller, target)
  if (name === 'resources/read') return uriResource(views, caller.tenant, text('uri') ?? '')
  // In the order in which `get_status` looks at them: what is decided on is what is shown.
  const approval = text('approval_id')
  if (approval !== null) return approvalResource(views, caller.tenant, approval)
  const execution = text('execution_id')
  if (execution !== null) return executionResource(views, caller.tenant, execution)
  const task = text('task_id')
  if (task !== null) return taskResource(views, catalog, caller.tenant, task)
  return nothing
}

export function targetResource(catalog: Catalog, caller: Caller, ref: string): PolicyResource {
  const target = catalog.targets.get(ref)
  return {
    type: 'target',
    id: ref.slice(0, 128),
    properties: { owner: null, tenant: caller.tenant, labels: target === undefined ? {} : target.labels },
  }
}

function owned(
  type: PolicyResource['type'],
  id: string,
  of: { owner: string; tenant: string } | null,
  labels: Readonly<Record<string, string>> = {},
): PolicyResource {
  return { type, id: id.slice(0, 128), properties: { owner: of?.owner ?? null, tenant: of?.tenant ?? null, labels } }
}

function taskResource(views: Views, catalog: Catalog, tenant: string, text: string): PolicyResource {
  const task = findTask(views, tenant, text)
  return owned('task', text, task, task === null ? {} : (catalog.targets.get(task.target_ref)?.labels ?? {}))
}

function executionResource(views: Views, tenant: string, text: string): PolicyResource {
  const execution = findExecution(views, tenant, text)
  return owned(
    'execution',
    text,
    execution,
    execution === null ? {} : (views.plan(execution.plan)?.target.labels ?? {}),
  )
}

export function approvalResource(views: Views, tenant: string, text: string): PolicyResource {
  const approval = findApproval(views, tenant, text)
  const execution = approval === null ? null : views.execution(approval.execution)
  return owned('approval', text, execution, execution === null ? {} : (views.plan(execution.plan)?.target.labels ?? {}))
}

/** `writ://receipts/<receipt id>` and `writ://artifacts/<execution id>/<path>`, each of the 1024 bytes of a path escaped at most. */
export function parseUri(
  uri: string,
):
  | { readonly kind: 'receipt'; readonly id: string }
  | { readonly kind: 'artifact'; readonly execution: string; readonly path: string }
  | null {
  const receipt = /^writ:\/\/receipts\/(rcpt_[a-z2-7]{10})$/.exec(uri)
  if (receipt?.[1] !== undefined) return { kind: 'receipt', id: receipt[1] }
  const artifact = /^writ:\/\/artifacts\/(exec_[a-z2-7]{10})\/(.{1,3072})$/.exec(uri)
  if (artifact?.[1] === undefined || artifact[2] === undefined) return null
  try {
    return { kind: 'artifact', execution: artifact[1], path: decodeURIComponent(artifact[2]) }
  } catch (malformed) {
    if (malformed instanceof URIError) return null
    throw malformed
  }
}

export function artifactUri(execution: string, path: string): string {
  return `writ://artifacts/${execution}/${path.split('/').map(encodeURIComponent).join('/')}`
}

function uriResource(views: Views, tenant: string, uri: string): PolicyResource {
  const parsed = parseUri(uri)
  if (parsed === null) return owned('artifact', uri, null)
  if (parsed.kind === 'artifact') return owned('artifact', uri, findExecution(views, tenant, parsed.execution))
  return owned('receipt', uri, findReceipt(views, tenant, parsed.id)?.execution ?? null)
}

/** The arguments as policy sees them: contents of files become their sizes, so no upload grows the input. */
export function policyArguments(args: JsonObject): JsonObject {
  const shown: Record<string, Json> = Object.create(null) as Record<string, Json>
  for (const [key, value] of Object.entries(args)) {
    if (key === 'files' && Array.isArray(value)) shown[key] = value.map((file: Json) => fileShape(file))
    else if (key === 'archive') shown[key] = fileShape(value)
    else shown[key] = value
  }
  return shown
}

function fileShape(file: Json): Json {
  if (file === null || typeof file !== 'object' || Array.isArray(file)) return null
  const of = file as JsonObject
  const content = of['content'] ?? of['content_base64']
  return {
    path: typeof of['path'] === 'string' ? of['path'] : '',
    size: typeof content === 'string' ? content.length : 0,
    edits: Array.isArray(of['edits']) ? of['edits'].length : 0,
  }
}

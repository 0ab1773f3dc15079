import * as z from 'zod'
import type { Json, JsonObject } from '../digest.ts'
import { toolNames } from '../request/call.ts'
import type { Arguments, ToolName } from '../request/call.ts'
import { nearest } from './nearest.ts'
import { plainLine } from './neutral.ts'

/** Characters of file content in one call: 3 MiB in base64, the most a message of 4 MiB leaves room for. */
const contentMax = 4 * 1024 * 1024
const id = z.string().min(1).max(64)
const name = z.string().min(1).max(128)

const file = z
  .strictObject({
    path: z.string().min(1).max(512),
    content: z.string().max(contentMax).optional(),
    content_base64: z.string().max(contentMax).optional(),
    edits: z
      .array(z.strictObject({ old: z.string().min(1), new: z.string() }))
      .min(1)
      .max(100)
      .describe('each old text must occur exactly once')
      .optional(),
    executable: z.boolean().optional(),
    sha256: z.string().max(71).optional(),
  })
  .refine((it) => [it.content, it.content_base64, it.edits].filter((way) => way !== undefined).length === 1, {
    message: 'must have exactly one of "content", "content_base64", "edits"',
  })
const files = z.array(file).max(256).describe('each with one of content, content_base64, edits')
const wait = z.int().min(0).max(50_000)
const key = name.describe('same key = same call')

const inputs = {
  list_targets: z.strictObject({ target_ref: name.describe('for details of one target').optional() }),
  submit_task: z.strictObject({
    project_name: name,
    goal: z.string().min(1).max(1000),
    target_ref: name.describe('from list_targets'),
    execution_intent: name.describe("one of the target's intents"),
    inputs: z.record(z.string(), z.custom<Json>()).describe("by the intent's schema").optional(),
    context: z.string().max(4096).describe('shown to approvers').optional(),
    constraints: z.strictObject({ time_s: z.int().min(1).optional(), memory_mb: z.int().min(1).optional() }).optional(),
    files: files.optional(),
    idempotency_key: key.optional(),
  }),
  upload_artifact: z.strictObject({
    task_id: id,
    files: files.optional(),
    remove: z.array(z.string().min(1).max(512)).max(256).describe('paths').optional(),
    archive: z
      .strictObject({ content_base64: z.string().min(1).max(contentMax), path: z.string().max(512).optional() })
      .describe('tar.gz or zip, unpacked at path')
      .optional(),
    upload: z
      .strictObject({
        path: z.string().min(1).max(512),
        size: z.int().min(0).max(1_073_741_824),
        sha256: z.string().max(71),
        unpack: z.boolean().optional(),
      })
      .describe('for a file over 3 MiB: returns upload_url to PUT it to; unpack: tar.gz or zip')
      .optional(),
  }),
  start_execution: z.strictObject({
    task_id: id,
    wait_ms: wait.optional(),
    again: z.boolean().describe('run an unchanged plan once more; needs a new idempotency_key').optional(),
    dry_run: z.boolean().describe('only say what would happen').optional(),
    idempotency_key: key.optional(),
  }),
  get_status: z.strictObject({
    execution_id: id.optional(),
    task_id: id.optional(),
    approval_id: id.optional(),
    cursor: z.string().min(1).max(256).describe('"start" or the last log cursor').optional(),
    max_bytes: z.int().min(1).max(65_536).optional(),
    wait_ms: wait.describe('waits for a change').optional(),
  }),
  get_result: z.strictObject({
    execution_id: id,
    file: z.string().min(1).max(512).describe('path of an output file to read').optional(),
    offset: z.int().min(0).optional(),
    max_bytes: z.int().min(1).max(1_048_576).optional(),
  }),
  respond_to_approval: z.strictObject({
    approval_id: id,
    plan_digest: z.string().min(1).max(80),
    verdict: z.enum(['approve', 'reject']),
    reason: z.string().min(1).max(1000),
  }),
  cancel_execution: z.strictObject({ execution_id: id, reason: z.string().max(1000).optional() }),
} satisfies { readonly [T in ToolName]: z.ZodType<Arguments[T]> }

const object = z.record(z.string(), z.unknown())
const list = z.array(object)
/** Every field optional and the object open: clients of the 1.x line check results against this even beside `isError`. */
const base = { error: object.optional(), next: object.optional() }
const execution = {
  execution_id: z.string().optional(),
  task_id: z.string().optional(),
  state: z.string().optional(),
  final: z.boolean().optional(),
  reasons: list.optional(),
}
const task = {
  task_id: z.string().optional(),
  state: z.string().optional(),
  missing: list.optional(),
  effect: z.string().optional(),
  reasons: list.optional(),
}

const outputs = {
  list_targets: z.looseObject({ ...base, targets: list.optional(), target: object.optional() }),
  submit_task: z.looseObject({ ...base, ...task }),
  upload_artifact: z.looseObject({ ...base, ...task, changed: list.optional() }),
  start_execution: z.looseObject({ ...base, ...execution }),
  get_status: z.looseObject({
    ...base,
    ...execution,
    log: object.optional(),
    tests: object.optional(),
    recent: list.optional(),
    waiting_for_you: list.optional(),
  }),
  get_result: z.looseObject({
    ...base,
    ...execution,
    tail: z.string().optional(),
    tests: object.optional(),
    files: list.optional(),
    receipt: object.optional(),
  }),
  respond_to_approval: z.looseObject({ ...base, approval_id: z.string().optional(), state: z.string().optional() }),
  cancel_execution: z.looseObject({ ...base, ...execution }),
} satisfies { readonly [T in ToolName]: z.ZodType }

const about: { readonly [T in ToolName]: string } = {
  list_targets:
    'List the targets work can run on. With target_ref: its intents, their inputs, environment and limits. Call this first.',
  submit_task:
    'Describe work for a target, with its files. Returns task_id, what is missing, and whether policy would allow it. Runs nothing.',
  upload_artifact: 'Add, replace, edit or remove files of a task.',
  start_execution:
    'Run a task. Returns execution_id and state. May answer awaiting_approval: people decide, then it runs by itself. An unchanged task is run once only.',
  get_status:
    'State and new log of an execution. With no arguments: your latest executions and approvals waiting for you. With approval_id: what is to be approved.',
  get_result:
    'Result of a finished execution: exit codes, output, tests, files, receipt. With file: the content of one output file.',
  respond_to_approval: "Give a person's answer to an approval, after showing them its payload. Never answer for them.",
  cancel_execution: 'Stop an execution.',
}

/** What a tool does to the world, for clients that ask before they call. */
const reading: ReadonlySet<ToolName> = new Set(['list_targets', 'get_status', 'get_result'])

export interface ToolListing {
  readonly name: ToolName
  readonly description: string
  readonly inputSchema: JsonObject & { readonly type: 'object' }
  readonly outputSchema: JsonObject & { readonly type: 'object' }
  readonly annotations?: { readonly readOnlyHint: boolean }
}

/** The answer to `tools/list`, made once from the schemas that check the arguments. */
export const toolListing: readonly ToolListing[] = toolNames.map((tool) => ({
  name: tool,
  description: about[tool],
  inputSchema: jsonSchema(inputs[tool], 'input'),
  outputSchema: jsonSchema(outputs[tool], 'output'),
  ...(reading.has(tool) ? { annotations: { readOnlyHint: true } } : {}),
}))

export function isToolName(text: string): text is ToolName {
  return (toolNames as readonly string[]).includes(text)
}

export type Checked<T extends ToolName> =
  | { readonly ok: true; readonly value: Arguments[T] }
  | { readonly ok: false; readonly message: string }

/**
 * Checks the arguments of a call. A refusal names the field, what it must be, and for an unknown field the nearest one
 * there is; it repeats no value, for a value may be a secret sent by mistake.
 */
export function checkArguments<T extends ToolName>(tool: T, args: JsonObject): Checked<T> {
  const parsed = inputs[tool].safeParse(args)
  if (parsed.success) return { ok: true, value: parsed.data as Arguments[T] }
  const issues = parsed.error.issues.slice(0, 3).map((issue) => issueText(issue, inputs[tool], args))
  const message = issues.join('; ')
  return { ok: false, message: message.endsWith('?') ? message : `${message}.` }
}

type Issue = z.core.$ZodIssue

function issueText(issue: Issue, schema: z.ZodType, args: JsonObject): string {
  const field = fieldName(issue.path)
  switch (issue.code) {
    case 'unrecognized_keys': {
      const known = knownFields(schema, issue.path)
      const unknown = issue.keys[0] ?? ''
      const near = nearest(unknown, known)
      const hint = near === null ? `known are ${known.join(', ')}` : `did you mean "${near}"?`
      return `unknown field "${plainLine(unknown, 40)}"${field === '' ? '' : ` in "${field}"`}; ${hint}`
    }
    case 'invalid_type':
      return valueAt(args, issue.path) === undefined
        ? `"${field}" is missing: ${article(issue.expected)}`
        : `"${field}" must be ${article(issue.expected)}`
    case 'invalid_value':
      return `"${field}" must be one of ${issue.values.map(String).join(', ')}`
    case 'too_small':
      return issue.origin === 'number' || issue.origin === 'int'
        ? `"${field}" must be at least ${issue.minimum}`
        : `"${field}" must not be empty`
    case 'too_big':
      return issue.origin === 'number' || issue.origin === 'int'
        ? `"${field}" must be at most ${issue.maximum}`
        : `"${field}" is too long: at most ${issue.maximum} ${issue.origin === 'string' ? 'characters' : 'entries'}`
    case 'custom':
      return `"${field}" ${issue.message}`
    case 'invalid_format':
    case 'not_multiple_of':
    case 'invalid_union':
    case 'invalid_key':
    case 'invalid_element':
      return `"${field}" is not valid`
  }
}

function article(type: string): string {
  if (type === 'int') return 'an integer'
  if (type === 'record') return 'an object'
  return /^[aeiou]/.test(type) ? `an ${type}` : `a ${type}`
}

function fieldName(path: readonly PropertyKey[]): string {
  let text = ''
  for (const part of path) {
    if (typeof part === 'number') text += `[${part}]`
    else text += `${text === '' ? '' : '.'}${plainLine(String(part), 40)}`
  }
  return text
}

function valueAt(value: unknown, path: readonly PropertyKey[]): unknown {
  let at = value
  for (const part of path) {
    if (typeof at !== 'object' || at === null) return undefined
    at = (at as Readonly<Record<PropertyKey, unknown>>)[part]
  }
  return at
}

function knownFields(schema: z.ZodType, path: readonly PropertyKey[]): readonly string[] {
  let at: unknown = schema
  for (const part of path) {
    at = bare(at)
    if (at instanceof z.ZodArray && typeof part === 'number') at = at.element
    else if (at instanceof z.ZodObject && typeof part === 'string') at = at.shape[part]
    else return []
  }
  at = bare(at)
  return at instanceof z.ZodObject ? Object.keys(at.shape) : []
}

function bare(schema: unknown): unknown {
  return schema instanceof z.ZodOptional ? schema.unwrap() : schema
}

function jsonSchema(schema: z.ZodType, io: 'input' | 'output'): JsonObject & { readonly type: 'object' } {
  const full = z.toJSONSchema(schema, {
    io,
    unrepresentable: 'any',
    override: ({ jsonSchema: node, path }) => trim(node, path.length === 0),
  })
  const { $schema: _draft, ...rest } = full
  return { ...(rest as JsonObject), type: 'object' }
}

/** Leaves out what says nothing to a model: bounds nobody meets and the shapes of free-form objects. */
function trim(node: z.core.JSONSchema.BaseSchema, root: boolean): void {
  if (node.maximum === Number.MAX_SAFE_INTEGER) delete node.maximum
  if (node.minimum !== undefined && node.minimum < 2) delete node.minimum
  if (node.minLength === 1) delete node.minLength
  if (node.maxLength !== undefined && node.maxLength !== 4096) delete node.maxLength
  delete node.minItems
  delete node.maxItems
  if (node.type === 'object' && node.properties === undefined) {
    delete node.propertyNames
    delete node.additionalProperties
  }
  // Unknown fields are refused at every depth; saying so once is enough.
  if (node.type === 'object' && !(root && node.additionalProperties === false)) delete node.additionalProperties
}

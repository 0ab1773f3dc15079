import type { Json, JsonObject } from '../digest.ts'
import { type MissingView, type Next, sentences } from '../execution/result.ts'
import type { Missing } from '../plan/plan.ts'
import type { Reason } from '../policy/policy.ts'
import { type ToolName, toolNames } from '../request/call.ts'
import type { Task } from '../request/task.ts'

/** What every result says last: small models follow this and nothing else, so it never leads where the fix does not lie. */

/** The call that was refused, as it came. */
export interface Call {
  readonly name: string
  readonly arguments: JsonObject
}

/** A caller that can help itself is told which call does; the rest is for its user to hear. */
export function nextAfter(error: Reason, call: Call | null): Next {
  switch (error.code) {
    case 'unknown_target':
    case 'unknown_tool':
      return { tool: 'list_targets', arguments: {} }
    case 'unknown_intent':
      return { tool: 'list_targets', arguments: named(call, ['target_ref']) }
    case 'not_found':
      return { tool: 'get_status', arguments: {} }
    case 'plan_changed':
      return { tool: 'get_status', arguments: named(call, ['approval_id']) }
    case 'invalid_arguments':
    case 'invalid_file':
    case 'invalid_archive':
    case 'too_large':
    case 'idempotency_conflict':
    case 'input_rejected':
      return corrected(call) ?? told(error)
    case 'deadline':
    case 'conflict':
      return repeated(call, 1000) ?? told(error)
    case 'rate_limited':
      return repeated(call, 60_000) ?? told(error)
    default:
      return told(error)
  }
}

/** What to do about a task that cannot run yet. Where several things are missing, what no upload supplies goes first. */
export function nextForTask(task: Task, missing: readonly Missing[]): Next {
  const elsewhere = missing.find(({ by }) => by !== undefined)
  switch (elsewhere?.by) {
    case undefined:
      return { tool: 'upload_artifact', arguments: { task_id: task.id } }
    case 'task': {
      const target_ref = elsewhere.target_ref ?? task.target_ref
      const { project_name, goal, intent, inputs } = task
      // For another target as it is, where that is short; for its own there is something in it to correct.
      const fits = elsewhere.target_ref !== undefined && JSON.stringify(inputs).length <= longestCall
      const kept = fits ? { inputs } : {}
      return { tool: 'submit_task', arguments: { project_name, goal, target_ref, execution_intent: intent, ...kept } }
    }
    case 'catalog': {
      const { target_ref } = elsewhere
      return { tool: 'list_targets', arguments: target_ref === undefined ? {} : { target_ref } }
    }
    case 'people':
      return { tell_user: `It cannot run. ${missingText(elsewhere)}` }
  }
}

/** What is missing and what to do, as sentences: some of the former are questions. */
export function missingText({ what, fix }: MissingView): string {
  return `Missing: ${sentences({ message: what, remedy: fix })}`
}

export function missingViews(missing: readonly Missing[]): readonly MissingView[] {
  return missing.map(({ what, fix }) => ({ what, fix }))
}

function told(error: Reason): Next {
  return { tell_user: `${sentences(error)} (ref ${error.ref})` }
}

/** What names the things a call is about: the rest of it is what has to be corrected, or too long to say again. */
const names: { readonly [T in ToolName]: readonly string[] } = {
  list_targets: ['target_ref'],
  submit_task: ['project_name', 'target_ref', 'execution_intent'],
  upload_artifact: ['task_id'],
  start_execution: ['task_id'],
  get_status: ['execution_id', 'task_id', 'approval_id'],
  get_result: ['execution_id'],
  respond_to_approval: ['approval_id'],
  cancel_execution: ['execution_id'],
}
const longestName = 128
const longestId = 64
const longestCall = 1024

function named(call: Call | null, wanted: readonly string[]): JsonObject {
  const short = (name: string, value: Json): boolean =>
    typeof value === 'string' && value.length <= (name.endsWith('_id') ? longestId : longestName)
  const given = Object.entries(call?.arguments ?? {})
  const entries = given.filter(([name, value]) => wanted.includes(name) && short(name, value))
  // A status is asked of one thing at a time.
  return Object.fromEntries(wanted === names.get_status ? entries.slice(0, 1) : entries)
}

function corrected(call: Call | null): Next | null {
  const tool = toolNames.find((name) => name === call?.name)
  return tool === undefined ? null : { tool, arguments: named(call, names[tool]) }
}

/** The same call again, where it is short enough to be said again. */
function repeated(call: Call | null, after_ms: number): Next | null {
  const tool = toolNames.find((name) => name === call?.name)
  if (tool === undefined || call === null) return null
  const whole = JSON.stringify(call.arguments).length <= longestCall
  return { tool, arguments: whole ? call.arguments : named(call, names[tool]), after_ms }
}

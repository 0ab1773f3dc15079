import type { Json, JsonObject } from '../digest.ts'
import { canonical } from '../digest.ts'
import { WritError } from '../error.ts'
import type { TaskId } from '../id.ts'
import type { Arguments } from './call.ts'
import type { Caller } from './caller.ts'
import type { Task, TaskFile } from './task.ts'

const maxText = 4096
/** Policy is shown all of what is within these: `src/policy/input.ts` has room for it. */
export const maxInputBytes = 64 * 1024
export const maxInputDepth = 32

/**
 * A caller's words as a task at revision 1. Who owns it comes from the caller, never from the arguments. Whether the
 * target and the intent exist is `resolve`'s question.
 * @param made `nowMs` is wall clock in Unix milliseconds; `files` as `applyFiles` gave them
 * @throws WritError `invalid_arguments` naming the field
 */
export function newTask(
  caller: Caller,
  args: Arguments['submit_task'],
  made: { readonly id: TaskId; readonly nowMs: number; readonly files: readonly TaskFile[] },
): Task {
  line('project_name', args.project_name, 100)
  prose('goal', args.goal)
  if (args.goal.trim() === '') throw invalid('goal', 'must not be empty')
  line('target_ref', args.target_ref, 63)
  line('execution_intent', args.execution_intent, 63)
  prose('context', args.context ?? '')
  const inputs: JsonObject = args.inputs ?? {}
  if (Buffer.byteLength(canonical(inputs)) > maxInputBytes)
    throw invalid('inputs', 'is longer than 64 KiB; upload a file instead')
  if (isDeeper(inputs, maxInputDepth)) throw invalid('inputs', `has more than ${maxInputDepth} levels`)
  return {
    id: made.id,
    tenant: caller.tenant,
    owner: caller.subject.id,
    agent: caller.agent.id,
    project_name: args.project_name,
    goal: args.goal,
    target_ref: args.target_ref,
    intent: args.execution_intent,
    inputs,
    context: args.context ?? '',
    constraints: {
      time_s: positive('constraints.time_s', args.constraints?.time_s),
      memory_mb: positive('constraints.memory_mb', args.constraints?.memory_mb),
    },
    files: made.files,
    revision: 1,
    created_at_ms: made.nowMs,
  }
}

/** The task with other files, as its next revision; everything else of a task is fixed when it is submitted. */
export function reviseTask(task: Task, files: readonly TaskFile[]): Task {
  return { ...task, files, revision: task.revision + 1 }
}

function line(field: string, value: string, max: number): void {
  if (value.trim() === '') throw invalid(field, 'must not be empty')
  if (value.length > max) throw invalid(field, `is longer than ${max} characters`)
  if (!value.isWellFormed() || /[\p{Cc}\p{Zl}\p{Zp}]/u.test(value))
    throw invalid(field, 'has to be one line without control characters')
}

/** Text for approvers, who are shown what does not print as escapes; so only its length and form are checked. */
function prose(field: string, value: string): void {
  if (!value.isWellFormed() || value.includes('\0')) throw invalid(field, 'is not well-formed text')
  if (Buffer.byteLength(value) > maxText) throw invalid(field, 'is longer than 4 KiB')
}

function isDeeper(value: Json, levels: number): boolean {
  if (typeof value !== 'object' || value === null) return false
  return levels === 0 || Object.values(value).some((member: Json) => isDeeper(member, levels - 1))
}

function positive(field: string, value: number | undefined): number | null {
  if (value === undefined) return null
  if (!Number.isSafeInteger(value) || value < 1) throw invalid(field, 'has to be a whole number from 1')
  return value
}

function invalid(field: string, problem: string): WritError {
  return new WritError('invalid_arguments', `"${field}" ${problem}`)
}

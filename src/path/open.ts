import type { Broker } from '../broker.ts'
import type { JsonObject } from '../digest.ts'
import { type Results, sentences } from '../execution/result.ts'
import { newId } from '../id.ts'
import type { Missing } from '../plan/plan.ts'
import type { Reason } from '../policy/policy.ts'
import type { Arguments, ToolName } from '../request/call.ts'
import type { Caller } from '../request/caller.ts'
import type { Waiting } from '../broker.ts'
import { WritError } from '../error.ts'
import type { Task } from '../request/task.ts'
import { admit } from './admit.ts'
import { answerInChat } from './answer.ts'
import type { TransferDesk } from './desk.ts'
import { missingViews, nextAfter, nextForTask } from './next.ts'
import { type Parts, reasonOf } from './parts.ts'
import { cancelExecution, executionOf, getStatus, listResources, readResource, statusOf } from './read.ts'
import type { Refusals } from './refusals.ts'
import { getResult } from './result.ts'
import type { Runner } from './run.ts'
import { startExecution } from './start.ts'
import { nextForPlan, submitTask, uploadArtifact } from './submit.ts'
import { listTargets } from './targets.ts'
import { standing } from '../approval/requirement.ts'

/** The broker as its edges see it: every method answers, and what went wrong stands in the answer. */
export function openBroker(parts: Parts, runner: Runner, refusals: Refusals, transfers: TransferDesk): Broker {
  const tools: {
    readonly [T in ToolName]: (caller: Caller, args: Arguments[T], waiting: Waiting) => Promise<Results[T]>
  } = {
    list_targets: async (caller, args) => await listTargets(parts, caller, args),
    submit_task: async (caller, args) => await submitTask(parts, caller, args),
    upload_artifact: async (caller, args) => await uploadArtifact(parts, transfers, caller, args),
    start_execution: async (caller, args, waiting) => await start(parts, runner, caller, args, waiting),
    get_status: async (caller, args, waiting) => await getStatus(parts, caller, args, waiting),
    get_result: async (caller, args) => await getResult(parts, transfers, caller, args),
    respond_to_approval: async (caller, args) => await respond(parts, runner, caller, args),
    cancel_execution: async (caller, args, waiting) => await cancelExecution(parts, runner, caller, args, waiting),
  }
  return {
    async admit(caller, message) {
      try {
        return await admit(parts, refusals, caller, message)
      } catch (failure) {
        return { allowed: false, reason: reasonOf(parts, failure) }
      }
    },
    async call(caller, tool, args, waiting) {
      try {
        return await tools[tool](caller, args, waiting)
      } catch (failure) {
        const error = reasonOf(parts, failure)
        const call = { name: tool, arguments: args as unknown as JsonObject }
        return { error, next: nextAfter(error, call) } as Results[typeof tool]
      }
    },
    async readResource(caller, uri) {
      try {
        return await readResource(parts, caller, uri)
      } catch (failure) {
        reasonOf(parts, failure)
        return null
      }
    },
    async listResources(caller) {
      try {
        return await listResources(parts, caller)
      } catch (failure) {
        reasonOf(parts, failure)
        return []
      }
    },
  }
}

async function start(
  parts: Parts,
  runner: Runner,
  caller: Caller,
  args: Arguments['start_execution'],
  waiting: Waiting,
): Promise<Results['start_execution']> {
  const started = await startExecution(parts, runner, caller, args)
  switch (started.kind) {
    case 'incomplete': {
      const { task, missing } = started
      return {
        task_id: task.id,
        state: 'incomplete',
        final: false,
        ran: false,
        missing: missingViews(missing),
        error: whyNot(parts, task, missing),
        next: nextForTask(task, missing),
      }
    }
    case 'foreseen': {
      const { task, plan, decision } = started
      return {
        task_id: task.id,
        state: 'ready',
        final: false,
        effect: decision.effect,
        plan,
        ...(decision.reasons.length > 0 ? { reasons: decision.reasons } : {}),
        next: nextForPlan(task.id, decision),
      }
    }
    case 'execution': {
      const view = await statusOf(
        parts,
        executionOf(parts, caller, started.id),
        { wait_ms: args.wait_ms ?? 0 },
        waiting,
      )
      return { ...view, ...(started.existing ? { existing: true } : {}) }
    }
  }
}

/** A target that cannot be run on is no fault of the task: its code says so, and the operator finds the ref in the log. */
function whyNot(parts: Parts, task: Task, missing: readonly Missing[]): Reason {
  const absent = missing.find((one) => one.unavailable === true)
  if (absent === undefined) {
    const what = missing[0]?.what ?? 'something'
    const message = sentences({ message: `The task cannot run yet. Missing: ${what}`, remedy: '' })
    return reasonOf(parts, new WritError('task_incomplete', message))
  }
  const ref = newId('dec')
  parts.log.warn(
    { ref, task: task.id, target: task.target_ref },
    'a run was asked for on a target that is not available',
  )
  return { code: 'target_unavailable', message: `Nothing ran: ${absent.what}.`, remedy: absent.fix, ref }
}

async function respond(
  parts: Parts,
  runner: Runner,
  caller: Caller,
  args: Arguments['respond_to_approval'],
): Promise<Results['respond_to_approval']> {
  const approval = await answerInChat(parts, runner, caller, args)
  return {
    approval_id: approval.id,
    state: approval.state,
    stages: standing(approval).stages.map((stage) => ({
      who: stage.roles.join(' or '),
      needed: stage.needed,
      have: stage.have,
    })),
    execution_id: approval.execution,
    next:
      approval.state === 'satisfied'
        ? { tool: 'get_status', arguments: { execution_id: approval.execution, wait_ms: 20_000 } }
        : { tell_user: `The approval is ${approval.state}.` },
  }
}

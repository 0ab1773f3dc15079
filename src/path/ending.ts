import { WritError } from '../error.ts'
import type { FinalState, StepExit } from '../execution/execution.ts'
import type { ExitReason, Outcome } from '../execution/job.ts'
import type { Plan } from '../plan/plan.ts'
import type { Decision, Reason } from '../policy/policy.ts'
import { withSaid } from './close.ts'
import { type Parts, reasonOf } from './parts.ts'

/** How a run ended: the state, what the report says of it, and what its caller is told. */
export interface Ending {
  readonly state: FinalState
  /** False where nothing was handed to a sandbox. */
  readonly ran: boolean
  readonly steps: readonly StepExit[]
  /** A finer cause than the state, or null. */
  readonly reason: string | null
  readonly reasons: readonly Reason[]
}

/** Outcome → state, as docs/architecture.md "States" has it: what ended a run is what Writ saw, never what the workload said. */
export function endingOf(
  parts: Pick<Parts, 'log' | 'storage'>,
  outcome: Outcome,
  run: {
    readonly plan: Plan
    readonly decision: Decision
    /** True once the run host said that the first step may start. */
    readonly began: boolean
    /** True where some of what it left was more than its tenant has room for. */
    readonly overQuota: boolean
    /** Why it was cancelled, in the words of whoever did. */
    readonly said?: string
  },
): Ending {
  const { plan, decision, began, overQuota, said } = run
  const because = (code: string, [message, remedy]: Sentence): Reason => ({ code, message, remedy, ref: decision.id })
  switch (outcome.end) {
    case 'not_started': {
      const { error } = outcome
      return { state: 'failed', ran: false, steps: [], reason: error.code, reasons: [reasonOf(parts, error)] }
    }
    case 'exited': {
      const { steps, reason } = outcome
      // Steps that all did well prove nothing of a sandbox that died before it handed over what they made.
      const cut = reason === null || reason === 'guest_error' ? null : reason
      const good = steps.length === plan.steps.length && steps.every((step, at) => isSuccess(step, plan.steps[at]))
      return {
        state: good && cut === null && !overQuota ? 'succeeded' : 'failed',
        ran: true,
        steps,
        reason: cut ?? (overQuota ? 'quota_exceeded' : good ? null : (reason ?? 'exit_status')),
        reasons: [
          ...(cut === null ? [] : [because(cut, cutSentences[cut])]),
          ...(overQuota ? [noRoom(parts, decision)] : []),
        ],
      }
    }
    case 'stopped': {
      const { by, steps } = outcome
      // Where nothing began no time or memory of the run was used up: it was not to be.
      const state = by === 'cancel' ? 'cancelled' : began && by === 'time' ? 'timed_out' : 'failed'
      const [message, remedy] = stopSentences[by]
      const why = because(by, [by === 'cancel' ? withSaid(message, said) : message, remedy])
      return { state, ran: began, steps: began ? steps : [], reason: by, reasons: [why] }
    }
    case 'unknown':
      return {
        state: 'unknown',
        ran: true,
        steps: outcome.steps,
        reason: 'run_host_lost',
        reasons: [because('run_host_lost', lostSentence)],
      }
  }
}

/** Whether a step ended as its plan says that one may. */
export function isSuccess(step: StepExit, planned: Plan['steps'][number] | undefined): boolean {
  return step.exit !== null && planned !== undefined && planned.success.includes(step.exit)
}

type Sentence = readonly [message: string, remedy: string]

const smaller = 'Make the work smaller, or ask the operator for a higher limit.'
const stopSentences = {
  time: ['The run was ended at its time limit.', smaller],
  memory: ['The run was ended at its memory limit.', smaller],
  output: ['The run was ended at its output limit.', smaller],
  cancel: ['The run was cancelled.', 'Start again when you want it to run.'],
} as const satisfies Record<(Outcome & { end: 'stopped' })['by'], Sentence>

const cutSentences = {
  sandbox_crash: [
    'The sandbox ended before it handed over all that the run left.',
    'Start again; where it happens again, quote the ref to the operator of this Writ.',
  ],
  callback_quota: [
    'The run made more calls to its sandbox than a run may make.',
    'Print, read and wait less often, in larger parts.',
  ],
  no_space: ['What the run left could not be kept.', 'Quote the ref to the operator of this Writ, and start again.'],
} as const satisfies Record<Exclude<ExitReason, 'guest_error'>, Sentence>

const lostSentence: Sentence = [
  'Writ lost the run before it saw how it ended.',
  'Look at the target before you start it again.',
]

function noRoom(parts: Pick<Parts, 'storage'>, decision: Decision): Reason {
  const error = new WritError(
    'quota_exceeded',
    `What this run left is more than its tenant has room for in its ${parts.storage.quotas().stored_mb} MB: some of it was not kept.`,
  )
  return { code: error.code, message: error.message, remedy: error.remedy, ref: decision.id }
}

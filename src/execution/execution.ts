import type { Digest } from '../digest.ts'
import type { ApprovalId, ExecutionId, TaskId } from '../id.ts'
import type { Isolation } from '../plan/plan.ts'
import type { Reason } from '../policy/policy.ts'
import type { TestReport } from './report/report.ts'

export const liveStates = ['awaiting_approval', 'queued', 'running'] as const
export const finalStates = [
  'denied',
  'rejected',
  'expired',
  'superseded',
  'succeeded',
  'failed',
  'timed_out',
  'cancelled',
  'unknown',
] as const
export type LiveState = (typeof liveStates)[number]
export type FinalState = (typeof finalStates)[number]
export type ExecutionState = LiveState | FinalState

/**
 * Legal changes of state. `null` is before the first. A ledger refuses any other with `conflict`, so that two answers
 * racing each other cannot both take effect.
 */
export const transitions: Readonly<Record<LiveState | 'new', readonly ExecutionState[]>> = {
  new: ['awaiting_approval', 'queued', 'denied'],
  awaiting_approval: ['queued', 'denied', 'rejected', 'expired', 'superseded', 'cancelled'],
  queued: ['running', 'denied', 'superseded', 'expired', 'cancelled', 'failed', 'awaiting_approval'],
  running: ['succeeded', 'failed', 'timed_out', 'cancelled', 'unknown'],
}

export function isFinal(state: ExecutionState): state is FinalState {
  return (finalStates as readonly string[]).includes(state)
}

export interface StepExit {
  readonly title: string
  /** Exit code; null where the step was ended from outside. */
  readonly exit: number | null
  /** Milliseconds of wall time. */
  readonly ms: number
}

/** A file that came back from a run. */
export interface OutputFile {
  readonly path: string
  readonly sha256: Digest
  readonly size: number
}

/** What Writ saw of a run; stands in the outcome receipt and in the result. */
export interface RunReport {
  readonly steps: readonly StepExit[]
  readonly files: readonly OutputFile[]
  readonly output: {
    readonly bytes: number
    readonly dropped_bytes: number
    readonly redactions: number
    readonly sha256: Digest
  }
  readonly egress: {
    readonly allowed: number
    readonly blocked: number
    readonly refusals: readonly { readonly code: string; readonly service: string; readonly count: number }[]
  }
  /** Null where nothing was started, or where it was lost before it was seen. */
  readonly isolation_applied: Isolation | null
  /** A finer cause than the state: `memory`, `output`, `guest_error`, `sandbox_crash`, `no_space` … or null. */
  readonly reason: string | null
  readonly withheld_files: number
  /** What the workload wrote of its tests; null or absent where it wrote nothing that is a report. */
  readonly tests?: TestReport | null
}

export interface Execution {
  readonly id: ExecutionId
  readonly task: TaskId
  readonly tenant: string
  readonly owner: string
  readonly plan: Digest
  readonly state: ExecutionState
  /** False while and when nothing has started. */
  readonly ran: boolean
  readonly reasons: readonly Reason[]
  readonly approval: ApprovalId | null
  readonly created_at_ms: number
  readonly changed_at_ms: number
  readonly report: RunReport | null
  readonly outcome_receipt: string | null
  readonly progress: { readonly step: number; readonly of: number; readonly title: string } | null
}

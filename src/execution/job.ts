import type { Digest } from '../digest.ts'
import type { WritError } from '../error.ts'
import type { ExecutionId } from '../id.ts'
import type { CheckFinding } from '../credential/credential.ts'
import type { Secret } from '../credential/secret.ts'
import type { Facts, Plan } from '../plan/plan.ts'
import type { Generation } from '../policy/policy.ts'
import type { PolicyInput } from '../policy/policy.ts'
import type { RunReport, StepExit } from './execution.ts'
import type { TestReport } from './report/report.ts'

/** What the run host is told to run: a spent permit's plan. It takes each execution id once. */
export interface Job {
  readonly execution: ExecutionId
  readonly plan: Plan
  readonly plan_digest: Digest
  /** Per-run placeholder by credential name. The sandbox holds these and nothing else. */
  readonly placeholders: Readonly<Record<string, string>>
}

/** Why a run that was not stopped is no plain exit: its own code failed, or its sandbox handed over less than all. */
export const exitReasons = ['guest_error', 'sandbox_crash', 'callback_quota', 'no_space'] as const
export type ExitReason = (typeof exitReasons)[number]

export type Outcome =
  | { readonly end: 'not_started'; readonly error: WritError }
  | { readonly end: 'exited'; readonly steps: readonly StepExit[]; readonly reason: ExitReason | null }
  | {
      readonly end: 'stopped'
      readonly by: 'time' | 'memory' | 'output' | 'cancel'
      readonly steps: readonly StepExit[]
    }
  | { readonly end: 'unknown'; readonly steps: readonly StepExit[] }

/** Everything a run needs that is not in its plan. Sent over the one pipe to the run host. */
export interface Dispatch {
  readonly job: Job
  /** Leased values by credential name. */
  readonly secrets: readonly Secret[]
  readonly generation: Generation
  /** The envelope of phase `egress`: subject, task and plan as the final decision saw them; `call` is filled per request. */
  readonly egress_input: PolicyInput
}

/** The bytes of one file of the plan, asked for by digest. */
export type FileReader = (digest: Digest) => Promise<Uint8Array>

/** What comes back while a run is alive. All of it is data of foreign origin: typed, capped and checked on arrival. */
export interface RunEvents {
  started(step: number): void
  /** Already redacted. */
  output(step: number, stream: 'stdout' | 'stderr', bytes: Uint8Array): void
  file(path: string, bytes: Uint8Array): Promise<void>
}

export interface RunEnd {
  readonly outcome: Outcome
  /** What the run host counted; the broker adds files and output digest. */
  readonly counts: Pick<RunReport, 'egress' | 'isolation_applied' | 'withheld_files'> & {
    readonly redactions: number
    readonly dropped_bytes: number
  }
  /** The workload's word, redacted; decides nothing. */
  readonly tests?: TestReport | null
}

/** What is counted of a run of which nothing was seen. */
export const nothingCounted: RunEnd['counts'] = {
  egress: { allowed: 0, blocked: 0, refusals: [] },
  isolation_applied: null,
  withheld_files: 0,
  redactions: 0,
  dropped_bytes: 0,
}

/** What one kind of sandbox says of this machine. */
export interface Checked {
  readonly executor: string
  readonly findings: readonly CheckFinding[]
  readonly facts: Facts | null
}

/** The broker's side of the run host: a child process that holds the leased values of live runs and no key. */
export interface RunHost {
  /** Resolves always. A run host that dies ends its runs `unknown` (or `not_started` where nothing was sent to a sandbox). */
  run(dispatch: Dispatch, files: FileReader, events: RunEvents): Promise<RunEnd>
  /** Ends a run; its promise resolves with `stopped` by `cancel`. */
  cancel(execution: ExecutionId): void
  check(images?: readonly string[]): Promise<readonly Checked[]>
  /** Unpacks an archive (tar.gz or zip) without trust; rejects `invalid_archive` naming the entry. */
  unpack(
    bytes: Uint8Array,
  ): Promise<readonly { readonly path: string; readonly bytes: Uint8Array; readonly executable: boolean }[]>
  readonly pid: number | null
  close(): Promise<void>
}

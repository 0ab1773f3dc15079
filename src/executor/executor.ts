import type { CheckFinding } from '../credential/credential.ts'
import type { Digest } from '../digest.ts'
import type { EgressPort } from '../egress/egress.ts'
import type { Job, Outcome } from '../execution/job.ts'
import type { Facts, Isolation } from '../plan/plan.ts'

export type { EgressPort, EgressRequest } from '../egress/egress.ts'

export interface RunIo {
  readonly files: { read(digest: Digest): Promise<Uint8Array> }
  readonly output: OutputSink
  readonly artifacts: ArtifactSink
  readonly egress: EgressPort
  /** Aborted with reason `cancel` or `time`. */
  readonly signal: AbortSignal
  /**
   * Resolves once the broker has been told that the step may start; nothing of it is handed to a sandbox before. So a
   * run host that dies never leaves a run behind that is called not started and was.
   */
  started(step: number): Promise<void>
  /** What isolation this run was seen to have, where that may be another than the executor's own. */
  applied?(isolation: Isolation): void
}

/** Redacts, numbers, counts and stores. `write` never throws; past the limit it drops and says so. */
export interface OutputSink {
  write(step: number, stream: 'stdout' | 'stderr', bytes: Uint8Array): void
  /** True once the plan's output limit is passed. */
  readonly full: boolean
}

/** Takes one file of `$WRIT_OUT`; bytes are redacted, or withheld where they are binary and hold a secret. Never rejects. */
export interface ArtifactSink {
  put(path: string, bytes: Uint8Array): Promise<void>
  /** Counts files that a sandbox had and did not hand over: links, special files, what is beyond its limits. */
  withhold?(count: number): void
}

/** One kind of sandbox. Lives in the run host; one folder per implementation, one contract suite over all. */
export interface Executor {
  readonly kind: string
  readonly isolation: Isolation
  check(): Promise<readonly CheckFinding[]>
  /** What of these images there is, and which runtimes; absent where a kind of sandbox has neither. */
  facts?(images: readonly string[]): Promise<Facts>
  /** Resolves when the sandbox is confirmed gone. Rejects only before anything may have started. */
  run(job: Job, io: RunIo): Promise<Outcome>
  /** Ends what still runs and removes what is left of it. What one that died left behind, the next one removes. */
  close(): Promise<void>
}

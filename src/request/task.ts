import type { Digest, JsonObject } from '../digest.ts'
import type { TaskId } from '../id.ts'

/** A file of a task: its path inside the project and the bytes it stands for. */
export interface TaskFile {
  /** Relative, `/`-separated, NFC, no `.` or `..` parts; unique without regard to case. */
  readonly path: string
  readonly sha256: Digest
  /** Bytes. */
  readonly size: number
  readonly executable: boolean
}

/** What a caller wants. Every change makes a new value with the next `revision`. */
export interface Task {
  readonly id: TaskId
  readonly tenant: string
  /** Subject id of the caller that submitted it. */
  readonly owner: string
  readonly agent: string
  readonly project_name: string
  readonly goal: string
  readonly target_ref: string
  readonly intent: string
  readonly inputs: JsonObject
  /** Free text of the caller for approvers, at most 4 KiB. */
  readonly context: string
  readonly constraints: { readonly time_s: number | null; readonly memory_mb: number | null }
  /** Sorted by path. */
  readonly files: readonly TaskFile[]
  readonly revision: number
  readonly created_at_ms: number
}

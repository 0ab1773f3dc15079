import type { JsonObject } from '../digest.ts'

/** What a one-time URL is asked for: bound to this path, size (bytes) and digest. */
export interface UploadIn {
  /** Where the file goes; with `unpack` the folder its files go to, "." for the project's root. */
  readonly path: string
  readonly size: number
  readonly sha256: string
  readonly unpack?: boolean | undefined
}

/** One file of an upload: exactly one of `content`, `content_base64`, `edits`. */
export interface FileIn {
  readonly path: string
  readonly content?: string | undefined
  readonly content_base64?: string | undefined
  /** Each `old` has to match exactly once in the file as it stands. */
  readonly edits?: readonly { readonly old: string; readonly new: string }[] | undefined
  readonly executable?: boolean | undefined
  /** Checked against the bytes when given. */
  readonly sha256?: string | undefined
}

export interface Arguments {
  list_targets: { readonly target_ref?: string | undefined }
  submit_task: {
    readonly project_name: string
    readonly goal: string
    readonly target_ref: string
    readonly execution_intent: string
    readonly inputs?: JsonObject | undefined
    readonly context?: string | undefined
    readonly constraints?: { readonly time_s?: number | undefined; readonly memory_mb?: number | undefined } | undefined
    readonly files?: readonly FileIn[] | undefined
    readonly idempotency_key?: string | undefined
  }
  upload_artifact: {
    readonly task_id: string
    readonly files?: readonly FileIn[] | undefined
    readonly remove?: readonly string[] | undefined
    /** An archive sent in this call: unpacked into the project at `path`. */
    readonly archive?: { readonly content_base64: string; readonly path?: string | undefined } | undefined
    readonly upload?: UploadIn | undefined
  }
  start_execution: {
    readonly task_id: string
    readonly wait_ms?: number | undefined
    readonly again?: boolean | undefined
    readonly dry_run?: boolean | undefined
    readonly idempotency_key?: string | undefined
  }
  get_status: {
    readonly execution_id?: string | undefined
    readonly task_id?: string | undefined
    readonly approval_id?: string | undefined
    readonly cursor?: string | undefined
    readonly max_bytes?: number | undefined
    readonly wait_ms?: number | undefined
  }
  get_result: {
    readonly execution_id: string
    readonly file?: string | undefined
    readonly offset?: number | undefined
    readonly max_bytes?: number | undefined
  }
  respond_to_approval: {
    readonly approval_id: string
    readonly plan_digest: string
    readonly verdict: 'approve' | 'reject'
    readonly reason: string
  }
  cancel_execution: { readonly execution_id: string; readonly reason?: string | undefined }
}

export type ToolName = keyof Arguments
export const toolNames = [
  'list_targets',
  'submit_task',
  'upload_artifact',
  'start_execution',
  'get_status',
  'get_result',
  'respond_to_approval',
  'cancel_execution',
] as const satisfies readonly ToolName[]

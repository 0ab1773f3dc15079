import type { JsonObject } from '../digest.ts'
import type { ApprovalState } from '../approval/approval.ts'
import type { Missing } from '../plan/plan.ts'
import type { Effect, Reason } from '../policy/policy.ts'
import type { ExecutionState } from './execution.ts'
import type { TestReport } from './report/report.ts'
import type { ToolName } from '../request/call.ts'

/** What to do next: call a tool, or tell the person. */
export type Next =
  | { readonly tool: ToolName; readonly arguments: JsonObject; readonly after_ms?: number }
  | { readonly tell_user: string }

export interface Base {
  readonly error?: Reason
  readonly next: Next
}

/** A reason in sentences: titles of rules end without a full stop. */
export function sentences({ message, remedy }: Pick<Reason, 'message' | 'remedy'>): string {
  return `${/[.!?…:]$/.test(message) ? message : `${message}.`} ${remedy}`.trim()
}

/** What a caller is told of something missing. */
export type MissingView = Pick<Missing, 'what' | 'fix'>

export interface ApprovalView {
  readonly approval_id: string
  readonly plan_digest: string
  readonly stages: readonly { readonly who: string; readonly needed: number; readonly have: number }[]
  readonly expires_at: string
  readonly how: string
}

/** A test report as callers see it: the first failures only. Untrusted output of the workload. */
export interface TestsView extends Omit<TestReport, 'truncated'> {
  /** True where the report has more than stands here. */
  readonly more: boolean
}

export interface ExecutionView {
  readonly execution_id?: string
  readonly task_id: string
  readonly state: ExecutionState | 'incomplete' | 'ready'
  readonly final: boolean
  readonly ran?: boolean
  readonly existing?: boolean
  readonly reasons?: readonly Reason[]
  readonly approval?: ApprovalView
  readonly progress?: { readonly step: number; readonly of: number; readonly title: string }
  readonly log?: {
    readonly text: string
    readonly cursor: string
    readonly more: boolean
    readonly dropped_bytes?: number
  }
  readonly tests?: TestsView
  readonly missing?: readonly MissingView[]
  /** Of a dry run: what policy would say. */
  readonly effect?: Effect
  readonly plan?: PlanView
}

export interface PlanView {
  readonly digest: string
  readonly steps: readonly string[]
}

export interface Results {
  list_targets: Base & {
    readonly targets?: readonly {
      readonly target_ref: string
      readonly about: string
      readonly intents: readonly string[]
      readonly available: boolean
    }[]
    readonly target?: {
      readonly target_ref: string
      readonly about: string
      readonly available: boolean
      readonly intents: readonly {
        readonly execution_intent: string
        readonly about: string
        readonly inputs: JsonObject
      }[]
      readonly runtimes: readonly string[]
      /** What code for this target has to work with, in words for a model. */
      readonly guide: string
      readonly environment: readonly { readonly name: string; readonly about: string }[]
      readonly limits: JsonObject
      readonly approval: 'never' | 'maybe' | 'always'
    }
  }
  submit_task: Base & {
    readonly task_id?: string
    /** True where the same call made this task before; `task_files` is then what it holds by now. */
    readonly existing?: boolean
    readonly task_files?: readonly { readonly path: string; readonly size: number; readonly sha256: string }[]
    readonly state?: 'incomplete' | 'ready'
    readonly missing?: readonly MissingView[]
    readonly plan?: PlanView
    readonly effect?: Effect
    readonly reasons?: readonly Reason[]
  }
  upload_artifact: Base & {
    readonly task_id?: string
    readonly state?: 'incomplete' | 'ready'
    readonly missing?: readonly MissingView[]
    readonly changed?: readonly {
      readonly path: string
      readonly sha256: string
      readonly size: number
      readonly change: 'added' | 'replaced' | 'edited' | 'removed' | 'unchanged'
    }[]
    /** Takes one file by PUT, once, until `expires_at`. Whoever has it may send that file and nothing else. */
    readonly upload_url?: string
    readonly expires_at?: string
    readonly plan?: PlanView
    readonly effect?: Effect
    readonly reasons?: readonly Reason[]
  }
  start_execution: Base & Partial<ExecutionView>
  get_status: Base &
    Partial<ExecutionView> & {
      readonly recent?: readonly {
        readonly execution_id: string
        readonly task_id: string
        readonly project_name: string
        readonly state: ExecutionState
        readonly at: string
      }[]
      readonly waiting_for_you?: readonly ApprovalView[]
      readonly payload?: string
    }
  get_result: Base &
    Partial<ExecutionView> & {
      readonly steps?: readonly { readonly title: string; readonly exit: number | null; readonly ms: number }[]
      /** The last 4 KiB of the failing step's output, else of the last one's. Untrusted output of the workload. */
      readonly tail?: string
      readonly files?: readonly {
        readonly path: string
        readonly size: number
        readonly sha256: string
        readonly uri: string
        readonly text?: string
      }[]
      readonly file?: {
        readonly path: string
        readonly offset: number
        readonly size: number
        readonly text?: string
        readonly base64?: string
        readonly more: boolean
        readonly download_url?: string
        readonly expires_at?: string
      }
      readonly withheld?: { readonly redacted: number; readonly blocked: number }
      readonly receipt?: { readonly receipt_id: string; readonly digest: string; readonly uri: string }
      /** Rides in `_meta`, not in the text: the outcome receipt's compact JWS. */
      readonly jws?: string
    }
  respond_to_approval: Base & {
    readonly approval_id?: string
    readonly state?: ApprovalState
    readonly stages?: ApprovalView['stages']
    readonly execution_id?: string
  }
  cancel_execution: Base & Partial<ExecutionView>
}

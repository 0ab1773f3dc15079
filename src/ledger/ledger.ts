import type { Approval, ApprovalState, Verdict } from '../approval/approval.ts'
import type { Digest, JsonObject } from '../digest.ts'
import type { Execution, ExecutionState, RunReport } from '../execution/execution.ts'
import type { ApprovalId, ExecutionId, LeaseId, ReceiptId, TaskId, TokenId } from '../id.ts'
import type { Plan } from '../plan/plan.ts'
import type { Decision, Reason } from '../policy/policy.ts'
import type { Account, LogHead, ReceiptKind, SignedReceipt } from '../receipt/receipt.ts'
import type { Task } from '../request/task.ts'
import type { SeenRoles, Token, TokenRow } from '../request/token.ts'

/** Position of a step in the ledger, from 1, without gaps. */
export type Position = number

/**
 * Everything that happened, and the only truth: all other tables are views, updated in the same transaction and
 * rebuildable from these.
 */
export type Step =
  | { readonly kind: 'task'; readonly task: Task }
  /** The first step of an execution: the frozen plan. `key` is the caller's idempotency key. */
  | {
      readonly kind: 'planned'
      readonly execution: ExecutionId
      readonly plan: Plan
      readonly digest: Digest
      readonly key: string | null
    }
  | {
      readonly kind: 'decided'
      readonly execution: ExecutionId | null
      readonly decision: Decision
      readonly input: string | null
    }
  | {
      readonly kind: 'state'
      readonly execution: ExecutionId
      readonly state: ExecutionState
      readonly ran: boolean
      readonly reasons: readonly Reason[]
    }
  | { readonly kind: 'approval_opened'; readonly approval: Approval }
  | { readonly kind: 'verdict'; readonly approval: ApprovalId; readonly verdict: Verdict }
  | {
      readonly kind: 'approval_closed'
      readonly approval: ApprovalId
      readonly state: ApprovalState
      readonly execute_by_ms: number | null
    }
  /** Spends the single-use permit; a second one for the same execution is a `conflict`. */
  | { readonly kind: 'permit_spent'; readonly execution: ExecutionId; readonly plan: Digest; readonly decision: string }
  | {
      readonly kind: 'lease_intended'
      readonly lease: LeaseId
      readonly execution: ExecutionId
      readonly credentials: readonly string[]
    }
  | { readonly kind: 'leased'; readonly lease: LeaseId; readonly expires_at_ms: number | null }
  | { readonly kind: 'lease_ended'; readonly lease: LeaseId; readonly revocation: 'done' | 'pending' }
  | { readonly kind: 'outcome'; readonly execution: ExecutionId; readonly report: RunReport }
  | {
      readonly kind: 'idempotency'
      readonly tenant: string
      readonly subject: string
      readonly key: string
      readonly request: Digest
      readonly result: string
    }
  | {
      readonly kind: 'refused'
      readonly tenant: string
      readonly caller: string
      readonly code: string
      readonly input: Digest
      readonly at_ms: number
    }
  | {
      readonly kind: 'generation'
      readonly number: number
      readonly digest: Digest
      readonly packs: readonly JsonObject[]
    }
  | { readonly kind: 'approver_set'; readonly digest: Digest; readonly approvers: readonly JsonObject[] }
  | { readonly kind: 'token_created'; readonly token: Token }
  /** A second one for the same token is a `conflict`. */
  | { readonly kind: 'token_revoked'; readonly token: TokenId }
  /** Replaces what was seen of this subject and agent before; an earlier `as_of_ms` than the last is a `conflict`. */
  | { readonly kind: 'roles_seen'; readonly seen: SeenRoles }
  | {
      readonly kind: 'receipt'
      readonly receipt: SignedReceipt
      readonly execution: ExecutionId | null
      readonly at_ms: number
    }

/** A step as it is written; a receipt is asked for by its account and built on the head it will have. */
export type Entry =
  | Exclude<Step, { kind: 'receipt' }>
  | {
      readonly kind: 'sign'
      readonly execution: ExecutionId | null
      readonly account: Account | ((written: readonly SignedReceipt[]) => Account)
    }

/**
 * A step as it is read back. A receipt's `disclosures` are empty here: they lie in the side store (`Views.disclosures`),
 * so that one can be erased without touching a step.
 */
export interface StoredStep {
  readonly position: Position
  readonly at_ms: number
  readonly step: Step
}

export interface Appended {
  readonly position: Position
  /** The receipts of this batch, in the order they were asked for. */
  readonly receipts: readonly SignedReceipt[]
}

export interface ReceiptRow {
  readonly id: ReceiptId
  readonly index: number
  readonly kind: ReceiptKind
  readonly execution: ExecutionId | null
  readonly task: string | null
  readonly at_ms: number
  readonly jws: string
  readonly digest: Digest
}

export interface LeaseRow {
  readonly id: LeaseId
  readonly execution: ExecutionId
  readonly credentials: readonly string[]
  readonly state: 'intended' | 'leased' | 'pending' | 'done'
}

/** Questions the broker and the command line ask; answered from the views. Reads see only what is committed. */
export interface Views {
  task(id: TaskId): Task | null
  tasks(tenant: string, limit: number): readonly Task[]
  execution(id: ExecutionId): Execution | null
  /** Newest first. */
  executions(
    filter: {
      readonly tenant?: string
      readonly owner?: string
      readonly task?: TaskId
      readonly state?: readonly ExecutionState[]
    },
    limit: number,
  ): readonly Execution[]
  plan(digest: Digest): Plan | null
  approval(id: ApprovalId): Approval | null
  approvals(
    filter: { readonly tenant?: string; readonly state?: ApprovalState; readonly execution?: ExecutionId },
    limit: number,
  ): readonly Approval[]
  /** The newest plan a satisfied approval was given for, of the same task and target, or null. */
  lastApprovedPlan(task: TaskId): Plan | null
  decisions(execution: ExecutionId): readonly { readonly decision: Decision; readonly input: string | null }[]
  receipt(id: ReceiptId): ReceiptRow | null
  receiptsOf(execution: ExecutionId): readonly ReceiptRow[]
  /** In log order from `index`. */
  receipts(from: number, limit: number): readonly ReceiptRow[]
  disclosures(id: ReceiptId): readonly string[]
  leases(states: readonly LeaseRow['state'][]): readonly LeaseRow[]
  idempotency(
    tenant: string,
    subject: string,
    key: string,
  ): { readonly request: Digest; readonly result: string } | null
  counters(
    tenant: string,
    subject: string,
    nowMs: number,
  ): { readonly executions_60m: number; readonly denied_10m: number; readonly running: number }
  approverSet(): Digest | null
  generation(): { readonly number: number; readonly digest: Digest } | null
  /**
   * Whose task has `digest` as a file, or as an output of one of its executions, within this tenant; null where none has.
   * Of several (two people upload the same bytes), one of `prefer` if there is one, else the newest.
   */
  artifactOwner(
    digest: Digest,
    tenant: string,
    prefer?: string,
  ): { readonly task: TaskId; readonly owner: string } | null
  token(id: TokenId): TokenRow | null
  tokenByHash(hash: Digest): TokenRow | null
  /** Newest first; those of one subject where `of` is given. */
  tokens(of: { readonly tenant: string; readonly subject: string } | null, limit: number): readonly TokenRow[]
  /** What was last seen of a subject, one row an agent. */
  seenRoles(tenant: string, subject: string): readonly SeenRoles[]
  logHead(): LogHead
  newestTimeMs(): number
}

/**
 * Append-only. One writer; a batch is written whole or not at all, and `append` resolves only after the transaction it
 * rode in is committed and on disk (group commit). Rejects `conflict` where a view refuses the batch (illegal change of
 * state, permit spent twice, idempotency key taken), `no_space`, `ledger_unavailable`; other batches are not affected.
 *
 * Kept for whole batches (docs/architecture.md "Order of effects"): `permit_spent`, state `running` and the decision
 * receipt stand in one batch; the final state of an execution whose permit is spent stands in one batch with its outcome
 * receipt. `planned` comes before every other step of its execution, and `decided` before the permit it allows. Times
 * never run backwards: a step is at the wall clock or the newest step's time, whichever is later.
 * An `account` function must not read `views`: they show what was committed before.
 */
export interface Ledger {
  append(...entries: readonly Entry[]): Promise<Appended>
  read(execution: ExecutionId, after?: Position): readonly StoredStep[]
  /** Every step from `after`, in order; for rebuilding and for auditors. */
  steps(after: Position, limit: number): readonly StoredStep[]
  /** Wakes after each commit with the newest position; coalesces. Ends when the signal aborts. */
  watch(signal: AbortSignal): AsyncIterable<Position>
  readonly views: Views
  /**
   * `low` where the disk has less room left than the reserve. Then only batches that end something (an outcome, a final
   * state, a lease) are written; every other is refused `no_space`, so nothing starts that could not be accounted for.
   */
  room(): 'ok' | 'low'
  /** Throws away and rebuilds every view from the steps. */
  rebuild(): void
  close(): void
}

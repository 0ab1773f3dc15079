import type { Digest } from '../digest.ts'
import type { ApprovalId, ExecutionId } from '../id.ts'
import type { Evidence, Requirement } from '../policy/policy.ts'

export type ApprovalState = 'open' | 'satisfied' | 'rejected' | 'expired' | 'superseded'
export type VerdictWord = 'approve' | 'reject'

/** The one signed statement, for every channel (docs/approvals.md "What is signed"). Signed over its RFC 8785 bytes. */
export interface Statement {
  readonly typ: 'writ-approval/v1'
  readonly log_origin: string
  readonly approval_id: ApprovalId
  readonly execution_id: ExecutionId
  readonly plan: Digest
  readonly requirement: Digest
  readonly stage: string
  readonly verdict: VerdictWord
  /** SHA-256 of the payload text that was displayed. */
  readonly shown: Digest
  readonly reason: string
  readonly nonce: string
  /** Seconds since the epoch. */
  readonly issued_at: number
  readonly expires_at: number
  readonly max_uses: 1
}

/** One person's answer, verified when it came. */
export interface Verdict {
  readonly statement: Statement
  readonly by: string
  readonly roles: readonly string[]
  readonly evidence: Evidence
  /** The approver's compact JWS, or null where `bearer` evidence is the broker's own record. */
  readonly jws: string | null
  readonly at_ms: number
}

/** A requirement put to people for one plan. */
export interface Approval {
  readonly id: ApprovalId
  readonly execution: ExecutionId
  readonly tenant: string
  readonly plan: Digest
  readonly requirement: Requirement
  readonly requirement_digest: Digest
  /** Who may not answer: ids of who submitted the task and of who started it, as the requirement excludes them. */
  readonly excluded: { readonly subjects: readonly string[]; readonly agents: readonly string[] }
  readonly nonce: string
  readonly opened_at_ms: number
  readonly expires_at_ms: number
  /** Set when satisfied: by when the run has to start. */
  readonly execute_by_ms: number | null
  readonly state: ApprovalState
  readonly verdicts: readonly Verdict[]
}

/** A person who may answer, as `writ.yaml` names them. `key` is the public Ed25519 JWK thumbprint's key. */
export interface Approver {
  readonly subject: string
  readonly roles: readonly string[]
  /** `x` of the Ed25519 public JWK (base64url). */
  readonly key: string
}

import type { ExecutionId, LeaseId } from '../id.ts'
import type { Secret } from './secret.ts'

export interface CheckFinding {
  readonly level: 'ok' | 'warning' | 'problem'
  readonly what: string
  readonly fix: string | null
}

/** A value on loan to one run. */
export interface LeasedSecret {
  readonly name: string
  readonly value: Secret
  /** Wall-clock milliseconds, or null where the source knows no end. */
  readonly expires_at_ms: number | null
  /** Idempotent; resolves when the source has confirmed. Static sources have nothing to take back. */
  revoke(): Promise<void>
}

/** Where values come from. One folder per implementation. */
export interface CredentialSource {
  readonly kind: string
  check(): Promise<readonly CheckFinding[]>
  /** Rejects `credential_unavailable`; the message names the credential, never its value or where it lies. */
  lease(name: string, ref: string, execution: ExecutionId, signal: AbortSignal): Promise<LeasedSecret>
}

/** The credentials of one run. */
export interface Lease {
  readonly id: LeaseId
  readonly execution: ExecutionId
  readonly secrets: readonly LeasedSecret[]
}

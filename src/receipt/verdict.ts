import type { JwsCode } from '../jws.ts'
import type { KeyRole } from './keyset.ts'
import type { ProfileCode } from './profile.ts'
import type { Trust } from './trust.ts'

/** Worst first, then rising levels (docs/receipts.md "Verify"). Only a `VALID` one is a yes. */
export type VerdictClass = 'INVALID' | 'EQUIVOCATION' | 'INCOMPLETE' | 'UNTRUSTED' | 'VALID:SIGNED' | 'VALID:LOGGED'

export type VerdictCode =
  | JwsCode
  | ProfileCode
  | 'KEY_ROLE'
  | 'KEY_EPOCH'
  | 'KEY_CHAIN'
  | 'NO_TRUST'
  | 'KEYS'
  | 'UNKNOWN_KEY'
  | 'REPLAY'
  | 'HEAD'
  | 'GAP'
  | 'STALE'
  | 'FORK'
  | 'ORDER'
  | 'PAIR'
  | 'DANGLING'
  | 'APPROVAL_BIND'
  | 'APPROVAL_SIG'
  | 'UNKNOWN_APPROVER'
  | 'POLICY_EPOCH'
  | 'DISCLOSURE'
  | 'TWIN'

/** Every code not named here is a contradiction or a forbidden form: `INVALID`. */
const milder: ReadonlyMap<VerdictCode, VerdictClass> = new Map([
  ['KEY_WEAK', 'UNTRUSTED'],
  ['NO_TRUST', 'UNTRUSTED'],
  ['KEYS', 'UNTRUSTED'],
  ['UNKNOWN_KEY', 'UNTRUSTED'],
  ['UNKNOWN_KIND', 'UNTRUSTED'],
  ['UNKNOWN_APPROVER', 'UNTRUSTED'],
  ['GAP', 'INCOMPLETE'],
  ['STALE', 'INCOMPLETE'],
  ['DANGLING', 'INCOMPLETE'],
  ['FORK', 'EQUIVOCATION'],
])

export function classOf(code: VerdictCode): VerdictClass {
  return milder.get(code) ?? 'INVALID'
}

/** Why a receipt or a log does not hold; caught where the report is made. */
export class Finding extends Error {
  readonly code: VerdictCode
  /** Index in the log, or null. */
  readonly at: number | null

  constructor(code: VerdictCode, message: string, at: number | null = null) {
    super(message)
    this.name = 'Finding'
    this.code = code
    this.at = at
  }
}

/** A receipt in words, safe to print; a member is null where the receipt does not say. */
export interface Words {
  readonly who: string | null
  readonly what: string
  readonly allowedBy: string | null
  readonly ranIn: string | null
  readonly end: string | null
}

export interface Report {
  readonly verdict: VerdictClass
  /** Null on `VALID`. */
  readonly code: VerdictCode | null
  /** One sentence; null on `VALID`. */
  readonly why: string | null
  /** Index in the log the code is about, or the receipt's own. */
  readonly at: number | null
  readonly key: { readonly kid: string; readonly role: KeyRole } | null
  /** By what the key was trusted. */
  readonly pinned: Trust['pin']
  /** Null unless the signature held. */
  readonly words: Words | null
  /** What more was checked than the level says: `DISCLOSURES`, `TWIN`, `APPROVER`, `DECISION`. */
  readonly checked: readonly string[]
  /** What it refers to and was not given. */
  readonly refersTo: readonly string[]
  /** What it does not show. */
  readonly notShown: readonly string[]
  /** Of a whole log only. */
  readonly log: {
    readonly size: number
    readonly root: string
    readonly kinds: Readonly<Record<string, number>>
  } | null
}

/** True for `VALID:SIGNED` and `VALID:LOGGED`: what `writ verify` exits 0 for. */
export function isValid(report: Report): boolean {
  return report.verdict === 'VALID:SIGNED' || report.verdict === 'VALID:LOGGED'
}

import type { Logger } from 'pino'
import type { DecisionId } from '../id.ts'
import { newId } from '../id.ts'
import type { Approver } from '../approval/approval.ts'
import type { ArtifactStore } from '../artifact/artifact.ts'
import type { Clock } from '../clock.ts'
import type { CredentialSource } from '../credential/credential.ts'
import { WritError } from '../error.ts'
import type { RunHost } from '../execution/job.ts'
import type { OutputStore } from '../execution/output.ts'
import type { Ledger, Views } from '../ledger/ledger.ts'
import type { Catalog } from '../plan/catalog.ts'
import type { Policy, Reason } from '../policy/policy.ts'
import type { Caller } from '../request/caller.ts'
import type { Availability } from '../plan/available.ts'
import type { Changes } from './changes.ts'
import type { Pace } from './pace.ts'
import type { Storage } from './storage.ts'

/** What the path is made of. Everything that can be exchanged is an interface of the folder it comes from. */
export interface Parts {
  readonly clock: Clock
  readonly ledger: Ledger
  readonly artifacts: ArtifactStore
  readonly outputs: OutputStore
  readonly policy: Policy
  readonly host: RunHost
  readonly sources: ReadonlyMap<string, CredentialSource>
  /** Read at every use: both are replaced as a whole when their files change. */
  readonly catalog: () => Catalog
  readonly approvers: () => readonly Approver[]
  /** Roles a subject of the local socket or a token holds now; where `agent` is given, those it holds through that agent. */
  readonly rolesOf: (tenant: string, subject: string, agent?: string) => readonly string[]
  /** `iss` of the receipts; stands in approval statements. */
  readonly origin: string
  /** Runs at once; a tenant of which none runs is given a place beyond them, up to as many again. */
  readonly maxRunning: number
  readonly storage: Storage
  readonly changes: Changes
  readonly availability: () => Promise<Availability>
  readonly deniedPace: Pace
  readonly log: Logger
}

/** What ends compares with the newer of the wall clock and the newest ledger time: a clock set back revives nothing. */
export function nowOf({ clock, ledger }: Pick<Parts, 'clock' | 'ledger'>): number {
  return Math.max(clock.now(), ledger.views.newestTimeMs())
}

/** What clocks of machines differ by without anything being wrong. */
const usualMs = 60_000

/** Seconds by which the newest record is ahead of the wall clock, as one leaves that was ahead itself; null where it is not. */
export function aheadS(views: Pick<Views, 'newestTimeMs'>, nowMs: number): number | null {
  const ahead = views.newestTimeMs() - nowMs
  return ahead > usualMs ? Math.round(ahead / 1000) : null
}

/** Ids a caller may only guess look the same whether unknown or forbidden. */
export function notFound(
  what: 'task' | 'execution' | 'approval' | 'file' | 'receipt',
  ref: DecisionId = newId('dec'),
): Reason {
  const error = new WritError('not_found', `There is no such ${what} among yours.`)
  return { code: error.code, message: error.message, remedy: error.remedy, ref }
}

/** One answer for a target there is not and for one the caller may not see, whoever asks for what. */
export function unknownTarget(): WritError {
  return new WritError('unknown_target', 'There is no such target among yours.')
}

/**
 * The reason a caller is given for something that could not be done. Only what is the caller's own fault is told in
 * its own words; the rest is a fixed sentence, and the cause goes to the log under `ref`.
 */
export function reasonOf(parts: Pick<Parts, 'log'>, failure: unknown): Reason {
  const ref = newId('dec')
  if (failure instanceof WritError && failure.fault === 'caller')
    return { code: failure.code, message: failure.message, remedy: failure.remedy, ref }
  parts.log.error({ ref, err: failure }, 'a call could not be carried out')
  const operator = failure instanceof WritError && failure.fault === 'operator'
  return {
    code: failure instanceof WritError ? failure.code : 'internal',
    message: operator ? 'Writ cannot do this as it is set up now.' : 'Writ failed to do this.',
    remedy: 'Quote the ref to the operator of this Writ, who finds the cause in its log.',
    ref,
  }
}

export function isMine(caller: Caller, owned: { readonly tenant: string; readonly owner: string }): boolean {
  return owned.tenant === caller.tenant && owned.owner === caller.subject.id
}

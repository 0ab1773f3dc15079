import type { Limits, PlanStep } from '../../plan/plan.ts'

/** Run host → worker. The worker trusts it: it holds nothing that the run host does not. */
export type ToWorker =
  /** The first frame: the worker runs a program of its own on it and then says `ready`. */
  | { readonly t: 'rehearse' }
  | { readonly t: 'file'; readonly path: string }
  | { readonly t: 'go'; readonly job: WorkerJob }
  | {
      readonly t: 'answer'
      readonly id: number
      readonly status: number
      readonly headers: readonly (readonly [string, string])[]
    }

/** All a worker learns of a plan: no service's address, no credential's value, no name of a host. */
export interface WorkerJob {
  readonly steps: readonly PlanStep[]
  readonly env: Readonly<Record<string, string>>
  readonly stdin: string
  readonly inputs: unknown
  readonly limits: Limits
}

/** Worker → run host. Foreign code ran beside whoever sent it: every field is checked on arrival. */
export type FromWorker =
  | { readonly t: 'ready' }
  | { readonly t: 'started'; readonly step: number }
  | { readonly t: 'output'; readonly step: number; readonly stream: 'stdout' | 'stderr' }
  | {
      readonly t: 'fetch'
      readonly id: number
      readonly method: string
      readonly url: string
      readonly headers: readonly (readonly [string, string])[]
    }
  | { readonly t: 'unfetch'; readonly id: number }
  | {
      readonly t: 'exited'
      readonly step: number
      readonly exit: number
      readonly ms: number
      readonly reason: 'guest_error' | null
    }
  | { readonly t: 'artifact'; readonly path: string }
  /** The last frame: the run host ends the worker on it. */
  | { readonly t: 'end'; readonly why: WorkerEnd }

export type WorkerEnd = 'exited' | 'memory' | 'cpu' | 'callback_quota'

export const maxHeader = 4 * 1024 * 1024
export const maxPayload = 64 * 1024 * 1024
/** Bytes of a text the guest may hand over in one call. */
export const callBytes = 65_536
/** Calls a step may make; a program that only prints is past any output limit long before. */
export const callQuota = 250_000
/** What a request of the guest may have, in characters and headers, and how many there may be together: as many as the gateway takes, which has narrower limits of its own else. */
export const fetchLimits = { together: 32, method: 32, url: 16_384, headers: 100, name: 256, value: 16_384 } as const

export interface EgressRequest {
  readonly method: string
  /** `http://127.0.0.1:3128/<service>/…` as the sandbox wrote it. */
  readonly url: string
  readonly headers: readonly (readonly [string, string])[]
  readonly body: Uint8Array
  /** The answer may come in pieces (`rest`), which a sandbox that keeps no connection to a client cannot take. */
  readonly pieces?: boolean
}

export interface EgressResponse {
  readonly status: number
  readonly headers: readonly (readonly [string, string])[]
  readonly body: Uint8Array
  /** What follows `body`, read no faster than it is asked for. Rejects where it breaks off: then the answer is not whole. */
  readonly rest?: AsyncIterable<Uint8Array>
}

/** The gateway as a run sees it. Never rejects: a refusal is a response whose code names a class, never an address. */
export interface EgressPort {
  fetch(request: EgressRequest, signal: AbortSignal): Promise<EgressResponse>
}

/** What a run's gateway let through and what it stopped; becomes the `egress` of the run's report. */
export interface EgressCounts {
  readonly allowed: number
  readonly blocked: number
  readonly refusals: readonly { readonly code: string; readonly service: string; readonly count: number }[]
}

/** Who asks: a subject (with tenant and roles) and the agent acting for it. Set by the socket or the token, never by the request. */
export interface Caller {
  readonly tenant: string
  readonly subject: { readonly type: 'user' | 'service'; readonly id: string }
  readonly roles: readonly string[]
  readonly agent: {
    readonly id: string
    /** What the client says of itself; recorded as that and trusted for nothing. */
    readonly asserted: { readonly client: string; readonly version: string }
  }
  readonly auth: {
    readonly method: 'socket' | 'token' | 'oauth'
    readonly atMs: number
    /** The very token that was shown, or null where none was: over the socket, and for what runs when nobody is connected. */
    readonly shown: Shown | null
  }
}

/** How long a token lasts that a caller showed: what was given for it lasts no longer. */
export interface Shown {
  /** When its time is over, Unix milliseconds, or null where it has no end. */
  readonly until_ms: number | null
  /** Aborts as soon as it is revoked, or its issuer is no longer accepted. */
  readonly revoked: AbortSignal
}

/** Whether the token a caller showed is over by now. */
export function isOver({ auth: { shown } }: Caller, nowMs: number): boolean {
  return shown !== null && (shown.revoked.aborted || (shown.until_ms !== null && shown.until_ms <= nowMs))
}

/**
 * Says who sends an HTTP request, from its Authorization header alone.
 * `headers` are lower-case names; a header that came twice is joined by ", ", as node:http and Headers do.
 * `resource` is the canonical URI of what is asked (RFC 8707), without query or fragment: what an access token has to be
 * meant for. Never rejects: what cannot be checked is refused.
 */
export type Authenticate = (request: {
  readonly headers: ReadonlyMap<string, string>
  readonly resource: string
}) => Promise<Authenticated>

export type Authenticated =
  | {
      readonly ok: true
      readonly caller: Caller
      /** What caps are counted by: a token of Writ, or the person an access token is of. Reveals nothing of the token. */
      readonly key: string
      /** Why the token does not do for a message of this name, and what would; null where it does. */
      readonly shortOf: (name: string) => Unauthenticated | null
    }
  | Unauthenticated

export interface Unauthenticated {
  readonly ok: false
  readonly status: 401 | 403 | 503
  /** The value of WWW-Authenticate (RFC 6750, RFC 9728); empty with 503. */
  readonly challenge: string
  readonly code: 'missing_token' | 'invalid_token' | 'insufficient_scope' | 'identity_unavailable'
  /** One sentence for the client; says nothing that helps guessing. */
  readonly message: string
}

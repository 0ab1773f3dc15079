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
  readonly auth: { readonly method: 'socket' | 'token' | 'oauth'; readonly atMs: number }
}

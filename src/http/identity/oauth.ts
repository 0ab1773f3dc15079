import type { Clock } from '../../clock.ts'
import { canonical } from '../../digest.ts'
import type { JsonObject } from '../../digest.ts'
import type { Caller } from '../../request/caller.ts'
import { callerOf } from './claims.ts'
import type { FetchJson } from './fetch.ts'
import { claimProblem, openVerifier, overAt, readJwt, scopesOf, typeAccepted } from './jwt.ts'
import type { ClaimProblem } from './jwt.ts'
import { openIssuerKeys } from './keys.ts'
import type { IssuerKeys } from './keys.ts'
import type { IssuerSettings, OAuthSettings } from './settings.ts'

export type CheckedAccess =
  | {
      readonly ok: true
      readonly caller: Caller
      /** When the access token was issued, Unix milliseconds. */
      readonly issued_at_ms: number
      readonly scopes: ReadonlySet<string>
    }
  | {
      readonly ok: false
      readonly why:
        | ClaimProblem
        | 'malformed'
        | 'issuer_unknown'
        | 'kind'
        | 'signature'
        | 'key_unknown'
        | 'nobody'
        | 'scope'
        | 'unavailable'
    }

/** The OAuth 2.1 resource server: says who an access token of a configured issuer stands for; asks nobody but for keys. */
export interface ResourceServer {
  /** In force now; null where no issuer is accepted. */
  readonly settings: OAuthSettings | null
  /** Never rejects. `resource` is what the token has to be meant for, unless the issuer's settings name an audience. */
  check(token: string, resource: string): Promise<CheckedAccess>
  /** RFC 9728: what a client needs to know to get a token. */
  metadata(resource: string): JsonObject | null
  /** Takes new settings. Issuers that stay as they are keep their keys; what was opened under another one ends. */
  configure(next: OAuthSettings | null): void
}

interface Issuer {
  readonly settings: IssuerSettings
  readonly keys: IssuerKeys
  readonly accepted: AbortController
}

export function openResourceServer(options: {
  readonly clock: Clock
  /** Reads documents of an issuer, checking its server as the settings say. May throw `invalid_config`. */
  readonly fetchJson: (issuer: IssuerSettings) => FetchJson
  /** For the operator's log. */
  readonly onFailure: (issuer: string, why: string) => void
}): ResourceServer {
  const { clock } = options
  const verify = openVerifier()
  let settings: OAuthSettings | null = null
  let issuers: ReadonlyMap<string, Issuer> = new Map()

  const open = (one: IssuerSettings): Issuer => ({
    settings: one,
    accepted: new AbortController(),
    keys: openIssuerKeys({
      issuer: one.issuer,
      jwksUri: one.jwks_uri ?? null,
      fetchJson: options.fetchJson(one),
      clock,
      onFailure: (why) => options.onFailure(one.name, why),
    }),
  })

  return {
    get settings() {
      return settings
    },

    async check(token, resource) {
      const jwt = readJwt(token)
      if (jwt === null) return { ok: false, why: 'malformed' }
      const issuer = issuers.get(jwt.issuer)
      if (issuer === undefined) return { ok: false, why: 'issuer_unknown' }
      const { settings: of } = issuer
      if (!of.algorithms.includes(jwt.alg) || !typeAccepted(jwt.typ, of.typ)) return { ok: false, why: 'kind' }
      const found = await issuer.keys.find(jwt.kid, jwt.alg)
      if (found.state === 'unavailable') return { ok: false, why: 'unavailable' }
      if (found.state === 'unknown') return { ok: false, why: 'key_unknown' }
      const claims = await verify(jwt, found.key)
      if (claims === null) return { ok: false, why: 'signature' }
      // The configuration may have changed while the keys were fetched.
      if (settings === null || issuer.accepted.signal.aborted) return { ok: false, why: 'issuer_unknown' }
      const nowMs = clock.now()
      const problem = claimProblem(claims, { issuer: of.issuer, audience: of.audience ?? resource, nowMs })
      if (problem !== null) return { ok: false, why: problem }
      const held = scopesOf(claims)
      if (settings.scopes.some((scope) => !held.has(scope))) return { ok: false, why: 'scope' }
      const { iat, exp } = claims
      const shown = { until_ms: overAt(Number(exp)), revoked: issuer.accepted.signal }
      const caller = callerOf(claims, of, nowMs, shown)
      if (caller === null) return { ok: false, why: 'nobody' }
      return { ok: true, caller, issued_at_ms: Math.floor(Number(iat) * 1000), scopes: held }
    },

    metadata: (resource) =>
      settings === null
        ? null
        : {
            resource,
            resource_name: 'Writ',
            authorization_servers: settings.issuers.map((one) => one.issuer),
            bearer_methods_supported: ['header'],
            ...(settings.scopes.length === 0 ? {} : { scopes_supported: settings.scopes }),
          },

    configure(next) {
      const kept = (one: IssuerSettings): Issuer | null => {
        const before = issuers.get(one.issuer)
        return before !== undefined && canonical(before.settings) === canonical(one) ? before : null
      }
      // All are opened before any is ended: settings that cannot be used change nothing.
      const after = new Map((next?.issuers ?? []).map((one) => [one.issuer, kept(one) ?? open(one)]))
      const before = issuers
      settings = next
      issuers = after
      for (const [name, issuer] of before) if (after.get(name) !== issuer) issuer.accepted.abort()
    },
  }
}

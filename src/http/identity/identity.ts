import { readFileSync } from 'node:fs'
import type { Logger } from 'pino'
import type { Clock } from '../../clock.ts'
import type { JsonObject } from '../../digest.ts'
import { systemCode, WritError } from '../../error.ts'
import type { Ledger } from '../../ledger/ledger.ts'
import { toolNames } from '../../request/call.ts'
import type { Authenticate, Authenticated, Caller, Unauthenticated } from '../../request/caller.ts'
import { httpsJson } from './fetch.ts'
import { openResourceServer } from './oauth.ts'
import type { CheckedAccess } from './oauth.ts'
import { rolesSeen, rowFor } from './roles.ts'
import type { IssuerSettings, OAuthSettings } from './settings.ts'
import { openTokens } from './token.ts'
import type { CheckedToken, Tokens } from './token.ts'

/** Who callers over HTTP are, and what roles they hold when nobody is connected. */
export interface Identity {
  readonly tokens: Tokens
  readonly authenticate: Authenticate
  /** What RFC 9728 asks for at `metadataPath(resource)`; null where no OAuth issuer is configured. */
  metadata(resource: string): JsonObject | null
  /**
   * Roles a subject holds now: those of its live tokens and those last seen in a valid access token; through one agent
   * where `agent` is given. What ended, was revoked or was seen too long ago gives none.
   */
  rolesOf(tenant: string, subject: string, agent?: string): readonly string[]
  /** Takes new settings; what was opened under an issuer that is gone or changed ends. Throws `invalid_config`. */
  configure(oauth: OAuthSettings | null): void
}

/** What clients are told, one sentence a cause. None says more than who holds the token knows already. */
const sentences = {
  missing: 'This resource needs an access token.',
  header: 'Send exactly one Authorization header: Bearer, one space, and the token.',
  malformed: 'This is not a token this Writ could have to do with: it is cut short, changed or of another kind.',
  token_unknown: 'This token is not one of this Writ.',
  token_expired: 'The token has expired.',
  token_revoked: 'The token was revoked.',
  issuer_unknown: 'The token is of an issuer this Writ does not accept.',
  kind: 'The token is not of the type or not signed with an algorithm accepted here.',
  key_unknown: 'The token is signed with a key its issuer does not publish.',
  signature: 'The signature of the token is wrong.',
  issuer: 'The token is of an issuer this Writ does not accept.',
  audience: 'The token was issued for another resource.',
  expired: 'The token has expired.',
  not_yet: 'The token is not valid yet.',
  claims: 'The token lacks a claim it has to have.',
  bound: 'The token is bound to a key; only bearer tokens are taken here.',
  nobody: 'The token names nobody this Writ knows what to do with.',
  scope: 'The token lacks a scope this resource needs.',
  unavailable: 'Whose token this is cannot be established at the moment; try again later.',
} as const
type Why = keyof typeof sentences

export function openIdentity(options: {
  readonly ledger: Ledger
  readonly clock: Clock
  readonly log: Pick<Logger, 'warn' | 'error'>
  readonly oauth: OAuthSettings | null
}): Identity {
  const { ledger, clock, log } = options
  /** A clock that was set back revives nothing. */
  const now = (): number => Math.max(clock.now(), ledger.views.newestTimeMs())
  const tokens = openTokens(ledger, now)
  const server = openResourceServer({
    clock: { now, monotonic: () => clock.monotonic() },
    fetchJson: (issuer) => httpsJson(certificatesOf(issuer)),
    onFailure: (issuer, why) => log.warn({ issuer, why }, 'the keys of an OAuth issuer could not be fetched'),
  })
  server.configure(options.oauth)

  const refused = (why: Why, resource: string, more: readonly string[] = []): Unauthenticated => {
    const message = sentences[why]
    if (why === 'unavailable') return { ok: false, status: 503, challenge: '', code: 'identity_unavailable', message }
    const error = why === 'missing' ? null : why === 'scope' ? 'insufficient_scope' : 'invalid_token'
    const scopes = [...new Set([...(server.settings?.scopes ?? []), ...more])]
    const fields = [
      ...(error === null ? [] : [`error="${error}"`, `error_description="${message}"`]),
      ...(scopes.length === 0 ? [] : [`scope="${scopes.join(' ')}"`]),
      ...(server.settings === null ? [] : [`resource_metadata="${metadataUrl(resource)}"`]),
    ]
    return {
      ok: false,
      status: why === 'scope' ? 403 : 401,
      challenge: `Bearer ${fields.length === 0 ? 'realm="writ"' : fields.join(', ')}`,
      code: error ?? 'missing_token',
      message,
    }
  }

  /** What a valid access token says of roles now, kept for what runs after it. */
  const note = async ({ caller, issued_at_ms }: CheckedAccess & { ok: true }): Promise<void> => {
    const { tenant, subject, roles, agent } = caller
    const at = now()
    const until_ms = at + (server.settings?.roles_valid_s ?? 0) * 1000
    const seen = { tenant, subject: subject.id, agent: agent.id, roles, as_of_ms: issued_at_ms, until_ms }
    const row = rowFor(ledger.views.seenRoles(tenant, subject.id), seen, at)
    if (row !== null) await ledger.append({ kind: 'roles_seen', seen: row })
  }

  return {
    tokens,
    configure: (oauth) => server.configure(oauth),
    metadata: (resource) => server.metadata(resource),

    async authenticate({ headers, resource }) {
      const given = headers.get('authorization')
      if (given === undefined) return refused('missing', resource)
      const token = /^bearer ([\w.~+/-]+=*)$/i.exec(given)?.[1]
      if (token === undefined) return refused('header', resource)
      try {
        if (token.startsWith('writ_')) return admitted(tokens.check(token), (why) => refused(why, resource))
        const access = await server.check(token, resource)
        if (!access.ok) return refused(access.why, resource)
        await note(access).catch((unwritten: unknown) => {
          // Who has a valid token may still read; what runs later finds the roles that could be written.
          if (!(unwritten instanceof WritError && unwritten.code === 'conflict'))
            log.error({ err: unwritten }, 'the roles of a caller could not be recorded')
        })
        const { caller, scopes } = access
        const shortOf = (name: string): Unauthenticated | null => {
          const needed = scopesFor(server.settings, name)
          return needed.every((scope) => scopes.has(scope)) ? null : refused('scope', resource, needed)
        }
        return { ok: true, caller, key: keyOf(caller), shortOf }
      } catch (failure) {
        log.error({ err: failure }, 'a token could not be checked')
        return refused('unavailable', resource)
      }
    },

    rolesOf(tenant, subject, agent) {
      // An issuer that is no longer configured vouches for nobody.
      const known = server.settings?.issuers.some((one) => subject.startsWith(`${one.name}:`)) === true
      const seen = known ? rolesSeen(ledger.views.seenRoles(tenant, subject), now(), agent) : []
      return [...new Set([...tokens.rolesOf(tenant, subject, agent), ...seen])].sort()
    },
  }
}

/** Where the metadata of a resource lies (RFC 9728 §3.1): `/mcp` has it at `/.well-known/oauth-protected-resource/mcp`. */
export function metadataUrl(resource: string): string {
  const { origin, pathname } = new URL(resource)
  return `${origin}/.well-known/oauth-protected-resource${pathname === '/' ? '' : pathname}`
}

/** A token of Writ has no scopes: what it is for, its roles say. */
function admitted(checked: CheckedToken, refuse: (why: Why) => Unauthenticated): Authenticated {
  if (!checked.ok) return refuse(checked.why)
  return { ok: true, caller: checked.caller, key: checked.row.id, shortOf: () => null }
}

/** What a message of this name needs beside what every message does. */
function scopesFor(settings: OAuthSettings | null, name: string): readonly string[] {
  const tool = toolNames.find((one) => one === name)
  return (tool === undefined ? undefined : settings?.tool_scopes[tool]) ?? []
}

/** Caps are one subject's: neither a new access token nor a client registered anew buys a second share. */
function keyOf({ tenant, subject }: Caller): string {
  return JSON.stringify([tenant, subject.id])
}

function certificatesOf(issuer: IssuerSettings): string | null {
  if (issuer.ca === undefined) return null
  try {
    return readFileSync(issuer.ca, 'utf8')
  } catch (error) {
    throw new WritError(
      'invalid_config',
      `the certificates of the issuer "${issuer.name}" cannot be read (${systemCode(error) ?? 'unknown'})`,
    )
  }
}

import { WritError } from '../../error.ts'
import { newId, parseId } from '../../id.ts'
import type { TokenId } from '../../id.ts'
import type { Ledger } from '../../ledger/ledger.ts'
import { tokenAccount } from '../../receipt/account.ts'
import type { Caller } from '../../request/caller.ts'
import { newToken, sameHash, tokenHash } from '../../request/token.ts'
import type { Token, TokenRow } from '../../request/token.ts'

/** What the operator asks for; checked here, whatever asked. */
export interface TokenRequest {
  readonly tenant: string
  readonly subject: { readonly type: 'user' | 'service'; readonly id: string }
  readonly agent: string
  readonly roles: readonly string[]
  /** Milliseconds from now. */
  readonly valid_ms: number
}

export type CheckedToken =
  | { readonly ok: true; readonly row: TokenRow; readonly caller: Caller }
  | { readonly ok: false; readonly why: 'malformed' | 'token_unknown' | 'token_expired' | 'token_revoked' }

/** The tokens of Writ itself. What is made and revoked is a step and a receipt; the token is told once and kept nowhere. */
export interface Tokens {
  /** Throws `usage` where what is asked for is not allowed. */
  create(asked: TokenRequest): Promise<{ readonly token: string; readonly row: TokenRow }>
  /** In force for whatever is decided or sent after it; a second time changes nothing. Throws `not_found`. */
  revoke(id: string): Promise<TokenRow>
  list(): readonly TokenRow[]
  check(text: string): CheckedToken
  /** Roles of the live tokens of a subject, those of one agent where `agent` is given. */
  rolesOf(tenant: string, subject: string, agent?: string): readonly string[]
}

const maxValidMs = 366 * 86_400_000
const maxListed = 10_000
const word = /^[a-z][a-z0-9_-]{0,62}$/
const identifier = /^[^\p{C}\p{Z}]{1,200}$/u

/** @param now Unix milliseconds */
export function openTokens(ledger: Ledger, now: () => number): Tokens {
  const signals = new Map<TokenId, AbortController>()
  const { views } = ledger
  const signalOf = (id: TokenId): AbortSignal => {
    const known = signals.get(id)
    if (known !== undefined) return known.signal
    const made = new AbortController()
    signals.set(id, made)
    return made.signal
  }

  return {
    async create(asked) {
      refuse(asked)
      const text = newToken()
      const hash = tokenHash(text)
      if (hash === null) throw new WritError('internal', 'a token that is not spelled like one was made')
      const at = now()
      const token: Token = {
        id: newId('tok'),
        hash,
        tenant: asked.tenant,
        subject: { type: asked.subject.type, id: asked.subject.id },
        agent: asked.agent,
        roles: [...new Set(asked.roles)].sort(),
        created_at_ms: at,
        expires_at_ms: at + asked.valid_ms,
      }
      await ledger.append(
        { kind: 'token_created', token },
        { kind: 'sign', execution: null, account: tokenAccount(token, 'created', at) },
      )
      return { token: text, row: { ...token, revoked_at_ms: null } }
    },

    async revoke(text) {
      const id = parseId('tok', text)
      const row = id === null ? null : views.token(id)
      if (row === null)
        throw new WritError('not_found', `There is no token ${text.slice(0, 64)}.`, { remedy: 'See: writ token list.' })
      if (row.revoked_at_ms === null) {
        const { revoked_at_ms: _, ...token } = row
        await ledger.append(
          { kind: 'token_revoked', token: row.id },
          { kind: 'sign', execution: null, account: tokenAccount(token, 'revoked', now()) },
        )
      }
      // After the step: whoever asks for the signal from here on is refused by the view.
      signals.get(row.id)?.abort()
      return views.token(row.id) ?? row
    },

    list: () => views.tokens(null, maxListed),

    check(text) {
      const hash = tokenHash(text)
      if (hash === null) return { ok: false, why: 'malformed' }
      const row = views.tokenByHash(hash)
      // The index compares digests, and where two digests differ says nothing of a token that has one of them.
      if (row === null || !sameHash(row.hash, hash)) return { ok: false, why: 'token_unknown' }
      if (row.revoked_at_ms !== null) return { ok: false, why: 'token_revoked' }
      if (row.expires_at_ms <= now()) return { ok: false, why: 'token_expired' }
      return { ok: true, row, caller: callerOf(row, signalOf(row.id)) }
    },

    rolesOf(tenant, subject, agent) {
      const at = now()
      const live = views
        .tokens({ tenant, subject }, maxListed)
        .filter((row) => row.revoked_at_ms === null && row.expires_at_ms > at)
        .filter((row) => agent === undefined || row.agent === agent)
      return [...new Set(live.flatMap((row) => row.roles))].sort()
    },
  }
}

function callerOf(row: TokenRow, revoked: AbortSignal): Caller {
  return {
    tenant: row.tenant,
    subject: row.subject,
    roles: row.roles,
    agent: { id: row.agent, asserted: { client: '', version: '' } },
    auth: { method: 'token', atMs: row.created_at_ms, shown: { until_ms: row.expires_at_ms, revoked } },
  }
}

/** A ":" belongs to the names of people of authorisation servers, so that no token can speak for one of them. */
function refuse({ tenant, subject, agent, roles, valid_ms }: TokenRequest): void {
  const usage = (message: string): WritError =>
    new WritError('usage', message, { remedy: 'See: writ token create --help.' })
  if (!word.test(tenant))
    throw usage('A tenant is a-z, 0-9, "-" and "_", begins with a letter, and has at most 63 characters.')
  for (const [what, id] of [
    ['subject', subject.id],
    ['agent', agent],
  ] as const) {
    if (!identifier.test(id)) throw usage(`The ${what} has to be 1 to 200 printable characters without spaces.`)
    if (id.includes(':')) throw usage(`The ${what} must not hold ":"; it marks people and clients of an OAuth issuer.`)
  }
  if (roles.length > 32 || roles.some((role) => !word.test(role)))
    throw usage('A role is a-z, 0-9, "-" and "_", begins with a letter; at most 32 of them.')
  if (!Number.isSafeInteger(valid_ms) || valid_ms < 1000 || valid_ms > maxValidMs)
    throw usage('A token is valid for at least a second and at most 366 days.')
}

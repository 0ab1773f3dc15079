import type { TokenRow } from '../../request/token.ts'
import type { TokenRequest, Tokens } from './token.ts'

/** A token as the operator is shown it. Times are RFC 3339. */
interface Shown {
  readonly token_id: string
  readonly tenant: string
  readonly subject: string
  readonly type: 'user' | 'service'
  readonly agent: string
  readonly roles: readonly string[]
  readonly created: string
  readonly expires: string
  readonly revoked: string | null
}

/** The operator's methods of the control socket. Only `token_create` ever says a token, and only the new one. */
export function tokenMethods(tokens: Tokens): {
  token_create(asked: TokenRequest): Promise<Shown & { readonly token: string }>
  token_list(): Promise<{ readonly tokens: readonly Shown[] }>
  token_revoke(asked: { readonly token_id: string }): Promise<Shown>
} {
  return {
    async token_create(asked) {
      const { token, row } = await tokens.create(asked)
      return { token, ...shown(row) }
    },
    token_list: async () => await Promise.resolve({ tokens: tokens.list().map(shown) }),
    token_revoke: async ({ token_id }) => shown(await tokens.revoke(token_id)),
  }
}

function shown(row: TokenRow): Shown {
  const at = (ms: number): string => new Date(ms).toISOString()
  return {
    token_id: row.id,
    tenant: row.tenant,
    subject: row.subject.id,
    type: row.subject.type,
    agent: row.agent,
    roles: row.roles,
    created: at(row.created_at_ms),
    expires: at(row.expires_at_ms),
    revoked: row.revoked_at_ms === null ? null : at(row.revoked_at_ms),
  }
}

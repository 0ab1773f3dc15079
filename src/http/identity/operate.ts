import { z } from 'zod'
import type { JsonObject } from '../../digest.ts'
import { WritError } from '../../error.ts'
import { parseIJson } from '../../json.ts'
import type { TokenRow } from '../../request/token.ts'
import type { Tokens } from './token.ts'

/** What `writ token create` sends: checked in full by `Tokens.create`. */
const asked = z.strictObject({
  tenant: z.string(),
  subject: z.strictObject({ type: z.enum(['user', 'service']), id: z.string() }),
  agent: z.string(),
  roles: z.array(z.string()),
  valid_ms: z.number(),
})

/** The operator's methods of the control socket. Only `token_create` ever says a token, and only the new one. */
export function tokenMethods(tokens: Tokens): {
  token_create(argument: string): Promise<JsonObject>
  token_list(): Promise<JsonObject>
  token_revoke(id: string): Promise<JsonObject>
} {
  return {
    async token_create(argument) {
      const read = asked.safeParse(parseIJson(argument, { maxBytes: 65_536 }))
      if (!read.success) throw new WritError('usage', 'This is not a request for a token.')
      const { token, row } = await tokens.create(read.data)
      return { token, ...shown(row) }
    },
    token_list: async () => await Promise.resolve({ tokens: tokens.list().map(shown) }),
    token_revoke: async (id) => shown(await tokens.revoke(id)),
  }
}

function shown(row: TokenRow): JsonObject {
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

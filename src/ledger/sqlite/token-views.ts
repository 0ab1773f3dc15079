import type { TokenRow } from '../../request/token.ts'
import type { Views } from '../ledger.ts'
import type { Database } from './database.ts'
import { stepAt } from './rows.ts'

interface TokenColumns {
  readonly position: number
  readonly revoked_at_ms: number | null
}

const columns = 'position, revoked_at_ms'

/** What the views know of tokens and of roles seen in access tokens. */
export function tokenViews(db: Database): Pick<Views, 'token' | 'tokenByHash' | 'tokens' | 'seenRoles'> {
  const rowOf = ({ position, revoked_at_ms }: TokenColumns): TokenRow => ({
    ...stepAt(db, position, 'token_created').token,
    revoked_at_ms,
  })
  return {
    token(id) {
      const row = db.get<TokenColumns>(`SELECT ${columns} FROM tokens WHERE id = ?`, id)
      return row === null ? null : rowOf(row)
    },
    tokenByHash(hash) {
      const row = db.get<TokenColumns>(`SELECT ${columns} FROM tokens WHERE hash = ?`, hash)
      return row === null ? null : rowOf(row)
    },
    tokens(of, limit) {
      const rows =
        of === null
          ? db.all<TokenColumns>(`SELECT ${columns} FROM tokens ORDER BY position DESC LIMIT ?`, limit)
          : db.all<TokenColumns>(
              `SELECT ${columns} FROM tokens WHERE tenant = ? AND subject = ? ORDER BY position DESC LIMIT ?`,
              of.tenant,
              of.subject,
              limit,
            )
      return rows.map(rowOf)
    },
    seenRoles(tenant, subject) {
      return db
        .all<{ position: number }>(
          'SELECT position FROM seen_roles WHERE tenant = ? AND subject = ? ORDER BY position',
          tenant,
          subject,
        )
        .map(({ position }) => stepAt(db, position, 'roles_seen').seen)
    },
  }
}

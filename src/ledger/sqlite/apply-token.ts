import type { Step } from '../ledger.ts'
import type { Database } from './database.ts'
import { refuse } from './facts.ts'
import type { Place } from './facts.ts'

export function applyTokenCreated(
  db: Database,
  { token }: Step & { kind: 'token_created' },
  { position }: Place,
): void {
  if (db.get('SELECT 1 FROM tokens WHERE id = ? OR hash = ?', token.id, token.hash) !== null)
    refuse('this token is recorded already')
  db.run(
    'INSERT INTO tokens (id, hash, tenant, subject, revoked_at_ms, position) VALUES (?, ?, ?, ?, NULL, ?)',
    token.id,
    token.hash,
    token.tenant,
    token.subject.id,
    position,
  )
}

export function applyTokenRevoked(db: Database, { token }: Step & { kind: 'token_revoked' }, { at_ms }: Place): void {
  const row = db.get<{ revoked_at_ms: number | null }>('SELECT revoked_at_ms FROM tokens WHERE id = ?', token)
  if (row === null) refuse('this token was never made')
  if (row.revoked_at_ms !== null) refuse('this token is revoked already')
  db.run('UPDATE tokens SET revoked_at_ms = ? WHERE id = ?', at_ms, token)
}

/** A token that was issued earlier says less about now, however late it is shown. */
export function applyRolesSeen(db: Database, { seen }: Step & { kind: 'roles_seen' }, { position }: Place): void {
  const { tenant, subject, agent, as_of_ms } = seen
  const before = db.get<{ as_of_ms: number }>(
    'SELECT as_of_ms FROM seen_roles WHERE tenant = ? AND subject = ? AND agent = ?',
    tenant,
    subject,
    agent,
  )
  if (before !== null && before.as_of_ms > as_of_ms) refuse('newer roles of this subject were seen already')
  db.run(
    `INSERT INTO seen_roles (tenant, subject, agent, as_of_ms, position) VALUES (?, ?, ?, ?, ?)
     ON CONFLICT (tenant, subject, agent) DO UPDATE SET as_of_ms = excluded.as_of_ms, position = excluded.position`,
    tenant,
    subject,
    agent,
    as_of_ms,
    position,
  )
}

import type { SeenRoles } from '../../request/token.ts'

/**
 * Roles seen in access tokens, for what runs when nobody is connected. One row an agent, since a person may give one agent
 * less than another; but the newest token of a person, through whatever agent, is the newest word of the directory: what it
 * does not say is gone for all of them.
 */

/** What the rows of one subject give at this time; through one agent where `agent` is given. */
export function rolesSeen(rows: readonly SeenRoles[], atMs: number, agent?: string): readonly string[] {
  const newest = newestOf(rows)
  if (newest === null || newest.rows.some((row) => row.until_ms <= atMs)) return []
  if (agent === undefined) return newest.roles
  const own = rows.find((row) => row.agent === agent && row.until_ms > atMs)
  return newest.roles.filter((role) => own?.roles.includes(role) === true)
}

/**
 * The row to write for what was `seen` at `nowMs`, or null: only what changes an answer of `rolesSeen`, now or before half
 * of its time is over. So in whatever order and however often a caller shows the tokens it has, there are no more rows
 * written than there are tokens.
 */
export function rowFor(rows: readonly SeenRoles[], seen: SeenRoles, nowMs: number): SeenRoles | null {
  const newest = newestOf(rows)
  if (newest === null) return seen
  const before = rows.find((row) => row.agent === seen.agent)
  if (before !== undefined && before.as_of_ms > seen.as_of_ms) return null
  // Of two tokens of one second counts what both say: nobody knows which is the newer.
  const roles =
    before?.as_of_ms === seen.as_of_ms ? seen.roles.filter((role) => before.roles.includes(role)) : seen.roles
  const row = { ...seen, roles }
  // Nothing is taken away or given back by a token that is older than the newest, or says what that one says.
  const settled =
    seen.as_of_ms < newest.as_of_ms ||
    (within(newest.roles, roles) && (seen.as_of_ms === newest.as_of_ms || within(roles, newest.roles)))
  if (!settled) return row
  if (before === undefined) return roles.length > 0 ? row : null
  const same = within(roles, before.roles) && within(before.roles, roles)
  return same && before.until_ms - nowMs >= (seen.until_ms - nowMs) / 2 ? null : row
}

/** The rows of the newest time, and what all of them say. */
function newestOf(rows: readonly SeenRoles[]): {
  readonly as_of_ms: number
  readonly roles: readonly string[]
  readonly rows: readonly SeenRoles[]
} | null {
  const as_of_ms = Math.max(...rows.map((row) => row.as_of_ms))
  const last = rows.filter((row) => row.as_of_ms === as_of_ms)
  const [first] = last
  if (first === undefined) return null
  return { as_of_ms, rows: last, roles: first.roles.filter((role) => last.every((row) => row.roles.includes(role))) }
}

function within(some: readonly string[], all: readonly string[]): boolean {
  return some.every((one) => all.includes(one))
}

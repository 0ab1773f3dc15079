import { WritError } from '../error.ts'
import { askStarted } from './broker.ts'
import { type Context, yes } from './context.ts'
import { show, table } from './print.ts'

export interface TokenOptions {
  readonly subject: string
  readonly service?: boolean | undefined
  readonly agent?: string | undefined
  readonly tenant: string
  readonly role: readonly string[]
  readonly expires: string
}

/** Prints the token once; nobody can print it again. */
export async function tokenCreate(context: Context, options: TokenOptions): Promise<number> {
  const made = await askStarted(context, 'token_create', {
    tenant: options.tenant,
    subject: { type: options.service === true ? 'service' : 'user', id: options.subject },
    agent: options.agent ?? `${options.subject}-agent`,
    roles: options.role,
    valid_ms: validity(options.expires),
  })
  const { token_id, tenant, subject, agent, roles, expires } = made
  // The token alone on standard output, so that `writ token create … > file` leaves a file with a token in it.
  if (!context.json) {
    const holds = roles.length === 0 ? 'no role, so policy will refuse it most things' : roles.join(', ')
    context.note(`${token_id} for ${subject} through ${agent}, tenant ${tenant}, until ${expires}: ${holds}.`)
    context.note('This is the only time it is shown; Writ keeps a hash of it.')
  }
  show(context, made, () => made.token)
  return yes
}

export async function tokenList(context: Context): Promise<number> {
  const answer = await askStarted(context, 'token_list')
  const now = new Date().toISOString()
  show(context, answer, () =>
    table(
      ['token', 'state', 'tenant', 'subject', 'agent', 'roles', 'expires'],
      answer.tokens.map((one) => [
        one.token_id,
        one.revoked !== null ? 'revoked' : one.expires <= now ? 'expired' : 'live',
        one.tenant,
        one.subject,
        one.agent,
        one.roles.join(', '),
        one.expires,
      ]),
    ),
  )
  return yes
}

export async function tokenRevoke(context: Context, id: string): Promise<number> {
  const answer = await askStarted(context, 'token_revoke', { token_id: id })
  show(context, answer, () => `${id} is revoked; what was open under it has ended.`)
  return yes
}

const units = new Map([
  ['s', 1000],
  ['m', 60_000],
  ['h', 3_600_000],
  ['d', 86_400_000],
])

function validity(text: string): number {
  const match = /^(\d{1,9})([smhd])$/.exec(text)
  const unit = units.get(match?.[2] ?? '')
  if (match === null || unit === undefined)
    throw new WritError('usage', '--expires takes a number and s, m, h or d, such as 30d.')
  return Number(match[1]) * unit
}

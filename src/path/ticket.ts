import { createHash, randomBytes } from 'node:crypto'
import type { Upload } from '../artifact/artifact.ts'
import type { Clock } from '../clock.ts'
import type { Digest } from '../digest.ts'
import { WritError } from '../error.ts'
import type { ExecutionId, TaskId } from '../id.ts'
import type { Caller } from '../request/caller.ts'
import type { Promised } from './storage.ts'

interface Bound {
  /** Who asked for it; redeeming it is decided as theirs. */
  readonly caller: Caller
  readonly size: number
  readonly sha256: Digest
  readonly path: string
}

export interface UploadTicket extends Bound {
  readonly kind: 'upload'
  readonly task: TaskId
  readonly unpack: boolean
  readonly upload: Upload
  /** What of it the quota counts still as to come. */
  readonly promised: Promised
  /** The request that is being served; one at a time. */
  serving: AbortController | null
}

export interface DownloadTicket extends Bound {
  readonly kind: 'download'
  readonly execution: ExecutionId
  readonly serving: Set<AbortController>
}

export type Ticket = UploadTicket | DownloadTicket

type End = 'used' | 'expired' | 'failed' | 'replaced' | 'over'

/**
 * The live tickets. A ticket is 256 random bits of which only the hash is kept; nothing of it is written down, so a
 * restart ends them all, and what a client hears then is what it hears of a ticket that never was.
 */
export interface Tickets {
  issue(ticket: Ticket): { readonly token: string; readonly expires_at_ms: number }
  /** Throws `not_found`, `transfer_expired`, `transfer_used`, and `denied` where the token it was given for is over. */
  find(token: string): Ticket
  /** Ends a ticket; one that `failed` or whose caller's token is `over` ends the requests under it as well. */
  end(ticket: Ticket, why: End): Promise<void>
  /** Ends what is past its time; a request that began in time goes on. */
  expire(): Promise<void>
  live(): readonly Ticket[]
  lives(ticket: Ticket): boolean
}

/** How long a ticket may be used, in milliseconds. */
export const ticketMs = 600_000
/** How long it is remembered how a ticket ended. */
const rememberMs = 3_600_000
const maxEnded = 10_000

export function openTickets(clock: Clock): Tickets {
  const live = new Map<string, { readonly ticket: Ticket; readonly until: number }>()
  const ended = new Map<string, { readonly why: End; readonly until: number }>()

  async function close(hash: string, ticket: Ticket, why: End): Promise<void> {
    live.delete(hash)
    if (ended.size >= maxEnded) ended.delete(ended.keys().next().value ?? '')
    ended.set(hash, { why, until: clock.monotonic() + rememberMs })
    // While a request writes to it, that request gives the upload up when it ends.
    if (ticket.kind === 'upload' && ticket.serving === null) await ticket.upload.discard()
  }

  return {
    issue(ticket) {
      const token = randomBytes(32).toString('base64url')
      live.set(hashOf(token), { ticket, until: clock.monotonic() + ticketMs })
      const { shown } = ticket.caller.auth
      return { token, expires_at_ms: Math.min(clock.now() + ticketMs, shown?.until_ms ?? Infinity) }
    },
    find(token) {
      const hash = hashOf(token)
      const found = live.get(hash)
      if (found !== undefined && found.until > clock.monotonic()) return found.ticket
      const why = found === undefined ? ended.get(hash)?.why : 'expired'
      switch (why) {
        case undefined:
          throw new WritError('not_found', 'There is no such transfer; a restart of Writ ends those there were.', {
            remedy: 'Ask for a new URL with the same call as before.',
          })
        case 'expired':
          throw new WritError('transfer_expired', 'The time of this URL is over.')
        case 'used':
          throw new WritError('transfer_used', 'This URL was used: it takes one file, once.')
        case 'failed':
          throw new WritError('transfer_used', 'This URL was used by a transfer that was refused.')
        case 'over':
          throw tokenOver()
        case 'replaced':
          throw new WritError('transfer_expired', 'A newer URL for the same file takes the place of this one.')
      }
    },
    async end(ticket, why) {
      for (const [hash, known] of live) {
        if (known.ticket !== ticket) continue
        if (why === 'failed') for (const request of servingOf(ticket)) request.abort()
        if (why === 'over') for (const request of servingOf(ticket)) request.abort(tokenOver())
        await close(hash, ticket, why)
        return
      }
    },
    async expire() {
      const now = clock.monotonic()
      for (const [hash, { ticket, until }] of live)
        if (until <= now && servingOf(ticket).length === 0) await close(hash, ticket, 'expired')
      for (const [hash, { until }] of ended) if (until <= now) ended.delete(hash)
    },
    live: () => [...live.values()].map(({ ticket }) => ticket),
    lives: (ticket) => [...live.values()].some((known) => known.ticket === ticket),
  }
}

export function servingOf(ticket: Ticket): readonly AbortController[] {
  if (ticket.kind === 'download') return [...ticket.serving]
  return ticket.serving === null ? [] : [ticket.serving]
}

export function tokenOver(): WritError {
  return new WritError('denied', 'The token this URL was asked for with was revoked or has expired.', {
    remedy: 'Ask for a new URL, with a token that is in force.',
  })
}

function hashOf(token: string): string {
  return createHash('sha256').update(token).digest('hex')
}

import { type Digest, parseDigest } from '../digest.ts'
import { WritError } from '../error.ts'
import type { Results } from '../execution/result.ts'
import { isOver } from '../request/caller.ts'
import { applyFiles, maxCallBytes, maxUploadBytes, pathProblem, showPath } from '../request/files.ts'
import { admit } from './admit.ts'
import { type Body, checkRange, paced, stopped, verified } from './bytes.ts'
import type { Given, TransferDesk } from './desk.ts'
import { nowOf, type Parts } from './parts.ts'
import type { Refusals } from './refusals.ts'
import { attachUpload } from './submit.ts'
import { orphansBefore, sweepOrphans } from './sweep.ts'
import { type DownloadTicket, openTickets, servingOf, type Ticket, tokenOver, type UploadTicket } from './ticket.ts'

/** Where one-time URLs point: the public URL, or a listener on loopback that opens with the first ticket. */
export interface Place {
  /** The URL without a slash at its end. */
  url(): Promise<string>
  /** A ticket lives that this URL was asked for, whatever others there were meanwhile. */
  keep(): void
  /** No ticket lives any more. */
  release(): void
}

export interface TransferOptions {
  readonly place: Place
  /** Artifacts that are in use though no step names them. */
  readonly spared: (digest: Digest) => boolean
  /** Milliseconds in which at least `leastBytes` of a body have to come; 30,000 unless told. */
  readonly paceMs?: number
  /** Milliseconds a body may take in all; an hour unless told. */
  readonly bodyMs?: number
}

/** Bytes of the disk that no upload may take: the ledger's records of everything else come first. */
const diskKeptFree = 16 * 1024 * 1024
const mostAsked = 4
const askAgainMs = 250
/** Requests at once under one download ticket. */
const maxServing = 4

export function openTransfers(parts: Parts, refusals: Refusals, options: TransferOptions): TransferDesk {
  const tickets = openTickets(parts.clock)
  const { storage } = parts
  let closed = false

  const of = (tenant: string): readonly Ticket[] => tickets.live().filter((ticket) => ticket.caller.tenant === tenant)
  const moving = (tenant: string): number => of(tenant).reduce((sum, ticket) => sum + servingOf(ticket).length, 0)

  storage.count((tenant) => of(tenant).reduce((sum, one) => sum + (one.kind === 'upload' ? one.promised.bytes : 0), 0))

  /** Waits for nothing: what `make` counted is still so when its ticket lives. */
  function give(base: string, make: () => Ticket): Given {
    try {
      if (closed) throw new WritError('conflict', 'Writ is stopping.')
      const { token, expires_at_ms } = tickets.issue(make())
      options.place.keep()
      return { url: `${base}/transfer/${token}`, expires_at: new Date(expires_at_ms).toISOString() }
    } finally {
      release()
    }
  }

  async function end(ticket: Ticket, why: 'used' | 'failed' | 'over'): Promise<void> {
    await tickets.end(ticket, why)
    release()
  }

  function release(): void {
    if (tickets.live().length === 0) options.place.release()
  }

  /** The same caller asking again for the same file needs one ticket, not two. */
  async function replace(like: Pick<Ticket, 'kind' | 'caller' | 'path'> & { readonly of: string }): Promise<void> {
    for (const ticket of of(like.caller.tenant)) {
      const owner = ticket.kind === 'upload' ? ticket.task : ticket.execution
      if (ticket.kind !== like.kind || owner !== like.of || ticket.path !== like.path) continue
      if (ticket.caller.subject.id !== like.caller.subject.id || servingOf(ticket).length > 0) continue
      await tickets.end(ticket, 'replaced')
    }
  }

  function uploadOf(token: string): UploadTicket {
    const ticket = tickets.find(token)
    if (ticket.kind !== 'upload') throw new WritError('method_not_allowed', 'This URL gives a file and takes none.')
    return ticket
  }

  function downloadOf(token: string): DownloadTicket {
    const ticket = tickets.find(token)
    if (ticket.kind !== 'download') throw new WritError('method_not_allowed', 'This URL takes a file and gives none.')
    return ticket
  }

  function claim(ticket: Ticket): AbortController {
    if (closed) throw new WritError('conflict', 'Writ is stopping.')
    if (servingOf(ticket).length >= (ticket.kind === 'upload' ? 1 : maxServing))
      throw new WritError('transfer_busy', 'Another request on this URL has not ended.')
    if (moving(ticket.caller.tenant) >= storage.quotas().transfers)
      throw new WritError('quota_exceeded', 'Your tenant has as many transfers at once as it may have.', {
        remedy: 'Try again when another transfer has ended.',
      })
    const stop = new AbortController()
    if (ticket.kind === 'upload') ticket.serving = stop
    else ticket.serving.add(stop)
    return stop
  }

  function letGo(ticket: Ticket, stop: AbortController): void {
    if (ticket.kind === 'upload') ticket.serving = null
    else ticket.serving.delete(stop)
  }

  /**
   * What was allowed when the URL was given may not be any more: every use of it is a request of its own, with the roles
   * that are left now. A token that is over leaves nothing, whoever else holds its roles.
   */
  async function decide(ticket: Ticket): Promise<void> {
    if (await endWhereOver(ticket)) throw tokenOver()
    const lost = rolesLost(ticket)
    const caller = { ...ticket.caller, roles: ticket.caller.roles.filter((role) => !lost.includes(role)) }
    const message =
      ticket.kind === 'upload'
        ? {
            name: 'upload_artifact',
            arguments: {
              task_id: ticket.task,
              upload: { path: ticket.path, size: ticket.size, sha256: ticket.sha256, unpack: ticket.unpack },
            },
          }
        : { name: 'get_result', arguments: { execution_id: ticket.execution, file: ticket.path } }
    for (let asked = 1; ; asked++) {
      const admission = await admit(parts, refusals, caller, message)
      if (admission.allowed) return
      // A policy that was too busy to answer said no; before a gigabyte is thrown away it is asked again.
      if (admission.reason.code !== 'deadline' || asked === mostAsked)
        throw new WritError('denied', admission.reason.message, { remedy: admission.reason.remedy })
      await new Promise((resolve) => setTimeout(resolve, askAgainMs))
    }
  }

  /** A URL lives no longer than the token it was asked for with. */
  async function endWhereOver(ticket: Ticket): Promise<boolean> {
    const over = isOver(ticket.caller, nowOf(parts))
    if (over) await end(ticket, 'over')
    return over
  }

  /** Bytes that move stop, within a second, with the token and with the roles they were allowed for. */
  async function endWhereDenied(ticket: Ticket): Promise<void> {
    const requests = servingOf(ticket)
    if (await endWhereOver(ticket)) return
    if (requests.length === 0 || rolesLost(ticket).length === 0) return
    try {
      await decide(ticket)
    } catch (failure) {
      if (failure instanceof WritError && failure.code === 'denied') for (const one of requests) one.abort(failure)
      else parts.log.error({ err: failure }, 'a transfer under way could not be decided again')
    }
  }

  function rolesLost({ caller: { tenant, subject, agent, roles } }: Ticket): readonly string[] {
    const now = parts.rolesOf(tenant, subject.id, agent.id)
    return roles.filter((role) => !now.includes(role))
  }

  async function checkDisk(bytes: number): Promise<void> {
    if (parts.ledger.room() === 'low' || (await parts.artifacts.room()) < bytes + diskKeptFree)
      throw new WritError('no_space', 'the disk that holds the artifacts has no room for this upload')
  }

  /** The whole of what `receive` does once the ticket is its own. */
  async function take(
    ticket: UploadTicket,
    body: Body,
    stop: AbortController,
  ): Promise<Results['upload_artifact'] | null> {
    const { upload, size } = ticket
    await decide(ticket)
    if (body.range === null && upload.offset > 0) await upload.discard()
    await checkDisk(body.length)
    const upTo = upload.offset + body.length
    await upload.append(paced(body.pieces, stop, options.paceMs ?? 30_000, options.bodyMs ?? 3_600_000), body.length)
    if (upload.offset < upTo) throw new WritError('transfer_cut', `Only ${upload.offset} of ${size} bytes arrived.`)
    if (upload.offset < size) return null
    try {
      if ((await upload.finish()) !== ticket.sha256)
        throw new WritError('digest_mismatch', 'The bytes that arrived do not have the SHA-256 this URL was asked for.')
      if (stop.signal.aborted) throw stopped(stop.signal)
      // A gigabyte later, the answer may be another one.
      await decide(ticket)
      using allowance = await storage.allowance(ticket.caller.tenant, ticket.promised)
      const result = await attachUpload(parts, allowance, ticket)
      await end(ticket, 'used')
      return result
    } catch (failure) {
      ticket.serving = null
      await end(ticket, 'failed')
      throw failure
    }
  }

  return {
    async issueUpload(caller, task, wanted) {
      const { path, size, unpack = false } = wanted
      const sha256 = parseDigest(`sha256:${wanted.sha256.replace(/^sha256:/, '')}`)
      if (sha256 === null) throw new WritError('invalid_arguments', '"upload.sha256" must be 64 lower-case hex digits.')
      if (size > maxUploadBytes) throw new WritError('too_large', 'A file of an upload has at most 1 GiB.')
      if (unpack && size > maxCallBytes)
        throw new WritError('too_large', 'An archive that is to be unpacked has at most 64 MiB, packed and unpacked.', {
          remedy: 'Split the archive, or upload it without "unpack" and let the run unpack it.',
        })
      if (unpack) {
        const problem = path === '.' ? null : pathProblem(path.replace(/\/$/, ''))
        if (problem !== null) throw new WritError('invalid_file', `file ${showPath(path)}: ${problem}`)
      } else await applyFiles(task.files, { stored: [{ path, sha256, size }] }, nothing, nothing)
      await replace({ kind: 'upload', caller, path, of: task.id })
      await checkDisk(size)
      using allowance = await storage.allowance(caller.tenant)
      const base = await options.place.url()
      return give(base, () => {
        const most = storage.quotas().tickets
        if (of(caller.tenant).length >= most)
          throw new WritError('quota_exceeded', `Your tenant has ${most} one-time URLs already.`, {
            remedy: 'Use those you have, or wait until they expire.',
          })
        allowance.check(sha256, size)
        const upload = parts.artifacts.receive()
        const promised = { bytes: size }
        return { kind: 'upload', caller, task: task.id, path, size, sha256, unpack, upload, promised, serving: null }
      })
    },
    async issueDownload(caller, execution, { path, size, sha256 }) {
      await replace({ kind: 'download', caller, path, of: execution.id })
      const base = await options.place.url()
      if (of(caller.tenant).length >= storage.quotas().tickets) return null
      const bound = { caller, execution: execution.id, path, size, sha256 }
      return give(base, () => ({ kind: 'download', ...bound, serving: new Set() }))
    },
    kindOf: (token) => tickets.find(token).kind,
    async progress(token) {
      const ticket = uploadOf(token)
      await decide(ticket)
      return { offset: ticket.upload.offset, size: ticket.size }
    },
    async receive(token, body) {
      const ticket = uploadOf(token)
      checkRange(ticket, body)
      const stop = claim(ticket)
      try {
        const result = await take(ticket, body, stop)
        return { offset: result === null ? ticket.upload.offset : ticket.size, size: ticket.size, result }
      } finally {
        letGo(ticket, stop)
        if (!tickets.lives(ticket)) await ticket.upload.discard()
        release()
      }
    },
    async describe(token) {
      const ticket = downloadOf(token)
      await decide(ticket)
      return { path: ticket.path, size: ticket.size, sha256: ticket.sha256 }
    },
    async *send(token, from, to, ended) {
      const ticket = downloadOf(token)
      const stop = claim(ticket)
      stop.signal.addEventListener('abort', () => ended(stopped(stop.signal)), { once: true })
      try {
        yield* verified(await parts.artifacts.open(ticket.sha256), ticket, from, to, stop.signal)
      } finally {
        letGo(ticket, stop)
        release()
      }
    },
    async sweep(beforeMs) {
      const live = new Set(tickets.live().map((ticket) => ticket.sha256))
      return await sweepOrphans(
        parts.artifacts,
        storage.holdings,
        (digest) => live.has(digest) || options.spared(digest),
        beforeMs ?? orphansBefore(parts, parts.clock.now()),
      )
    },
    async tick() {
      if (tickets.live().length === 0) return
      await tickets.expire()
      await Promise.all(tickets.live().map(endWhereDenied))
      release()
    },
    async close() {
      closed = true
      for (const ticket of tickets.live()) await tickets.end(ticket, 'failed')
      release()
    },
    get live() {
      return tickets.live().length
    },
  }
}

/** What is only looked at is neither read nor stored. */
function nothing(): never {
  throw new WritError('internal', 'a check that touches no bytes')
}

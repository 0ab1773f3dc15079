import { lookup as dnsLookup } from 'node:dns/promises'
import * as http from 'node:http'
import * as https from 'node:https'
import { isIP, isIPv6 } from 'node:net'
import type { LookupFunction } from 'node:net'
import type { Clock } from '../clock.ts'
import { systemCode } from '../error.ts'
import type { PlanService } from '../plan/plan.ts'
import { mayDial, rangesOf } from './address.ts'
import { decode, type Download, headersOf, isArchive, mostResponseBytes, piecesOf } from './answer.ts'
import { Refusal } from './refusal.ts'

/** How long a service may take to be reached, and to say the next thing. */
export interface Patience {
  readonly connectMs: number
  readonly idleMs: number
  /** From the request to the end of the headers of its answer, however they trickle. */
  readonly headersMs: number
}

const defaultPatience: Patience = { connectMs: 10_000, idleMs: 30_000, headersMs: 60_000 }
/** How long an address that was checked is dialled again without asking the resolver. */
const addressMs = 30_000

/** All addresses of a host name, in order of preference. */
export type Resolve = (hostname: string) => Promise<readonly string[]>

const resolveBySystem: Resolve = async (hostname) =>
  (await dnsLookup(hostname, { all: true, verbatim: true })).map(({ address }) => address)

export interface UpstreamResponse {
  readonly status: number
  /** Names as the service spelt them. */
  readonly headers: readonly (readonly [string, string])[]
  /** Without its content coding. Null where the coding could not be taken off: then `encoded` has the bytes. */
  readonly body: Buffer | null
  readonly encoded: Buffer
  /** A download that follows `body`, which is empty then. */
  readonly rest: Download | null
}

/** Room for the bytes of answers, shared by all requests of a run: false where there is none left. */
export type Take = (bytes: number) => boolean

/** One service of a run: its own connections, shared with nothing. */
export interface Upstream {
  readonly host: string
  readonly port: number
  readonly secure: boolean
  /** The one address to dial now, checked. Throws `address_refused`, `upstream_unresolved`, `connect_timeout`. */
  address(signal: AbortSignal): Promise<string>
  /** Sends one request to that address and takes the whole answer. Redirects are answers. Throws `Refusal`s only. */
  send(
    address: string,
    request: {
      readonly method: string
      readonly path: string
      readonly headers: readonly (readonly [string, string])[]
      readonly body: Uint8Array
      /** Bytes of an archive that may come in pieces; 0 where none may. */
      readonly mostDownload: number
    },
    take: Take,
    signal: AbortSignal,
  ): Promise<UpstreamResponse>
  close(): void
}

/** Throws `Refusal` where the service of the plan is none that can be reached. */
export function openUpstream(
  service: PlanService,
  clock: Clock,
  resolve: Resolve = resolveBySystem,
  patience: Patience = defaultPatience,
): Upstream {
  const { connectMs, idleMs, headersMs } = patience
  const url = new URL(service.url)
  const secure = url.protocol === 'https:'
  if (
    (!secure && url.protocol !== 'http:') ||
    url.username !== '' ||
    url.password !== '' ||
    url.search !== '' ||
    url.hash !== ''
  )
    throw new Refusal('internal')
  // WHATWG parsing has made one spelling of every form of an address by now.
  const host = url.hostname.replace(/^\[|\]$/g, '').replace(/\.$/, '')
  const port = Number(url.port) || (secure ? 443 : 80)
  const base = url.pathname.replace(/\/$/, '')
  const listed = rangesOf(service.addresses)
  const agent = secure
    ? new https.Agent({ keepAlive: true, maxSockets: 32, timeout: idleMs })
    : new http.Agent({ keepAlive: true, maxSockets: 32, timeout: idleMs })
  let decoding: Promise<unknown> = Promise.resolve()
  let checked: { readonly address: string; readonly until: number } | null = null

  const address: Upstream['address'] = async (signal) => {
    if (checked !== null && checked.until > clock.monotonic()) return checked.address
    const found = isIP(host) === 0 ? await within(connectMs, signal, resolve(host)) : [host]
    const permitted = found.find((one) => mayDial(one, listed))
    if (permitted === undefined) throw new Refusal(found.length === 0 ? 'upstream_unresolved' : 'address_refused')
    checked = { address: permitted, until: clock.monotonic() + addressMs }
    return permitted
  }

  const once = (
    to: string,
    request: Parameters<Upstream['send']>[1],
    take: Take,
    signal: AbortSignal,
    reuse: boolean,
  ): Promise<UpstreamResponse | 'stale'> => {
    const { promise, resolve: settle, reject } = Promise.withResolvers<UpstreamResponse | 'stale'>()
    const pinned: LookupFunction = (_hostname, options, callback) => {
      const family = isIPv6(to) ? 6 : 4
      if (options.all === true) callback(null, [{ address: to, family }])
      else callback(null, to, family)
    }
    const headers = [...request.headers.flat(), 'accept-encoding', 'identity', 'host', url.host]
    if (request.body.length > 0 || !/^(GET|HEAD|OPTIONS|DELETE|LIST)$/.test(request.method))
      headers.push('content-length', String(request.body.length))
    const outgoing = (secure ? https : http).request({
      agent: reuse ? agent : false,
      host,
      port,
      method: request.method,
      path: base + request.path,
      headers,
      setHost: false,
      lookup: pinned,
      signal,
      maxHeaderSize: 16_384,
      insecureHTTPParser: false,
      ...(secure
        ? {
            servername: isIP(host) === 0 ? host : '',
            rejectUnauthorized: true,
            minVersion: 'TLSv1.2' as const,
            ...(service.ca === null ? {} : { ca: service.ca }),
          }
        : {}),
    })
    let connecting: NodeJS.Timeout | undefined
    let waiting: NodeJS.Timeout | undefined
    const fail = (refusal: Refusal): void => {
      clearTimeout(connecting)
      clearTimeout(waiting)
      reject(refusal)
      outgoing.destroy()
    }
    connecting = setTimeout(() => fail(new Refusal('connect_timeout')), connectMs)
    outgoing.on('socket', (socket) => {
      if (outgoing.reusedSocket) clearTimeout(connecting)
      else socket.once(secure ? 'secureConnect' : 'connect', () => clearTimeout(connecting))
    })
    waiting = setTimeout(() => fail(new Refusal('upstream_timeout')), headersMs)
    // While a sandbox does not read what came, nothing more is asked of the service.
    const download = { held: false, late: false }
    outgoing.setTimeout(idleMs)
    outgoing.on('timeout', () => {
      if (download.held) download.late = true
      else fail(new Refusal('upstream_timeout'))
    })
    outgoing.on('upgrade', (_response, socket) => {
      socket.destroy()
      fail(new Refusal('upstream_protocol'))
    })
    let answered = false
    outgoing.on('error', (failure) => {
      if (reuse && outgoing.reusedSocket && !answered && systemCode(failure) === 'ECONNRESET') settle('stale')
      fail(classOf(failure, signal, answered))
    })
    outgoing.on('response', (response) => {
      answered = true
      clearTimeout(connecting)
      clearTimeout(waiting)
      // No `te` was sent, so nothing but chunks may lie around the body; what does hides it from the redactor.
      const coding = response.headers['transfer-encoding']?.trim().toLowerCase() ?? 'chunked'
      if (coding !== 'chunked') return fail(new Refusal('response_encoded'))
      if (request.mostDownload > 0 && isArchive(response)) {
        const { promise: closed, resolve: over } = Promise.withResolvers<void>()
        response.once('close', over)
        const pieces = piecesOf(
          response,
          request.mostDownload,
          () => classOf(null, signal, true),
          (held) => {
            download.held = held
            if (held || !download.late) return
            download.late = false
            outgoing.setTimeout(idleMs)
          },
        )
        const empty = Buffer.alloc(0)
        const rest = { pieces, closed }
        return settle({
          status: response.statusCode ?? 502,
          headers: headersOf(response),
          body: empty,
          encoded: empty,
          rest,
        })
      }
      const parts: Buffer[] = []
      let size = 0
      response.on('data', (part: Buffer) => {
        size += part.length
        if (size > mostResponseBytes) fail(new Refusal('response_too_large'))
        else if (!take(part.length)) fail(new Refusal('too_many_at_once'))
        else parts.push(part)
      })
      response.on('error', () => fail(classOf(null, signal, true)))
      response.on('aborted', () => fail(classOf(null, signal, true)))
      response.on('end', () => {
        if (!response.complete) return fail(new Refusal('upstream_closed'))
        const encoded = Buffer.concat(parts)
        const headers = headersOf(response)
        // One at a time, so that what unpacks to much cannot do so many times over at once.
        decoding = decoding
          .then(() => decode(headers, encoded))
          .then(
            (body) => {
              if (body !== null && body !== encoded && !take(body.length)) return fail(new Refusal('too_many_at_once'))
              settle({ status: response.statusCode ?? 502, headers, body, encoded, rest: null })
            },
            (failure: unknown) => fail(failure instanceof Refusal ? failure : new Refusal('internal')),
          )
      })
    })
    outgoing.end(request.body)
    return promise
  }

  return {
    host,
    port,
    secure,
    address,
    async send(to, request, take, signal) {
      // A pooled connection may be closed by the other end just now. Only what may be sent twice is sent over one.
      const repeatable = /^(GET|HEAD|OPTIONS|LIST)$/.test(request.method)
      try {
        const answer = await once(to, request, take, signal, repeatable)
        if (answer !== 'stale') return answer
        const again = await once(to, request, take, signal, false)
        if (again !== 'stale') return again
        throw new Refusal('upstream_closed')
      } catch (failure) {
        // A service that moved is looked for again.
        if (failure instanceof Refusal && /^(upstream_unreachable|connect_timeout)$/.test(failure.code)) checked = null
        throw failure
      }
    },
    close: () => agent.destroy(),
  }
}

/** A class for an error of Node or OpenSSL, whose text names addresses and files. */
function classOf(failure: Error | null, signal: AbortSignal, answered: boolean): Refusal {
  if (signal.aborted) return new Refusal('cancelled')
  const code = systemCode(failure) ?? ''
  if (code.startsWith('HPE_')) return new Refusal('upstream_protocol')
  if (/CERT|TLS|SSL|SELF_SIGNED|SIGNATURE|ISSUER|EPROTO/.test(code)) return new Refusal('upstream_tls')
  if (answered || code === 'ECONNRESET' || code === 'EPIPE') return new Refusal('upstream_closed')
  if (code === 'ETIMEDOUT') return new Refusal('connect_timeout')
  return new Refusal(code === '' || code.startsWith('ERR_') ? 'internal' : 'upstream_unreachable')
}

async function within<T>(ms: number, signal: AbortSignal, work: Promise<T>): Promise<T> {
  const { promise: stopped, reject } = Promise.withResolvers<never>()
  const timer = setTimeout(() => reject(new Refusal('connect_timeout')), ms)
  const abort = (): void => reject(new Refusal('cancelled'))
  signal.addEventListener('abort', abort, { once: true })
  if (signal.aborted) abort()
  try {
    return await Promise.race([work, stopped])
  } catch (failure) {
    throw failure instanceof Refusal ? failure : new Refusal('upstream_unresolved')
  } finally {
    clearTimeout(timer)
    signal.removeEventListener('abort', abort)
  }
}

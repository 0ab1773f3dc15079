import { setImmediate } from 'node:timers/promises'
import { type Clock, systemClock } from '../clock.ts'
import type { Redactor } from '../credential/redact.ts'
import type { Secret } from '../credential/secret.ts'
import type { Plan, PlanService } from '../plan/plan.ts'
import type { Decision, PolicyInput } from '../policy/policy.ts'
import { isLoopback } from './address.ts'
import type { EgressCounts, EgressPort, EgressRequest, EgressResponse } from './egress.ts'
import { Refusal } from './refusal.ts'
import { gatewayOrigin, isDroppedOfResponse, type ParsedRequest, parseRequest, serviceNamed } from './request.ts'
import { createSwap } from './swap.ts'
import type { Download } from './answer.ts'
import { openUpstream, type Patience, type Resolve, type Upstream, type UpstreamResponse } from './upstream.ts'

const mostAtOnce = 32
/** Of all answers under way in one run, as they came and decoded. */
const mostBytesAtOnce = 33_554_432
const sliceBytes = 262_144
/** Codes come from policies too, so the list is held short; what is over stands in the total. */
const mostRefusalKinds = 64

export interface Gateway extends EgressPort {
  counts(): EgressCounts
  /** Ends what is under way and closes every connection. A later request is answered `cancelled`. */
  close(): Promise<void>
}

/**
 * The only way out of a run: it knows where the services of the plan are, asks policy for each request, puts the
 * credential in and takes it out of the answer. One per run;
 * nothing is shared with another. `secrets` are named like the credentials of the plan. `decide` is phase `egress`:
 * anything but a clean allow stops the request. `redactor` learns what services issue; answers pass it with the
 * placeholders in place of the marker. `resolve` is asked for the addresses of a name, by default the system;
 * `patience` is 10 s to be reached, 60 s to begin to answer and 30 s between bytes unless said otherwise.
 */
export function openGateway(options: {
  readonly plan: Plan
  readonly placeholders: Readonly<Record<string, string>>
  readonly secrets: readonly Secret[]
  readonly redactor: Redactor
  readonly decide: (call: NonNullable<PolicyInput['context']['call']>) => Promise<Decision>
  readonly clock?: Clock
  readonly resolve?: Resolve
  readonly patience?: Patience
}): Gateway {
  const { plan, decide, clock = systemClock } = options
  const services = new Map<string, PlanService>(plan.services.map((service) => [service.name, service]))
  const upstreams = new Map<string, Upstream>()
  const swap = createSwap(options)
  const answers = options.redactor.answering(options.placeholders)
  const closing = new AbortController()
  const underWay = new Set<Promise<unknown>>()
  const refusals = new Map<string, { readonly code: string; readonly service: string; count: number }>()
  let allowed = 0
  let blocked = 0
  let asked = 0
  let room = mostBytesAtOnce

  const upstreamOf = (service: PlanService): Upstream => {
    const known = upstreams.get(service.name)
    if (known !== undefined) return known
    const opened = openUpstream(service, clock, options.resolve, options.patience)
    upstreams.set(service.name, opened)
    return opened
  }

  const admit = async (service: PlanService, upstream: Upstream, parsed: ParsedRequest): Promise<void> => {
    const { host, port } = upstream
    const { method, path, body } = parsed
    let decision: Decision
    try {
      decision = await decide({
        service: service.name,
        host,
        port,
        method,
        path,
        size: body.length,
        credential: service.credential,
      })
    } catch {
      // Whatever kept policy from answering, it is a no.
      throw new Refusal('policy_unavailable')
    }
    if (decision.effect === 'allow') return
    const code = decision.reasons[0]?.code ?? ''
    throw new Refusal('policy', /^[a-z][a-z0-9_]{0,63}$/.test(code) ? code : 'denied')
  }

  const pass = async (request: EgressRequest, signal: AbortSignal): Promise<EgressResponse> => {
    const parsed = parseRequest(request)
    const service = services.get(parsed.service)
    if (service === undefined) throw new Refusal('unknown_service')
    const upstream = upstreamOf(service)
    await admit(service, upstream, parsed)
    const address = await upstream.address(signal)
    const { headers, exposes } = swap.request(service, parsed)
    if (exposes && !upstream.secure && !isLoopback(address)) throw new Refusal('cleartext_refused')
    if (signal.aborted) throw new Refusal('cancelled')
    allowed += 1
    let taken = 0
    const take = (bytes: number): boolean => {
      if (bytes > room) return false
      room -= bytes
      taken += bytes
      return true
    }
    try {
      const { method, body } = parsed
      const path = parsed.path + parsed.query
      const mostDownload = request.pieces === true && method === 'GET' ? (service.download_mb ?? 0) * 1_048_576 : 0
      const answer = await upstream.send(address, { method, path, headers, body, mostDownload }, take, signal)
      const cleaned = await clean(service, answer)
      const { rest } = answer
      if (rest === null) return cleaned
      underWay.add(rest.closed)
      void rest.closed.then(() => underWay.delete(rest.closed))
      return { ...cleaned, rest: downloaded(request.url, rest) }
    } catch (failure) {
      // Sent, but its answer is withheld: that counts as blocked.
      if (failure instanceof Refusal && failure.blocked) allowed -= 1
      throw failure
    } finally {
      room += taken
    }
  }

  const clean = async (service: PlanService, response: UpstreamResponse): Promise<EgressResponse> => {
    if (response.status < 200 || response.status > 599) throw new Refusal('upstream_protocol')
    if (response.body === null && swap.holds) throw new Refusal('response_encoded')
    const plain = response.body ?? response.encoded
    swap.learn(service, response.headers.find(([name]) => /^content-type$/i.test(name))?.[1] ?? '', plain)
    const headers: [string, string][] = []
    for (const [spelt, value] of response.headers) {
      const name = spelt.toLowerCase()
      // Without its coding only what could be decoded is handed on; anything else says what it is.
      const said = name === 'content-encoding' && response.body === null
      // Looked at as the service spelt it, and in lower case, as which it would be shown.
      const spells = swap.names(name) || answers.bytes(Buffer.from(spelt, 'latin1')).hits > 0
      if (spells || (!said && isDroppedOfResponse(name))) continue
      const shown = name === 'location' ? inSandbox(service, value) : value
      headers.push([name, answers.bytes(Buffer.from(shown, 'latin1')).bytes.toString('latin1')])
    }
    return { status: response.status, headers, body: await redacted(plain) }
  }

  /** An archive on its way to the sandbox; what breaks it off is counted as if it had been no answer. */
  async function* downloaded(url: string, rest: Download): AsyncGenerator<Buffer> {
    const stream = answers.stream()
    try {
      for await (const piece of rest.pieces) {
        const clean = stream.write(piece)
        if (clean.length > 0) yield clean
      }
      const last = stream.flush()
      if (last.length > 0) yield last
    } catch (failure) {
      const refusal = failure instanceof Refusal ? failure : new Refusal('internal')
      if (refusal.blocked) {
        allowed -= 1
        count(url, refusal)
      }
      throw refusal
    }
  }

  /** In slices, so that the other runs of the host are not kept waiting by a large answer. */
  const redacted = async (bytes: Buffer): Promise<Buffer> => {
    const stream = answers.stream()
    const parts: Buffer[] = []
    for (let from = 0; from < bytes.length; from += sliceBytes) {
      if (from > 0) await setImmediate()
      parts.push(stream.write(bytes.subarray(from, from + sliceBytes)))
    }
    parts.push(stream.flush())
    return Buffer.concat(parts)
  }

  const count = (url: string, refusal: Refusal): void => {
    blocked += 1
    const named = serviceNamed(url)
    // A name the plan does not have is the sandbox's text, and no text of a sandbox stands in a receipt.
    const service = named !== null && services.has(named) ? named : ''
    const key = `${refusal.shown} ${service}`
    const known = refusals.get(key)
    if (known !== undefined) known.count += 1
    else if (refusals.size < mostRefusalKinds) refusals.set(key, { code: refusal.shown, service, count: 1 })
  }

  const attempt = async (request: EgressRequest, signal: AbortSignal): Promise<EgressResponse> => {
    try {
      asked += 1
      if (asked > plan.limits.egress_requests) throw new Refusal('request_quota')
      if (underWay.size >= mostAtOnce) throw new Refusal('too_many_at_once')
      const both = AbortSignal.any([signal, closing.signal])
      if (both.aborted) throw new Refusal('cancelled')
      const work = pass(request, both)
      underWay.add(work)
      try {
        return await work
      } finally {
        underWay.delete(work)
      }
    } catch (failure) {
      // What is not a refusal has a text nobody may see: Node names addresses, and values in headers it does not like.
      const refusal = failure instanceof Refusal ? failure : new Refusal('internal')
      if (refusal.blocked) count(request.url, refusal)
      return refusal.response()
    }
  }

  return {
    fetch: attempt,
    counts: () => ({ allowed, blocked, refusals: [...refusals.values()].map((refusal) => ({ ...refusal })) }),
    async close() {
      closing.abort()
      await Promise.allSettled(underWay)
      for (const upstream of upstreams.values()) upstream.close()
    },
  }
}

/** A redirect within the service, as the sandbox can follow it; any other as it is. */
function inSandbox(service: PlanService, location: string): string {
  if (!URL.canParse(location)) return location
  const base = new URL(service.url)
  const to = new URL(location)
  const path = base.pathname.replace(/\/$/, '')
  if (
    to.origin !== base.origin ||
    to.username !== '' ||
    to.password !== '' ||
    !(to.pathname === path || to.pathname.startsWith(`${path}/`))
  )
    return location
  return `${gatewayOrigin}/${service.name}${to.pathname.slice(path.length)}${to.search}${to.hash}`
}

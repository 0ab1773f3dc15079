import { newPlaceholder, placeholderPattern, placeholderPrefix } from '../credential/placeholder.ts'
import type { Redactor } from '../credential/redact.ts'
import type { Secret } from '../credential/secret.ts'
import type { Plan, PlanCredential, PlanService } from '../plan/plan.ts'
import { Refusal } from './refusal.ts'
import type { ParsedRequest } from './request.ts'
import { tokensOf } from './token.ts'

/** Tokens that services may issue in one run, and the bytes of all: every answer with new ones costs the redactor a rebuild. */
const mostTokens = 32
const mostTokensBytes = 32_768
/** Of one: what is longer fits no header. */
const mostTokenBytes = 8192

type Header = readonly [string, string]

/** The credentials of one run as its gateway handles them. Knows values; gives them out only in headers towards the bound service. */
export interface Swap {
  /** True where the run holds any credential or token. */
  readonly holds: boolean
  /**
   * The headers to send to the service. Throws `placeholder_refused` where the request carries a placeholder that is
   * not this service's; `exposes` is true where a value is among them.
   */
  request(
    service: PlanService,
    parsed: ParsedRequest,
  ): { readonly headers: readonly Header[]; readonly exposes: boolean }
  /**
   * Learns the tokens of an answer, all of them or none, so that the redactor puts placeholders in their place. Throws
   * `response_token`.
   */
  learn(service: PlanService, contentType: string, body: Buffer): void
  /** Whether a name in lower case holds a value, spelt in whatever case. */
  names(name: string): boolean
}

interface Value {
  /** The only service it is sent to, or null for a credential: then the services bound to it. */
  readonly service: string | null
  readonly credential: string | null
  /** Latin-1 text, so that the bytes go out as they are. */
  readonly text: string
}

export function createSwap(options: {
  readonly plan: Plan
  readonly placeholders: Readonly<Record<string, string>>
  readonly secrets: readonly Secret[]
  readonly redactor: Redactor
}): Swap {
  const { plan, secrets, redactor } = options
  const values = new Map<string, Value>()
  const credentials = new Map<string, { readonly binding: PlanCredential; readonly placeholder: string }>()
  for (const secret of secrets) {
    const binding = plan.credentials.find((credential) => credential.name === secret.name)
    const placeholder = Object.hasOwn(options.placeholders, secret.name) ? options.placeholders[secret.name] : undefined
    if (binding === undefined || placeholder === undefined) continue
    values.set(placeholder, { service: null, credential: secret.name, text: secret.reveal().toString('latin1') })
    credentials.set(secret.name, { binding, placeholder })
  }
  let tokens = 0
  let tokenBytes = 0

  const isBound = (value: Value, service: PlanService): boolean =>
    value.credential === null ? value.service === service.name : value.credential === service.credential

  /** Refuses what looks like a placeholder and is not one of this service's. */
  const check = (text: string, service: PlanService): void => {
    for (const [placeholder] of text.matchAll(placeholderPattern)) {
      const value = values.get(placeholder)
      if (value === undefined || !isBound(value, service)) throw new Refusal('placeholder_refused')
    }
    if (text.replaceAll(placeholderPattern, '').includes(placeholderPrefix)) throw new Refusal('placeholder_refused')
  }

  const swapped = (text: string): string =>
    text.replaceAll(placeholderPattern, (placeholder) => values.get(placeholder)?.text ?? placeholder)

  const request: Swap['request'] = (service, parsed) => {
    for (const [placeholder, value] of values) {
      if (isBound(value, service)) continue
      if (parsed.path.includes(placeholder) || parsed.query.includes(placeholder))
        throw new Refusal('placeholder_refused')
      if (Buffer.from(parsed.body.buffer, parsed.body.byteOffset, parsed.body.length).includes(placeholder))
        throw new Refusal('placeholder_refused')
    }
    const bound = service.credential === null ? undefined : credentials.get(service.credential)
    if (service.credential !== null && bound === undefined) throw new Refusal('credential_not_leased')
    const own = bound === undefined ? 'authorization' : headerOf(bound.binding)
    let exposes = false
    let ownSwapped: Header | null = null
    const ownGiven: Header[] = []
    const headers: Header[] = []
    for (const [name, value] of parsed.headers) {
      check(value, service)
      // A range cuts an answer, and could cut a secret in it into parts that nobody would know.
      if ((name === 'range' || name === 'if-range') && values.size > 0) continue
      if (name !== own && name !== 'authorization') {
        // A placeholder where the binding does not say so goes out as it is: worth nothing there.
        headers.push([name, value])
        continue
      }
      const basic = decodeBasic(value)
      if (basic !== null) check(basic, service)
      const plain = basic ?? value
      const real = swapped(plain)
      if (real === plain) {
        if (name === own) ownGiven.push([name, value])
        else headers.push([name, value])
        continue
      }
      exposes = true
      const header: Header = [name, basic === null ? real : `Basic ${Buffer.from(real, 'latin1').toString('base64')}`]
      if (name === own) ownSwapped ??= header
      else headers.push(header)
    }
    if (bound === undefined)
      return { headers: [...headers, ...(ownSwapped === null ? ownGiven : [ownSwapped])], exposes }
    // One header from one place: what the sandbox put there without a placeholder never goes beside the credential.
    headers.push(ownSwapped ?? [own, rendered(bound.binding, values.get(bound.placeholder)?.text ?? '')])
    return { headers, exposes: true }
  }

  const learn: Swap['learn'] = (service, contentType, body) => {
    const known = new Set([...values.values()].map((value) => value.text))
    const fresh = [...tokensOf(contentType, body)].filter((token) => !values.has(token) && !known.has(token))
    if (fresh.length === 0) return
    const bytes = fresh.reduce((sum, token) => sum + token.length, tokenBytes)
    // eslint-disable-next-line no-control-regex -- what cannot stand in a header cannot be swapped in
    const unfit = fresh.some((token) => token.length > mostTokenBytes || /[^\u0021-\u007e]/.test(token))
    if (unfit || tokens + fresh.length > mostTokens || bytes > mostTokensBytes) throw new Refusal('response_token')
    const issued = fresh.map((token) => ({ token, placeholder: newPlaceholder() }))
    const derived = issued.map(({ token, placeholder }) => ({
      name: `${service.name}.token`,
      value: Buffer.from(token, 'latin1'),
      placeholder,
    }))
    if (!redactor.learn(derived)) throw new Refusal('response_token')
    for (const { token, placeholder } of issued)
      values.set(placeholder, { service: service.name, credential: null, text: token })
    tokens += fresh.length
    tokenBytes = bytes
  }

  return {
    get holds() {
      return values.size > 0
    },
    request,
    learn,
    names: (name) => [...values.values()].some(({ text }) => text !== '' && name.includes(text.toLowerCase())),
  }
}

function headerOf(binding: PlanCredential): string {
  return binding.inject.kind === 'header' ? binding.inject.header.toLowerCase() : 'authorization'
}

function rendered(binding: PlanCredential, value: string): string {
  switch (binding.inject.kind) {
    case 'header':
      return binding.inject.prefix + value
    case 'bearer':
      return `Bearer ${value}`
    case 'basic':
      return `Basic ${Buffer.concat([Buffer.from(`${binding.inject.username}:`), Buffer.from(value, 'latin1')]).toString('base64')}`
  }
}

/** `user:password` of a Basic authorization, or null. */
function decodeBasic(value: string): string | null {
  const match = /^basic +([A-Za-z0-9+/_=-]+)$/i.exec(value)
  return match === null ? null : Buffer.from(match[1] ?? '', 'base64').toString('latin1')
}

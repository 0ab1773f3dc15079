import type { CryptoKey, JWK } from 'jose'
import type { Clock } from '../../clock.ts'
import type { Json, JsonObject } from '../../digest.ts'
import type { FetchJson } from './fetch.ts'
import type { Algorithm } from './settings.ts'

/** What is known of a key id: its key, that the issuer publishes none of that name, or that the issuer cannot be asked. */
export type FoundKey =
  | { readonly state: 'key'; readonly key: CryptoKey }
  | { readonly state: 'unknown' }
  | { readonly state: 'unavailable' }

export interface IssuerKeys {
  /** The key `kid` for `alg`; asks the issuer where it has to and may. Never rejects. */
  find(kid: string, alg: Algorithm): Promise<FoundKey>
}

/** Keys this old are asked for again, without anyone waiting for the answer. */
const refreshMs = 10 * 60_000
/** Keys older than this count for nothing: who cuts us off from the issuer cannot keep a withdrawn key alive for longer. */
const staleMs = 24 * 3_600_000
/** Fetches that may begin in any minute, whatever tokens come and however the fetches before ended. */
const mostFetches = 2
const minuteMs = 60_000
/** Between a fetch that went well and the next. */
const pauseMs = 30_000
/** After the first failure; doubles with each further one up to five minutes. */
const retryMs = 2_000
const maxRetryMs = 300_000
const maxKeys = 64

/**
 * The signing keys of one authorisation server: fetched when first needed, kept, and fetched again when they are old or
 * a token names a key that is not among them. While the server is dead the kept ones serve.
 * @param issuer the exact identifier; a discovery document that names another is refused (RFC 8414 §3.3)
 */
export function openIssuerKeys(options: {
  readonly issuer: string
  readonly jwksUri: string | null
  readonly fetchJson: FetchJson
  readonly clock: Clock
  /** Told why the issuer could not be asked; for the operator. */
  readonly onFailure: (why: string) => void
}): IssuerKeys {
  const { clock } = options
  let keys: ReadonlyMap<string, readonly JsonObject[]> | null = null
  const imported = new Map<string, CryptoKey>()
  let fetchedAt = -Infinity
  let notBefore = -Infinity
  /** When the last fetches began. */
  let begun: readonly number[] = []
  let failures = 0
  let underWay: Promise<void> | null = null

  const fetchKeys = async (): Promise<void> => {
    try {
      const uri = options.jwksUri ?? (await discover(options.issuer, options.fetchJson))
      keys = readKeySet(await options.fetchJson(uri))
      imported.clear()
      fetchedAt = clock.monotonic()
      failures = 0
      notBefore = fetchedAt + pauseMs
    } catch (failure) {
      notBefore = clock.monotonic() + Math.min(retryMs * 2 ** failures, maxRetryMs)
      failures++
      options.onFailure(failure instanceof Error ? failure.message : 'unknown')
    }
  }
  /** One fetch at a time for everybody, and none before the pause is over. */
  const refresh = async (): Promise<void> => {
    const now = clock.monotonic()
    if (underWay === null) {
      const many = begun.length === mostFetches && now - (begun[0] ?? 0) < minuteMs
      if (now < notBefore || many) return
      begun = [...begun.slice(1 - mostFetches), now]
    }
    underWay ??= fetchKeys().finally(() => (underWay = null))
    await underWay
  }

  return {
    async find(kid, alg) {
      const age = clock.monotonic() - fetchedAt
      if (keys === null || age > staleMs) {
        await refresh()
        if (clock.monotonic() - fetchedAt > staleMs) return { state: 'unavailable' }
      } else if (!keys.has(kid)) await refresh()
      else if (age > refreshMs) void refresh()
      const published = keys?.get(kid)
      // A key the server could not be asked about may be one it has just begun to use.
      if (published === undefined) return { state: failures > 0 ? 'unavailable' : 'unknown' }
      const fitting = published.filter((jwk) => fits(jwk, alg))
      const [jwk] = fitting
      if (fitting.length !== 1 || jwk === undefined) return { state: 'unknown' }
      const name = `${alg} ${kid}`
      const known = imported.get(name)
      if (known !== undefined) return { state: 'key', key: known }
      try {
        const { importJWK } = await import('jose')
        const key = await importJWK(publicPart(jwk), alg)
        if (key instanceof Uint8Array) return { state: 'unknown' }
        imported.set(name, key)
        return { state: 'key', key }
      } catch {
        return { state: 'unknown' }
      }
    },
  }
}

/** The `jwks_uri` of an issuer by RFC 8414 or OpenID Connect discovery, whichever document it has. */
async function discover(issuer: string, fetchJson: FetchJson): Promise<string> {
  const { origin, pathname } = new URL(issuer)
  const path = pathname === '/' ? '' : pathname.replace(/\/$/, '')
  const places = [
    `${origin}/.well-known/oauth-authorization-server${path}`,
    `${origin}${path}/.well-known/openid-configuration`,
  ]
  let why = ''
  for (const place of places) {
    let document: Json
    try {
      document = await fetchJson(place)
    } catch (failure) {
      why = failure instanceof Error ? failure.message : 'unknown'
      continue
    }
    const fields = object(document)
    if (fields === null || fields['issuer'] !== issuer)
      throw new Error('the discovery document is of another issuer than the configured one')
    const uri = fields['jwks_uri']
    if (typeof uri !== 'string' || uri.length > 2048 || !URL.canParse(uri) || new URL(uri).protocol !== 'https:')
      throw new Error('the discovery document names no https "jwks_uri"')
    return uri
  }
  throw new Error(`no discovery document: ${why}`)
}

function readKeySet(document: Json): ReadonlyMap<string, readonly JsonObject[]> {
  const listed = object(document)?.['keys']
  if (!Array.isArray(listed)) throw new Error('the key set has no "keys"')
  if (listed.length > maxKeys) throw new Error(`the key set has more than ${maxKeys} keys`)
  const found = new Map<string, JsonObject[]>()
  for (const entry of listed as readonly Json[]) {
    const jwk = object(entry)
    const kid = jwk?.['kid']
    if (jwk === null || typeof kid !== 'string' || !mayVerify(jwk)) continue
    found.set(kid, [...(found.get(kid) ?? []), jwk])
  }
  return found
}

/** A published secret is no secret: a key that comes with its private part, or is symmetric, verifies nothing. */
function mayVerify(jwk: JsonObject): boolean {
  if (['d', 'k', 'p', 'q'].some((member) => Object.hasOwn(jwk, member))) return false
  if (jwk['use'] !== undefined && jwk['use'] !== 'sig') return false
  const operations = jwk['key_ops']
  return operations === undefined || (Array.isArray(operations) && operations.includes('verify'))
}

/** A key serves the one algorithm its type and its own `alg` say, whatever the token says (RFC 8725 §3.1). */
function fits(jwk: JsonObject, alg: Algorithm): boolean {
  const edwards = alg === 'EdDSA' || alg === 'Ed25519'
  const said = jwk['alg']
  if (said !== undefined && said !== alg && !(edwards && (said === 'EdDSA' || said === 'Ed25519'))) return false
  switch (alg) {
    case 'EdDSA':
    case 'Ed25519':
      return jwk['kty'] === 'OKP' && jwk['crv'] === 'Ed25519'
    case 'ES256':
      return jwk['kty'] === 'EC' && jwk['crv'] === 'P-256'
    case 'PS256':
    case 'RS256': {
      const modulus = jwk['n']
      if (jwk['kty'] !== 'RSA' || typeof modulus !== 'string') return false
      const bytes = Buffer.from(modulus, 'base64url').length
      return bytes >= 256 && bytes <= 1024
    }
  }
}

function publicPart(jwk: JsonObject): JWK {
  const text = (name: string): string | undefined => (typeof jwk[name] === 'string' ? jwk[name] : undefined)
  const part: Record<string, string> = {}
  for (const name of ['kty', 'crv', 'x', 'y', 'n', 'e']) {
    const value = text(name)
    if (value !== undefined) part[name] = value
  }
  return part
}

export function object(value: Json | undefined): JsonObject | null {
  return value === null || typeof value !== 'object' || Array.isArray(value) ? null : (value as JsonObject)
}

import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { CompactSign, exportJWK, generateKeyPair } from 'jose'
import type { CryptoKey, JWK } from 'jose'
import { onTestFinished } from 'vitest'
import type { JsonObject } from '../../src/digest.ts'
import { openIdentity } from '../../src/http/identity/identity.ts'
import type { Identity } from '../../src/http/identity/identity.ts'
import { oauthSchema } from '../../src/http/identity/settings.ts'
import type { OAuthSettings } from '../../src/http/identity/settings.ts'
import type { Clock } from '../../src/clock.ts'
import type { Ledger } from '../../src/ledger/ledger.ts'
import { openSqliteLedger } from '../../src/ledger/sqlite/sqlite.ts'
import type { Authenticated } from '../../src/request/caller.ts'
import { newAuthority } from '../egress/certificate.ts'
import { folder } from '../ledger/folder.ts'
import { handClock, testSigner } from '../ledger/sample.ts'

export const resource = 'https://writ.example/mcp'

interface SigningPair {
  readonly kid: string
  readonly alg: string
  readonly privateKey: CryptoKey
  readonly jwk: JWK
}

export async function newPair(alg: string, kid: string): Promise<SigningPair> {
  const { privateKey, publicKey } = await generateKeyPair(alg, { extractable: true })
  return { kid, alg, privateKey, jwk: { ...(await exportJWK(publicKey)), kid, alg, use: 'sig' } }
}

/** A key server over real HTTPS, whose documents, keys and health a test decides. */
export interface Issuer {
  readonly url: string
  readonly ca: string
  /** What it publishes. */
  keys: JWK[]
  /** What it says instead of the usual document, by path. */
  readonly instead: Map<
    string,
    { readonly status?: number; readonly body: string; readonly headers?: Record<string, string> }
  >
  /** Paths asked for, in order. */
  readonly asked: string[]
  /** What it waits for before it answers. */
  before: Promise<unknown>
  /** Refuses connections from now on, or takes them again. */
  die(): Promise<void>
  revive(): Promise<void>
}

export async function openIssuer(): Promise<Issuer> {
  const authority = newAuthority()
  const issued = authority.issue({ ip: ['127.0.0.1'] })
  const server = createServer({ cert: issued.cert, key: issued.key }, (request, answer) => {
    const path = request.url ?? ''
    issuer.asked.push(path)
    const other = issuer.instead.get(path)
    const usual = new Map<string, JsonObject>([
      ['/.well-known/openid-configuration', { issuer: issuer.url, jwks_uri: `${issuer.url}/jwks` }],
      ['/jwks', { keys: issuer.keys }],
    ]).get(path)
    const give = (): void => {
      answer.writeHead(other?.status ?? (usual === undefined && other === undefined ? 404 : 200), {
        'content-type': 'application/json',
        ...other?.headers,
      })
      answer.end(other?.body ?? JSON.stringify(usual ?? {}))
    }
    void issuer.before.then(give)
  })
  const listen = async (port: number): Promise<void> =>
    await new Promise((resolve) => server.listen(port, '127.0.0.1', resolve))
  await listen(0)
  const { port } = server.address() as AddressInfo
  const die = async (): Promise<void> => {
    server.closeAllConnections()
    await new Promise((resolve) => server.close(resolve))
  }
  const issuer: Issuer = {
    url: `https://127.0.0.1:${port}`,
    ca: authority.ca,
    keys: [],
    instead: new Map(),
    asked: [],
    before: Promise.resolve(),
    die,
    revive: async () => await listen(port),
  }
  onTestFinished(die)
  return issuer
}

export interface World {
  readonly identity: Identity
  readonly ledger: Ledger
  readonly clock: ReturnType<typeof handClock>
  readonly settings: OAuthSettings
  /** What the operator would read in the log. */
  readonly warnings: unknown[]
  /** Authenticates with this bearer token; `null` sends no header. */
  with(token: string | null): Promise<Authenticated>
  withHeader(value: string): Promise<Authenticated>
}

/** An identity over a real ledger and, where issuers are given, their real key servers. */
export function openWorld(
  issuers: readonly { readonly issuer: Issuer; readonly more?: JsonObject }[] = [],
  more: JsonObject = {},
): World {
  const dir = folder()
  const clock = handClock()
  const ledger = openSqliteLedger({ path: join(dir, 'ledger.db'), signer: testSigner(), clock, reserveBytes: 4096 })
  onTestFinished(() => ledger.close())
  const settings = settingsOf(dir, issuers, more)
  const warnings: unknown[] = []
  const log = {
    warn: (fields: unknown) => void warnings.push(fields),
    error: (fields: unknown) => void warnings.push(fields),
  }
  const identity = openIdentity({ ledger, clock, log: log as never, oauth: issuers.length === 0 ? null : settings })
  const ask = async (headers: ReadonlyMap<string, string>): Promise<Authenticated> =>
    await identity.authenticate({ headers, resource })
  return {
    identity,
    ledger,
    clock,
    settings,
    warnings,
    with: async (token) => await ask(new Map(token === null ? [] : [['authorization', `Bearer ${token}`]])),
    withHeader: async (value) => await ask(new Map([['authorization', value]])),
  }
}

export function settingsOf(
  dir: string,
  issuers: readonly { readonly issuer: Issuer; readonly more?: JsonObject }[],
  more: JsonObject = {},
): OAuthSettings {
  return oauthSchema.parse({
    issuers: (issuers.length === 0 ? [{ issuer: { url: 'https://nobody.example', ca: '' } as Issuer }] : issuers).map(
      ({ issuer, more: extra }, i) => {
        const ca = join(dir, `ca-${i}.pem`)
        writeFileSync(ca, issuer.ca)
        return {
          name: i === 0 ? 'corp' : `corp${i + 1}`,
          issuer: issuer.url,
          ca,
          claims: {
            tenant: { value: 'acme' },
            roles: [{ pointer: '/groups', map: { 'writ-devs': 'developer', 'writ-ops': 'operator' } }],
          },
          ...extra,
        }
      },
    ),
    ...more,
  })
}

/** An access token as an RFC 9068 issuer makes it, changed as the test wants; `undefined` takes a member away. */
export async function accessToken(
  issuer: Issuer,
  pair: SigningPair,
  clock: Clock,
  change: { readonly claims?: Record<string, unknown>; readonly header?: Record<string, unknown> } = {},
): Promise<string> {
  const now = Math.floor(clock.now() / 1000)
  const claims = {
    iss: issuer.url,
    aud: resource,
    sub: 'alice',
    client_id: 'chat-client',
    iat: now,
    exp: now + 3600,
    jti: 'j',
    groups: ['writ-devs'],
    ...change.claims,
  }
  return await new CompactSign(new TextEncoder().encode(JSON.stringify(claims)))
    .setProtectedHeader({ alg: pair.alg, typ: 'at+jwt', kid: pair.kid, ...change.header })
    .sign(pair.privateKey)
}

/** What a refusal says, in one line; the caller's id where there is none. */
export function said(answer: Authenticated): string {
  return answer.ok ? `ok ${answer.caller.subject.id}` : `${answer.status} ${answer.code}: ${answer.message}`
}

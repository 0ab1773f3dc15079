import { writeFileSync } from 'node:fs'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { getCACertificates, setDefaultCACertificates } from 'node:tls'
import { exportJWK, generateKeyPair } from 'jose'
import { Provider } from 'oidc-provider'
import { newAuthority } from '../egress/certificate.ts'

/** A real authorisation server, as an organisation runs one: PKCE, dynamic registration, client metadata documents, RFC 8707. */
export interface AuthorisationServer {
  readonly issuer: string
  /** PEM of the authority its certificate is from. */
  readonly caFile: string
  /** A client that is described by a document at its own URL (client id metadata document). */
  readonly clientDocument: string
  /** Groups of people, as the directory has them now. */
  readonly groups: Map<string, readonly string[]>
  /** Whether access tokens carry the scope that was asked for. */
  scope: string
  /** Client ids that got a token. */
  readonly clients: Set<string>
  close(): Promise<void>
}

export const redirectUri = 'http://127.0.0.1:49152/callback'

export async function openAuthorisationServer(folder: string): Promise<AuthorisationServer> {
  const authority = newAuthority()
  const certificate = authority.issue({ ip: ['127.0.0.1'] })
  const caFile = join(folder, 'idp-ca.pem')
  writeFileSync(caFile, authority.ca)
  // The clients and the server itself fetch with the platform's fetch, which takes no certificates of its own.
  setDefaultCACertificates([...getCACertificates('default'), authority.ca])
  const { privateKey } = await generateKeyPair('ES256', { extractable: true })
  let serve: ReturnType<Provider['callback']> | null = null
  const server = createServer({ cert: certificate.cert, key: certificate.key }, (request, answer) => {
    if (request.url !== '/client.json') return void serve?.(request, answer)
    answer.writeHead(200, { 'content-type': 'application/json' })
    answer.end(
      JSON.stringify({
        client_id: opened.clientDocument,
        client_name: 'A client with a document',
        redirect_uris: [redirectUri],
        application_type: 'native',
        grant_types: ['authorization_code'],
        response_types: ['code'],
        token_endpoint_auth_method: 'none',
      }),
    )
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const issuer = `https://127.0.0.1:${(server.address() as AddressInfo).port}`
  const opened: AuthorisationServer = {
    issuer,
    caFile,
    clientDocument: `${issuer}/client.json`,
    groups: new Map(),
    scope: 'writ',
    clients: new Set(),
    async close() {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
  const provider = new Provider(issuer, {
    jwks: { keys: [{ ...(await exportJWK(privateKey)), kid: 'idp-1', alg: 'ES256', use: 'sig' }] },
    cookies: { keys: ['a cookie key of the tests'] },
    ttl: { Interaction: 600, Session: 600, Grant: 600, AccessToken: 600 },
    pkce: { required: () => true },
    scopes: ['openid', 'offline_access', 'writ'],
    clientDefaults: {
      token_endpoint_auth_method: 'none',
      application_type: 'native',
      id_token_signed_response_alg: 'ES256',
    },
    fetch: async (url, init) => await fetch(url, { method: init?.method ?? 'GET', headers: init?.headers ?? {} }),
    findAccount: (_context, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
    extraTokenClaims: (_context, token) =>
      'accountId' in token ? { groups: [...(opened.groups.get(token.accountId) ?? [])] } : undefined,
    features: {
      devInteractions: { enabled: true },
      registration: { enabled: true },
      clientIdMetadataDocument: { enabled: true, ack: 'draft-02' },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: (_context, resource, client) => {
          opened.clients.add(client.clientId)
          return {
            scope: opened.scope,
            audience: resource,
            accessTokenFormat: 'jwt',
            accessTokenTTL: 600,
            jwt: { sign: { alg: 'ES256' } },
          }
        },
        useGrantedResource: () => true,
      },
    },
  })
  serve = provider.callback()
  return opened
}

/** What a person does in a browser: follows the redirects, signs in as `login`, consents, and is sent back with a code. */
export async function browse(start: URL, login: string): Promise<URL> {
  const cookies = new Map<string, string>()
  const go = async (url: URL, form?: Record<string, string>): Promise<Response> => {
    const answer = await fetch(url, {
      redirect: 'manual',
      headers: { cookie: [...cookies].map(([name, value]) => `${name}=${value}`).join('; ') },
      ...(form === undefined ? {} : { method: 'POST', body: new URLSearchParams(form) }),
    })
    for (const line of answer.headers.getSetCookie()) {
      const [, name = '', value = ''] = /^([^=]+)=([^;]*)/.exec(line) ?? []
      if (value === '') cookies.delete(name)
      else cookies.set(name, value)
    }
    return answer
  }
  let url = start
  let answer = await go(url)
  for (let step = 0; step < 12; step++) {
    const location = answer.headers.get('location')
    if (location !== null) {
      url = new URL(location, url)
      if (url.href.startsWith(redirectUri)) return url
      answer = await go(url)
      continue
    }
    const page = await answer.text()
    const prompt = /name="prompt" value="(login|consent)"/.exec(page)?.[1]
    const action = /action="([^"]+)"/.exec(page)?.[1]
    if (prompt === undefined || action === undefined)
      throw new Error(`${String(answer.status)} at ${url.href}: ${page.slice(0, 2000)}`)
    url = new URL(action, url)
    answer = await go(url, prompt === 'login' ? { prompt, login, password: 'any' } : { prompt })
  }
  throw new Error('the sign-in did not end')
}

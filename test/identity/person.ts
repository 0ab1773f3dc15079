import { Client, StreamableHTTPClientTransport, UnauthorizedError } from '@modelcontextprotocol/client'
import type { OAuthClientProvider } from '@modelcontextprotocol/client'
import type { JsonObject } from '../../src/digest.ts'
import type { HttpWorld } from '../http/world.ts'
import { decided } from '../e2e/clients/driver.ts'
import { browse, redirectUri } from './provider.ts'

/** What a client keeps between its steps; the person's part is done by `browse`. */
export class Person implements OAuthClientProvider {
  readonly #login: string
  readonly clientMetadataUrl?: string
  readonly #kept = new Map<string, unknown>()
  sentTo: URL | null = null

  constructor(login: string, clientMetadataUrl?: string) {
    this.#login = login
    if (clientMetadataUrl !== undefined) this.clientMetadataUrl = clientMetadataUrl
  }
  get redirectUrl(): string {
    return redirectUri
  }
  get clientMetadata() {
    return {
      client_name: 'A chat client',
      redirect_uris: [redirectUri],
      grant_types: ['authorization_code'],
      token_endpoint_auth_method: 'none',
    }
  }
  clientInformation() {
    return this.#kept.get('client') as never
  }
  saveClientInformation(information: unknown): void {
    this.#kept.set('client', information)
  }
  tokens() {
    return this.#kept.get('tokens') as never
  }
  saveTokens(tokens: unknown): void {
    this.#kept.set('tokens', tokens)
  }
  saveDiscoveryState(state: unknown): void {
    this.#kept.set('discovery', state)
  }
  discoveryState() {
    return this.#kept.get('discovery') as never
  }
  redirectToAuthorization(url: URL): void {
    this.sentTo = url
  }
  saveCodeVerifier(verifier: string): void {
    this.#kept.set('verifier', verifier)
  }
  codeVerifier(): string {
    return String(this.#kept.get('verifier'))
  }
  /** Signs in and gives the code and state the client is called back with. */
  async signIn(): Promise<URLSearchParams> {
    if (this.sentTo === null) throw new Error('the client sent the person nowhere')
    return (await browse(this.sentTo, this.#login)).searchParams
  }
  get accessToken(): string {
    return (this.#kept.get('tokens') as { readonly access_token: string }).access_token
  }
}

/** A client of 2026 that was sent to sign in and came back. */
export async function signIn(
  person: Person,
  at: HttpWorld,
): Promise<{ readonly client: Client; readonly transport: StreamableHTTPClientTransport }> {
  const url = new URL('/mcp', at.url)
  const first = new StreamableHTTPClientTransport(url, { authProvider: person })
  const refused: unknown = await new Client({ name: 'c', version: '1' }).connect(first).catch((error: unknown) => error)
  if (!(refused instanceof UnauthorizedError))
    throw new Error('it was let in, or something else went wrong', { cause: refused })
  await first.finishAuth(await person.signIn())
  const client = new Client({ name: 'c', version: '1' })
  const transport = new StreamableHTTPClientTransport(url, { authProvider: person })
  await client.connect(transport)
  return { client, transport }
}

export async function call(client: Client, name: string, args: JsonObject): Promise<JsonObject> {
  return await decided(
    async () => (await client.callTool({ name, arguments: { ...args } })).structuredContent as JsonObject,
    (answer) => answer,
  )
}

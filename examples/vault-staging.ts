// The staging service of examples/vault-cert-client: certificates as JSON, in the manner of Vault's PKI, on loopback.
import { randomBytes } from 'node:crypto'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'

interface Certificate {
  readonly serial_number: string
  readonly common_name: string
  readonly not_before: number
  readonly expiration: number
}

export interface VaultStaging {
  readonly url: string
  /** What came with the real token, as `POST /v1/pki/issue/web`. */
  readonly served: readonly string[]
  close(): Promise<void>
}

/** Serves until it is closed; every path demands the token in `X-Vault-Token`. */
export async function startVaultStaging(token: string): Promise<VaultStaging> {
  const certificates = new Map<string, Certificate>()
  const served: string[] = []

  async function answer(request: IncomingMessage): Promise<readonly [status: number, body: object]> {
    const refused = (status: number, error: string): readonly [number, object] => [status, { errors: [error] }]
    if (request.headers['x-vault-token'] !== token) return refused(403, 'permission denied')
    const path = (request.url ?? '').replace(/\?.*$/, '')
    served.push(`${request.method ?? ''} ${path}`)
    if (request.method === 'GET') {
      const known = certificates.get(/^\/v1\/pki\/cert\/([0-9a-f:]{1,64})$/.exec(path)?.[1] ?? '')
      if (known !== undefined) return [200, { data: known }]
      // As Vault does: who asks about a token is told the token.
      if (path === '/v1/auth/token/lookup-self') return [200, { data: { id: token, policies: ['pki-web'] } }]
      return refused(404, 'no such certificate')
    }
    const fields = await readFields(request)
    if (fields === null) return refused(400, 'the body is no JSON object')
    if (path === '/v1/pki/revoke') {
      const known = certificates.delete(String(fields['serial_number']))
      return known ? [200, { data: { revoked: true } }] : refused(404, 'no such certificate')
    }
    if (path !== '/v1/pki/issue/web') return refused(404, 'no handler for this path')
    const name = String(fields['common_name'])
    const hours = /^([1-9][0-9]{0,3})h$/.exec(String(fields['ttl'] ?? '72h'))?.[1]
    if (!/^[a-z0-9-]+\.staging\.example$/.test(name))
      return refused(400, `the role does not allow ${name.slice(0, 80)}`)
    if (hours === undefined) return refused(400, 'the ttl is not so many hours')
    const not_before = Math.floor(Date.now() / 1000)
    const serial_number = randomBytes(10).toString('hex').match(/../g)?.join(':') ?? ''
    const made = { serial_number, common_name: name, not_before, expiration: not_before + Number(hours) * 3600 }
    certificates.set(serial_number, made)
    return [200, { data: made }]
  }

  const server = createServer((request: IncomingMessage, response: ServerResponse) => {
    void answer(request).then(([status, body]) => {
      response.writeHead(status, { 'content-type': 'application/json' })
      response.end(JSON.stringify(body))
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  if (address === null || typeof address !== 'object') throw new Error('no port for the staging service')
  return {
    url: `http://127.0.0.1:${String(address.port)}`,
    served,
    async close() {
      server.closeAllConnections()
      await new Promise<void>((resolve) => server.close(() => resolve()))
    },
  }
}

async function readFields(request: IncomingMessage): Promise<Record<string, unknown> | null> {
  const pieces: Buffer[] = []
  let size = 0
  for await (const piece of request as AsyncIterable<Buffer>) {
    size += piece.length
    if (size > 65_536) return null
    pieces.push(piece)
  }
  try {
    const value = JSON.parse(Buffer.concat(pieces).toString('utf8')) as unknown
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : null
  } catch {
    return null
  }
}

// `node examples/vault-staging.ts TOKEN` serves until it is interrupted.
if (import.meta.main) {
  const staging = await startVaultStaging(process.argv[2] ?? 'staging-token')
  process.stdout.write(`export VAULT_ADDR=${staging.url}\n`)
}

import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'

/** A service that gives back what it was sent, in every spelling it knows: the worst upstream a credential can have. */
export interface Echo {
  readonly port: number
  /** Values of credentials that arrived, as they stood in the request. */
  readonly arrived: Set<string>
  /** Requests to `/hold` wait here until `release`; `held` resolves when one is there. */
  held(): Promise<void>
  release(): void
  close(): Promise<void>
}

export async function openEcho(canaries: readonly string[]): Promise<Echo> {
  const arrived = new Set<string>()
  let arrival = Promise.withResolvers<void>()
  let gate = Promise.withResolvers<void>()
  const server = createServer((request, response) => {
    request.resume()
    request.on('error', () => undefined)
    request.on('end', () => {
      const all = Object.entries(request.headers)
        .map(([name, value]) => `${name}: ${String(value)}`)
        .join('\n')
      const basic = Buffer.from((request.headers.authorization ?? '').replace(/^Basic /, ''), 'base64').toString('utf8')
      for (const canary of canaries) if (all.includes(canary) || basic.includes(canary)) arrived.add(canary)
      const value = String(request.headers['x-vault-token'] ?? request.headers.authorization ?? '')
      const bare = basic.includes(':') ? (basic.split(':')[1] ?? '') : value.replace(/^Bearer /, '')
      const bytes = Buffer.from(bare)
      const spellings: Readonly<Record<string, string>> = {
        raw: bare,
        base64: bytes.toString('base64'),
        shifted: Buffer.concat([Buffer.from('x'), bytes]).toString('base64'),
        url: bytes.toString('base64url'),
        hex: bytes.toString('hex'),
        upper: bytes.toString('hex').toUpperCase(),
        json: JSON.stringify({ nested: JSON.stringify({ token: bare }) }),
        percent: encodeURIComponent(bare),
        backwards: Array.from(bare).toReversed().join(''),
        wide: Array.from(bare, (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`).join(''),
      }
      const send = (): void => {
        response.statusCode = request.url === '/unauthorised' ? 401 : request.url === '/moved' ? 302 : 200
        for (const [name, text] of Object.entries(spellings)) response.setHeader(`x-${name}`, text)
        response.setHeader('set-cookie', `session=${bare}`)
        if (request.url === '/moved') response.setHeader('location', `/next?token=${encodeURIComponent(bare)}`)
        const body = [all, ...Object.entries(spellings).map(([name, text]) => `${name} ${text}`), ''].join('\n')
        // In small pieces, so that a value lies across their borders.
        for (let at = 0; at < body.length; at += 7) response.write(body.slice(at, at + 7))
        response.end()
      }
      if (request.url !== '/hold') return send()
      arrival.resolve()
      void gate.promise.then(send)
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return {
    port: (server.address() as AddressInfo).port,
    arrived,
    held: async () => await arrival.promise,
    release() {
      gate.resolve()
      arrival = Promise.withResolvers<void>()
      gate = Promise.withResolvers<void>()
    },
    async close() {
      gate.resolve()
      server.closeAllConnections()
      await new Promise<void>((resolve) => server.close(() => resolve()))
    },
  }
}

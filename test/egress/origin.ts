import * as http from 'node:http'
import * as https from 'node:https'
import type { AddressInfo, Socket } from 'node:net'
import * as zlib from 'node:zlib'
import type { Issued } from './certificate.ts'

export interface Seen {
  readonly method: string
  readonly url: string
  readonly headers: http.IncomingHttpHeaders
  readonly raw: readonly string[]
  readonly body: string
}

/** A real service on loopback: takes a token, echoes what it got, and misbehaves on request. */
export interface Origin extends AsyncDisposable {
  readonly port: number
  readonly seen: Seen[]
  /** Server names of TLS handshakes. */
  readonly names: (string | false)[]
  connections: number
}

export async function startOrigin(
  options: { readonly token?: string; readonly tls?: Issued; readonly accessToken?: string } = {},
): Promise<Origin> {
  const { token, accessToken = 'issued-access-token-0123456789' } = options
  const seen: Seen[] = []
  const names: (string | false)[] = []
  const sockets = new Set<Socket>()
  const origin = { port: 0, seen, names, connections: 0, [Symbol.asyncDispose]: close }

  const answer = (request: http.IncomingMessage, response: http.ServerResponse, body: string): void => {
    const url = request.url ?? ''
    seen.push({ method: request.method ?? '', url, headers: request.headers, raw: request.rawHeaders, body })
    const path = url.split('?')[0] ?? ''
    const echo = JSON.stringify({ method: request.method, url, headers: request.headers, body })
    if (path.endsWith('/secure')) {
      const given = request.headers['x-vault-token'] ?? request.headers.authorization
      response.writeHead(given === token || given === `Bearer ${token}` ? 200 : 401).end('{"ok":true}')
    } else if (path.endsWith('/echo')) {
      response.writeHead(200, {
        'content-type': 'application/json',
        'x-echo': String(request.headers['x-vault-token'] ?? request.headers.authorization ?? 'none'),
        'set-cookie': 'session=abc',
        connection: 'keep-alive, x-nominated',
        'alt-svc': 'h3=":443"',
      })
      response.end(echo)
    } else if (path.endsWith('/encoded-echo')) {
      const value = String(request.headers['x-vault-token'] ?? '')
      const forms = [
        Buffer.from(value).toString('base64'),
        Buffer.from(`user:${value}`).toString('base64').replaceAll(/.{8}/g, '$&\n'),
        Buffer.from(value).toString('hex'),
        encodeURIComponent(value),
        Array.from(value).reverse().join(''),
      ]
      response.writeHead(200, { 'content-type': 'text/plain' })
      for (const form of forms) for (const part of `${form}\n--\n`) response.write(part)
      response.end()
    } else if (path.endsWith('/redirect')) {
      response.writeHead(302, { location: new URL(url, 'http://x').searchParams.get('to') ?? '/' }).end()
    } else if (path.endsWith('/gzip')) {
      response
        .writeHead(200, { 'content-type': 'application/json', 'content-encoding': 'gzip' })
        .end(zlib.gzipSync(echo))
    } else if (path.endsWith('/odd-coding')) {
      response.writeHead(200, { 'content-encoding': 'x-own' }).end(Buffer.from(echo).reverse())
    } else if (path.endsWith('/broken-gzip')) {
      response.writeHead(200, { 'content-encoding': 'gzip' }).end(echo)
    } else if (path.endsWith('/bomb')) {
      response.writeHead(200, { 'content-encoding': 'gzip' }).end(zlib.gzipSync(Buffer.alloc(64 << 20)))
    } else if (path.endsWith('/flood')) {
      const part = Buffer.alloc(65_536, 'x')
      const more = (): void => {
        while (!response.destroyed && response.write(part));
      }
      response.on('drain', more).on('error', () => {})
      more()
    } else if (path.endsWith('/close')) {
      response.writeHead(200, { 'content-length': '100' })
      response.write('half', () => request.socket.destroy())
    } else if (path.endsWith('/reset')) {
      request.socket.destroy()
    } else if (path.endsWith('/garbage')) {
      request.socket.end('NONSENSE\r\n\r\n')
    } else if (path.endsWith('/headers-flood')) {
      request.socket.end(
        `HTTP/1.1 200 OK\r\n${'x-fill: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n'.repeat(2000)}\r\n`,
      )
    } else if (path.endsWith('/upgrade')) {
      request.socket.end('HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\nraw')
    } else if (path.endsWith('/oauth/token')) {
      response.writeHead(200, { 'content-type': 'application/json' })
      response.end(
        `{\n  "access_token" : "${accessToken}",\n  "token_type": "Bearer", "scope": "a", "nested": {"id_token": "id-${accessToken}"} }`,
      )
    } else if (path.endsWith('/oauth/form')) {
      response
        .writeHead(200, { 'content-type': 'application/x-www-form-urlencoded' })
        .end(`access_token=${accessToken}&scope=repo`)
    } else if (path.endsWith('/oauth/double')) {
      response
        .writeHead(200, { 'content-type': 'application/json' })
        .end(`{"access_token":"${accessToken}","access_token":"another-token-987654"}`)
    } else if (path.endsWith('/oauth/short')) {
      response.writeHead(200, { 'content-type': 'application/json' }).end('{"access_token":"short"}')
    } else if (path.endsWith('/deep')) {
      response
        .writeHead(200, { 'content-type': 'application/json' })
        .end(`{"token":${'['.repeat(200_000)}${']'.repeat(200_000)}}`)
    } else if (path.endsWith('/large')) {
      const at = Number(request.headers['x-at'])
      response.end(`${'x'.repeat(at)}${String(request.headers['x-vault-token'])}${'y'.repeat(600_000 - at)}`)
    } else if (path.endsWith('/odd-status')) {
      request.socket.end('HTTP/1.1 799 Odd\r\ncontent-length: 0\r\n\r\n')
    } else if (path.endsWith('/hang')) {
      response.on('error', () => {})
    } else response.writeHead(200, { 'content-type': 'text/plain' }).end('plain answer')
  }
  const take = (request: http.IncomingMessage, response: http.ServerResponse): void => {
    const parts: Buffer[] = []
    request.on('data', (part: Buffer) => parts.push(part))
    request.on('end', () => answer(request, response, Buffer.concat(parts).toString('latin1')))
    request.on('error', () => {})
  }
  const server =
    options.tls === undefined
      ? http.createServer(take)
      : https.createServer(
          { ...options.tls, SNICallback: (name, done) => done(null, (names.push(name), undefined)) },
          take,
        )
  server.on('connection', (socket: Socket) => {
    origin.connections += 1
    sockets.add(socket)
    socket.on('close', () => sockets.delete(socket)).on('error', () => {})
  })
  await new Promise<void>((listening) => {
    server.listen(0, '127.0.0.1', listening)
  })
  origin.port = (server.address() as AddressInfo).port
  return origin

  async function close(): Promise<void> {
    for (const socket of sockets) socket.destroy()
    await new Promise<void>((closed) => {
      server.close(() => closed())
    })
  }
}

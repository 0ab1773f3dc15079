import { gzipSync } from 'node:zlib'
import { describe, expect, it } from 'vitest'
import { sendRaw } from './raw.ts'
import { useHttpWorld } from './world.ts'

const http = await useHttpWorld({ measured: true })
const token = http.token('mallory')
const host = new URL(http.url).host

const body = JSON.stringify({
  jsonrpc: '2.0',
  id: 1,
  method: 'initialize',
  params: { protocolVersion: '2025-11-25', capabilities: {}, clientInfo: { name: 'raw', version: '1' } },
})
const fine = [
  'content-type: application/json',
  'accept: application/json, text/event-stream',
  `authorization: Bearer ${token}`,
]

/** A request as bytes. `headers` replaces the usual ones where it is given. */
function post(
  options: {
    readonly target?: string
    readonly headers?: readonly string[]
    readonly body?: string
    readonly line?: string
  } = {},
): string {
  const given = options.body ?? body
  const headers = options.headers ?? [`host: ${host}`, ...fine, `content-length: ${given.length}`]
  return `${options.line ?? `POST ${options.target ?? '/mcp'} HTTP/1.1`}\r\n${headers.join('\r\n')}\r\n\r\n${given}`
}
const length = `content-length: ${body.length}`
const inside = post()

/** Each case, what is sent, and the one status it gets; every one of them leaves the connection closed or at rest. */
const cases: readonly (readonly [string, string, number])[] = [
  // Two lengths, or a length and a coding: the seams where request smuggling lives.
  ['two Content-Length that differ', post({ headers: [`host: ${host}`, ...fine, length, 'content-length: 1'] }), 400],
  ['two Content-Length that agree', post({ headers: [`host: ${host}`, ...fine, length, length] }), 400],
  [
    'a list of lengths',
    post({ headers: [`host: ${host}`, ...fine, `content-length: ${body.length}, ${body.length}`] }),
    400,
  ],
  [
    'Content-Length beside Transfer-Encoding',
    post({ headers: [`host: ${host}`, ...fine, length, 'transfer-encoding: chunked'], body: `0\r\n\r\n${inside}` }),
    400,
  ],
  [
    'Transfer-Encoding before Content-Length',
    post({
      headers: [`host: ${host}`, 'transfer-encoding: chunked', ...fine, 'content-length: 5'],
      body: `0\r\n\r\n${inside}`,
    }),
    400,
  ],
  [
    'two Transfer-Encoding',
    post({
      headers: [`host: ${host}`, ...fine, 'transfer-encoding: chunked', 'transfer-encoding: identity'],
      body: '0\r\n\r\n',
    }),
    400,
  ],
  [
    'a coding after chunked',
    post({ headers: [`host: ${host}`, ...fine, 'transfer-encoding: chunked, gzip'], body: '0\r\n\r\n' }),
    400,
  ],
  [
    'gzip before chunked',
    post({ headers: [`host: ${host}`, ...fine, 'transfer-encoding: gzip, chunked'], body: '0\r\n\r\n' }),
    501,
  ],
  [
    'an obscured chunked',
    post({ headers: [`host: ${host}`, ...fine, 'transfer-encoding: xchunked'], body: '0\r\n\r\n' }),
    400,
  ],
  [
    'a space before the colon of Transfer-Encoding',
    post({ headers: [`host: ${host}`, ...fine, 'transfer-encoding : chunked', length] }),
    400,
  ],
  ['a length with a plus', post({ headers: [`host: ${host}`, ...fine, `content-length: +${body.length}`] }), 400],
  ['a length in hexadecimal', post({ headers: [`host: ${host}`, ...fine, 'content-length: 0x10'] }), 400],
  ['a negative length', post({ headers: [`host: ${host}`, ...fine, 'content-length: -1'] }), 400],
  [
    'a length with leading zeros',
    post({ headers: [`host: ${host}`, ...fine, `content-length: 000${body.length}`] }),
    400,
  ],
  [
    'a chunk size that overflows',
    post({
      headers: [`host: ${host}`, ...fine, 'transfer-encoding: chunked'],
      body: 'fffffffffffffffff\r\nx\r\n0\r\n\r\n',
    }),
    400,
  ],
  [
    'a chunk size with a minus',
    post({ headers: [`host: ${host}`, ...fine, 'transfer-encoding: chunked'], body: '-1\r\nx\r\n0\r\n\r\n' }),
    400,
  ],
  [
    'a chunk with a bare line feed',
    post({ headers: [`host: ${host}`, ...fine, 'transfer-encoding: chunked'], body: '1\nx\n0\n\n' }),
    400,
  ],
  // Headers that two readers take differently.
  ['two Host', post({ headers: [`host: ${host}`, 'host: writ.example', ...fine, length] }), 400],
  ['two equal Host', post({ headers: [`host: ${host}`, `host: ${host}`, ...fine, length] }), 400],
  ['two Authorization', post({ headers: [`host: ${host}`, ...fine, 'authorization: Bearer other', length] }), 400],
  ['two Content-Type', post({ headers: [`host: ${host}`, ...fine, 'content-type: text/plain', length] }), 400],
  ['two Origin', post({ headers: [`host: ${host}`, ...fine, 'origin: null', 'origin: null', length] }), 400],
  [
    'two Mcp-Session-Id',
    post({ headers: [`host: ${host}`, ...fine, 'mcp-session-id: a', 'mcp-session-id: b', length] }),
    400,
  ],
  ['a folded header', post({ headers: [`host: ${host}`, ...fine, 'x-a: 1\r\n continued', length] }), 400],
  [
    'a folded Authorization',
    post({
      headers: [`host: ${host}`, 'content-type: application/json', `authorization: Bearer\r\n\t${token}`, length],
    }),
    400,
  ],
  ['a header without a name', post({ headers: [`host: ${host}`, ...fine, ': x', length] }), 400],
  ['a header without a colon', post({ headers: [`host: ${host}`, ...fine, 'nothing', length] }), 400],
  ['a NUL in a header', post({ headers: [`host: ${host}`, ...fine, 'x-a: a\0b', length] }), 400],
  ['a bare carriage return in a header', post({ headers: [`host: ${host}`, ...fine, 'x-a: a\rb', length] }), 400],
  ['bytes beyond ASCII in a header', post({ headers: [`host: ${host}`, ...fine, 'x-a: \u00e9', length] }), 400],
  ['lines that end with a bare line feed', `POST /mcp HTTP/1.1\nhost: ${host}\n${length}\n\n${body}`, 400],
  ['no Host', post({ headers: [...fine, length] }), 400],
  ['an empty Host', post({ headers: ['host: ', ...fine, length] }), 400],
  ['a Host with a user', post({ headers: [`host: a@${host}`, ...fine, length] }), 400],
  ['a Host with a path', post({ headers: [`host: ${host}/x`, ...fine, length] }), 400],
  ['a Host that is somebody else', post({ headers: ['host: evil.example', ...fine, length] }), 403],
  ['a Host that only begins like ours', post({ headers: ['host: 127.0.0.1.evil.example', ...fine, length] }), 403],
  [
    'a page of another origin',
    post({ headers: [`host: ${host}`, ...fine, 'origin: https://evil.example', length] }),
    403,
  ],
  ['a page of no origin', post({ headers: [`host: ${host}`, ...fine, 'origin: null', length] }), 403],
  [
    'a page of another port of this machine',
    post({ headers: [`host: ${host}`, ...fine, 'origin: http://127.0.0.1:1', length] }),
    403,
  ],
  [
    '101 headers',
    post({
      headers: [`host: ${host}`, ...fine, length, ...Array.from({ length: 101 }, (_, at) => `x-${String(at)}: 1`)],
    }),
    431,
  ],
  ['a huge header', post({ headers: [`host: ${host}`, ...fine, length, `x-a: ${'a'.repeat(20_000)}`] }), 431],
  ['a huge target', post({ target: `/mcp?${'a'.repeat(3000)}` }), 400],
  ['Expect', post({ headers: [`host: ${host}`, ...fine, length, 'expect: 100-continue'] }), 417],
  ['another Expect', post({ headers: [`host: ${host}`, ...fine, length, 'expect: 200-maybe'] }), 417],
  // Paths and targets.
  ['a doubled slash', post({ target: '//mcp' }), 400],
  ['a dot segment', post({ target: '/./mcp' }), 400],
  ['two dots', post({ target: '/mcp/..' }), 400],
  ['two dots to the keys', post({ target: '/.well-known/../mcp' }), 400],
  ['an escaped slash', post({ target: '/%2fmcp' }), 400],
  ['escaped dots', post({ target: '/%2e%2e/mcp' }), 400],
  ['an escaped letter', post({ target: '/%6dcp' }), 400],
  ['a backslash', post({ target: '/mcp\\..' }), 400],
  ['a parameter', post({ target: '/mcp;a=b' }), 400],
  ['a slash at the end', post({ target: '/mcp/' }), 404],
  ['capitals', post({ target: '/MCP' }), 404],
  ['a fragment', post({ target: '/mcp#x' }), 400],
  ['an absolute target for another host', post({ target: 'http://evil.example/mcp' }), 400],
  ['an absolute target with a user', post({ target: `http://a@${host}/mcp` }), 400],
  ['a target of another scheme', post({ target: 'file:///etc/passwd' }), 400],
  ['a star', post({ target: '*' }), 400],
  ['TRACE', post({ line: 'TRACE /mcp HTTP/1.1' }), 405],
  ['PUT', post({ line: 'PUT /mcp HTTP/1.1' }), 405],
  ['OPTIONS of nobody', post({ line: 'OPTIONS /mcp HTTP/1.1' }), 405],
  ['a method nobody knows', post({ line: 'BREW /mcp HTTP/1.1' }), 400],
  ['a method in small letters', post({ line: 'post /mcp HTTP/1.1' }), 400],
  ['HTTP/2 by prior knowledge', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 400],
  ['HTTP/0.9', 'GET /mcp\r\n\r\n', 505],
  ['HTTP/3.7', post({ line: 'POST /mcp HTTP/3.7' }), 400],
  ['TLS to a plain port', '\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03', 400],
  // Bodies.
  [
    'a body in gzip',
    `${post({ headers: [`host: ${host}`, ...fine, 'content-encoding: gzip', 'content-length: 60'], body: '' })}${gzipSync(Buffer.alloc(50_000)).toString('latin1').slice(0, 60)}`,
    415,
  ],
  ['a body in brotli', post({ headers: [`host: ${host}`, ...fine, 'content-encoding: br', length] }), 415],
  [
    'a length beyond what a message may have',
    post({ headers: [`host: ${host}`, ...fine, 'content-length: 9999999999'] }),
    413,
  ],
  [
    'text',
    post({ headers: [`host: ${host}`, 'content-type: text/plain', `authorization: Bearer ${token}`, length] }),
    415,
  ],
  [
    'a form',
    post({
      headers: [
        `host: ${host}`,
        'content-type: application/x-www-form-urlencoded',
        `authorization: Bearer ${token}`,
        length,
      ],
    }),
    415,
  ],
  [
    'a client that takes no JSON',
    post({
      headers: [
        `host: ${host}`,
        'content-type: application/json',
        'accept: text/html',
        `authorization: Bearer ${token}`,
        length,
      ],
    }),
    406,
  ],
  ['an empty body', post({ body: '' }), 400],
  ['a batch', post({ body: `[${body}]` }), 400],
  ['a member twice', post({ body: '{"jsonrpc":"2.0","jsonrpc":"2.0","id":1,"method":"ping"}' }), 400],
  ['a depth of 65', post({ body: '['.repeat(65) }), 400],
  ['bytes that are not UTF-8', post({ body: '{"jsonrpc":"2.0","id":1,"method":"\xff"}' }), 400],
  // Tokens.
  ['no token', post({ headers: [`host: ${host}`, 'content-type: application/json', length] }), 401],
  [
    'a wrong token',
    post({
      headers: [`host: ${host}`, 'content-type: application/json', 'authorization: Bearer writ_nothing', length],
    }),
    401,
  ],
  [
    'a token in the query',
    post({
      target: `/mcp?access_token=${token}`,
      headers: [`host: ${host}`, 'content-type: application/json', length],
    }),
    401,
  ],
  [
    'a session nobody has',
    post({
      body: '{"jsonrpc":"2.0","id":1,"method":"ping"}',
      headers: [`host: ${host}`, ...fine, 'mcp-session-id: abc', 'content-length: 40'],
    }),
    404,
  ],
  ['no session', post({ body: '{"jsonrpc":"2.0","id":1,"method":"ping"}' }), 400],
]

describe('a request that could mean two things', () => {
  it.each(cases)(
    '[G-http-one-meaning] %s is answered once, and nothing hidden in it is served',
    async (_name, bytes, status) => {
      const { statuses, text } = await sendRaw(http.url, bytes)
      expect(statuses).toEqual([status])
      // What names this machine, this program's insides or a secret has no place in an answer.
      expect(text).not.toMatch(/node_modules|\bat \S+ \(|\.ts\b|\/tmp\/|\/work|writ_[A-Za-z0-9]{8}|\bE[A-Z]{4,}\b/)
      expect(text).not.toContain(http.world.folder)
    },
  )

  it('is not what a plain request is, nor an absolute target that says what Host says', async () => {
    expect((await sendRaw(http.url, post())).statuses).toEqual([200])
    expect((await sendRaw(http.url, post({ target: `http://${host}/mcp` }))).statuses).toEqual([200])
    expect((await sendRaw(http.url, post({ target: '/mcp?anything=goes' }))).statuses).toEqual([200])
    // An offer to speak something else is not taken, and does no harm.
    for (const offer of [
      'upgrade: h2c\r\nhttp2-settings: AAMAAABkAARAAAAAAAIAAAAA',
      'upgrade: websocket\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13',
    ]) {
      const headers = [`host: ${host}`, ...fine, 'connection: upgrade', offer, length]
      expect((await sendRaw(http.url, post({ headers }))).statuses).toEqual([200])
    }
    const tunnel = await sendRaw(
      http.url,
      `CONNECT evil.example:443 HTTP/1.1\r\nhost: evil.example:443\r\n\r\n${inside}`,
      { close: true },
    )
    expect([tunnel.statuses, tunnel.closed]).toEqual([[], true])
    const two = await sendRaw(
      http.url,
      `${post({ body: '', line: 'GET /healthz HTTP/1.1', headers: [`host: ${host}`] })}${inside}`,
      { answers: 2 },
    )
    expect(two.statuses).toEqual([200, 200])
  })

  it('left the broker well, its memory bounded and no failure in its log', async () => {
    const before = await http.held()
    for (let round = 0; round < 20; round++)
      await Promise.all(cases.slice(0, 40).map(async ([, bytes]) => await sendRaw(http.url, bytes)))
    expect((await http.held()) - before).toBeLessThan(8 * 1024 * 1024)
    expect((await fetch(`${http.url}/healthz`)).status).toBe(200)
    expect(http.errors()).toEqual([])
  })
})

import { describe, expect, it } from 'vitest'
import { isDroppedOfResponse, type ParsedRequest, parseRequest, serviceNamed } from '../../src/egress/request.ts'
import { Refusal } from '../../src/egress/refusal.ts'

interface Given {
  readonly method?: string
  readonly url?: string
  readonly headers?: readonly (readonly [string, string])[]
  readonly body?: Uint8Array
}

function parse(given: Given): ParsedRequest {
  return parseRequest({
    method: given.method ?? 'GET',
    url: given.url ?? 'http://127.0.0.1:3128/vault/v1/x',
    headers: given.headers ?? [],
    body: given.body ?? new Uint8Array(),
  })
}

function codeOf(given: Given): string {
  try {
    parse(given)
    return 'accepted'
  } catch (failure) {
    return failure instanceof Refusal ? failure.code : 'another error'
  }
}

const at = (path: string): Given => ({ url: `http://127.0.0.1:3128${path}` })

describe('the URL of a request', () => {
  it('is a service, a path and a query, byte for byte', () => {
    expect(parse(at('/vault/v1/secret/data/caf%C3%A9?list=true&x=%2e%2e/..;//'))).toMatchObject({
      service: 'vault',
      path: '/v1/secret/data/caf%C3%A9',
      query: '?list=true&x=%2e%2e/..;//',
    })
    expect(parse(at('/vault'))).toMatchObject({ path: '/', query: '' })
    expect(parse(at('/vault?q=1'))).toMatchObject({ path: '/', query: '?q=1' })
    expect(parse(at("/vault/a.b/..c/c../~user/x:y@z,w!$&'()*+=/"))).toMatchObject({
      path: "/a.b/..c/c../~user/x:y@z,w!$&'()*+=/",
    })
    expect(parse(at('/vault/100%25'))).toMatchObject({ path: '/100%25' })
  })

  it.each([
    'http://127.0.0.1/vault/',
    'http://127.0.0.1:3129/vault/',
    'https://127.0.0.1:3128/vault/',
    'HTTP://127.0.0.1:3128/vault/',
    'http://localhost:3128/vault/',
    'http://127.1:3128/vault/',
    'http://127.0.0.1:03128/vault/',
    'http://2130706433:3128/vault/',
    'http://[::1]:3128/vault/',
    'http://user@127.0.0.1:3128/vault/',
    'http://127.0.0.1:3128@evil.example/vault/',
    'http://127.0.0.1:3128.evil.example/vault/',
    'http://evil.example/http://127.0.0.1:3128/vault/',
    'http://127.0.0.1:3128',
    'http://127.0.0.1:3128/',
    'http://127.0.0.1:3128//vault/',
    'http://127.0.0.1:3128/../vault/',
    'http://127.0.0.1:3128/%76ault/',
    'http://127.0.0.1:3128\\vault/',
    ' http://127.0.0.1:3128/vault/',
    '/vault/',
    'vault',
    '',
    'http://127.0.0.1:3128/vault/#x',
    'http://127.0.0.1:3128/vault/x y',
    'http://127.0.0.1:3128/vault/x\ny',
    'http://127.0.0.1:3128/vault/x\r\nHost: y',
    'http://127.0.0.1:3128/vault/x\0',
    'http://127.0.0.1:3128/vault/\u00e9',
    'http://127.0.0.1:3128/vault/\uff0e\uff0e/',
    'http://127.0.0.1:3128/vault/?x=\ty',
    'http://127.0.0.1:3128/vault/?x=%zz',
    'http://127.0.0.1:3128/vault\u0000/x',
  ])('is refused when it is %j', (url) => {
    expect(codeOf({ url })).toBe('bad_url')
  })

  it('is refused when it is longer than 8 KiB', () => {
    expect(codeOf(at(`/vault/${'x'.repeat(9000)}`))).toBe('bad_url')
  })

  it.each([
    '/../admin',
    '/public/../admin',
    '/.',
    '/./x',
    '/x/.',
    '/x/..',
    '/%2e%2e/admin',
    '/%2E./admin',
    '/.%2e/admin',
    '/x%2fy',
    '/x%2Fy',
    '/x%5cy',
    '/x\\y',
    '//x',
    '/x//y',
    '/x//',
    '/a;b',
    '/a;/b',
    '/..;/admin',
    '/a%3bb',
    '/%252e%252e/admin',
    '/%25252e%25252e/',
    '/x%252fy',
    '/x%255cy',
    '/x%00y',
    '/x%0d%0ay',
    '/x%7fy',
    '/x%c2%85y',
    '/%c0%ae%c0%ae/admin',
    '/%ff',
    '/%',
    '/%2',
    '/%zz',
    '/%ef%bc%8e%ef%bc%8e/admin',
    '/x%ef%bc%8fy',
    '/x%ef%bc%bcy',
    '/%e2%80%a5/admin',
    '/x%EF%BC%9By',
  ])('[G-egress-path] is refused when its path is %s, which can be read in more than one way', (path) => {
    expect(codeOf(at(`/vault${path}`))).toBe('ambiguous_path')
  })

  it('names a service for the count only where one can be told', () => {
    expect(serviceNamed('http://127.0.0.1:3128/vault/../x')).toBe('vault')
    expect(serviceNamed('http://127.0.0.1:3128/vault')).toBe('vault')
    for (const url of [
      '',
      'x',
      'http://127.0.0.1:3128/',
      'http://127.0.0.1:3128/-x/',
      `http://127.0.0.1:3128/${'v'.repeat(65)}/`,
    ])
      expect(serviceNamed(url)).toBeNull()
  })
})

describe('the method of a request', () => {
  it.each(['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'LIST', 'PROPFIND'])('may be %s', (method) => {
    expect(parse({ method }).method).toBe(method)
  })
  it.each(['TRACE', 'TRACK', 'CONNECT'])('is not passed on when it is %s', (method) => {
    expect(codeOf({ method })).toBe('method_not_allowed')
  })
  it.each(['', 'get', 'GET ', 'GET /x HTTP/1.1\r\nX:', 'G\nT', 'x'.repeat(21).toUpperCase(), 'P\u00c4CH'])(
    'is refused when it is %j',
    (method) => {
      expect(codeOf({ method })).toBe('bad_request')
    },
  )
})

describe('the headers of a request', () => {
  it('lose what belongs to the connection or to the gateway, and what would tell the service another story than policy was told', () => {
    const given = [
      'Host',
      'Connection',
      'Content-Length',
      'Transfer-Encoding',
      'TE',
      'Trailer',
      'Upgrade',
      'Keep-Alive',
      'Expect',
      'Cookie',
      'Accept-Encoding',
      'Via',
      'Forwarded',
      'X-Forwarded-For',
      'X-Forwarded-Anything',
      'Proxy-Authorization',
      'Proxy-Connection',
      'X-Real-IP',
      'X-HTTP-Method-Override',
      'X-Method-Override',
      'X-Original-URL',
      'X-Rewrite-URL',
      'HTTP2-Settings',
      'X-Forwarded',
      'X-Host',
      'X-Original-URI',
      'X-Envoy-Original-Path',
      'CF-Connecting-IP',
      'X-Cluster-Client-IP',
      'A-IM',
    ]
    expect(
      parse({ headers: [...given.map((name) => [name, 'x'] as const), ['Accept', 'text/plain'], ['X-Own', '1']] })
        .headers,
    ).toEqual([
      ['accept', 'text/plain'],
      ['x-own', '1'],
    ])
  })

  it('lose what Connection names', () => {
    expect(
      parse({
        headers: [
          ['Connection', 'close, X-Secret-Hop'],
          ['x-secret-hop', '1'],
          ['x-stays', '2'],
        ],
      }).headers,
    ).toEqual([['x-stays', '2']])
  })

  it.each([
    ['', 'x'],
    ['a b', 'x'],
    ['a:', 'x'],
    ['a\r\nb', 'x'],
    ['n\u00e4me', 'x'],
    ['x\0', 'x'],
    ['x_own', 'x'],
    ['x', 'a\r\nInjected: 1'],
    ['x', 'a\nb'],
    ['x', 'a\rb'],
    ['x', 'a\0b'],
    ['x', ' a'],
    ['x', 'a\t'],
    ['x', '\u0100'],
    ['x', '\u007f'],
    ['x', '\u{1f600}'],
  ] as const)('are refused with %j: %j', (name, value) => {
    expect(codeOf({ headers: [[name, value]] })).toBe('bad_header')
  })

  it('are at most 128 and 16 KiB', () => {
    expect(codeOf({ headers: Array.from({ length: 129 }, (_, n) => [`x-${n}`, '1'] as const) })).toBe(
      'headers_too_large',
    )
    expect(codeOf({ headers: [['x-long', 'x'.repeat(16_384)]] })).toBe('headers_too_large')
    expect(codeOf({ headers: [['x-long', 'x'.repeat(16_000)]] })).toBe('accepted')
  })
})

describe('the body of a request', () => {
  it('is at most 1 MiB', () => {
    expect(codeOf({ method: 'POST', body: new Uint8Array(1_048_576) })).toBe('accepted')
    expect(codeOf({ method: 'POST', body: new Uint8Array(1_048_577) })).toBe('body_too_large')
  })
})

describe('the headers of an answer', () => {
  it('lose cookies, what belongs to the connection, and other ways to the service', () => {
    for (const name of [
      'set-cookie',
      'set-cookie2',
      'connection',
      'transfer-encoding',
      'content-length',
      'content-encoding',
      'alt-svc',
      'proxy-authenticate',
      'writ-egress',
    ])
      expect(isDroppedOfResponse(name)).toBe(true)
    for (const name of ['content-type', 'etag', 'location', 'x-request-id', 'www-authenticate'])
      expect(isDroppedOfResponse(name)).toBe(false)
  })
})

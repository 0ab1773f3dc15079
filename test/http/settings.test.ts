import { describe, expect, it } from 'vitest'
import { openCaps } from '../../src/http/caps.ts'
import { httpSchema, httpSettings, isLoopback, parseListen } from '../../src/http/settings.ts'
import type { HttpSettings } from '../../src/http/settings.ts'

const files = { tls: { certificate: 'c.pem', key: 'k.pem' } }

function read(section: object, listen: string | null = null): HttpSettings {
  return httpSettings(httpSchema.parse(section), listen === null ? null : parseListen(listen), {
    resolve: (path) => `/etc/writ/${path}`,
    fail: (key, message) => new Error(`${key}: ${message}`),
  })
}

describe('the http section', () => {
  it('listens on loopback unless told otherwise, without TLS, for nobody’s pages', () => {
    expect(read({})).toMatchObject({
      listen: { host: '127.0.0.1', port: 8720 },
      url: null,
      tls: null,
      behindProxy: false,
      hosts: [],
      origins: [],
      metrics: false,
    })
    expect(read({ listen: '127.0.0.1:1' }, '[::1]:2').listen).toEqual({ host: '::1', port: 2 })
    expect(read({ listen: 'localhost:1' }).listen).toEqual({ host: '127.0.0.1', port: 1 })
  })

  it.each([
    [
      'plain HTTP on every address',
      { listen: '0.0.0.0:8720', url: 'https://writ.example' },
      'listen: listening beyond loopback needs "tls"',
    ],
    [
      'plain HTTP on one address',
      { listen: '192.0.2.1:8720', url: 'https://writ.example' },
      'listen: listening beyond loopback needs "tls"',
    ],
    [
      'plain HTTP on every IPv6 address',
      { listen: '[::]:8720', url: 'https://writ.example' },
      'listen: listening beyond loopback needs "tls"',
    ],
    [
      'TLS without a name to be reached by',
      { listen: '0.0.0.0:443', ...files },
      'listen: listening beyond loopback needs "url"',
    ],
    [
      'a proxy without a name to be reached by',
      { listen: '0.0.0.0:80', unsafe_plain_http_behind_proxy: true },
      'listening beyond loopback needs "url"',
    ],
    ['a name that is reached without TLS', { url: 'http://writ.example' }, 'url: has to be https'],
  ])('[G-no-plain-http] refuses %s', (_what, section, message) => {
    expect(() => read(section)).toThrow(message)
  })

  it('takes both ways out of loopback', () => {
    expect(read({ listen: '0.0.0.0:443', url: 'https://Writ.Example/', ...files })).toMatchObject({
      url: 'https://writ.example',
      tls: { certificate: '/etc/writ/c.pem', key: '/etc/writ/k.pem' },
    })
    expect(
      read({ listen: '10.0.0.1:80', url: 'https://writ.example', unsafe_plain_http_behind_proxy: true }).behindProxy,
    ).toBe(true)
  })

  it.each([
    [{ listen: 'writ.example:80' }],
    [{ listen: '127.0.0.1' }],
    [{ listen: '127.0.0.1:99999' }],
    [{ listen: ':80' }],
    [{ listen: '::1:80' }],
    [{ url: 'https://writ.example/path' }],
    [{ url: 'https://a@writ.example' }],
    [{ url: 'ftp://writ.example' }],
    [{ origins: ['*'] }],
    [{ origins: ['https://a.example/x'] }],
    [{ hosts: ['a.example:80'] }],
    [{ hosts: ['*.example'] }],
    [{ limits: { requests: 0 } }],
    [{ tls: { certificate: 'c' } }],
    [{ unknown: 1 }],
  ])('refuses %j', (section) => {
    expect(httpSchema.safeParse(section).success).toBe(false)
  })

  it('takes for loopback only what is', () => {
    for (const host of ['127.0.0.1', '127.9.9.9', 'localhost', '::1', '[::1]', 'LOCALHOST'])
      expect([host, isLoopback(host)]).toEqual([host, true])
    for (const host of ['0.0.0.0', '::', '127.0.0.1.example', 'localhost.example', '10.0.0.1', '127.1', ''])
      expect([host, isLoopback(host)]).toEqual([host, false])
  })
})

describe('the caps', () => {
  const limits = {
    connections: 9,
    connections_per_caller: 1,
    requests: 3,
    requests_per_caller: 2,
    sessions: 1,
    sessions_per_caller: 1,
  }

  it('give each place back once, however often it is given back', () => {
    const caps = openCaps(limits)
    const places = [caps.enter(), caps.enter(), caps.enter()]
    expect(caps.enter()).toEqual({ status: 503, what: 'requests' })
    const [first] = places
    if (first === undefined || !(Symbol.dispose in first)) throw new Error('no place')
    first[Symbol.dispose]()
    first[Symbol.dispose]()
    expect(caps.requests).toBe(2)
    expect(Symbol.dispose in caps.enter()).toBe(true)
    expect(caps.enter()).toEqual({ status: 503, what: 'requests' })
  })

  it('count a caller’s connections until they close, and forget who has none', () => {
    const caps = openCaps(limits)
    const [one, other] = [{}, {}]
    expect(Symbol.dispose in caps.take('ada', one, 0)).toBe(true)
    expect(caps.take('ada', other, 0)).toEqual({ status: 429, what: 'connections' })
    expect(Symbol.dispose in caps.take('ada', one, 0)).toBe(true)
    expect(caps.take('ada', one, 0)).toEqual({ status: 429, what: 'requests' })
    expect(Symbol.dispose in caps.take('eve', other, 0)).toBe(true)
    caps.closed(one)
    expect(caps.take('ada', other, 0)).toEqual({ status: 429, what: 'requests' })
  })

  it('bound the bytes of bodies held at once, and give back what was only feared', () => {
    const many = openCaps({ ...limits, requests_per_caller: 1000, connections_per_caller: 1000 })
    const mib = 1024 * 1024
    const places = Array.from({ length: 16 }, () => many.take('ada', {}, 4 * mib))
    expect(many.take('ada', {}, 1)).toEqual({ status: 429, what: 'bytes' })
    const [first] = places
    if (first === undefined || !('resize' in first)) throw new Error('no place')
    first.resize(mib)
    expect('resize' in many.take('ada', {}, 3 * mib)).toBe(true)
    first[Symbol.dispose]()
    first[Symbol.dispose]()
    expect(many.take('ada', {}, mib + 1)).toEqual({ status: 429, what: 'bytes' })
    for (const caller of ['b', 'c', 'd']) for (let at = 0; at < 16; at++) many.take(caller, {}, 4 * mib)
    expect(many.take('eve', {}, 2 * mib)).toEqual({ status: 503, what: 'bytes' })
    expect('resize' in many.take('eve', {}, mib)).toBe(true)
  })
})

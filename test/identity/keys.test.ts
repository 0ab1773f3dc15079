import { describe, expect, it } from 'vitest'
import { accessToken, newPair, openIssuer, openWorld, said } from './issuer.ts'
import type { JsonObject } from '../../src/digest.ts'
import { later, until } from '../wait.ts'

const fetched = (asked: readonly string[]): number => asked.filter((path) => path === '/jwks').length
const unavailable =
  '503 identity_unavailable: Whose token this is cannot be established at the moment; try again later.'

async function setUp(more: JsonObject = {}) {
  const issuer = await openIssuer()
  const pair = await newPair('EdDSA', 'one')
  issuer.keys = [pair.jwk]
  const world = openWorld([{ issuer, more }])
  const later = (ms: number): void => world.clock.set(world.clock.now() + ms)
  return { issuer, pair, world, later, token: async (by = pair) => await accessToken(issuer, by, world.clock) }
}

describe('the keys of an issuer', () => {
  it('are fetched once for many callers at the same time', async () => {
    const { issuer, world, token } = await setUp()
    const one = await token()
    const answers = await Promise.all(Array.from({ length: 50 }, async () => said(await world.with(one))))
    expect(new Set(answers)).toEqual(new Set(['ok corp:alice']))
    expect(fetched(issuer.asked)).toBe(1)
  })

  it('may be found by the metadata of RFC 8414, by that of OpenID Connect, or stand in the configuration', async () => {
    const plain = await setUp()
    await plain.world.with(await plain.token())
    expect(plain.issuer.asked).toEqual([
      '/.well-known/oauth-authorization-server',
      '/.well-known/openid-configuration',
      '/jwks',
    ])
    const named = await setUp()
    named.issuer.instead.set('/.well-known/oauth-authorization-server', {
      body: JSON.stringify({ issuer: named.issuer.url, jwks_uri: `${named.issuer.url}/jwks` }),
    })
    expect(said(await named.world.with(await named.token()))).toBe('ok corp:alice')
    expect(named.issuer.asked).toEqual(['/.well-known/oauth-authorization-server', '/jwks'])
    const issuer = await openIssuer()
    const pair = await newPair('EdDSA', 'one')
    issuer.keys = [pair.jwk]
    const world = openWorld([{ issuer, more: { jwks_uri: `${issuer.url}/jwks` } }])
    expect(said(await world.with(await accessToken(issuer, pair, world.clock)))).toBe('ok corp:alice')
    expect(issuer.asked).toEqual(['/jwks'])
  })

  it('are fetched again when a token names a new one, and what is withdrawn verifies nothing any more', async () => {
    const { issuer, world, token, later } = await setUp()
    expect(said(await world.with(await token()))).toBe('ok corp:alice')
    const next = await newPair('EdDSA', 'two')
    issuer.keys = [next.jwk]
    later(31_000)
    expect(said(await world.with(await token(next)))).toBe('ok corp:alice')
    expect(said(await world.with(await token()))).toBe(
      '401 invalid_token: The token is signed with a key its issuer does not publish.',
    )
  })

  it('replace the old ones also where a key changes under its name', async () => {
    const { issuer, world, token, later } = await setUp()
    await world.with(await token())
    const same = await newPair('EdDSA', 'one')
    issuer.keys = [same.jwk]
    later(601_000)
    await world.with(await token())
    await expect.poll(() => fetched(issuer.asked)).toBe(2)
    await expect.poll(async () => said(await world.with(await token(same)))).toBe('ok corp:alice')
    expect(said(await world.with(await token()))).toContain('signature')
  })

  it('[G-no-hammer] are not asked for more than twice a minute, whatever key ids tokens invent', async () => {
    const { issuer, world, token, later, pair } = await setUp()
    await world.with(await token())
    for (let second = 0; second < 60; second++) {
      later(1000)
      const answers = await Promise.all(
        Array.from(
          { length: 5 },
          async (_, i) => await world.with(await token({ ...pair, kid: `invented-${second}-${i}` })),
        ),
      )
      for (const answer of answers) expect(said(answer)).toContain('does not publish')
    }
    expect(fetched(issuer.asked)).toBeLessThanOrEqual(3)
    expect(said(await world.with(await token()))).toBe('ok corp:alice')
  })

  it('[G-no-hammer] are not asked for more than twice in any minute of an issuer that answers with errors', async () => {
    for (const known of [true, false]) {
      const { issuer, world, token, later, pair } = await setUp()
      if (known) await world.with(await token())
      issuer.instead.set('/jwks', { status: 500, body: 'ill' })
      const [right, invented] = [await token(), await token({ ...pair, kid: 'invented' })]
      const counts: number[] = []
      for (let second = 0; second < 300; second++) {
        const answers = [said(await world.with(right)), said(await world.with(invented))]
        expect(answers[0]).toBe(known ? 'ok corp:alice' : unavailable)
        expect(['401', '503']).toContain(answers[1]?.slice(0, 3))
        counts.push(fetched(issuer.asked))
        later(1000)
      }
      const inMinute = counts.map((count, at) => count - (counts[at - 60] ?? 0))
      expect(Math.max(...inMinute)).toBe(2)
      issuer.instead.clear()
      later(301_000)
      expect(said(await world.with(await token()))).toBe('ok corp:alice')
    }
  })

  it('[G-dead-issuer] serve on while the issuer is dead, for a day, and it is not hammered meanwhile', async () => {
    const { issuer, world, token, later, pair } = await setUp()
    await world.with(await token())
    const before = issuer.asked.length
    await issuer.die()
    for (let hour = 0; hour < 23; hour++) {
      later(3_600_000)
      expect(said(await world.with(await token()))).toBe('ok corp:alice')
    }
    expect(said(await world.with(await token({ ...pair, kid: 'new' })))).toBe(unavailable)
    expect(issuer.asked.length).toBe(before)
    later(3_600_001)
    expect(said(await world.with(await token()))).toBe(unavailable)
    await issuer.revive()
    later(301_000)
    expect(said(await world.with(await token()))).toBe('ok corp:alice')
  })

  it('[G-dead-issuer] are answered for with 503 where there are none yet, and taken soon after the issuer is back', async () => {
    const { issuer, world, token, later } = await setUp()
    await issuer.die()
    for (let i = 0; i < 20; i++) expect(said(await world.with(await token()))).toBe(unavailable)
    expect(world.warnings).toHaveLength(1)
    expect(await world.with(await token())).toMatchObject({ status: 503, challenge: '' })
    await issuer.revive()
    expect(said(await world.with(await token()))).toBe(unavailable)
    later(2_001)
    expect(said(await world.with(await token()))).toBe('ok corp:alice')
  })

  it('are not taken from a server that cannot prove who it is', async () => {
    const { issuer, pair } = await setUp()
    const other = await openIssuer()
    const world = openWorld([{ issuer: { ...issuer, ca: other.ca } }])
    expect(said(await world.with(await accessToken(issuer, pair, world.clock)))).toBe(unavailable)
    expect(issuer.asked).toEqual([])
  })

  it('are not taken from documents that are another issuer’s, redirect, are no JSON, name plain HTTP or do not end', async () => {
    const cases: readonly (readonly [
      string,
      (url: string) => { status?: number; body: string; headers?: Record<string, string> },
    ])[] = [
      [
        '/.well-known/openid-configuration',
        (url) => ({ body: JSON.stringify({ issuer: 'https://evil.example', jwks_uri: `${url}/jwks` }) }),
      ],
      [
        '/.well-known/openid-configuration',
        (url) => ({ body: JSON.stringify({ issuer: `${url}/`, jwks_uri: `${url}/jwks` }) }),
      ],
      [
        '/.well-known/openid-configuration',
        (url) => ({ body: JSON.stringify({ issuer: url, jwks_uri: `${url.replace('https', 'http')}/jwks` }) }),
      ],
      [
        '/.well-known/openid-configuration',
        (url) => ({ body: JSON.stringify({ issuer: url, jwks_uri: 'file:///etc/passwd' }) }),
      ],
      ['/.well-known/openid-configuration', (url) => ({ body: JSON.stringify({ issuer: url }) })],
      ['/jwks', (url) => ({ status: 302, body: '', headers: { location: `${url}/other` } })],
      ['/jwks', () => ({ body: 'not json' })],
      ['/jwks', () => ({ body: '{"keys":{}}' })],
      ['/jwks', () => ({ body: '{"keys":[],"keys":[]}' })],
      ['/jwks', () => ({ body: `{"keys":[],"pad":"${'x'.repeat(300_000)}"}` })],
      ['/jwks', () => ({ body: JSON.stringify({ keys: Array.from({ length: 65 }, (_, i) => ({ kid: String(i) })) }) })],
      ['/jwks', () => ({ body: '{}', headers: { 'content-encoding': 'gzip' } })],
      ['/jwks', () => ({ body: '{"keys":', headers: { 'content-length': '900' } })],
    ]
    for (const [path, make] of cases) {
      const { issuer, world, token } = await setUp()
      issuer.instead.set(path, make(issuer.url))
      const asking = later(world.with(await token()))
      if (make(issuer.url).headers?.['content-length'] !== undefined) {
        await until('its keys are asked for', () => issuer.asked.includes(path))
        await issuer.die()
      }
      const answer = await asking
      expect([path, make('').body.slice(0, 60), said(answer)]).toEqual([path, make('').body.slice(0, 60), unavailable])
      // Why is the operator's to know; the client learns nothing of the issuer's address.
      expect(JSON.stringify(answer)).not.toContain(issuer.url)
      expect(world.warnings).toHaveLength(1)
    }
  })

  it('verify nothing where they are secret, published with their secret, too short, for encryption or told twice', async () => {
    const pair = await newPair('EdDSA', 'one')
    const short = await newPair('RS256', 'one')
    const keys: readonly (readonly JsonObject[])[] = [
      [{ ...pair.jwk, d: 'AAAA' }],
      [{ kty: 'oct', k: 'AAAA', kid: 'one', alg: 'EdDSA' }],
      [{ ...pair.jwk, use: 'enc' }],
      [{ ...pair.jwk, key_ops: ['sign'] }],
      [{ ...pair.jwk, alg: 'ES256' }],
      [{ ...pair.jwk, crv: 'X25519' }],
      [{ ...pair.jwk, x: 'AAAA' }],
      [pair.jwk, (await newPair('EdDSA', 'one')).jwk],
      [{ ...short.jwk, n: String(short.jwk.n).slice(0, 171) }],
      [null as never, 7 as never, [] as never, { kid: 7 }],
    ]
    const answerTo = async (published: readonly JsonObject[], by = pair): Promise<string> => {
      const { issuer, world } = await setUp()
      issuer.keys = published as never
      return said(await world.with(await accessToken(issuer, by, world.clock)))
    }
    for (const published of keys)
      expect(await answerTo(published, published[0]?.['kty'] === 'RSA' ? short : pair)).toBe(
        '401 invalid_token: The token is signed with a key its issuer does not publish.',
      )
    expect(await answerTo([pair.jwk])).toBe('ok corp:alice')
    expect(await answerTo([short.jwk], short)).toBe('ok corp:alice')
    expect(await answerTo([...keys.flat().filter((one) => one?.['kid'] !== 'one'), pair.jwk])).toBe('ok corp:alice')
  })
})

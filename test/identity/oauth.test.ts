import { createHmac, createPublicKey } from 'node:crypto'
import { beforeAll, describe, expect, it } from 'vitest'
import { accessToken, newPair, openIssuer, openWorld, resource, said, settingsOf } from './issuer.ts'
import type { JsonObject } from '../../src/digest.ts'
import { folder } from '../ledger/folder.ts'
import { oauthProblem, oauthSchema } from '../../src/http/identity/settings.ts'
import type { Authenticated } from '../../src/request/caller.ts'

const pairs = new Map<string, Awaited<ReturnType<typeof newPair>>>()
beforeAll(async () => {
  for (const alg of ['ES256', 'EdDSA', 'RS256', 'PS256']) pairs.set(alg, await newPair(alg, `key-${alg}`))
})
const pair = (alg = 'ES256') => {
  const found = pairs.get(alg)
  if (found === undefined) throw new Error(alg)
  return found
}

function ended({ caller }: Extract<Authenticated, { readonly ok: true }>): boolean | undefined {
  return caller.auth.shown?.revoked.aborted
}

async function setUp(given: { readonly more?: JsonObject } = {}, all: JsonObject = {}) {
  const issuer = await openIssuer()
  issuer.keys = [...pairs.values()].map((one) => one.jwk)
  const world = openWorld([{ issuer, ...given }], all)
  return {
    issuer,
    world,
    token: async (change = {}, by = pair()) => await accessToken(issuer, by, world.clock, change),
  }
}

describe('an access token of a configured issuer', () => {
  it('is taken in every algorithm of the list, and maps to tenant, subject, agent and roles by the configuration', async () => {
    const { world, token } = await setUp()
    for (const alg of pairs.keys()) {
      const answer = await world.with(await token({}, pair(alg)))
      expect(answer).toMatchObject({
        ok: true,
        caller: {
          tenant: 'acme',
          subject: { type: 'user', id: 'corp:alice' },
          roles: ['developer'],
          agent: { id: 'corp:chat-client' },
          // As long as it would be taken: a minute of difference between clocks is allowed.
          auth: { method: 'oauth', atMs: world.clock.now(), shown: { until_ms: world.clock.now() + 3_660_000 } },
        },
      })
    }
  })

  it('counts against one share, whatever client it came through, and against another person’s never', async () => {
    const { world, token } = await setUp()
    const keyOf = async (claims: JsonObject): Promise<string> => {
      const answer = await world.with(await token({ claims }))
      return answer.ok ? answer.key : said(answer)
    }
    const mine = await keyOf({})
    expect(await keyOf({ client_id: 'registered-anew', jti: 'k' })).toBe(mine)
    expect(await keyOf({ sub: 'bob' })).not.toBe(mine)
  })

  it('gives no role for what is not in a map, whatever name it has', async () => {
    const { world, token } = await setUp()
    for (const groups of [
      [],
      ['developer'],
      ['constructor', '__proto__', 'toString'],
      'writ-dev',
      { 'writ-devs': true },
      null,
      [['writ-devs']],
    ]) {
      const answer = await world.with(await token({ claims: { groups } }))
      expect([groups, answer.ok && answer.caller.roles]).toEqual([groups, []])
    }
    const both = await world.with(await token({ claims: { groups: ['x', 'writ-ops', 'writ-devs', 'writ-devs'] } }))
    expect(both.ok && both.caller.roles).toEqual(['developer', 'operator'])
  })

  it('maps scopes, nested and oddly named claims by JSON pointer, and a client that acts for itself to a service', async () => {
    const claims = {
      tenant: { pointer: '/org~1id/~0', map: { o1: 'acme', o2: 'globex' } },
      agent: { pointer: '/azp' },
      roles: [{ pointer: '/scope', map: { 'writ:run': 'developer' } }, { value: ['auditor'] }],
    }
    const { world, token } = await setUp({ more: { claims } })
    const given = { 'org/id': { '~': 'o2' }, azp: 'bot', sub: 'bot', client_id: 'bot', scope: 'openid writ:run' }
    expect(await world.with(await token({ claims: given }))).toMatchObject({
      ok: true,
      caller: { tenant: 'globex', subject: { type: 'service', id: 'corp:bot' }, roles: ['auditor', 'developer'] },
    })
    for (const org of [{ '~': 'o3' }, { '~': '__proto__' }, 'o1', null])
      expect(said(await world.with(await token({ claims: { ...given, 'org/id': org } })))).toBe(
        '401 invalid_token: The token names nobody this Writ knows what to do with.',
      )
  })

  it('names nobody where subject or agent is missing, empty, too long or not printable', async () => {
    const { world, token } = await setUp()
    for (const sub of [undefined, '', 7, ['alice'], 'a b', 'a\nb', 'a\u202eb', 'a\u200bb', 'x'.repeat(256)])
      expect(`${JSON.stringify(sub)} ${said(await world.with(await token({ claims: { sub } })))}`).toContain(
        'names nobody',
      )
    expect(said(await world.with(await token({ claims: { client_id: undefined } })))).toContain('names nobody')
  })

  it('[G-audience] is refused where it was meant for another resource', async () => {
    const { world, token } = await setUp()
    const wrong = [
      'https://other.example/mcp',
      `${resource}/`,
      resource.toUpperCase(),
      'https://writ.example',
      [],
      ['https://other.example'],
      undefined,
      { [resource]: 1 },
      [[resource]],
      Array.from({ length: 17 }, () => resource),
    ]
    for (const aud of wrong)
      expect(`${JSON.stringify(aud)} ${said(await world.with(await token({ claims: { aud } })))}`).toContain(
        '401 invalid_token: The token was issued for another resource.',
      )
    expect(said(await world.with(await token({ claims: { aud: ['https://other.example', resource] } })))).toBe(
      'ok corp:alice',
    )
  })

  it('takes the audience the configuration names instead, and then only that', async () => {
    const { world, token } = await setUp({ more: { audience: 'api://writ' } })
    expect(said(await world.with(await token({ claims: { aud: 'api://writ' } })))).toBe('ok corp:alice')
    expect(said(await world.with(await token()))).toContain('another resource')
  })

  it('is held to its times with a minute for clocks that differ', async () => {
    const { world, token } = await setUp()
    const now = Math.floor(world.clock.now() / 1000)
    const cases: readonly (readonly [Record<string, unknown>, string])[] = [
      [{ exp: now - 59 }, 'ok'],
      [{ exp: now - 60 }, 'The token has expired.'],
      [{ iat: now + 60 }, 'ok'],
      [{ iat: now + 61 }, 'The token is not valid yet.'],
      [{ nbf: now + 60 }, 'ok'],
      [{ nbf: now + 61 }, 'The token is not valid yet.'],
      [{ exp: undefined }, 'The token lacks a claim it has to have.'],
      [{ iat: undefined }, 'The token lacks a claim it has to have.'],
      [{ exp: String(now + 60) }, 'The token lacks a claim it has to have.'],
      [{ nbf: null }, 'The token lacks a claim it has to have.'],
      [{ exp: 1e300 }, 'not a token'],
    ]
    for (const [claims, expected] of cases)
      expect(`${JSON.stringify(claims)} ${said(await world.with(await token({ claims })))}`).toContain(expected)
  })

  it('is refused where it is bound to a key whose proof nobody here checks', async () => {
    const { world, token } = await setUp()
    for (const cnf of [{ jkt: 'x' }, { 'x5t#S256': 'x' }, null])
      expect(said(await world.with(await token({ claims: { cnf } })))).toContain('bound to a key')
  })

  it('asks for a scope where it lacks one, with 403 and the scope to ask for', async () => {
    const { world, token } = await setUp({}, { scopes: ['writ', 'writ:run'] })
    const answer = await world.with(await token({ claims: { scope: 'writ openid' } }))
    expect(answer).toEqual({
      ok: false,
      status: 403,
      code: 'insufficient_scope',
      message: 'The token lacks a scope this resource needs.',
      challenge:
        'Bearer error="insufficient_scope", error_description="The token lacks a scope this resource needs.", scope="writ writ:run", resource_metadata="https://writ.example/.well-known/oauth-protected-resource/mcp"',
    })
    for (const claims of [
      { scope: 'writ:run writ' },
      { scope: undefined, scp: ['writ', 'writ:run'] },
      { scope: undefined, scp: 'writ writ:run' },
    ])
      expect(said(await world.with(await token({ claims })))).toBe('ok corp:alice')
    for (const claims of [
      { scope: 'writ:runs writ' },
      { scope: ['writ writ:run'] },
      { scope: 'writ\twrit:run' },
      { scope: null },
      {},
    ])
      expect(said(await world.with(await token({ claims })))).toContain('403 insufficient_scope')
  })
})

describe('a forged access token', () => {
  it('[G-strict-jwt] is refused in every header that has ever talked a verifier into something', async () => {
    const { world, token, issuer } = await setUp()
    const headers: readonly (readonly [Record<string, unknown>, string])[] = [
      [{ typ: 'JWT' }, 'not of the type'],
      [{ typ: 'id_token+jwt' }, 'not of the type'],
      [{ typ: 'writ-receipt+jwt' }, 'not of the type'],
      [{ typ: undefined }, 'not a token'],
      [{ kid: undefined }, 'not a token'],
      [{ kid: '' }, 'a key its issuer does not publish'],
      [{ kid: '../../etc/passwd' }, 'a key its issuer does not publish'],
      [{ kid: 'k'.repeat(257) }, 'not a token'],
      [{ jku: `${issuer.url}/jwks` }, 'not a token'],
      [{ x5u: 'https://evil.example' }, 'not a token'],
      [{ jwk: pair().jwk }, 'not a token'],
      [{ x5c: ['MIIB'] }, 'not a token'],
      [{ cty: 'JWT' }, 'not a token'],
      [{ zip: 'DEF' }, 'not a token'],
      [{ b64: true, crit: ['b64'] }, 'not a token'],
    ]
    for (const [header, expected] of headers)
      expect(`${JSON.stringify(header)} ${said(await world.with(await token({ header })))}`).toContain(expected)
    expect(said(await world.with(await token({ header: { typ: 'application/AT+JWT', x5t: 'abc' } })))).toBe(
      'ok corp:alice',
    )
  })

  it('[G-strict-jwt] is refused without a signature, under a symmetric one made from the public key, and under another key', async () => {
    const { world, token, issuer } = await setUp()
    const good = await token()
    const [header = '', payload = '', signature = ''] = good.split('.')
    const encode = (value: object): string => Buffer.from(JSON.stringify(value)).toString('base64url')
    const pem = createPublicKey({ key: pair().jwk, format: 'jwk' }).export({ type: 'spki', format: 'pem' })
    const hs = `${encode({ alg: 'HS256', typ: 'at+jwt', kid: pair().kid })}.${payload}`
    const stranger = await newPair('ES256', pair().kid)
    const swapped = Buffer.from(signature, 'base64url')
    swapped[10] = (swapped[10] ?? 0) ^ 1
    const malformed = [
      `${encode({ alg: 'none', typ: 'at+jwt', kid: pair().kid })}.${payload}.`,
      `${encode({ alg: 'none', typ: 'at+jwt', kid: pair().kid })}.${payload}.${signature}`,
      `${encode({ alg: 'nOnE', typ: 'at+jwt', kid: pair().kid })}.${payload}.${signature}`,
      `${hs}.${createHmac('sha256', pem).update(hs).digest('base64url')}`,
      `${header}.${payload}.`,
      `${header}.${payload}`,
      `${good}.${signature}`,
      `${header}..${signature}`,
      `${header}=.${payload}.${signature}`,
      `${Buffer.from('{"alg":"ES256","alg":"none","typ":"at+jwt","kid":"k"}').toString('base64url')}.${payload}.${signature}`,
      `${header}.${Buffer.from(`{"iss":"${issuer.url}","iss":"${issuer.url}"}`).toString('base64url')}.${signature}`,
      `${header}.${Buffer.from([0xff, 0xfe]).toString('base64url')}.${signature}`,
      `${header}.${encode([1])}.${signature}`,
    ]
    for (const text of malformed)
      expect(`${text.slice(0, 80)} ${said(await world.with(text))}`).toMatch(/not a token|exactly one/)
    const wrong = [
      `${header}.${payload}.${swapped.toString('base64url')}`,
      `${header}.${encode({ ...(JSON.parse(Buffer.from(payload, 'base64url').toString()) as object), sub: 'root' })}.${signature}`,
      `${header}.${payload}.${Buffer.alloc(64).toString('base64url')}`,
      `${header}.${payload}.AAAA`,
      await accessToken(issuer, stranger, world.clock),
    ]
    for (const text of wrong)
      expect(said(await world.with(text))).toBe('401 invalid_token: The signature of the token is wrong.')
    expect(said(await world.with(good))).toBe('ok corp:alice')
  })

  it('[G-strict-jwt] gains nothing from a good token shown before it', async () => {
    const { world, token, issuer } = await setUp()
    const good = await token({ claims: { exp: Math.floor(world.clock.now() / 1000) + 100 } })
    for (let i = 0; i < 3; i++) expect(said(await world.with(good))).toBe('ok corp:alice')
    const [header = '', payload = '', signature = ''] = good.split('.')
    const claims = JSON.parse(Buffer.from(payload, 'base64url').toString()) as object
    const changed = Buffer.from(JSON.stringify({ ...claims, sub: 'root' })).toString('base64url')
    expect(said(await world.with(`${header}.${changed}.${signature}`))).toContain('signature')
    expect(said(await world.with(`${header}.${payload}.${'A'.repeat(86)}`))).toContain('signature')
    // What was right once is still held to its times, and to the keys that are published now.
    const lasting = await token({ claims: { exp: Math.floor(world.clock.now() / 1000) + 9000 } })
    expect(said(await world.with(lasting))).toBe('ok corp:alice')
    world.clock.set(world.clock.now() + 160_000)
    expect(said(await world.with(good))).toContain('expired')
    issuer.keys = [{ ...(await newPair('ES256', pair().kid)).jwk }]
    world.clock.set(world.clock.now() + 600_000)
    await world.with(lasting)
    await expect.poll(async () => said(await world.with(lasting))).toContain('signature')
  })

  it('[G-strict-jwt] cannot take a key for another algorithm than the key is for', async () => {
    const { world, token, issuer } = await setUp()
    const rsa = pair('RS256')
    for (const [kid, alg] of [
      ['key-RS256', 'PS256'],
      ['key-PS256', 'RS256'],
      ['key-ES256', 'RS256'],
      ['key-EdDSA', 'RS256'],
    ] as const)
      expect(said(await world.with(await token({ header: { kid } }, { ...pair(alg), kid })))).toContain(
        'does not publish',
      )
    expect(said(await world.with(await token({}, rsa)))).toBe('ok corp:alice')
    expect(issuer.asked.filter((path) => path === '/jwks')).toHaveLength(1)
  })

  it('is refused where the configuration takes fewer algorithms, or other types', async () => {
    const { world, token } = await setUp({ more: { algorithms: ['EdDSA'], typ: 'jwt' } })
    expect(said(await world.with(await token()))).toContain('not of the type or not signed with an algorithm')
    expect(said(await world.with(await token({ header: { typ: 'JWT' } }, pair('EdDSA'))))).toBe('ok corp:alice')
    expect(said(await world.with(await token({ header: { typ: 'logout+jwt' } }, pair('EdDSA'))))).toContain(
      'not of the type',
    )
  })

  it('is refused where its issuer is not configured, spelled differently or only claimed', async () => {
    const { world, token } = await setUp()
    for (const iss of ['https://evil.example', undefined, '', 7])
      expect(said(await world.with(await token({ claims: { iss } })))).toMatch(
        /an issuer this Writ does not accept|not a token/,
      )
    const { issuer } = await setUp()
    expect(said(await world.with(await accessToken(issuer, pair(), world.clock)))).toBe(
      '401 invalid_token: The token is of an issuer this Writ does not accept.',
    )
    expect(said(await world.with(await token({ claims: { iss: `${(await openIssuer()).url}/` } })))).toContain(
      'does not accept',
    )
  })

  it('is refused unread where it is larger than any access token', async () => {
    const { world, token, issuer } = await setUp()
    expect(said(await world.with(await token({ claims: { pad: 'x'.repeat(9000) } })))).toContain('not a token')
    expect(issuer.asked).toEqual([])
  })
})

describe('two issuers', () => {
  it('[G-issuers-apart] never name the same person, and neither speaks for the other', async () => {
    const [one, two] = [await openIssuer(), await openIssuer()]
    const [first, second] = [await newPair('ES256', 'k'), await newPair('ES256', 'k')]
    one.keys = [first.jwk]
    two.keys = [second.jwk]
    const world = openWorld([{ issuer: one }, { issuer: two }])
    expect(said(await world.with(await accessToken(one, first, world.clock)))).toBe('ok corp:alice')
    expect(said(await world.with(await accessToken(two, second, world.clock)))).toBe('ok corp2:alice')
    for (const [issuer, key] of [
      [one, second],
      [two, first],
    ] as const)
      expect(said(await world.with(await accessToken(issuer, key, world.clock)))).toContain('signature')
    // A subject that spells itself like somebody of the other issuer stays its own issuer's.
    expect(said(await world.with(await accessToken(one, first, world.clock, { claims: { sub: 'corp2:alice' } })))).toBe(
      'ok corp:corp2:alice',
    )
  })

  it('are refused in the configuration where they share a name or an identifier, or name the local subject', () => {
    const issuer = { name: 'corp', issuer: 'https://a.example', claims: { tenant: { value: 'acme' } } }
    const parse = (...issuers: object[]) => oauthSchema.parse({ issuers })
    expect(oauthProblem(parse(issuer, { ...issuer, issuer: 'https://b.example' }), 'me')?.message).toContain(
      'named twice',
    )
    expect(oauthProblem(parse(issuer, { ...issuer, name: 'two' }), 'me')?.message).toContain('given twice')
    expect(oauthProblem(parse(issuer), 'corp:me')?.message).toContain('local subject')
    expect(oauthProblem(parse(issuer), 'me')).toBeNull()
    for (const url of [
      'http://a.example',
      'https://u:p@a.example',
      'https://a.example/?x',
      'https://a.example#f',
      'a.example',
      'https://ä.example',
    ])
      expect([url, oauthSchema.safeParse({ issuers: [{ ...issuer, issuer: url }] }).success]).toEqual([url, false])
    for (const algorithm of ['none', 'HS256', 'RS512', 'ES256K'])
      expect(oauthSchema.safeParse({ issuers: [{ ...issuer, algorithms: [algorithm] }] }).success).toBe(false)
  })
})

describe('a change of the configuration', () => {
  it('ends at once what was opened under an issuer that is gone or changed, and nothing else', async () => {
    const [one, two] = [await openIssuer(), await openIssuer()]
    const [first, second] = [await newPair('ES256', 'k'), await newPair('ES256', 'k')]
    one.keys = [first.jwk]
    two.keys = [second.jwk]
    const world = openWorld([{ issuer: one }, { issuer: two }])
    const [a, b] = [
      await world.with(await accessToken(one, first, world.clock)),
      await world.with(await accessToken(two, second, world.clock)),
    ]
    if (!a.ok || !b.ok) throw new Error('refused')
    await two.die()
    world.identity.configure({ ...world.settings, issuers: world.settings.issuers.slice(1) })
    expect([a, b].map(ended)).toEqual([true, false])
    // The keys of the issuer that stays are still there, though nobody could be asked for them.
    expect(said(await world.with(await accessToken(two, second, world.clock)))).toBe('ok corp2:alice')
    expect(said(await world.with(await accessToken(one, first, world.clock)))).toContain('does not accept')
    expect(world.identity.rolesOf('acme', 'corp:alice')).toEqual([])
    expect(world.identity.rolesOf('acme', 'corp2:alice')).toEqual(['developer'])
    world.identity.configure(null)
    expect(ended(b)).toBe(true)
    expect(world.identity.metadata(resource)).toBeNull()
  })

  it('is refused as a whole where the certificates it names cannot be read', async () => {
    const { world, token } = await setUp()
    const [only] = world.settings.issuers
    if (only === undefined) throw new Error('no issuer')
    const broken = { ...world.settings, issuers: [{ ...only, ca: '/nonexistent/ca.pem' }] }
    expect(() => world.identity.configure(broken)).toThrow(expect.objectContaining({ code: 'invalid_config' }) as Error)
    expect(said(await world.with(await token()))).toBe('ok corp:alice')
  })
})

describe('roles for what runs later', () => {
  it('[G-roles-now] are those last seen, through that agent, until their time is over', async () => {
    const { world, token } = await setUp({}, { roles_valid_s: 3600 })
    await world.with(await token())
    expect(world.identity.rolesOf('acme', 'corp:alice')).toEqual(['developer'])
    expect(world.identity.rolesOf('acme', 'corp:alice', 'corp:chat-client')).toEqual(['developer'])
    expect(world.identity.rolesOf('acme', 'corp:alice', 'corp:other')).toEqual([])
    expect(world.identity.rolesOf('default', 'corp:alice')).toEqual([])
    world.ledger.rebuild()
    expect(world.identity.rolesOf('acme', 'corp:alice')).toEqual(['developer'])
    world.clock.set(world.clock.now() + 3_600_000)
    expect(world.identity.rolesOf('acme', 'corp:alice')).toEqual([])
  })

  it('[G-roles-now] vanish with the first token that no longer has them, and no older token brings them back', async () => {
    const { world, token } = await setUp()
    const old = await token({ claims: { groups: ['writ-devs', 'writ-ops'] } })
    await world.with(old)
    expect(world.identity.rolesOf('acme', 'corp:alice')).toEqual(['developer', 'operator'])
    world.clock.set(world.clock.now() + 5_000)
    await world.with(await token({ claims: { groups: [] } }))
    expect(world.identity.rolesOf('acme', 'corp:alice')).toEqual([])
    expect(said(await world.with(old))).toBe('ok corp:alice')
    expect(world.identity.rolesOf('acme', 'corp:alice')).toEqual([])
  })

  it('[G-roles-now] vanish for every agent with the newest token of the person, through whatever agent it came', async () => {
    const { world, token } = await setUp()
    const other = { client_id: 'other' }
    await world.with(await token())
    world.clock.set(world.clock.now() + 5_000)
    await world.with(await token({ claims: { ...other, groups: ['writ-ops'] } }))
    expect(world.identity.rolesOf('acme', 'corp:alice')).toEqual(['operator'])
    expect(world.identity.rolesOf('acme', 'corp:alice', 'corp:chat-client')).toEqual([])
    // An agent is given no more than its own tokens say, whatever others hold.
    world.clock.set(world.clock.now() + 5_000)
    await world.with(await token({ claims: { ...other, groups: ['writ-ops', 'writ-devs'] } }))
    expect(world.identity.rolesOf('acme', 'corp:alice', 'corp:chat-client')).toEqual(['developer'])
    expect(world.identity.rolesOf('acme', 'corp:alice', 'corp:other')).toEqual(['developer', 'operator'])
  })

  it('cost no step for each of two tokens of one second that are shown in turn', async () => {
    const { world, token } = await setUp()
    const tokens = [
      await token({ claims: { groups: ['writ-devs'] } }),
      await token({ claims: { groups: ['writ-ops'] } }),
      await token({ claims: { groups: [] } }),
    ]
    for (let i = 0; i < 30; i++) await world.with(tokens[i % 3] ?? '')
    expect(world.ledger.steps(0, 100)).toHaveLength(2)
    expect(world.identity.rolesOf('acme', 'corp:alice')).toEqual([])
  })

  it('cost one step a person while nothing changes', async () => {
    const { world, token } = await setUp({}, { roles_valid_s: 3600 })
    const alice = await token()
    const bob = await token({ claims: { sub: 'bob', groups: [] } })
    for (let i = 0; i < 50; i++) await world.with(i % 2 === 0 ? alice : bob)
    expect(world.ledger.steps(0, 100)).toHaveLength(2)
    // A client that registers itself anew each time has nothing new to say of a person without roles.
    for (let i = 0; i < 50; i++)
      await world.with(await token({ claims: { sub: 'bob', groups: [], client_id: `c${i}` } }))
    expect(world.ledger.steps(0, 100)).toHaveLength(2)
    world.clock.set(world.clock.now() + 1_900_000)
    await world.with(await token())
    expect(world.ledger.steps(0, 100)).toHaveLength(3)
  })
})

it('the metadata of a resource names its issuers and scopes (RFC 9728)', () => {
  const settings = settingsOf(folder(), [], { scopes: ['writ'] })
  const world = openWorld()
  expect(world.identity.metadata(resource)).toBeNull()
  world.identity.configure({ ...settings, issuers: settings.issuers.map((one) => ({ ...one, ca: undefined })) })
  expect(world.identity.metadata(resource)).toEqual({
    resource,
    resource_name: 'Writ',
    authorization_servers: ['https://nobody.example'],
    bearer_methods_supported: ['header'],
    scopes_supported: ['writ'],
  })
})

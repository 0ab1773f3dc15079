import { describe, expect, it } from 'vitest'
import * as fc from 'fast-check'
import { WritError } from '../../src/error.ts'
import type { TokenRequest } from '../../src/http/identity/token.ts'
import { newToken, tokenHash } from '../../src/request/token.ts'
import { openWorld, said } from './issuer.ts'

const asked: TokenRequest = {
  tenant: 'acme',
  subject: { type: 'user', id: 'ada' },
  agent: 'chat',
  roles: ['developer', 'auditor', 'developer'],
  valid_ms: 30 * 86_400_000,
}

describe('a token of Writ', () => {
  it('has one spelling that a secret scanner can know without asking anyone', () => {
    const many = Array.from({ length: 200 }, newToken)
    expect(new Set(many).size).toBe(200)
    for (const token of many) {
      expect(token).toMatch(/^writ_[0-9A-Za-z]{49}$/)
      expect(tokenHash(token)).toMatch(/^sha256:[0-9a-f]{64}$/)
    }
  })

  it('is refused before anything is looked up where one character of it is another', () => {
    const token = newToken()
    fc.assert(
      fc.property(
        fc.integer({ min: 5, max: 53 }),
        fc.constantFrom('0', '9', 'A', 'z', '_', '-', ' ', '\n', '\0', 'é'),
        (at, character) => {
          const changed = `${token.slice(0, at)}${character}${token.slice(at + 1)}`
          expect(tokenHash(changed) === null || changed === token).toBe(true)
        },
      ),
      { numRuns: 2000 },
    )
    for (const text of ['', 'writ_', `${token}\n`, ` ${token}`, token.slice(0, -1), `${token}a`, token.toUpperCase()])
      expect(tokenHash(text)).toBeNull()
  })
})

describe('tokens', () => {
  it('stand for tenant, subject, agent and roles, each token for its own', async () => {
    const world = openWorld()
    const { token, row } = await world.identity.tokens.create(asked)
    const answer = await world.with(token)
    expect(answer).toMatchObject({
      ok: true,
      key: row.id,
      caller: {
        tenant: 'acme',
        subject: { type: 'user', id: 'ada' },
        roles: ['auditor', 'developer'],
        agent: { id: 'chat' },
        auth: { method: 'token', atMs: row.created_at_ms, shown: { until_ms: row.expires_at_ms } },
      },
    })
    expect(await world.withHeader(`bearer ${token}`)).toMatchObject({ ok: true })
  })

  it('[G-token-hashed] leave no trace of themselves in the data folder but a hash', async () => {
    const world = openWorld()
    const { token } = await world.identity.tokens.create(asked)
    await world.with(token)
    const steps = JSON.stringify(world.ledger.steps(0, 100))
    expect(steps).toContain(tokenHash(token))
    expect(steps).not.toContain(token)
    expect(steps).not.toContain(token.slice(5, 48))
    expect(JSON.stringify(world.identity.tokens.list())).not.toContain(token.slice(5, 20))
  })

  it('are each accounted for when made and when revoked, without saying whose they are', async () => {
    const world = openWorld()
    const { row } = await world.identity.tokens.create(asked)
    await world.identity.tokens.revoke(row.id)
    await world.identity.tokens.revoke(row.id)
    const receipts = world.ledger.views.receipts(0, 10)
    const clear = receipts.map(({ jws }) => {
      const payload = JSON.parse(Buffer.from(jws.split('.')[1] ?? '', 'base64url').toString('utf8')) as {
        predicate: object
      }
      return payload.predicate
    })
    expect(clear).toMatchObject([
      { kind: 'policy', what: 'token', reason: 'created' },
      { kind: 'policy', what: 'token', reason: 'revoked' },
    ])
    for (const { jws } of receipts)
      expect(Buffer.from(jws.split('.')[1] ?? '', 'base64url').toString()).not.toMatch(/ada|acme|tok_/)
  })

  it('[G-token-revoked] end at once when revoked: for requests, for open streams and for the roles of what waits', async () => {
    const world = openWorld()
    const { token, row } = await world.identity.tokens.create(asked)
    const before = await world.with(token)
    if (!before.ok) throw new Error('refused')
    expect(world.identity.rolesOf('acme', 'ada')).toEqual(['auditor', 'developer'])
    expect(before.caller.auth.shown?.revoked.aborted).toBe(false)
    await world.identity.tokens.revoke(row.id)
    expect(before.caller.auth.shown?.revoked.aborted).toBe(true)
    expect(said(await world.with(token))).toBe('401 invalid_token: The token was revoked.')
    expect(world.identity.rolesOf('acme', 'ada')).toEqual([])
  })

  it('stay revoked and live when the views are made again from the steps', async () => {
    const world = openWorld()
    const gone = await world.identity.tokens.create(asked)
    const live = await world.identity.tokens.create({ ...asked, subject: { type: 'service', id: 'ci' } })
    await world.identity.tokens.revoke(gone.row.id)
    const before = world.identity.tokens.list()
    world.ledger.rebuild()
    expect(world.identity.tokens.list()).toEqual(before)
    expect(said(await world.with(gone.token))).toContain('revoked')
    expect(said(await world.with(live.token))).toBe('ok ci')
  })

  it('expire to the millisecond, and a clock that is set back revives none', async () => {
    const world = openWorld()
    const { token, row } = await world.identity.tokens.create({ ...asked, valid_ms: 60_000 })
    world.clock.set(row.expires_at_ms - 1)
    expect(said(await world.with(token))).toBe('ok ada')
    world.clock.set(row.expires_at_ms)
    expect(said(await world.with(token))).toBe('401 invalid_token: The token has expired.')
    expect(world.identity.rolesOf('acme', 'ada')).toEqual([])
    await world.identity.tokens.create(asked)
    world.clock.set(row.created_at_ms)
    expect(said(await world.with(token))).toBe('401 invalid_token: The token has expired.')
  })

  it('give the roles of all live tokens of a subject, those of one agent alone, and nothing across tenants', async () => {
    const { identity } = openWorld()
    await identity.tokens.create({ ...asked, roles: ['developer'] })
    await identity.tokens.create({ ...asked, agent: 'other', roles: ['operator'] })
    await identity.tokens.create({ ...asked, tenant: 'globex', roles: ['approver'] })
    expect(identity.rolesOf('acme', 'ada')).toEqual(['developer', 'operator'])
    expect(identity.rolesOf('acme', 'ada', 'chat')).toEqual(['developer'])
    expect(identity.rolesOf('globex', 'ada')).toEqual(['approver'])
    expect(identity.rolesOf('acme', 'bob')).toEqual([])
    expect(identity.rolesOf('default', 'ada')).toEqual([])
  })

  it('are refused where they could stand for somebody of an OAuth issuer, or are asked for in another wrong way', async () => {
    const { identity } = openWorld()
    const wrong: readonly Partial<TokenRequest>[] = [
      { subject: { type: 'user', id: 'corp:alice' } },
      { agent: 'corp:chat' },
      { subject: { type: 'user', id: '' } },
      { subject: { type: 'user', id: 'a b' } },
      { subject: { type: 'user', id: 'a\u202eb' } },
      { subject: { type: 'user', id: 'a'.repeat(201) } },
      { tenant: 'Acme' },
      { tenant: '' },
      { tenant: '__proto__' },
      { roles: ['Developer'] },
      { roles: Array.from({ length: 33 }, (_, i) => `r${i}`) },
      { valid_ms: 0 },
      { valid_ms: -1 },
      { valid_ms: Number.NaN },
      { valid_ms: 367 * 86_400_000 },
    ]
    for (const change of wrong) await expect(identity.tokens.create({ ...asked, ...change })).rejects.toThrow(WritError)
    expect(identity.tokens.list()).toEqual([])
    for (const id of ['', 'tok_aaaaaaaaaa', 'exec_aaaaaaaaaa', 'x'.repeat(10_000)])
      await expect(identity.tokens.revoke(id)).rejects.toMatchObject({ code: 'not_found' })
  })
})

describe('a request without a good token', () => {
  it('[G-token-clear] is told what is wrong in words of its own, none of which help to guess', async () => {
    const world = openWorld()
    const foreign = await openWorld().identity.tokens.create(asked)
    expect(await world.with(null)).toEqual({
      ok: false,
      status: 401,
      code: 'missing_token',
      challenge: 'Bearer realm="writ"',
      message: 'This resource needs an access token.',
    })
    expect(said(await world.with(foreign.token))).toBe('401 invalid_token: This token is not one of this Writ.')
    expect(said(await world.with(newToken()))).toBe('401 invalid_token: This token is not one of this Writ.')
    expect(said(await world.with('writ_short'))).toContain('401 invalid_token: This is not a token')
    expect(said(await world.with('eyJhbGciOiJub25lIn0.e30.'))).toContain('401 invalid_token: This is not a token')
    expect(said(await world.with('x'.repeat(20_000)))).toContain('401 invalid_token: This is not a token')
  })

  it('is refused where there is more than one Authorization header, or it is spelled in another way', async () => {
    const world = openWorld()
    const { token } = await world.identity.tokens.create(asked)
    const headers = [
      `Bearer ${token}, Bearer ${token}`,
      `Bearer  ${token}`,
      `Bearer\t${token}`,
      ` Bearer ${token}`,
      `Bearer ${token} `,
      `Bearer ${token}\n`,
      `Bearer ${token},`,
      `Basic ${token}`,
      `Bearer`,
      `Bearer `,
      token,
      `DPoP ${token}`,
      '',
    ]
    for (const header of headers) {
      const answer = await world.withHeader(header)
      expect(said(answer)).toBe(
        '401 invalid_token: Send exactly one Authorization header: Bearer, one space, and the token.',
      )
      expect(JSON.stringify(answer)).not.toContain(token)
    }
  })

  it('costs no step, so that whoever floods us with guesses fills no disk', async () => {
    const world = openWorld()
    for (let i = 0; i < 200; i++) await world.with(newToken())
    expect(world.ledger.steps(0, 10)).toEqual([])
  })
})

import { inspect } from 'node:util'
import { gzipSync } from 'node:zlib'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { encodingsOf } from '../../src/credential/redact.ts'
import { newPlaceholder } from '../../src/credential/placeholder.ts'
import type { EgressResponse } from '../../src/egress/egress.ts'
import type { Injection } from '../../src/plan/plan.ts'
import { type Origin, startOrigin } from './origin.ts'
import { codeOf, headerOf, openRun, service, type TestRun, textOf } from './run.ts'

const token = 'hvs.CAESIJ-credential-canary/0123+='
const other = 'other-credential-canary-456'
let origin: Origin
let second: Origin
beforeAll(async () => {
  origin = await startOrigin({ token })
  second = await startOrigin({ token: other })
})
afterAll(async () => {
  await origin[Symbol.asyncDispose]()
  await second[Symbol.asyncDispose]()
})

const vaultHeader: Injection = { kind: 'header', header: 'X-Vault-Token', prefix: '' }

function open(inject: Injection = vaultHeader): TestRun {
  return openRun({
    services: [
      service('vault', `http://127.0.0.1:${origin.port}`, { credential: 'vault-token' }),
      service('forge', `http://127.0.0.1:${second.port}`, { credential: 'forge-token' }),
      service('open', `http://127.0.0.1:${second.port}`),
    ],
    bindings: { 'vault-token': inject, 'forge-token': { kind: 'bearer' } },
    values: { 'vault-token': token, 'forge-token': other },
  })
}

function placeholder(run: TestRun, name = 'vault-token'): string {
  return run.placeholders[name] ?? 'none'
}

const last = (): Record<string, unknown> => origin.seen.at(-1)?.headers ?? {}

function expectNoSecret(response: EgressResponse): void {
  const all = Buffer.concat([Buffer.from(JSON.stringify(response.headers)), response.body]).toString('latin1')
  for (const value of [token, other])
    for (const form of encodingsOf(Buffer.from(value))) expect(all).not.toContain(form.toString('latin1'))
}

describe('a credential', () => {
  it('[G-credential-at-gateway] reaches its service in place of the placeholder, which is all the sandbox ever holds', async () => {
    const run = open()
    const response = await run.fetch('/vault/secure', { headers: [['X-Vault-Token', placeholder(run)]] })
    expect(textOf(response)).toBe('{"ok":true}')
    expect(last()['x-vault-token']).toBe(token)
    expect(run.gateway.counts()).toEqual({ allowed: 1, blocked: 0, refusals: [] })
    await run.gateway.close()
  })

  it('is put in by its binding where the sandbox sends none, or something else', async () => {
    const run = open()
    await run.fetch('/vault/echo')
    expect(last()['x-vault-token']).toBe(token)
    await run.fetch('/vault/echo', {
      headers: [
        ['x-vault-token', 'own'],
        ['X-VAULT-TOKEN', 'own2'],
        ['x-vault-token', placeholder(run)],
      ],
    })
    expect(origin.seen.at(-1)?.raw.filter((part) => part.toLowerCase() === 'x-vault-token').length).toBe(1)
    expect(last()['x-vault-token']).toBe(token)
    await run.gateway.close()
  })

  it.each([
    [{ kind: 'bearer' }, 'authorization', `Bearer ${token}`],
    [{ kind: 'basic', username: 'writ' }, 'authorization', `Basic ${Buffer.from(`writ:${token}`).toString('base64')}`],
    [{ kind: 'header', header: 'X-Api-Key', prefix: '' }, 'x-api-key', token],
    [{ kind: 'header', header: 'Authorization', prefix: 'token ' }, 'authorization', `token ${token}`],
  ] as const)('is rendered as its binding says: %j', async (inject, header, rendered) => {
    const run = open(inject)
    expectNoSecret(await run.fetch('/vault/echo'))
    expect(last()[header]).toBe(rendered)
    await run.gateway.close()
  })

  it('is swapped inside of what the sandbox wrote around it, Basic included', async () => {
    const run = open({ kind: 'basic', username: 'writ' })
    await run.fetch('/vault/echo', {
      headers: [['Authorization', `Basic ${Buffer.from(`ann:${placeholder(run)}`).toString('base64')}`]],
    })
    expect(last()['authorization']).toBe(`Basic ${Buffer.from(`ann:${token}`).toString('base64')}`)
    await run.fetch('/vault/echo', { headers: [['Authorization', `token ${placeholder(run)}`]] })
    expect(last()['authorization']).toBe(`token ${token}`)
    await run.gateway.close()
  })

  it('goes only where its binding says: elsewhere in the request the placeholder stays a placeholder', async () => {
    const run = open()
    const own = placeholder(run)
    const response = await run.fetch(`/vault/echo?t=${own}`, {
      method: 'POST',
      headers: [
        ['X-Debug', own],
        ['Content-Type', 'application/json'],
      ],
      body: JSON.stringify({ own }),
    })
    expect(response.status).toBe(200)
    expect(last()['x-debug']).toBe(own)
    expect(origin.seen.at(-1)?.url).toBe(`/echo?t=${own}`)
    expect(origin.seen.at(-1)?.body).toBe(JSON.stringify({ own }))
    await run.gateway.close()
  })

  it.each([
    ['a form', 'application/x-www-form-urlencoded', (p: string) => Buffer.from(`a=1&t=${p}`)],
    [
      'parts',
      'multipart/form-data; boundary=b',
      (p: string) => Buffer.from(`--b\r\ncontent-disposition: form-data; name="t"\r\n\r\n${p}\r\n--b--\r\n`),
    ],
    ['packed JSON', 'application/json', (p: string) => gzipSync(JSON.stringify({ t: p }))],
    ['bytes', 'application/octet-stream', (p: string) => Buffer.from(`\0\u00ff${p}\0`, 'latin1')],
  ])('does not go into a body of %s: the service gets the very bytes that were sent', async (_what, type, bodyOf) => {
    const run = open()
    const body = bodyOf(placeholder(run))
    const response = await run.fetch('/vault/echo', { method: 'POST', headers: [['Content-Type', type]], body })
    expect(response.status).toBe(200)
    expect(last()['x-vault-token']).toBe(token)
    expect(Buffer.from(origin.seen.at(-1)?.body ?? '', 'latin1').equals(body)).toBe(true)
    expectNoSecret(response)
    await run.gateway.close()
  })

  it.each([
    ['a header', (p: string) => ({ headers: [['X-Any', p]] as const })],
    ['the header of the binding', (p: string) => ({ headers: [['Authorization', `Bearer ${p}`]] as const })],
    [
      'a Basic authorization',
      (p: string) => ({ headers: [['Authorization', `Basic ${Buffer.from(`u:${p}`).toString('base64')}`]] as const }),
    ],
    ['the query', (p: string) => ({ url: `http://127.0.0.1:3128/forge/echo?x=${p}` })],
    ['the path', (p: string) => ({ url: `http://127.0.0.1:3128/forge/${p}/echo` })],
    ['the body', (p: string) => ({ method: 'POST', body: `{"x":"${p}"}` })],
  ])(
    '[G-placeholder-bound] of one service sent to another in %s is refused, not sent, and counted',
    async (_where, init) => {
      const run = open()
      const before = second.seen.length
      const response = await run.fetch('/forge/echo', init(placeholder(run)))
      expect([response.status, codeOf(response)]).toEqual([403, 'placeholder_refused'])
      expect(textOf(response)).not.toContain('writ_ph_')
      expect(second.seen.length).toBe(before)
      expect(run.gateway.counts()).toEqual({
        allowed: 0,
        blocked: 1,
        refusals: [{ code: 'placeholder_refused', service: 'forge', count: 1 }],
      })
      await run.gateway.close()
    },
  )

  it('is not had by a placeholder of another run, a made-up one, or a service without a credential', async () => {
    const run = open()
    for (const value of [newPlaceholder(), 'writ_ph_short', `writ_ph_${'0'.repeat(32)}`, placeholder(run).slice(0, -1)])
      expect(codeOf(await run.fetch('/vault/echo', { headers: [['X-Vault-Token', value]] }))).toBe(
        'placeholder_refused',
      )
    expect(codeOf(await run.fetch('/open/echo', { headers: [['Authorization', `Bearer ${placeholder(run)}`]] }))).toBe(
      'placeholder_refused',
    )
    const plain = await run.fetch('/open/echo')
    expect(plain.status).toBe(200)
    expect(second.seen.at(-1)?.headers.authorization).toBeUndefined()
    await run.gateway.close()
  })

  it('that was not leased keeps its service closed', async () => {
    const run = openRun({
      services: [service('vault', `http://127.0.0.1:${origin.port}`, { credential: 'vault-token' })],
      bindings: { 'vault-token': vaultHeader },
    })
    const response = await run.fetch('/vault/echo')
    expect([response.status, codeOf(response)]).toEqual([403, 'credential_not_leased'])
    await run.gateway.close()
  })

  it('[G-no-cleartext] is not sent without TLS but to a loopback address the service lists', async () => {
    const resolve = (): Promise<readonly string[]> => Promise.resolve(['10.9.9.9'])
    const run = openRun({
      services: [service('vault', 'http://vault.example', { credential: 'vault-token', addresses: ['10.9.9.0/24'] })],
      bindings: { 'vault-token': vaultHeader },
      values: { 'vault-token': token },
      resolve,
    })
    const response = await run.fetch('/vault/echo')
    expect([response.status, codeOf(response)]).toEqual([403, 'cleartext_refused'])
    expect(run.gateway.counts()).toMatchObject({ allowed: 0, blocked: 1 })
    await run.gateway.close()
  })
})

describe('an answer of a service', () => {
  it('[G-redacted] that echoes the credential, in headers and body, shows the placeholder the sandbox knows', async () => {
    const run = open()
    const response = await run.fetch('/vault/echo', { headers: [['X-Vault-Token', placeholder(run)]] })
    expectNoSecret(response)
    expect(headerOf(response, 'x-echo')).toBe(placeholder(run))
    expect(JSON.parse(textOf(response))).toMatchObject({ headers: { 'x-vault-token': placeholder(run) } })
    await run.gateway.close()
  })

  it('that encodes the credential shows none of it', async () => {
    const run = open()
    const response = await run.fetch('/vault/encoded-echo')
    expectNoSecret(response)
    const plain = textOf(response).replaceAll('\n', '')
    for (const form of encodingsOf(Buffer.from(token))) expect(plain).not.toContain(form.toString('latin1'))
    await run.gateway.close()
  })

  it('that is packed though it was asked not to be is unpacked and cleaned, and is withheld where that cannot be done', async () => {
    const run = open()
    const response = await run.fetch('/vault/gzip')
    expectNoSecret(response)
    expect(JSON.parse(textOf(response))).toMatchObject({ headers: { 'x-vault-token': placeholder(run) } })
    expect(headerOf(response, 'content-encoding')).toBeUndefined()
    for (const path of ['/vault/odd-coding', '/vault/broken-gzip']) {
      const withheld = await run.fetch(path)
      expect([withheld.status, codeOf(withheld)]).toEqual([502, 'response_encoded'])
    }
    expect(run.gateway.counts()).toEqual({
      allowed: 1,
      blocked: 2,
      refusals: [{ code: 'response_encoded', service: 'vault', count: 2 }],
    })
    await run.gateway.close()
  })

  it('of a service that holds nothing is cleaned too: a run may carry a value from one to the other', async () => {
    const run = open()
    const response = await run.fetch('/open/echo', { method: 'POST', body: `guessed ${token}` })
    expectNoSecret(response)
    expect(codeOf(await run.fetch('/open/odd-coding'))).toBe('response_encoded')
    await run.gateway.close()
  })

  it('is never cut into ranges, which could cut a secret in two', async () => {
    const run = open()
    await run.fetch('/vault/echo', {
      headers: [
        ['Range', 'bytes=0-9'],
        ['If-Range', '"x"'],
      ],
    })
    expect(last()['range']).toBeUndefined()
    expect(last()['if-range']).toBeUndefined()
    await run.gateway.close()
  })

  it('is cleaned where a slice of a large answer ends in the middle of the credential', async () => {
    const run = open()
    for (const at of [262_144 - 3, 262_144 - 20, 524_288 - 1]) {
      const response = await run.fetch('/vault/large', { headers: [['X-At', String(at)]] })
      expectNoSecret(response)
      expect(textOf(response)).toBe(`${'x'.repeat(at)}${placeholder(run)}${'y'.repeat(600_000 - at)}`)
    }
    await run.gateway.close()
  })

  it('passes as it is, packed or not, in a run without credentials', async () => {
    const run = openRun({ services: [service('open', `http://127.0.0.1:${second.port}`)] })
    const response = await run.fetch('/open/odd-coding')
    expect([response.status, headerOf(response, 'content-encoding')]).toEqual([200, 'x-own'])
    expect((await run.fetch('/open/gzip')).status).toBe(200)
    await run.gateway.close()
  })
})

describe('a token that a service issues', () => {
  const access = 'issued-access-token-0123456789'

  it('[G-token-placeholder] comes to the sandbox as a placeholder, works towards that service, and is redacted everywhere', async () => {
    const run = open()
    const response = await run.fetch('/vault/oauth/token')
    const answer = JSON.parse(textOf(response)) as {
      access_token: string
      token_type: string
      nested: { id_token: string }
    }
    expect(textOf(response)).not.toContain(access)
    expect(answer.access_token).toMatch(/^writ_ph_[0-9a-f]{32}$/)
    expect(answer.nested.id_token).toMatch(/^writ_ph_[0-9a-f]{32}$/)
    expect(answer.token_type).toBe('Bearer')
    const echoed = await run.fetch('/vault/echo', { headers: [['Authorization', `Bearer ${answer.access_token}`]] })
    expect(last()['authorization']).toBe(`Bearer ${access}`)
    expect(textOf(echoed)).not.toContain(access)
    expect(JSON.parse(textOf(echoed))).toMatchObject({ headers: { authorization: `Bearer ${answer.access_token}` } })
    expect(run.redactor.bytes(Buffer.from(`log ${access}`)).bytes.toString()).not.toContain(access)
    const refused = await run.fetch('/forge/echo', { headers: [['X-Any', answer.access_token]] })
    expect(codeOf(refused)).toBe('placeholder_refused')
    await run.gateway.close()
  })

  it('keeps its placeholder when it is issued again, and is found in a form and under a repeated name', async () => {
    const run = open()
    const one = (JSON.parse(textOf(await run.fetch('/vault/oauth/token'))) as { access_token: string }).access_token
    const form = new URLSearchParams(textOf(await run.fetch('/vault/oauth/form')))
    expect(form.get('access_token')).toBe(one)
    const twice = textOf(await run.fetch('/vault/oauth/double'))
    expect(twice).not.toContain(access)
    expect(twice).not.toContain('another-token-987654')
    await run.gateway.close()
  })

  it('is withheld where it cannot be replaced: too short, or too deep to be found', async () => {
    const run = open()
    for (const path of ['/vault/oauth/short', '/vault/deep']) {
      const response = await run.fetch(path)
      expect([response.status, codeOf(response)]).toEqual([502, 'response_token'])
    }
    await run.gateway.close()
  })
})

describe('the gateway itself', () => {
  it('shows no value when it is printed, nor in an error it makes', async () => {
    const run = open()
    await run.fetch('/vault/echo')
    for (const value of [token, other])
      expect(inspect([run.gateway, run.gateway.counts()], { depth: 9, showHidden: true })).not.toContain(value)
    await run.gateway.close()
  })
})

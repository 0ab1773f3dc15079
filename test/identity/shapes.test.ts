import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { parse } from 'yaml'
import type { JsonObject } from '../../src/digest.ts'
import { accessToken, newPair, openIssuer, openWorld, resource, said } from './issuer.ts'

const page = readFileSync(join(import.meta.dirname, '..', '..', 'docs', 'identity.md'), 'utf8')
const settings = [...page.matchAll(/```yaml writ\.yaml\n([^]*?)```/g)]
  .map(
    (fence) =>
      parse(fence[1] ?? '') as { readonly http: { readonly oauth: { readonly issuers: readonly JsonObject[] } } },
  )
  .flatMap(({ http }) => http.oauth.issuers)

/** A Writ set up for an issuer of the page, and what it says to a token with these claims. */
async function taker(name: string): Promise<(claims: JsonObject, typ?: string) => Promise<unknown>> {
  const issuer = await openIssuer()
  const pair = await newPair('RS256', 'one')
  issuer.keys = [pair.jwk]
  const given = settings.find((one) => one['name'] === name)
  const world = openWorld([{ issuer, more: { ...given, issuer: issuer.url } }])
  return async (claims, typ = 'JWT') => {
    const base = { client_id: undefined, groups: undefined, ...claims }
    const answer = await world.with(await accessToken(issuer, pair, world.clock, { claims: base, header: { typ } }))
    if (!answer.ok) return said(answer)
    const { tenant, subject, agent, roles } = answer.caller
    return [tenant, subject.id, agent.id, roles]
  }
}

// As their makers document them; no token of either was at hand.
it('a token as Keycloak makes it is taken with the settings of the page', async () => {
  const take = await taker('keycloak')
  const claims = {
    aud: [resource, 'account'],
    sub: '3f1c7c0e-0000-4000-8000-000000000001',
    typ: 'Bearer',
    azp: 'chat',
    scope: 'openid profile',
    realm_access: { roles: ['offline_access', 'writ-developers'] },
  }
  expect(await take(claims)).toEqual(['acme', `keycloak:${claims.sub}`, 'keycloak:chat', ['developer']])
  expect(await take({ ...claims, aud: 'account' })).toContain('another resource')
})

it('a token as Entra ID makes it is taken with the settings of the page', async () => {
  const take = await taker('entra')
  const claims = {
    aud: '55555555-6666-7777-8888-999999999999',
    tid: '00000000-1111-2222-3333-444444444444',
    oid: '00000000-aaaa-bbbb-cccc-000000000001',
    sub: 'pairwise',
    azp: '00000000-aaaa-bbbb-cccc-000000000002',
    scp: 'writ',
    roles: ['Writ.Developer'],
    ver: '2.0',
  }
  expect(await take(claims)).toEqual(['acme', `entra:${claims.oid}`, `entra:${claims.azp}`, ['developer']])
  expect(await take({ ...claims, tid: 'other' })).toContain('names nobody')
  // An ID token is the client's own: its audience is the client.
  expect(await take({ ...claims, aud: claims.azp })).toContain('another resource')
})

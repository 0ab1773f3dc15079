import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Client } from '@modelcontextprotocol/client'
import { afterAll, beforeAll, describe, expect, it, onTestFinished, vi } from 'vitest'
import type { JsonObject } from '../../src/digest.ts'
import { openHttpWorld } from '../http/world.ts'
import type { HttpWorld } from '../http/world.ts'
import { until } from '../wait.ts'
import { call, Person, signIn } from '../identity/person.ts'
import { openAuthorisationServer } from '../identity/provider.ts'
import type { AuthorisationServer } from '../identity/provider.ts'

// Each sign-in is a dozen requests, and a verdict opens a key under a passphrase.
vi.setConfig({ testTimeout: 120_000 })

const folder = mkdtempSync(join(tmpdir(), 'writ-oauth-'))
let idp: AuthorisationServer
let writ: HttpWorld

beforeAll(async () => {
  idp = await openAuthorisationServer(folder)
  writ = await openHttpWorld({ http: section() })
  writ.world.enrol()
}, 120_000)
afterAll(async () => {
  await writ.close()
  await idp.close()
  rmSync(folder, { recursive: true, force: true })
})

function section(of: AuthorisationServer = idp, audience?: string): string {
  return `  oauth:
    scopes: [writ]
    issuers:
      - name: corp
        issuer: ${of.issuer}
        ca: ${of.caFile}
${audience === undefined ? '' : `        audience: ${audience}\n`}        algorithms: [ES256]
        claims:
          tenant: { value: acme }
          roles:
            - { pointer: /groups, map: { writ-devs: developer } }`
}

async function signedIn(person: Person): Promise<Client> {
  return (await signIn(person, writ)).client
}

describe('a remote client with OAuth, as ChatGPT and Claude have it', () => {
  it('is told where to sign in, registers itself, signs a person in with PKCE, and runs work as that person', async () => {
    idp.groups.set('alice', ['staff', 'writ-devs'])
    const person = new Person('alice')
    const client = await signedIn(person)
    const asked = person.sentTo?.searchParams
    expect(asked?.get('resource')).toBe(`${writ.url}/mcp`)
    expect(asked?.get('code_challenge_method')).toBe('S256')
    expect(asked?.get('scope')).toContain('writ')
    const submitted = await call(client, 'submit_task', {
      project_name: 'p',
      goal: 'g',
      target_ref: 'sandbox',
      execution_intent: 'run_script',
      inputs: { script: 'a.js' },
      files: [{ path: 'a.js', content: 'console.log(6 * 7)' }],
    })
    const started = await call(client, 'start_execution', { task_id: submitted['task_id'] ?? '', wait_ms: 20_000 })
    expect(started['state']).toBe('succeeded')
    const result = await call(client, 'get_result', { execution_id: started['execution_id'] ?? '' })
    expect(result['tail']).toBe('42\n')
    const shown = writ.world.json(['executions', 'show', String(started['execution_id'])]) as JsonObject
    expect(JSON.stringify(shown)).toContain('corp:alice')
    await client.close()
  })

  it('may be known by the document at its own URL instead (client id metadata document)', async () => {
    idp.groups.set('alice', ['writ-devs'])
    const person = new Person('alice', idp.clientDocument)
    const client = await signedIn(person)
    expect(idp.clients).toContain(idp.clientDocument)
    expect((await client.listTools()).tools.length).toBe(8)
    await client.close()
  })

  it('may do nothing where the directory gives the person no role that is mapped', async () => {
    idp.groups.set('mallory', ['developer', 'operator'])
    const person = new Person('mallory')
    await expect(signedIn(person)).rejects.toThrow(Error)
    expect(person.accessToken).toMatch(/^ey/)
  })

  it('is refused with its own word where the token is for another resource, old, cut or lacks the scope', async () => {
    idp.groups.set('alice', ['writ-devs'])
    const person = new Person('alice')
    await (await signedIn(person)).close()
    const ask = async (authorization: string | null): Promise<Response> =>
      await fetch(`${writ.url}/mcp`, {
        method: 'POST',
        headers: {
          'content-type': 'application/json',
          accept: 'application/json, text/event-stream',
          ...(authorization === null ? {} : { authorization }),
        },
        body: JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'ping' }),
      })
    const metadata = `${writ.url}/.well-known/oauth-protected-resource/mcp`
    const missing = await ask(null)
    expect(missing.status).toBe(401)
    expect(missing.headers.get('www-authenticate')).toBe(`Bearer scope="writ", resource_metadata="${metadata}"`)
    expect(await (await fetch(metadata)).json()).toEqual({
      resource: `${writ.url}/mcp`,
      resource_name: 'Writ',
      authorization_servers: [idp.issuer],
      bearer_methods_supported: ['header'],
      scopes_supported: ['writ'],
    })
    const cut = await ask(`Bearer ${person.accessToken.slice(0, -1)}`)
    expect(cut.status).toBe(401)
    expect(cut.headers.get('www-authenticate')).toContain('error="invalid_token"')
    onTestFinished(() => void (idp.scope = 'writ'))
    idp.scope = 'openid'
    const poor = new Person('alice')
    await expect(signedIn(poor)).rejects.toThrow(Error)
    const lacking = await ask(`Bearer ${poor.accessToken}`)
    expect(lacking.status).toBe(403)
    expect(lacking.headers.get('www-authenticate')).toContain('error="insufficient_scope"')
    expect(lacking.headers.get('www-authenticate')).toContain('scope="writ"')
  })

  it('[G-roles-now] loses what waits for people when the directory takes the role away', async () => {
    idp.groups.set('carol', ['writ-devs'])
    const person = new Person('carol')
    const client = await signedIn(person)
    const submit = async (): Promise<JsonObject> => {
      const submitted = await call(client, 'submit_task', {
        project_name: 'p',
        goal: 'g',
        target_ref: 'production',
        execution_intent: 'run_script',
        inputs: { script: 'a.js' },
        files: [{ path: 'a.js', content: `console.log(${Math.random()})` }],
      })
      return await call(client, 'start_execution', { task_id: submitted['task_id'] ?? '' })
    }
    const [first, second] = [await submit(), await submit()]
    expect([first['state'], second['state']]).toEqual(['awaiting_approval', 'awaiting_approval'])
    const stateOf = (execution: JsonObject): unknown =>
      (writ.world.json(['executions', 'show', String(execution['execution_id'])]) as { execution: JsonObject })
        .execution['state']
    const approvalOf = (execution: JsonObject): string => String((execution['approval'] as JsonObject)['approval_id'])
    // Nobody is connected; the roles are those of the last token.
    await client.close()
    expect(writ.world.approve(approvalOf(first))).toMatchObject({ code: 0 })
    await expect.poll(() => stateOf(first), { timeout: 30_000 }).toBe('succeeded')
    idp.groups.set('carol', [])
    await expect(signedIn(new Person('carol'))).rejects.toThrow(Error)
    expect(writ.world.approve(approvalOf(second))).toMatchObject({ code: 0 })
    await expect.poll(() => stateOf(second), { timeout: 30_000 }).toBe('denied')
  })
})

it('takes issuers away while it serves, when writ.yaml no longer names them', async () => {
  idp.groups.set('alice', ['writ-devs'])
  const person = new Person('alice')
  await (await signedIn(person)).close()
  const status = async (): Promise<number> => {
    const answer = await fetch(`${writ.url}/mcp`, {
      method: 'POST',
      headers: { authorization: `Bearer ${person.accessToken}` },
    })
    await answer.body?.cancel()
    return answer.status
  }
  expect(await status()).not.toBe(401)
  const path = join(writ.world.folder, 'writ.yaml')
  const text = readFileSync(path, 'utf8')
  onTestFinished(async () => {
    writeFileSync(path, text)
    await writ.world.reload()
  })
  writeFileSync(path, text.slice(0, text.indexOf('\nhttp:\n')))
  await until('its tokens are refused', async () => (await status()) === 401)
  expect((await fetch(`${writ.url}/.well-known/oauth-protected-resource`)).status).toBe(404)
})

it(
  '[G-dead-issuer] goes on with the keys it has when the issuer dies; a Writ that never had any says so and when to come back',
  { timeout: 90_000 },
  async () => {
    const issuer = await openAuthorisationServer(mkdtempSync(join(folder, 'mortal-')))
    onTestFinished(async () => await issuer.close())
    issuer.groups.set('dora', ['writ-devs'])
    const first = await openHttpWorld({ http: section(issuer) })
    onTestFinished(async () => await first.close())
    const person = new Person('dora')
    const client = (await signIn(person, first)).client
    await issuer.close()
    const submitted = await call(client, 'submit_task', {
      project_name: 'p',
      goal: 'g',
      target_ref: 'sandbox',
      execution_intent: 'run_script',
      inputs: { script: 'a.js' },
      files: [{ path: 'a.js', content: 'console.log(6 * 7)' }],
    })
    const started = await call(client, 'start_execution', { task_id: submitted['task_id'] ?? '', wait_ms: 20_000 })
    expect(started['state']).toBe('succeeded')
    await client.close()
    const second = await openHttpWorld({ http: section(issuer, `${first.url}/mcp`) })
    onTestFinished(async () => await second.close())
    const answer = await fetch(`${second.url}/mcp`, {
      method: 'POST',
      headers: { authorization: `Bearer ${person.accessToken}` },
    })
    expect([answer.status, answer.headers.get('retry-after')]).toEqual([503, '5'])
    expect(answer.headers.get('www-authenticate')).toBeNull()
    expect(await answer.json()).toMatchObject({ error: 'identity_unavailable' })
    // Tokens of Writ itself need no issuer.
    const own = await fetch(`${second.url}/mcp`, {
      method: 'POST',
      headers: { authorization: `Bearer ${second.token('erin')}` },
    })
    expect([401, 503]).not.toContain(own.status)
    await Promise.all([answer, own].map(async (one) => await one.body?.cancel().catch(() => undefined)))
  },
)

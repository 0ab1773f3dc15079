import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { UnauthorizedError } from '@modelcontextprotocol/client'
import { afterAll, expect, it } from 'vitest'
import { openHttpWorld } from '../http/world.ts'
import { call, Person, signIn } from '../identity/person.ts'
import { openAuthorisationServer } from '../identity/provider.ts'
import { script } from './world.ts'

const folder = mkdtempSync(join(tmpdir(), 'writ-step-up-'))
const idp = await openAuthorisationServer(folder)
idp.scope = 'writ writ.run'
const writ = await openHttpWorld({
  http: `  oauth:
    scopes: [writ]
    tool_scopes: { start_execution: [writ.run] }
    issuers:
      - name: corp
        issuer: ${idp.issuer}
        ca: ${idp.caFile}
        claims:
          tenant: { value: acme }
          roles:
            - { pointer: /groups, map: { writ-devs: developer } }`,
})
afterAll(async () => {
  await writ.close()
  await idp.close()
  rmSync(folder, { recursive: true, force: true })
})

it(
  '[G-step-up] a client that lacks the scope of one tool is told so, asks the person for it once, and goes on',
  { timeout: 120_000 },
  async () => {
    idp.groups.set('alice', ['writ-devs'])
    const person = new Person('alice')
    const { client, transport } = await signIn(person, writ)
    expect(person.sentTo?.searchParams.get('scope')).toBe('writ')
    const job = { project_name: 'p', goal: 'g', target_ref: 'sandbox', execution_intent: 'run_script' }
    const submitted = await call(client, 'submit_task', { ...job, ...script('a.js', 'console.log(6 * 7)') })
    const task_id = submitted['task_id'] ?? ''
    await expect(call(client, 'start_execution', { task_id })).rejects.toThrow(UnauthorizedError)
    const asked = String(person.sentTo?.searchParams.get('scope'))
    expect(new Set(asked.split(' '))).toEqual(new Set(['writ', 'writ.run']))
    // Nothing was started, and what needs no more than before goes on meanwhile.
    expect((await call(client, 'get_status', {}))['recent']).toEqual([])
    await transport.finishAuth(await person.signIn())
    const started = await call(client, 'start_execution', { task_id, wait_ms: 20_000 })
    expect(started['state']).toBe('succeeded')
    await client.close()
  },
)

it(
  '[G-step-up] the answer names all the call needs; who may not do it at all is told that instead, and a token of Writ has no scopes',
  { timeout: 60_000 },
  async () => {
    const ask = async (token: string, task_id: string): Promise<Response> =>
      await fetch(`${writ.url}/mcp`, {
        method: 'POST',
        headers: {
          'content-type': 'application/json',
          accept: 'application/json, text/event-stream',
          'mcp-protocol-version': '2026-07-28',
          'mcp-method': 'tools/call',
          'mcp-name': 'start_execution',
          authorization: `Bearer ${token}`,
        },
        body: JSON.stringify({
          jsonrpc: '2.0',
          id: 1,
          method: 'tools/call',
          params: {
            name: 'start_execution',
            arguments: { task_id },
            _meta: {
              'io.modelcontextprotocol/protocolVersion': '2026-07-28',
              'io.modelcontextprotocol/clientInfo': { name: 'raw', version: '1' },
              'io.modelcontextprotocol/clientCapabilities': {},
            },
          },
        }),
      })
    const metadata = `${writ.url}/.well-known/oauth-protected-resource/mcp`
    // What is asked for at first is what every call needs.
    expect(await (await fetch(metadata)).json()).toMatchObject({ scopes_supported: ['writ'] })
    const person = new Person('alice')
    const { client } = await signIn(person, writ)
    const job = { project_name: 'p', goal: 'g', target_ref: 'sandbox', execution_intent: 'run_script' }
    const submitted = await call(client, 'submit_task', { ...job, ...script('b.js', 'console.log(7)') })
    await client.close()
    const own = await ask(person.accessToken, String(submitted['task_id']))
    expect(own.status).toBe(403)
    const challenge = own.headers.get('www-authenticate') ?? ''
    expect(challenge).toMatch(/^Bearer error="insufficient_scope", /)
    expect(challenge).toContain(`scope="writ writ.run", resource_metadata="${metadata}"`)
    expect(await own.json()).toMatchObject({ error: 'insufficient_scope' })
    for (const token of [person.accessToken, writ.token('ada')]) {
      const unknown = await ask(token, 'task_aaaaaaaaaa')
      expect([unknown.status, (await unknown.text()).includes('not_found')]).toEqual([200, true])
    }
  },
)

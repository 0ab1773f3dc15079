import { describe, expect, it } from 'vitest'
import type { JsonObject } from '../../src/digest.ts'
import { later, until } from '../wait.ts'
import { script } from '../e2e/world.ts'
import { client2, type HttpClient, sdk1 } from './clients.ts'
import { useHttpWorld } from './world.ts'

const http = await useHttpWorld()
const { world } = http
world.enrol()
const token = http.token('carol', ['developer', 'operator'])

const job = { project_name: 'http', goal: 'Print a line', execution_intent: 'run_script' }
const where = { url: http.url, token }
const clients: readonly (readonly [string, string, () => Promise<HttpClient>])[] = [
  ['@modelcontextprotocol/client 2, auto', '2026-07-28', async () => await client2('auto', where)],
  ['@modelcontextprotocol/client 2, its default', '2025-11-25', async () => await client2('legacy', where)],
  ['@modelcontextprotocol/sdk 1', '2025-11-25', async () => await sdk1(where)],
]

describe('the whole path over HTTP', { timeout: 120_000 }, () => {
  for (const [name, version, make] of clients) {
    it(`is walked by ${name}: task, approval by a person, result, receipt verified`, async () => {
      const client = await make()
      expect(client.version()).toBe(version)
      expect(await client.listTools()).toContain('start_execution')
      const line = `line of ${name}`
      const submitted = await client.call('submit_task', {
        ...job,
        target_ref: 'production',
        ...script('p.js', `console.log(${JSON.stringify(line)})`),
      })
      expect(submitted.structured).toMatchObject({ state: 'ready', effect: 'pending' })
      const started = await client.call('start_execution', { task_id: submitted.structured['task_id'] as string })
      expect(started.structured).toMatchObject({ state: 'awaiting_approval', final: false })
      const id = String(started.structured['execution_id'])
      const waiting = later(client.call('get_status', { execution_id: id, wait_ms: 20_000 }))
      const approval = started.structured['approval'] as JsonObject
      expect(world.approve(String(approval['approval_id']))).toMatchObject({ code: 0 })
      await waiting
      let status: JsonObject = {}
      for (let tries = 0; tries < 10 && status['final'] !== true; tries++)
        status = (await client.call('get_status', { execution_id: id, wait_ms: 10_000 })).structured
      expect(status).toMatchObject({ state: 'succeeded', ran: true })
      const result = await client.call('get_result', { execution_id: id })
      expect(result.structured['tail']).toBe(`${line}\n`)
      const read = await client.readResource(String((result.structured['receipt'] as JsonObject)['uri']))
      expect(world.writ(['verify', '-'], { input: read.text ?? '' }).out).toContain('VALID:SIGNED')
      await client.close()
    })
  }
})

describe('what the real broker tells whoever asks', () => {
  it('is the keys its receipts are signed with, that it is ready, and figures', async () => {
    const keys = (await (await fetch(`${http.url}/.well-known/jwks.json`)).json()) as {
      readonly keys: readonly JsonObject[]
    }
    expect(keys.keys.map((key) => String(key['role'])).toSorted((a, b) => a.localeCompare(b))).toEqual([
      'log',
      'receipt',
      'root',
    ])
    for (const key of keys.keys) expect(key).not.toHaveProperty('d')
    expect(await (await fetch(`${http.url}/readyz`)).json()).toMatchObject({ ready: true })
    const figures = await (await fetch(`${http.url}/metrics`)).text()
    for (const name of [
      'writ_executions_running',
      'writ_approvals_open',
      'writ_receipts',
      'writ_waits',
      'writ_resident_memory_bytes',
    ])
      expect(figures).toMatch(new RegExp(`^${name} [\\d.]+$`, 'm'))
  })
})

describe('a broker that is told to stop', { timeout: 60_000 }, () => {
  it('[G-no-lost-wait] answers who waits, accounts for what ran, and ends', async () => {
    const client = await client2('auto', where)
    const session = await client2('legacy', where)
    const submitted = await client.call('submit_task', {
      ...job,
      target_ref: 'sandbox',
      ...script('slow.js', "console.log('begun')\nawait new Promise((resolve) => setTimeout(resolve, 100_000))"),
    })
    const started = await client.call('start_execution', { task_id: submitted.structured['task_id'] as string })
    const id = String(started.structured['execution_id'])
    const waits = later(
      Promise.all(
        [client, session].map(async (one) => await one.call('get_status', { execution_id: id, wait_ms: 40_000 })),
      ),
    )
    await until('both wait', async () => (await http.metric('writ_waits')) === 2)
    const stopped = http.stop()
    for (const answer of await waits)
      expect(answer.structured).toMatchObject({ execution_id: id, final: false, next: { tool: 'get_status' } })
    expect(await stopped).toBe(0)
    // What ran was ended and has its receipt; the log verifies from its first entry.
    expect(world.writ(['verify']).out).toMatch(/^VALID:LOGGED/)
    expect(http.errors()).toEqual([])
  })
})

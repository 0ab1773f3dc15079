import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { type IncomingMessage, request } from 'node:http'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { client2, type HttpClient } from '../http/clients.ts'
import { useHttpWorld } from '../http/world.ts'
import { sendRaw } from '../http/raw.ts'
import { until } from '../wait.ts'
import { put, sha256 } from './broker.ts'

const http = await useHttpWorld()
const { world } = http

function made(subject: string, tenant: string): { readonly token: string; readonly token_id: string } {
  const given = ['token', 'create', '--subject', subject, '--role', 'developer', '--tenant', tenant]
  return world.json(given) as ReturnType<typeof made>
}

const bytes = randomBytes(4_000_000)

interface Opened {
  readonly client: HttpClient
  readonly task: string
  ask(path: string): Promise<string>
}

async function opened(token: string, content = 'console.log(1)'): Promise<Opened> {
  const client = await client2('auto', { url: http.url, token })
  const submitted = await client.call('submit_task', {
    project_name: 'remote',
    goal: 'Send a file',
    target_ref: 'sandbox',
    execution_intent: 'run_script',
    files: [{ path: 'main.js', content }],
  })
  const task = String(submitted.structured['task_id'])
  return {
    client,
    task,
    async ask(path) {
      const upload = { path, size: bytes.length, sha256: sha256(bytes) }
      const { structured } = await client.call('upload_artifact', { task_id: task, upload })
      return String(structured['upload_url'])
    },
  }
}

it('a remote client sends a file under the server’s own URL; a revoked token’s URLs end with it [G-transfer-decided]', async () => {
  const ann = made('ann', 'acme')
  // What another token of the same person gives is nothing to a URL of this one.
  made('ann', 'acme')
  const { task, ask } = await opened(ann.token)
  const first = await ask('one.bin')
  expect(first.startsWith(`${http.url}/transfer/`)).toBe(true)
  expect(await put(first, bytes)).toMatchObject({ status: 201, json: { task_id: task, state: 'ready' } })
  const second = await ask('two.bin')
  world.json(['token', 'revoke', ann.token_id])
  expect(await put(second, bytes)).toMatchObject({ status: 403, code: 'denied' })
  expect((await fetch(second, { method: 'HEAD' })).status).toBe(403)
}, 120_000)

it('a tenant’s transfers do not touch another’s: the same bytes, the same path, tasks of their own', async () => {
  const [ann, eve] = await Promise.all([opened(made('ann', 'acme').token), opened(made('eve', 'other').token)])
  const [one, two] = await Promise.all([ann.ask('x.bin'), eve.ask('x.bin')])
  const [first, second] = await Promise.all([put(one, bytes), put(two, bytes)])
  expect(first.json['task_id']).toBe(ann.task)
  expect(second.json['task_id']).toBe(eve.task)
}, 120_000)

it('curl sends a large file without being told anything of Expect, and is told to go on before it sends', async () => {
  const { ask } = await opened(made('ann', 'acme').token)
  const file = join(world.folder, 'data.bin')
  writeFileSync(file, bytes)
  const curl = async (url: string): Promise<{ readonly code: number; readonly said: string }> => {
    const child = spawn('curl', ['-sv', '-T', file, url], { stdio: ['ignore', 'ignore', 'pipe'] })
    let said = ''
    child.stderr.setEncoding('utf8').on('data', (text: string) => (said += text))
    return { code: await new Promise((resolve) => child.once('close', resolve)), said }
  }
  const sent = await curl(await ask('curl.bin'))
  expect(sent.said).toMatch(/> Expect: 100-continue[^]*< HTTP\/1\.1 100 Continue[^]*< HTTP\/1\.1 201 /)
  expect(sent.code).toBe(0)
  // Nobody is told to send what would be refused.
  const refused = await curl(`${http.url}/transfer/${'x'.repeat(43)}`)
  expect(refused.said).toContain('< HTTP/1.1 404 ')
  expect(refused.said).not.toContain('100 Continue')
}, 120_000)

it('who asks before sending to any other path, or in another way, is refused', async () => {
  const { host } = new URL(http.url)
  const head = (line: string, expect_: string): string =>
    `${line} HTTP/1.1\r\nhost: ${host}\r\ncontent-length: 4\r\nexpect: ${expect_}\r\n\r\n`
  const token = 'x'.repeat(43)
  for (const text of [
    head('PUT /mcp', '100-continue'),
    head(`POST /transfer/${token}`, '100-continue'),
    head(`PUT /transfer/${token}`, '100-continue, 200-maybe'),
    head(`PUT /transfer/${token}`, '200-maybe'),
  ])
    expect(await sendRaw(http.url, text, { close: true })).toMatchObject({ statuses: [417], closed: true })
  expect((await sendRaw(http.url, head(`PUT /transfer/${token}`, '100-Continue'))).statuses).toEqual([404])
})

const large = 12_000_000
const writesLarge = `import { writeFile } from 'writ'
writeFile('/out/large.bin', new Uint8Array(${large}))`

it('[G-token-revoked] bytes that move when a token is revoked stop: of a download nobody reads, and of an upload', async () => {
  const bob = made('bob', 'acme')
  made('bob', 'acme')
  const { client, task, ask } = await opened(bob.token, writesLarge)
  const run = await client.call('start_execution', { task_id: task, wait_ms: 20_000 })
  expect(run.structured).toMatchObject({ state: 'succeeded' })
  const id = String(run.structured['execution_id'])
  const { structured } = await client.call('get_result', { execution_id: id, file: 'large.bin' })
  const { download_url } = structured['file'] as { readonly download_url: string }
  const answer = await new Promise<IncomingMessage>((resolve, reject) => {
    request(download_url, { agent: false }, resolve).once('error', reject).end()
  })
  let [came, reading] = [0, false]
  const ended = new Promise<string>((resolve) => {
    answer.once('error', () => resolve('broken'))
    answer.once('end', () => resolve('whole'))
  })
  answer.on('data', (piece: Buffer) => {
    came += piece.length
    if (!reading) answer.pause()
  })
  await until('some of it came', () => came > 0)
  const url = await ask('two.bin')
  const sending = request(url, { method: 'PUT', agent: false, headers: { 'content-length': bytes.length } })
  const refused = new Promise<number>((resolve) => sending.once('response', (one) => resolve(one.statusCode ?? 0)))
  sending.on('error', () => undefined)
  sending.write(bytes.subarray(0, 1_000_000))
  await until('some of it arrived', async () => {
    const head = await fetch(url, { method: 'HEAD' })
    return Number(head.headers.get('upload-offset')) > 0
  })
  world.json(['token', 'revoke', bob.token_id])
  expect(await refused).toBe(403)
  // It is not read: the connection ends all the same, with what it had buffered.
  await until('only the question is served', async () => (await http.metric('writ_http_requests_open')) === 1)
  reading = true
  answer.resume()
  expect(await ended).toBe('broken')
  expect(came).toBeLessThan(large)
  expect((await fetch(download_url)).status).toBe(403)
}, 120_000)

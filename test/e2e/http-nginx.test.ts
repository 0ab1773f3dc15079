import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { createHash, randomBytes } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { request } from 'node:https'
import { createServer } from 'node:net'
import type { AddressInfo, LookupFunction } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { connect } from 'node:tls'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { JsonObject } from '../../src/digest.ts'
import { newAuthority } from '../egress/certificate.ts'
import { client2, type HttpClient, sdk1 } from '../http/clients.ts'
import { type HttpWorld, openHttpWorld } from '../http/world.ts'
import { later, until } from '../wait.ts'
import { script } from './world.ts'

const page = readFileSync(join(import.meta.dirname, '..', '..', 'docs', 'remote.md'), 'utf8')
const found = spawnSync('nginx', ['-v']).error === undefined
const why = 'nginx is missing: install it with the package manager of the system'

const authority = newAuthority()
const folder = mkdtempSync(join(tmpdir(), 'writ-nginx-'))
let nginx: ChildProcess | null = null
let http: HttpWorld | null = null
let port = 0
let origin = ''

/** The server block of the page with other ports and files, in the least of a configuration around it. */
function configuration(upstream: string): string {
  const block = /```nginx\n([^]*?)```/.exec(page)?.[1] ?? ''
  expect(block.match(/127\.0\.0\.1:8720/g)?.length).toBe(2)
  const server = block
    .replace('listen 443 ssl', `listen 127.0.0.1:${String(port)} ssl`)
    .replace(/\/etc\/letsencrypt\S*fullchain\.pem/, join(folder, 'tls.crt'))
    .replace(/\/etc\/letsencrypt\S*privkey\.pem/, join(folder, 'tls.key'))
    .replace('/var/log/nginx/writ.log', join(folder, 'writ.log'))
    .replaceAll('127.0.0.1:8720', upstream)
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi']
    .map((name) => `${name}_temp_path ${join(folder, name)};`)
    .join('\n')
  return `${process.getuid?.() === 0 ? 'user root;' : ''}
daemon off; worker_processes 1; pid ${join(folder, 'pid')}; error_log ${join(folder, 'error.log')};
events { worker_connections 512; }
http { access_log ${join(folder, 'access.log')};
${temporary}
${server} }`
}

const here = ((_name, options, given) => {
  if (typeof options === 'object' && options.all === true) given(null, [{ address: '127.0.0.1', family: 4 }])
  else given(null, '127.0.0.1', 4)
}) as LookupFunction

/** `fetch` that finds writ.example on this machine and trusts its authority, as a system that has both would. */
async function fetchHere(input: string | URL | Request, init: RequestInit = {}): Promise<Response> {
  const url = new URL(input instanceof Request ? input.url : input)
  return await new Promise((resolve, reject) => {
    const asked = request(
      url,
      {
        method: init.method ?? 'GET',
        headers: Object.fromEntries(new Headers(init.headers)),
        ca: authority.ca,
        servername: url.hostname,
        lookup: here,
        agent: false,
        ...(init.signal ? { signal: init.signal } : {}),
      },
      (answer) => {
        const headers = new Headers()
        for (const [name, values] of Object.entries(answer.headersDistinct))
          for (const value of values ?? []) headers.append(name, value)
        const status = answer.statusCode ?? 0
        const body = status === 204 || status === 202 ? null : (Readable.toWeb(answer) as ReadableStream<Uint8Array>)
        if (body === null) answer.resume()
        resolve(new Response(body, { status, headers }))
      },
    )
    asked.on('error', reject)
    asked.end(typeof init.body === 'string' || init.body instanceof Uint8Array ? init.body : undefined)
  })
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port: free } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return free
}

/** Everything, as far as nginx could have the port: until it listens another program may. */
async function open(): Promise<boolean> {
  port = await freePort()
  origin = `https://writ.example:${String(port)}`
  http = await openHttpWorld({
    http: `  url: ${origin}
  oauth:
    scopes: [writ]
    issuers:
      - name: corp
        issuer: https://login.example
        claims: { tenant: { value: acme } }`,
  })
  http.world.enrol()
  const tls = authority.issue({ dns: ['writ.example'] })
  writeFileSync(join(folder, 'tls.crt'), tls.cert)
  writeFileSync(join(folder, 'tls.key'), tls.key, { mode: 0o600 })
  const file = join(folder, 'nginx.conf')
  writeFileSync(file, configuration(new URL(http.url).host))
  const started = spawn('nginx', ['-c', file, '-p', folder], { stdio: ['ignore', 'ignore', 'inherit'] })
  const gone = (): boolean => started.exitCode !== null
  await until(
    'nginx answers or has given up',
    async () => gone() || (await fetchHere(`${origin}/healthz`).catch(() => null)),
  )
  if (!gone()) nginx = started
  return nginx !== null
}

beforeAll(async () => {
  if (!found) return
  for (let tries = 1; !(await open()); tries++) {
    if (tries === 5) throw new Error('nginx does not start')
    await http?.close()
  }
}, 120_000)

afterAll(async () => {
  if (nginx !== null) {
    const ended = once(nginx, 'exit')
    nginx.kill('SIGTERM')
    await ended
  }
  await http?.close()
  rmSync(folder, { recursive: true, force: true })
})

/** The Writ behind it, or a skip where there is no nginx. */
function behind(ctx: { skip(note: string): never }): HttpWorld {
  return http ?? ctx.skip(why)
}

const clients: readonly (readonly [string, (token: string) => Promise<HttpClient>])[] = [
  [
    '@modelcontextprotocol/client 2 in the stateless revision',
    async (token) => await client2('auto', { url: origin, token, fetch: fetchHere }),
  ],
  [
    '@modelcontextprotocol/sdk 1 in a session of 2025',
    async (token) => await sdk1({ url: origin, token, fetch: fetchHere }),
  ],
]

describe('Writ behind nginx, configured as the page says', () => {
  it.for(clients)(
    'is used by %s for the whole path: files by curl, approval by a person, a wait that ends on the change, a download',
    { timeout: 120_000 },
    async ([name, open], ctx) => {
      const { world, token, metric } = behind(ctx)
      const client = await open(token(`carol-${String(name.length)}`))
      const submitted = await client.call('submit_task', {
        project_name: 'nginx',
        goal: 'Through a proxy',
        target_ref: 'production',
        execution_intent: 'run_script',
        ...script(
          'p.js',
          `import { readBytes, writeFile } from 'writ'
console.log(readBytes('data.bin').length)
writeFile('/out/copy.bin', readBytes('data.bin'))`,
        ),
      })
      const task_id = String(submitted.structured['task_id'])
      const bytes = randomBytes(4_000_000)
      const data = join(folder, 'data.bin')
      writeFileSync(data, bytes)
      const sha256 = createHash('sha256').update(bytes).digest('hex')
      const asked = await client.call('upload_artifact', {
        task_id,
        upload: { path: 'data.bin', size: bytes.length, sha256 },
      })
      const url = String(asked.structured['upload_url'])
      expect(url.startsWith(`${origin}/transfer/`)).toBe(true)
      expect(await curl('-T', data, url)).toMatchObject({
        code: 0,
        out: expect.stringContaining('"state":"ready"') as string,
      })
      const started = await client.call('start_execution', { task_id })
      const id = String(started.structured['execution_id'])
      const waiting = later(client.call('get_status', { execution_id: id, wait_ms: 50_000 }))
      const approval = started.structured['approval'] as JsonObject
      await until('it waits', async () => (await metric('writ_waits')) === 1)
      expect(world.approve(String(approval['approval_id']))).toMatchObject({ code: 0 })
      const approved = performance.now()
      await waiting
      expect(performance.now() - approved).toBeLessThan(10_000)
      let status: JsonObject = {}
      for (let tries = 0; tries < 10 && status['final'] !== true; tries++)
        status = (await client.call('get_status', { execution_id: id, wait_ms: 10_000 })).structured
      expect(status).toMatchObject({ state: 'succeeded' })
      const part = await client.call('get_result', { execution_id: id, file: 'copy.bin' })
      const { download_url } = part.structured['file'] as { readonly download_url: string }
      const copy = join(folder, 'copy.bin')
      expect(await curl('-o', copy, download_url)).toMatchObject({ code: 0 })
      expect(readFileSync(copy).equals(bytes)).toBe(true)
      const range = await fetchHere(download_url, { headers: { range: 'bytes=10-19' } })
      expect([range.status, Buffer.from(await range.arrayBuffer())]).toEqual([206, bytes.subarray(10, 20)])
      await client.close()
      expect(logged()).not.toContain('/transfer/')
    },
  )

  it('writes no one-time URL into a log, whatever goes wrong with one', { timeout: 60_000 }, async (ctx) => {
    const { token } = behind(ctx)
    const client = await client2('auto', { url: origin, token: token('frank'), fetch: fetchHere })
    const files = script('m.js', 'console.log(1)')
    const job = { project_name: 'nginx', goal: 'Logs', target_ref: 'sandbox', execution_intent: 'run_script', ...files }
    const { structured } = await client.call('submit_task', job)
    const asked = { task_id: structured['task_id'] ?? '', upload: { path: 'x', size: 4, sha256: 'a'.repeat(64) } }
    const given = await client.call('upload_artifact', asked)
    const { pathname } = new URL(String(given.structured['upload_url']))
    expect(pathname).toMatch(/^\/transfer\/[\w-]{43}$/)
    const host = `host: writ.example:${String(port)}\r\n`
    const large = `${host}content-length: 2000000000\r\n\r\n`
    // The last is cut off in the middle of its head.
    expect(await raw(`POST /mcp HTTP/1.1\r\n${large}`)).toContain(' 413 ')
    expect(await raw(`PUT ${pathname} HTTP/1.1\r\n${large}`)).toContain(' 413 ')
    expect(await raw(`PUT ${pathname} HTTP/1.1\r\n${host}${host}\r\n`)).toContain(' 400 ')
    expect(await raw(`PUT ${pathname} HTTP/1.1 and more\r\n${host}\r\n`)).toContain(' 400 ')
    expect(await raw(`PUT ${pathname} HTTP/1.1\r\n${host}x-long: ${'x'.repeat(40_000)}\r\n\r\n`)).toContain(' 400 ')
    expect(await raw(`PUT ${pathname} HTTP/1.1\r\n${host}`)).toBe('')
    await until('all are logged', () => (logged().match(/ (?:PUT|-) 400 /g) ?? []).length >= 4)
    // Errors are logged, those of one-time URLs not.
    expect(logged()).toMatch(/too large body.*POST \/mcp/)
    expect(logged()).not.toContain(pathname.slice('/transfer/'.length))
    await client.close()
  })

  it('says how far a run is while the client waits, not after', { timeout: 60_000 }, async (ctx) => {
    const { token } = behind(ctx)
    const client = await client2('auto', { url: origin, token: token('slow'), fetch: fetchHere })
    const submitted = await client.call('submit_task', {
      project_name: 'nginx',
      goal: 'Progress',
      target_ref: 'sandbox',
      execution_intent: 'run_script',
      ...script('s.js', 'await new Promise((done) => setTimeout(done, 12_000))'),
    })
    const began = performance.now()
    const told: number[] = []
    const ran = await client.call(
      'start_execution',
      { task_id: submitted.structured['task_id'] as string, wait_ms: 40_000 },
      { progress: () => told.push(performance.now() - began) },
    )
    expect(ran.structured).toMatchObject({ state: 'succeeded' })
    const whole = performance.now() - began
    expect(told.length).toBeGreaterThan(0)
    expect(told[0] ?? whole).toBeLessThan(whole - 1500)
  })

  it('tells clients its public name where to sign in, and nobody from outside its metrics', async (ctx) => {
    behind(ctx)
    const body = '{"jsonrpc":"2.0","id":1,"method":"ping"}'
    const headers = { 'content-type': 'application/json', accept: 'application/json, text/event-stream' }
    const refused = await fetchHere(`${origin}/mcp`, { method: 'POST', headers, body })
    expect(refused.status).toBe(401)
    const metadata = `${origin}/.well-known/oauth-protected-resource/mcp`
    expect(refused.headers.get('www-authenticate')).toContain(`resource_metadata="${metadata}"`)
    expect(await (await fetchHere(metadata)).json()).toMatchObject({
      resource: `${origin}/mcp`,
      authorization_servers: ['https://login.example'],
      scopes_supported: ['writ'],
    })
    expect((await fetchHere(`${origin}/metrics`)).status).toBe(404)
    expect((await fetchHere(`${origin}/healthz`)).status).toBe(200)
    const other = await fetchHere(`${origin}/mcp`, {
      method: 'POST',
      headers: { ...headers, host: 'evil.example' },
      body,
    })
    expect(other.status).toBe(403)
  })
})

/** All that the proxy wrote down. */
function logged(): string {
  return ['access.log', 'writ.log', 'error.log'].map((name) => readFileSync(join(folder, name), 'utf8')).join('')
}

/** What comes back for these bytes, until the proxy ends the connection; nothing more is sent after a moment. */
async function raw(bytes: string): Promise<string> {
  const socket = connect({ host: '127.0.0.1', port, servername: 'writ.example', ca: authority.ca })
  let text = ''
  socket.setEncoding('latin1').on('data', (piece: string) => (text += piece))
  socket.on('error', () => undefined)
  socket.write(bytes, () => setTimeout(() => socket.end(), 500))
  await once(socket, 'close')
  return text
}

async function curl(...args: readonly string[]): Promise<{ readonly code: number | null; readonly out: string }> {
  writeFileSync(join(folder, 'ca.pem'), authority.ca)
  const resolved = ['--resolve', `writ.example:${String(port)}:127.0.0.1`, '--cacert', join(folder, 'ca.pem')]
  const child = spawn('curl', ['-sS', '--fail-with-body', ...resolved, ...args], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  let out = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => (out += text))
  const [code] = (await once(child, 'close')) as [number | null]
  return { code, out }
}

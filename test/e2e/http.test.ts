import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { JsonObject } from '../../src/digest.ts'
import { newAuthority } from '../egress/certificate.ts'
import { client2, type HttpClient, sdk1 } from '../http/clients.ts'
import { type HttpWorld, openHttpWorld, useHttpWorld } from '../http/world.ts'
import { until } from '../wait.ts'
import { go, goMissing } from './clients/go.ts'
import { pythonHttp, pythonMissing } from './clients/python.ts'
import { type Ran, script, writBin } from './world.ts'

const http = await useHttpWorld()
const { world } = http
world.enrol()

interface Where {
  readonly url: string
  readonly token: string
}
interface Kind {
  readonly name: string
  readonly version: RegExp
  readonly missing: () => string | null
  /** What it says of a token that is not taken. Python's tells its caller less than Writ tells it. */
  readonly refused: RegExp
  readonly open: (where: Where) => Promise<HttpClient>
}
const named = /401|unauthorized|invalid_token|missing_token/i
const never = (): null => null
const kinds: readonly Kind[] = [
  {
    name: '@modelcontextprotocol/client 2, auto',
    version: /^2026-07-28$/,
    missing: never,
    refused: named,
    open: (where) => client2('auto', where),
  },
  {
    name: '@modelcontextprotocol/client 2, its default',
    version: /^2025-/,
    missing: never,
    refused: named,
    open: (where) => client2('legacy', where),
  },
  { name: '@modelcontextprotocol/sdk 1', version: /^2025-/, missing: never, refused: named, open: sdk1 },
  {
    name: 'mcp for Python, auto',
    version: /^2026-07-28$/,
    missing: pythonMissing,
    refused: /401|server returned an error/i,
    open: (where) => pythonHttp('auto', where),
  },
  {
    name: 'mcp for Python, as in 2025',
    version: /^2025-/,
    missing: pythonMissing,
    refused: /401|server returned an error/i,
    open: (where) => pythonHttp('legacy', where),
  },
  { name: 'go-sdk', version: /^20/, missing: goMissing, refused: named, open: go },
]

const job = { project_name: 'http', goal: 'Print a line', execution_intent: 'run_script' }

async function walk(client: HttpClient, name: string): Promise<void> {
  expect((await client.listTools()).length).toBe(8)
  const lines = [`line of ${name}`, `second line of ${name}`] as const
  const submitted = await client.call('submit_task', {
    ...job,
    target_ref: 'production',
    ...script('p.js', `console.log(${JSON.stringify(lines[0])})\n`),
  })
  expect(submitted.structured).toMatchObject({ state: 'ready', effect: 'pending' })
  const task = String(submitted.structured['task_id'])
  const edited = await client.call('upload_artifact', {
    task_id: task,
    files: [{ path: 'p.js', edits: [{ old: lines[0], new: lines[1] }] }],
  })
  expect(edited.structured['changed']).toMatchObject([{ path: 'p.js', change: 'edited' }])
  const started = await client.call('start_execution', { task_id: task })
  expect(started.structured).toMatchObject({ state: 'awaiting_approval', final: false, ran: false })
  const id = String(started.structured['execution_id'])
  const approval = started.structured['approval'] as JsonObject
  expect(world.approve(String(approval['approval_id']))).toMatchObject({ code: 0 })
  let status: JsonObject = {}
  for (let tries = 0; tries < 10 && status['final'] !== true; tries++)
    status = (await client.call('get_status', { execution_id: id, wait_ms: 10_000 })).structured
  expect(status).toMatchObject({ state: 'succeeded', ran: true })
  const result = await client.call('get_result', { execution_id: id })
  expect(result.structured['tail']).toBe(`${lines[1]}\n`)
  const read = await client.readResource(String((result.structured['receipt'] as JsonObject)['uri']))
  expect(result.meta['writ/receipt']).toBe(read.text)
  const verified = world.writ(['verify', '-'], { input: read.text ?? '' })
  expect([verified.code, verified.out]).toEqual([0, expect.stringContaining('VALID:SIGNED') as string])
}

describe('the whole path over HTTP, with a token of a developer', { timeout: 120_000 }, () => {
  const token = http.token('carol')
  for (const { name, version, missing, open } of kinds) {
    it(`is walked by ${name}: task, files, start, approval by a person, result, receipt verified`, async (context) => {
      const why = missing()
      if (why !== null) context.skip(why)
      const client = await open({ url: http.url, token })
      expect(client.version()).toMatch(version)
      await walk(client, name)
      await client.close()
    })
  }

  it('is walked over stdio too by go-sdk, beside them and on the same broker', async (context) => {
    const why = goMissing()
    if (why !== null) context.skip(why)
    const client = await go({
      command: process.execPath,
      args: [writBin, 'mcp', '--config', join(world.folder, 'writ.yaml')],
      env: world.env,
    })
    await walk(client, 'go-sdk over stdio')
    await client.close()
  })
})

describe('a token that is not taken', { timeout: 180_000 }, () => {
  const expired = made('--expires', '1s').token
  for (const { name, missing, refused, open } of kinds) {
    it(`is what ${name} names as the cause, be it wrong, expired or absent`, async (context) => {
      const why = missing()
      if (why !== null) context.skip(why)
      await new Promise((resolve) => setTimeout(resolve, 1100))
      for (const token of ['wrong', expired, '']) {
        await expect(open({ url: http.url, token })).rejects.toThrow(refused)
      }
    })
  }

  it('is answered with what is the matter and what to ask for, never with where or why in the broker', async () => {
    const ask = async (authorization?: string): Promise<readonly [number, string, string]> => {
      const answer = await fetch(`${http.url}/mcp`, {
        method: 'POST',
        headers: { 'content-type': 'application/json', ...(authorization === undefined ? {} : { authorization }) },
        body: '{"jsonrpc":"2.0","id":1,"method":"ping"}',
      })
      const text = await answer.text()
      expect(text).not.toContain(world.folder)
      return [
        answer.status,
        (JSON.parse(text) as { error: string }).error,
        answer.headers.get('www-authenticate') ?? '',
      ]
    }
    expect(await ask()).toEqual([401, 'missing_token', expect.stringMatching(/^Bearer/) as string])
    for (const token of ['wrong', expired, http.token('x').slice(0, -1)])
      expect(await ask(`Bearer ${token}`)).toEqual([
        401,
        'invalid_token',
        expect.stringContaining('error="invalid_token"') as string,
      ])
  })
})

describe('[G-token-revoked] revoking a token', { timeout: 90_000 }, () => {
  it('ends the wait that was opened with it at once, and its next request', async () => {
    const { token, token_id } = made()
    const [one, two] = [await waiting('auto', token), await waiting('legacy', token)]
    expect(world.writ(['token', 'revoke', token_id]).code).toBe(0)
    const revokedAt = performance.now()
    // By themselves they would end after 50 s.
    for (const { ended } of [one, two]) expect((await ended) - revokedAt).toBeLessThan(15_000)
    await expect(client2('auto', { url: http.url, token })).rejects.toThrow(named)
  })

  /** A client in the middle of a long wait; `ended` resolves with the time at which its connection did. */
  async function waiting(mode: 'auto' | 'legacy', token: string): Promise<{ readonly ended: Promise<number> }> {
    let latest: Promise<unknown> = Promise.resolve()
    const client = await client2(mode, {
      url: http.url,
      token,
      // Looked at beneath the client: what that makes of a connection that ended is its own affair.
      fetch: async (input, init) => {
        const answer = fetch(input, init)
        if (init?.method === 'POST') latest = answer.then(async (response) => await response.clone().text())
        latest.catch(() => undefined)
        return await answer
      },
    })
    const submitted = await client.call('submit_task', {
      ...job,
      target_ref: 'production',
      ...script('p.js', `console.log(${Math.random()})`),
    })
    const started = await client.call('start_execution', { task_id: String(submitted.structured['task_id']) })
    expect(started.structured['state']).toBe('awaiting_approval')
    const before = await http.metric('writ_waits')
    const wait = client.call('get_status', {
      execution_id: String(started.structured['execution_id']),
      wait_ms: 50_000,
    })
    wait.catch(() => undefined)
    await until('it waits', async () => (await http.metric('writ_waits')) === before + 1)
    return {
      ended: latest.then(
        () => Number.POSITIVE_INFINITY,
        () => performance.now(),
      ),
    }
  }
})

describe('writ run --url', { timeout: 90_000 }, () => {
  const folder = mkdtempSync(join(tmpdir(), 'writ-run-url-'))
  const authority = newAuthority()
  const file = (name: string, text: string): string => {
    const path = join(folder, name)
    writeFileSync(path, text, { mode: 0o600 })
    return path
  }
  const ca = file('ca.pem', authority.ca)
  const otherCa = file('other.pem', newAuthority().ca)
  const hello = file('hello.js', "console.log('hello')\n")
  const held = (): string => file('token', http.token('dora'))
  let tls: HttpWorld

  beforeAll(async () => {
    const { cert, key } = authority.issue({ ip: ['127.0.0.1'] })
    const section = `  tls: { certificate: ${file('tls.crt', cert)}, key: ${file('tls.key', key)} }`
    tls = await openHttpWorld({ http: section })
  })
  afterAll(async () => {
    await tls.close()
    rmSync(folder, { recursive: true, force: true })
  })
  const run = (...args: readonly string[]): Ran =>
    world.writ(['run', 'sandbox', hello, '--intent', 'run_script', ...args])

  it('runs a script on a Writ elsewhere, and shows its output and result', () => {
    expect(run('--url', http.url, '--token-file', held()).err).toContain('hello')
    const ran = run('--url', http.url, '--token-file', held(), '--again', '--json')
    expect([ran.code, JSON.parse(ran.out)]).toMatchObject([0, { state: 'succeeded', tail: 'hello\n' }])
  })

  it('reaches one by TLS whose authority is named, and no other', () => {
    const token = file('tls-token', tls.token('dora'))
    expect(run('--url', tls.url, '--token-file', token, '--ca', ca)).toMatchObject({ code: 0 })
    for (const more of [[], ['--ca', otherCa]]) {
      const refused = run('--url', tls.url, '--token-file', token, ...more)
      expect(refused.code).toBe(2)
      expect(refused.err).toMatch(/certificate of https:\S+ is not to be trusted \([A-Z_]+\)/)
      expect(refused.err).toContain('--ca')
    }
    const elsewhere = run('--url', tls.url.replace('127.0.0.1', 'localhost'), '--token-file', token, '--ca', ca)
    expect(elsewhere.err).toContain('Use the host name the certificate is for.')
    expect(elsewhere.code).toBe(2)
  })

  it('says whether it is the token, the address or the command line that is wrong', () => {
    const cases: readonly (readonly [readonly string[], number, RegExp])[] = [
      [
        ['--url', http.url, '--token-file', file('bad', 'nonsense')],
        1,
        /does not take the token in \S+bad \(invalid_token/,
      ],
      [['--url', 'http://127.0.0.1:9', '--token-file', held()], 2, /cannot be reached/],
      [['--url', `${http.url}/nothing`, '--token-file', held()], 2, /404/],
      [['--url', http.url], 2, /needs --token-file/],
      [['--token-file', held()], 2, /go with --url/],
      [['--url', 'http://writ.example', '--token-file', held()], 2, /has to begin with https/],
      [['--url', `${http.url}?token=x`, '--token-file', held()], 2, /takes the URL of a Writ/],
      [['--url', http.url, '--token-file', file('two', 'a b')], 2, /does not hold a token/],
      [['--url', http.url, '--token-file', join(folder, 'none')], 2, /cannot be read \(ENOENT\)/],
      [['--url', http.url, '--token-file', held(), '--ca', hello], 2, /holds no certificate/],
    ]
    for (const [args, code, text] of cases) {
      const ran = run(...args)
      expect([args, ran.code, ran.err]).toEqual([args, code, expect.stringMatching(text) as string])
      expect(ran.err).not.toContain('nonsense')
    }
  })
})

function made(...more: readonly string[]): { readonly token: string; readonly token_id: string } {
  return world.json(['token', 'create', '--subject', 'carol', '--role', 'developer', ...more]) as {
    readonly token: string
    readonly token_id: string
  }
}

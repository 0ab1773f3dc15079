import { join } from 'node:path'
import { beforeAll, describe, expect, it } from 'vitest'
import type { JsonObject } from '../../src/digest.ts'
import { newId, parseId } from '../../src/id.ts'
import type { ExecutionId } from '../../src/id.ts'
import { openViews } from '../../src/ledger/sqlite/views.ts'
import type { PolicyInput } from '../../src/policy/policy.ts'
import { client2, type HttpClient } from '../http/clients.ts'
import { useHttpWorld } from '../http/world.ts'
import { until } from '../wait.ts'
import { script } from './world.ts'

const http = await useHttpWorld()
const { world } = http
world.enrol('grace')

/** Every role there is, so that nothing but the tenant stands between the two. */
const roles = ['developer', 'operator', 'auditor', 'approver']

function tokenOf(tenant: string, subject: string): string {
  const given = ['token', 'create', '--tenant', tenant, '--subject', subject]
  const made = world.json(given.concat(roles.flatMap((role) => ['--role', role]))) as { readonly token: string }
  return made.token
}

/** What the first tenant has, by id. */
interface Things {
  readonly task: string
  readonly execution: string
  readonly approvalTask: string
  readonly waiting: string
  readonly approval: string
  readonly plan: string
  readonly receipt: string
  readonly artifact: string
  readonly digest: string
}

const job = { project_name: 'secret-project', goal: 'secret goal', execution_intent: 'run_script' }
const code = "writ.writeFile('/out/out.txt', 'of acme')"
const acmeToken = tokenOf('acme', 'ada')
const globexToken = tokenOf('globex', 'ada')
let acme: HttpClient
let globex: HttpClient
let things: Things

async function madeBy(client: HttpClient): Promise<Things> {
  const text = (value: unknown): string => String(value)
  const submitted = await client.call('submit_task', {
    ...job,
    target_ref: 'sandbox',
    idempotency_key: 'the-same-key',
    ...script('a.js', code),
  })
  const task = text(submitted.structured['task_id'])
  const started = await client.call('start_execution', { task_id: task, wait_ms: 20_000 })
  const execution = text(started.structured['execution_id'])
  expect(started.structured['state']).toBe('succeeded')
  const result = (await client.call('get_result', { execution_id: execution })).structured
  const [file] = result['files'] as unknown as readonly { readonly uri: string; readonly sha256: string }[]
  const guarded = await client.call('submit_task', { ...job, target_ref: 'production', ...script('b.js', code) })
  const approvalTask = text(guarded.structured['task_id'])
  const asked = (await client.call('start_execution', { task_id: approvalTask })).structured
  expect(asked['state']).toBe('awaiting_approval')
  const approval = asked['approval'] as JsonObject
  return {
    task,
    execution,
    approvalTask,
    waiting: text(asked['execution_id']),
    approval: text(approval['approval_id']),
    plan: text(approval['plan_digest']),
    receipt: text((result['receipt'] as JsonObject)['uri']),
    artifact: file?.uri ?? '',
    digest: file?.sha256 ?? '',
  }
}

beforeAll(async () => {
  acme = await client2('auto', { url: http.url, token: acmeToken })
  globex = await client2('auto', { url: http.url, token: globexToken })
  things = await madeBy(acme)
}, 120_000)

/** An id like a given one that nobody was ever given. */
function unknown(id: string): string {
  return id.replace(/_[a-z2-7]{10}/, '_aaaaaaaaaa')
}

/** An answer without what differs from call to call. */
function words(answer: unknown): string {
  return JSON.stringify(answer)
    .replaceAll(/dec_[a-z2-7]{10}/g, 'dec_…')
    .replaceAll(/(task|exec|apr|rcpt)_[a-z2-7]{10}/g, '$1_…')
}

const calls: readonly (readonly [string, (of: Things) => JsonObject])[] = [
  ['upload_artifact', (of) => ({ task_id: of.task, files: [{ path: 'x.js', content: 'x' }] })],
  ['upload_artifact', (of) => ({ task_id: of.task, remove: ['a.js'] })],
  ['upload_artifact', (of) => ({ task_id: of.task, files: [{ path: 'a.js', edits: [{ old: 'acme', new: 'x' }] }] })],
  ['start_execution', (of) => ({ task_id: of.task })],
  ['start_execution', (of) => ({ task_id: of.task, dry_run: true })],
  ['start_execution', (of) => ({ task_id: of.approvalTask, again: true, idempotency_key: 'fresh' })],
  ['get_status', (of) => ({ execution_id: of.execution })],
  ['get_status', (of) => ({ execution_id: of.waiting, wait_ms: 50 })],
  ['get_status', (of) => ({ execution_id: of.execution, cursor: 'start' })],
  ['get_status', (of) => ({ task_id: of.task })],
  ['get_status', (of) => ({ approval_id: of.approval })],
  ['get_result', (of) => ({ execution_id: of.execution })],
  ['get_result', (of) => ({ execution_id: of.execution, file: 'out.txt' })],
  ['get_result', (of) => ({ execution_id: of.waiting })],
  [
    'respond_to_approval',
    (of) => ({ approval_id: of.approval, plan_digest: of.plan, verdict: 'approve', reason: 'r' }),
  ],
  ['respond_to_approval', (of) => ({ approval_id: of.approval, plan_digest: of.plan, verdict: 'reject', reason: 'r' })],
  ['cancel_execution', (of) => ({ execution_id: of.waiting })],
  ['cancel_execution', (of) => ({ execution_id: of.execution, reason: 'r' })],
]

describe('two tenants of one Writ, with people of the same name and every role', () => {
  for (const [tool, args] of calls) {
    it(`[G-tenants] ${tool} ${words(args({ task: 'task', execution: 'execution', waiting: 'execution', approvalTask: 'task', approval: 'approval', plan: '', receipt: '', artifact: '', digest: '' }))} answers for the other tenant’s as for what does not exist`, async () => {
      const none: Things = {
        ...things,
        task: unknown(things.task),
        approvalTask: unknown(things.approvalTask),
        execution: unknown(things.execution),
        waiting: unknown(things.waiting),
        approval: unknown(things.approval),
      }
      const theirs = await globex.call(tool, args(things))
      const nothing = await globex.call(tool, args(none))
      expect(theirs.isError).toBe(true)
      expect((theirs.structured['error'] as JsonObject)['code']).toBe('not_found')
      expect(words(theirs.structured)).toBe(words(nothing.structured))
      expect(words(theirs.text)).toBe(words(nothing.text))
      expect(words(theirs)).not.toMatch(/secret|acme|out\.txt/)
    })
  }

  it('[G-tenants] reads no receipt and no file of the other, and lists none', async () => {
    for (const uri of [things.receipt, things.artifact]) {
      expect((await acme.readResource(uri)).text).not.toBeNull()
      const [theirs, nothing] = await Promise.allSettled([globex.readResource(uri), globex.readResource(unknown(uri))])
      if (theirs.status !== 'rejected' || nothing.status !== 'rejected') throw new Error('it was read')
      expect(words(String(theirs.reason))).toBe(words(String(nothing.reason)))
    }
  })

  it('[G-tenants] shows no execution and no approval of the other in an overview', async () => {
    const mine = (await acme.call('get_status', {})).structured
    expect(JSON.stringify(mine)).toContain(things.execution)
    expect((mine['recent'] as readonly unknown[]).length).toBe(2)
    const theirs = (await globex.call('get_status', {})).structured
    expect(theirs['recent']).toEqual([])
    expect(theirs['waiting_for_you']).toEqual([])
    expect(theirs['next']).toEqual({ tool: 'list_targets', arguments: {} })
  })

  it('[G-tenants] has idempotency keys of its own', async () => {
    const other = {
      ...job,
      target_ref: 'sandbox',
      idempotency_key: 'the-same-key',
      ...script('c.js', 'console.log(1)'),
    }
    const submitted = await globex.call('submit_task', other)
    expect(submitted.isError).toBe(false)
    expect(submitted.structured['task_id']).not.toBe(things.task)
    const again = await globex.call('submit_task', other)
    expect(again.structured['task_id']).toBe(submitted.structured['task_id'])
    // In the tenant that used it first, the key means what it meant.
    const conflict = await acme.call('submit_task', other)
    expect((conflict.structured['error'] as JsonObject)['code']).toBe('idempotency_conflict')
  })

  it('[G-tenants] gets nothing for knowing the digest of the other’s bytes', async () => {
    const submitted = await globex.call('submit_task', { ...job, target_ref: 'sandbox', inputs: { script: 'd.js' } })
    const task = String(submitted.structured['task_id'])
    const claimed = await globex.call('upload_artifact', {
      task_id: task,
      files: [{ path: 'd.js', sha256: things.digest }],
    })
    expect(claimed.isError).toBe(true)
    const wrong = await globex.call('upload_artifact', {
      task_id: task,
      files: [{ path: 'd.js', sha256: things.digest, content: 'of globex' }],
    })
    expect(wrong.isError).toBe(true)
    expect(words(wrong)).not.toContain('of acme')
  })

  it('[G-tenants] keeps a session to who opened it', async () => {
    const send = async (token: string, body: JsonObject, session?: string): Promise<Response> =>
      await fetch(`${http.url}/mcp`, {
        method: 'POST',
        headers: {
          authorization: `Bearer ${token}`,
          'content-type': 'application/json',
          accept: 'application/json, text/event-stream',
          ...(session === undefined ? {} : { 'mcp-session-id': session, 'mcp-protocol-version': '2025-11-25' }),
        },
        body: JSON.stringify({ jsonrpc: '2.0', id: 1, ...body }),
      })
    const opened = await send(acmeToken, {
      method: 'initialize',
      params: { protocolVersion: '2025-11-25', capabilities: {}, clientInfo: { name: 'c', version: '1' } },
    })
    const session = opened.headers.get('mcp-session-id') ?? ''
    expect(session).not.toBe('')
    await opened.text()
    const ping = { method: 'ping' }
    const own = await send(acmeToken, ping, session)
    expect(own.status).toBe(200)
    await own.text()
    const theirs = await send(globexToken, ping, session)
    const nothing = await send(globexToken, ping, 'no-such-session')
    expect(theirs.status).toBe(nothing.status)
    expect(theirs.status).toBeGreaterThanOrEqual(400)
    expect(words(await theirs.text())).toBe(words(await nothing.text()))
  })

  it('[G-tenants] is counted for itself: what policy sees of a caller holds nothing of the other', async () => {
    const start = async (client: HttpClient, line: string): Promise<ExecutionId> => {
      const submitted = await client.call('submit_task', { ...job, target_ref: 'sandbox', ...script('e.js', line) })
      const task_id = String(submitted.structured['task_id'])
      const started = await client.call('start_execution', { task_id, wait_ms: 20_000 })
      expect(started.structured['state']).toBe('succeeded')
      return parseId('exec', String(started.structured['execution_id'])) ?? newId('exec')
    }
    const [first, second] = [await start(globex, 'console.log(2)'), await start(acme, 'console.log(2)')]
    const views = openViews(join(world.folder, '.writ', 'ledger.db'))
    const seen = (id: ExecutionId): PolicyInput => JSON.parse(views.decisions(id)[0]?.input ?? '') as PolicyInput
    try {
      expect(seen(first).context.counters.executions_60m).toBe(0)
      expect(seen(first).subject).toMatchObject({
        id: 'ada',
        properties: { tenant: 'globex', auth: { method: 'token' } },
      })
      expect(seen(second).context.counters.executions_60m).toBe(2)
      expect(JSON.stringify(seen(first))).not.toContain('acme')
    } finally {
      views.close()
    }
  })

  it('lets the enrolled approver at the operator’s terminal answer for any tenant', { timeout: 90_000 }, async () => {
    const shown = world.writ(['approvals', 'show', things.approval])
    expect(shown.err).toBe('')
    expect(shown.out).toContain('secret-project')
    expect(world.approve(things.approval)).toMatchObject({ code: 0 })
    await expect
      .poll(async () => (await acme.call('get_status', { execution_id: things.waiting })).structured['state'], {
        timeout: 30_000,
      })
      .toBe('succeeded')
  })
})

describe('a token that ends', () => {
  it(
    '[G-token-revoked] takes what waits for people with it, and every client that holds it',
    { timeout: 120_000 },
    async () => {
      const made = world.json(['token', 'create', '--subject', 'temp', '--role', 'developer']) as {
        token: string
        token_id: string
      }
      const client = await client2('auto', { url: http.url, token: made.token })
      const submitted = await client.call('submit_task', {
        ...job,
        target_ref: 'production',
        ...script('f.js', 'console.log(3)'),
      })
      const started = (await client.call('start_execution', { task_id: String(submitted.structured['task_id']) }))
        .structured
      const id = String(started['execution_id'])
      expect(started['state']).toBe('awaiting_approval')
      const waiting = client.call('get_status', { execution_id: id, wait_ms: 50_000 }).then(
        () => 'answered',
        () => 'refused',
      )
      await until('it waits', async () => (await http.metric('writ_waits')) === 1)
      expect(world.writ(['token', 'revoke', made.token_id])).toMatchObject({ code: 0 })
      const before = performance.now()
      await waiting
      expect(performance.now() - before).toBeLessThan(15_000)
      await expect(client.call('get_status', {})).rejects.toThrow(/401|[Uu]nauthorized|revoked/)
      expect(world.approve(String((started['approval'] as JsonObject)['approval_id']))).toMatchObject({ code: 0 })
      const stateOf = (): unknown =>
        (world.json(['executions', 'show', id]) as { execution: JsonObject }).execution['state']
      await expect.poll(stateOf, { timeout: 30_000 }).toBe('denied')
    },
  )

  it('leaves a log that verifies, in which each token’s making and end has its receipt', () => {
    const root = world.writ(['keys', '--fingerprint']).out.trim()
    const verified = world.writ(['verify', '--root', root])
    expect(verified.out).toMatch(/^VALID:LOGGED/)
    expect(verified.code).toBe(0)
    const log = world.writ(['receipts', 'list', '--limit', '1000', '--jws']).out
    expect(log).not.toContain(globexToken)
    const clear = log
      .trim()
      .split('\n')
      .map((jws) => Buffer.from(jws.split('.')[1] ?? '', 'base64url').toString('utf8'))
    const tokens = clear.filter((text) => text.includes('"what":"token"'))
    expect(tokens.length).toBe(4)
    for (const text of tokens) expect(text).not.toMatch(/globex|ada|temp|developer/)
  })
})

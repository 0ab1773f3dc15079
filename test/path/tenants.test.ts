import { randomBytes } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import type { JsonObject } from '../../src/digest.ts'
import type { Results } from '../../src/execution/result.ts'
import { parseId } from '../../src/id.ts'
import type { PolicyInput } from '../../src/policy/policy.ts'
import type { Arguments, ToolName } from '../../src/request/call.ts'
import type { Caller } from '../../src/request/caller.ts'
import { openDesk, put, sha256 } from '../transfer/broker.ts'
import { alice, openWorld } from './world.ts'

// The policy of somebody who forgot that there are tenants: it lets everybody do everything.
const world = await openWorld({
  only: `
# METADATA
# title: Anything goes
# custom: {id: EXT-ALL}
grant contains {"rule": rego.metadata.rule()} if input.phase in {"request", "execution", "approval"}
`,
})
afterAll(async () => await world.broker.stop())
const { views } = world.parts.ledger
const acme: Caller = { ...alice, tenant: 'acme' }
const globex: Caller = { ...alice, tenant: 'globex', roles: ['developer', 'operator', 'auditor', 'approver'] }

/** What the first tenant has, by id. */
interface Things {
  readonly task: string
  readonly execution: string
  readonly waiting: string
  readonly approval: string
  readonly plan: string
  readonly receipt: string
  readonly artifact: string
}
let things: Things
let asked: readonly PolicyInput[] = []

beforeAll(async () => {
  const task = await world.task(acme, 'sandbox', "writ.writeFile('/out/out.txt', 'of acme'.repeat(10_000))")
  const started = await world.ask(acme, 'start_execution', { task_id: task, wait_ms: 20_000 })
  const execution = started.execution_id ?? ''
  const result = await world.ask(acme, 'get_result', { execution_id: execution })
  const waits = await world.ask(acme, 'start_execution', { task_id: await world.task(acme, 'chat') })
  if (started.state !== 'succeeded' || waits.state !== 'awaiting_approval') throw new Error(JSON.stringify(waits))
  things = {
    task,
    execution,
    waiting: waits.execution_id ?? '',
    approval: waits.approval?.approval_id ?? '',
    plan: waits.approval?.plan_digest ?? '',
    receipt: result.receipt?.uri ?? '',
    artifact: result.files?.[0]?.uri ?? '',
  }
  const decide = world.parts.policy.decide.bind(world.parts.policy)
  vi.spyOn(world.parts.policy, 'decide').mockImplementation(async (input) => {
    asked = [...asked, input]
    return await decide(input)
  })
}, 60_000)

/** An id like a given one that nobody was ever given. */
function unknown(id: string): string {
  return id.replace(/_[a-z2-7]{10}/, '_aaaaaaaaaa')
}

/** An answer without what differs from call to call. */
function words(answer: unknown): string {
  return JSON.stringify(answer).replaceAll(/(dec|task|exec|apr|rcpt)_[a-z2-7]{10}/g, '$1_…')
}

const bytes = randomBytes(1000)
const upload = { path: 'x.bin', size: bytes.length, sha256: sha256(bytes) }
const verdict = { verdict: 'approve', reason: 'r' } as const
const calls: readonly (readonly [string, (of: Things) => Promise<Results[ToolName]>])[] = [
  call('upload_artifact', (of) => ({ task_id: of.task, files: [{ path: 'x.js', content: 'x' }] })),
  call('upload_artifact', (of) => ({ task_id: of.task, upload })),
  call('start_execution', (of) => ({ task_id: of.task })),
  call('start_execution', (of) => ({ task_id: of.task, dry_run: true })),
  call('start_execution', (of) => ({ task_id: of.task, again: true, idempotency_key: 'fresh' })),
  call('get_status', (of) => ({ execution_id: of.execution })),
  call('get_status', (of) => ({ execution_id: of.waiting, wait_ms: 50 })),
  call('get_status', (of) => ({ task_id: of.task })),
  call('get_status', (of) => ({ approval_id: of.approval })),
  call('get_result', (of) => ({ execution_id: of.execution })),
  call('get_result', (of) => ({ execution_id: of.execution, file: 'out.txt' })),
  call('respond_to_approval', (of) => ({ approval_id: of.approval, plan_digest: of.plan, ...verdict })),
  call('cancel_execution', (of) => ({ execution_id: of.waiting })),
]

function call<T extends ToolName>(
  tool: T,
  args: (of: Things) => Arguments[T],
): readonly [string, (of: Things) => Promise<Results[ToolName]>] {
  const named: Things = { task: 'T', execution: 'E', waiting: 'E', approval: 'A', plan: '', receipt: '', artifact: '' }
  return [`${tool} ${JSON.stringify(args(named))}`, async (of) => await world.ask(globex, tool, args(of))]
}

describe('under a policy that allows everybody everything', () => {
  it.each(calls)('[G-tenants] %s of another tenant is answered as of one that never was', async (_, make) => {
    const nothing = Object.fromEntries(Object.entries(things).map(([name, id]) => [name, unknown(String(id))]))
    asked = []
    const theirs = await make(things)
    expect(theirs.error?.code).toBe('not_found')
    expect(words(theirs)).toBe(words(await make({ ...(nothing as unknown as Things), plan: things.plan })))
    // Policy was asked, about something that is nobody's.
    expect(asked.length).toBe(2)
    for (const { resource } of asked) expect(resource.properties).toEqual({ owner: null, tenant: null, labels: {} })
    expect(words(asked[0]?.resource)).toBe(words(asked[1]?.resource))
  })

  it('[G-tenants] no receipt and no file of another tenant is read, and no receipt that is the operator’s', async () => {
    const { broker } = world.broker.served
    for (const uri of [things.receipt, things.artifact]) {
      expect(await broker.readResource(acme, uri)).not.toBeNull()
      expect(await broker.readResource(globex, uri)).toBeNull()
      expect(await broker.readResource(globex, unknown(uri))).toBeNull()
    }
    const operators = views.receipts(0, 100).filter(({ execution }) => execution === null)
    expect(operators.length).toBeGreaterThan(0)
    for (const { id } of operators) expect(await broker.readResource(globex, `writ://receipts/${id}`)).toBeNull()
    expect(await broker.listResources(globex)).toEqual([])
    expect(await world.ask(globex, 'get_status', {})).toMatchObject({ recent: [], waiting_for_you: [] })
  })

  it('[G-transfer-bound] a URL that another tenant’s caller came to all the same changes no task', async () => {
    const { desk, close } = openDesk(world.broker, { parts: { rolesOf: () => globex.roles } })
    const id = parseId('task', things.task)
    const task = id === null ? null : views.task(id)
    if (task === null) throw new Error('no task')
    const { url } = await desk.issueUpload(globex, task, upload)
    expect(await put(url, bytes)).toMatchObject({ status: 404, code: 'not_found' })
    expect(views.task(task.id)).toEqual(task)
    await close()
  })

  it('[G-tenants] its own caller is not concerned', async () => {
    expect(await world.ask(acme, 'get_status', { approval_id: things.approval })).toMatchObject({ final: false })
    const given = await world.ask(acme, 'get_result', { execution_id: things.execution, file: 'out.txt' })
    expect(given.file?.download_url).toMatch(/^http/)
    const answer = { approval_id: things.approval, plan_digest: things.plan, ...verdict } satisfies JsonObject
    const refused = await world.ask(acme, 'respond_to_approval', answer)
    expect(refused.error?.message).toBe('Whoever asked for this run may not approve it.')
  })
})

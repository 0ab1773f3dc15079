import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import type { JsonObject } from '../../src/digest.ts'
import { until } from '../wait.ts'
import type { Driver } from './clients/driver.ts'
import { passphrase, type Ran, script, useWorld } from './world.ts'

// Each verdict opens a key under a passphrase, which takes as long as it is meant to.
vi.setConfig({ testTimeout: 300_000 })

const world = useWorld()
const packFolder = join(world.folder, 'policies', 'extra')
const configPath = join(world.folder, 'writ.yaml')

/** A guard of the operator's, as strict as the test wants it; the broker takes an edit over within a second. */
interface Demand {
  readonly stages?: string
  readonly exclude?: string
  readonly evidence?: string
  readonly ttl?: number
  readonly within?: number
}

function demand(env: string, { stages, exclude, evidence, ttl, within }: Demand): void {
  writeFileSync(
    join(packFolder, `${env}.rego`),
    `package writ.pack.extra

# METADATA
# title: What the test asks for on ${env}
# custom:
#   id: EXT-${env}
#   code: approval_required
#   remedy: Wait for the people of the test.
require_approval contains {
	"rule": rego.metadata.rule(),
	"stages": ${stages ?? '[{"id": "approver", "roles": ["approver"], "min": 1}]'},
	"exclude": ${exclude ?? '["agent"]'},
	"evidence": ${evidence ?? '["key"]'},
	"request_ttl_s": ${String(ttl ?? 600)},
	"execute_within_s": ${String(within ?? 600)},
	"message": "asked by the test",
} if {
	input.phase == "execution"
	input.resource.properties.labels.env == "${env}"
}
`,
  )
}

function addTarget(name: string): void {
  world.addTarget(`  ${name}:
    about: A target of the test
    labels: { env: ${name} }
    executor: isolate
    intents: [run_script]
`)
}

function editConfig(change: (text: string) => string): void {
  writeFileSync(configPath, change(readFileSync(configPath, 'utf8')))
}

/** Puts an edit in force, and takes it back when the test ends. */
async function withEdit(path: string, change: (text: string) => string): Promise<void> {
  const before = readFileSync(path, 'utf8')
  onTestFinished(async () => {
    writeFileSync(path, before)
    await world.reload()
  })
  const after = change(before)
  expect(after).not.toBe(before)
  writeFileSync(path, after)
  await world.reload()
}

const withConfig = async (change: (text: string) => string): Promise<void> => await withEdit(configPath, change)

mkdirSync(packFolder)
for (const env of ['stages', 'bearer', 'edited', 'quick', 'late', 'plain', 'catalog', 'lost']) addTarget(env)
demand('stages', {
  stages: '[{"id": "lead", "roles": ["lead"], "min": 1}, {"id": "security", "roles": ["security"], "min": 2}]',
})
demand('bearer', { evidence: '["bearer"]' })
demand('edited', {})
demand('quick', { ttl: 2 })
demand('late', { within: 1 })
demand('plain', {})
demand('catalog', {})
demand('lost', {
  stages: '[{"id": "lead", "roles": ["lead"], "min": 1}, {"id": "security", "roles": ["security"], "min": 1}]',
})
mkdirSync(join(world.folder, 'policies', 'chat'))
// The local agent is renamed below, and with its name go its roles; what it had asked for may still run.
writeFileSync(
  join(world.folder, 'policies', 'chat', 'chat.rego'),
  `package writ.pack.chat

# METADATA
# title: What was confirmed in chat runs, whoever asks now
# custom: {id: CHT-001}
grant contains {"rule": rego.metadata.rule()} if {
	input.phase == "execution"
	input.resource.properties.labels.env == "bearer"
}
`,
)
editConfig((text) =>
  text.replace(
    'policies:\n',
    'policies:\n  - { pack: extra, layer: org, kind: guard, path: policies/extra }\n  - { pack: chat, layer: team, kind: grant, path: policies/chat }\n',
  ),
)

const people: Readonly<Record<string, readonly string[]>> = {
  ada: ['approver', 'lead', 'security'],
  ben: ['security'],
  cleo: ['security'],
}

/** Keys cost a second each, so every person has one; the file of `copies` is another name for the same person's key. */
function enrol(name: string): void {
  const roles = (people[name] ?? []).flatMap((role) => ['--role', role])
  const ran = world.writ(['approvals', 'enroll', name, ...roles, '--passphrase-fd', '3'], { passphrase })
  if (ran.code !== 0) throw new Error(ran.err)
}
for (const name of Object.keys(people)) enrol(name)

async function start(
  client: Driver,
  target: string,
  content = "console.log('ran')",
): Promise<{ readonly task: string; readonly id: string; readonly approval: string; readonly started: JsonObject }> {
  const submitted = await client.call('submit_task', {
    project_name: 'approval',
    goal: 'Print a line',
    execution_intent: 'run_script',
    target_ref: target,
    ...script('a.js', content),
  })
  const task = String(submitted.structured['task_id'])
  const started = (await client.call('start_execution', { task_id: task })).structured
  const approval = started['approval'] as JsonObject | undefined
  return { task, id: String(started['execution_id']), approval: String(approval?.['approval_id']), started }
}

async function status(client: Driver, id: string, wait = 10_000): Promise<JsonObject> {
  return (await client.call('get_status', { execution_id: id, wait_ms: wait })).structured
}

/** The status once it is that, or once it can become nothing else. */
async function reached(client: Driver, id: string, state: string): Promise<JsonObject> {
  return await until(`${id} is ${state}`, async () => {
    const now = await status(client, id, 0)
    return (now['state'] === state || now['final'] === true) && now
  })
}

function answer(verdict: 'approve' | 'reject', id: string, ...args: readonly string[]): Ran {
  return world.writ(['approvals', verdict, id, '--passphrase-fd', '3', ...args], { passphrase })
}

/** Makes an edit of a policy, and waits until the broker has taken it over by itself. */
async function generationAfter(edit: () => void): Promise<void> {
  const number = (): number =>
    (world.json(['status']) as { policy: { generation: { number: number } } }).policy.generation.number
  const before = number()
  edit()
  await until('another generation is in force', () => number() > before)
}

describe('an approval', () => {
  it('[G-approval-shown] shows a person everything before the signature, and runs by itself with no client connected', async () => {
    const client = await world.client()
    const { id, approval, started } = await start(client, 'production', "console.log('with nobody \u202eereht')")
    expect(started).toMatchObject({ state: 'awaiting_approval', ran: false })
    await client.close()
    const shown = world.writ(['approvals', 'show', approval])
    expect(shown.out).toContain('Target        production (env: production)')
    expect(shown.out).toContain("  | console.log('with nobody \\u{202e}ereht')")
    expect(answer('approve', approval, '--as', 'ada', '--reason', 'fine').code).toBe(0)
    const again = await world.client()
    expect(await reached(again, id, 'succeeded')).toMatchObject({ state: 'succeeded', ran: true })
    const record = world.json(['executions', 'show', id]) as {
      approvals: { verdicts: { statement: { shown: string; reason: string }; evidence: string }[] }[]
    }
    expect(record.approvals[0]?.verdicts[0]).toMatchObject({
      evidence: 'key',
      by: 'ada',
      statement: { reason: 'fine', verdict: 'approve' },
    })
    // What MCP shows of the same approval is the very text that was signed for.
    const seen = (await again.call('get_status', { approval_id: approval })).structured
    expect(shown.out).toContain(String(seen['payload'] ?? shown.out))
  })

  it('[G-approval-once] is answered once: the same person, another person, and a replay are refused after the end', async () => {
    const client = await world.client()
    const { id, approval } = await start(client, 'plain')
    expect(answer('approve', approval, '--as', 'ada').code).toBe(0)
    expect(await reached(client, id, 'succeeded')).toMatchObject({ state: 'succeeded' })
    for (const name of ['ada', 'ben']) {
      const refused = answer('approve', approval, '--as', name, '--stage', 'approver')
      expect(refused.code).toBe(1)
      expect(refused.out + refused.err).toContain('satisfied')
    }
  })

  it('is ended by a rejection: nothing runs, and the reason stands in the record', async () => {
    const client = await world.client()
    const { id, approval } = await start(client, 'plain', "console.log('never')")
    expect(answer('reject', approval, '--as', 'ada', '--reason', 'not today').code).toBe(0)
    expect(await status(client, id)).toMatchObject({ state: 'rejected', ran: false, final: true })
    expect(world.writ(['executions', 'show', id]).out).toContain('reject by ada (key): not today')
    expect(answer('approve', approval, '--as', 'ada').code).toBe(1)
  })

  it('refuses somebody who is no approver, a wrong passphrase, and a stage that is another’s', async () => {
    const client = await world.client()
    const { id, approval } = await start(client, 'stages')
    expect(answer('approve', approval, '--as', 'nobody')).toMatchObject({
      code: 1,
      err: expect.stringContaining('"nobody" is not an approver') as string,
    })
    expect(answer('approve', approval).err).toContain('say who you are with --as: ada, ben, cleo')
    const wrong = world.writ(['approvals', 'approve', approval, '--as', 'ben', '--passphrase-fd', '3'], {
      passphrase: 'not the passphrase',
    })
    expect(wrong).toMatchObject({
      code: 2,
      err: expect.stringContaining('The passphrase does not open this key file.') as string,
    })
    expect(world.writ(['approvals', 'approve', approval, '--as', 'ben', '--passphrase-fd', '9']).err).toContain(
      'File descriptor 9 cannot be read',
    )
    expect(answer('approve', approval, '--as', 'ben', '--stage', 'lead')).toMatchObject({
      code: 1,
      err: expect.stringContaining('the role is missing') as string,
    })
    expect(await status(client, id, 0)).toMatchObject({ state: 'awaiting_approval' })
    await client.call('cancel_execution', { execution_id: id })
    expect(answer('approve', approval, '--as', 'ben')).toMatchObject({ code: 1 })
  })

  it('[G-quorum] of two stages needs each of its people, and one person counts once, also after a restart of the broker', async () => {
    const client = await world.client()
    const { id, approval } = await start(client, 'stages')
    // Ada holds both roles. As the only lead she is placed there without being told.
    const first = answer('approve', approval, '--as', 'ada', '--json')
    expect(first.code).toBe(0)
    expect(JSON.parse(first.out)).toMatchObject({
      state: 'open',
      stages: [
        { id: 'lead', have: 1 },
        { id: 'security', have: 0 },
      ],
    })
    const twice = answer('approve', approval, '--as', 'ada', '--stage', 'security')
    expect(twice).toMatchObject({ code: 1, err: expect.stringContaining('answered this approval already') as string })
    process.kill(world.brokerPid(), 'SIGKILL')
    // No client is there: the command line starts the broker again.
    await client.close()
    expect(answer('approve', approval, '--as', 'ben').code).toBe(0)
    const again = await world.client()
    expect(await status(again, id, 0)).toMatchObject({ state: 'awaiting_approval', ran: false })
    expect(JSON.parse(answer('approve', approval, '--as', 'cleo', '--json').out)).toMatchObject({ state: 'satisfied' })
    expect(await reached(again, id, 'succeeded')).toMatchObject({ state: 'succeeded' })
    const receipts = (world.json(['executions', 'show', id]) as { receipts: { kind: string }[] }).receipts.map(
      ({ kind }) => kind,
    )
    expect(receipts).toEqual(['decision', 'approval', 'approval', 'approval', 'decision', 'outcome'])
  })

  it('[G-approval-bound] is asked for anew when a person who said yes has lost the role before the run', async () => {
    const client = await world.client()
    const { id, approval } = await start(client, 'lost')
    expect(answer('approve', approval, '--as', 'ben').code).toBe(0)
    await withConfig((text) => text.replace(/( {2}- \{ subject: "ben", roles: \[)"security"/, '$1"nothing"'))
    expect(answer('approve', approval, '--as', 'ada', '--stage', 'lead').code).toBe(0)
    const now = await reached(client, id, 'awaiting_approval')
    expect(now).toMatchObject({ state: 'awaiting_approval', ran: false })
    expect((now['approval'] as JsonObject)['approval_id']).not.toBe(approval)
    await client.call('cancel_execution', { execution_id: id })
  })
})

describe('the two clocks of an approval', () => {
  it('[G-approval-time] end it when nobody answers in time', async () => {
    const client = await world.client()
    const { id, approval } = await start(client, 'quick')
    const ended = await reached(client, id, 'expired')
    expect(ended).toMatchObject({ state: 'expired', final: true, ran: false })
    const late = answer('approve', approval, '--as', 'ada')
    expect(late.code).toBe(1)
    expect(late.out + late.err).toContain('expired')
  })

  it('[G-approval-time] end it when it was approved and the run could not begin in time', async () => {
    const client = await world.client()
    const { id, approval } = await start(client, 'late')
    // As many runs as there may be at once, so that the approved one has to wait.
    const sleep = 'await new Promise((resolve) => setTimeout(resolve, 200_000))'
    const others: string[] = []
    const cancel = async (): Promise<void> => {
      for (const other of others.splice(0)) await client.call('cancel_execution', { execution_id: other })
    }
    onTestFinished(cancel)
    for (const each of [1, 2, 3, 4])
      others.push((await start(client, 'sandbox', `${sleep} // ${String(each)} ${String(Math.random())}`)).id)
    expect(answer('approve', approval, '--as', 'ada').code).toBe(0)
    expect(await status(client, id, 0)).toMatchObject({ state: 'queued', ran: false })
    await new Promise((resolve) => setTimeout(resolve, 1500))
    await cancel()
    expect(await reached(client, id, 'expired')).toMatchObject({ state: 'expired', ran: false })
  })
})

describe('what changes between question and run', () => {
  it('[G-superseded] is superseded by a file uploaded: the next plan is another, and the earlier approval takes no verdict', async () => {
    const client = await world.client()
    const { task, id, approval } = await start(client, 'plain', "console.log('one')")
    await client.call('upload_artifact', { task_id: task, files: [{ path: 'a.js', content: "console.log('two')" }] })
    const next = (await client.call('start_execution', { task_id: task })).structured
    expect(next['execution_id']).not.toBe(id)
    expect(await status(client, id, 0)).toMatchObject({ state: 'superseded', ran: false, final: true })
    expect(answer('approve', approval, '--as', 'ada')).toMatchObject({ code: 1 })
    const nextApproval = String((next['approval'] as JsonObject)['approval_id'])
    expect(answer('approve', nextApproval, '--as', 'ada').code).toBe(0)
    expect(await reached(client, String(next['execution_id']), 'succeeded')).toMatchObject({ state: 'succeeded' })
    // The third plan of the task is shown with its difference to the second.
    await client.call('upload_artifact', { task_id: task, files: [{ path: 'a.js', content: "console.log('three')" }] })
    const third = (await client.call('start_execution', { task_id: task })).structured
    const shown = world.writ(['approvals', 'show', String((third['approval'] as JsonObject)['approval_id'])]).out
    expect(shown).toContain('Changed since the last approved plan\n  sha256:')
    expect(shown).toContain("  | -console.log('two')")
    expect(shown).toContain("  | +console.log('three')")
    await client.call('cancel_execution', { execution_id: String(third['execution_id']) })
  })

  it('[G-superseded] is superseded by an edit of what the plan stands on in the catalog', async () => {
    const client = await world.client()
    const { id, approval } = await start(client, 'catalog')
    await withEdit(join(world.folder, 'catalog.yaml'), (text) =>
      text.replace('  catalog:\n    about: A target of the test', '  catalog:\n    about: Another target now'),
    )
    answer('approve', approval, '--as', 'ada')
    expect(await reached(client, id, 'superseded')).toMatchObject({ state: 'superseded', ran: false })
  })

  it('[G-approval-bound] asks again where the policy became stricter, and does not forget what it asked where it became looser', async () => {
    onTestFinished(async () => {
      demand('edited', {})
      await world.reload()
    })
    const client = await world.client()
    const strict = await start(client, 'edited', "console.log('strict')")
    await generationAfter(() =>
      demand('edited', {
        stages:
          '[{"id": "approver", "roles": ["approver"], "min": 1}, {"id": "security", "roles": ["security"], "min": 1}]',
      }),
    )
    expect(answer('approve', strict.approval, '--as', 'ada').code).toBe(0)
    const asked = await reached(client, strict.id, 'awaiting_approval')
    const second = String((asked['approval'] as JsonObject)['approval_id'])
    expect(second).not.toBe(strict.approval)
    // Nobody has seen this under the new requirement, so all of it is shown again.
    expect(world.writ(['approvals', 'show', second]).out).toContain("  | console.log('strict')")
    expect(answer('approve', second, '--as', 'ada', '--stage', 'approver').code).toBe(0)
    expect(await status(client, strict.id, 0)).toMatchObject({ state: 'awaiting_approval', ran: false })

    const loose = await start(client, 'edited', "console.log('loose')")
    await generationAfter(() => rmSync(join(packFolder, 'edited.rego')))
    for (const { id } of [strict, loose])
      expect(await status(client, id, 0)).toMatchObject({ state: 'awaiting_approval', ran: false })
    expect(answer('approve', second, '--as', 'ben').code).toBe(0)
    expect(await reached(client, strict.id, 'succeeded')).toMatchObject({ state: 'succeeded' })
    expect(answer('approve', loose.approval, '--as', 'ada', '--stage', 'approver').code).toBe(0)
    expect(await status(client, loose.id, 0)).toMatchObject({ state: 'awaiting_approval', ran: false })
    expect(answer('approve', loose.approval, '--as', 'ben').code).toBe(0)
    expect(await reached(client, loose.id, 'succeeded')).toMatchObject({ state: 'succeeded' })
  })
})

describe('who may not approve', () => {
  it('[G-four-eyes] is the subject that asked, for production, with however good a key', async () => {
    const client = await world.client()
    const { id, approval } = await start(client, 'production', "console.log('mine')")
    // Once: a key file that is there is not overwritten.
    if (!readFileSync(configPath, 'utf8').includes('"local-user"')) {
      const enroll = ['approvals', 'enroll', 'local-user', '--role', 'approver', '--passphrase-fd', '3']
      expect(world.writ(enroll, { passphrase })).toMatchObject({ code: 0 })
    }
    await world.reload()
    const own = answer('approve', approval, '--as', 'local-user')
    expect(own.code).toBe(1)
    const forced = answer('approve', approval, '--as', 'local-user', '--stage', 'approver')
    expect(forced).toMatchObject({ code: 1, err: expect.stringContaining('whoever asked is excluded') as string })
    expect(await status(client, id, 0)).toMatchObject({ state: 'awaiting_approval', ran: false })
    await client.call('cancel_execution', { execution_id: id })
  })

  it('[G-no-self-approval] is an agent in chat: by default its word is not taken, whatever roles its user has', async () => {
    const client = await world.client()
    const { id, approval } = await start(client, 'plain')
    const digest = String(
      (await status(client, id, 0))['approval'] === undefined
        ? ''
        : ((await status(client, id, 0))['approval'] as JsonObject)['plan_digest'],
    )
    const say = async (driver: Driver): Promise<JsonObject> =>
      (
        await driver.call('respond_to_approval', {
          approval_id: approval,
          plan_digest: digest,
          verdict: 'approve',
          reason: 'I say so',
        })
      ).structured
    expect((await say(client))['error']).toBeDefined()
    await withConfig((text) => text.replace('roles: [developer, operator]', 'roles: [developer, operator, approver]'))
    // A connection is who it was when it was made.
    expect((await say(await world.client()))['error']).toMatchObject({
      code: 'denied',
      message: 'This approval takes an approver’s own key, not a word in chat.',
    })
    expect(await status(client, id, 0)).toMatchObject({ state: 'awaiting_approval', ran: false })
    await client.call('cancel_execution', { execution_id: id })
  })

  it('is the agent that asked also where a policy takes a word in chat; another agent’s is taken, and recorded as bearer', async () => {
    await withConfig((text) => text.replace('roles: [developer, operator]', 'roles: [developer, operator, approver]'))
    const client = await world.client()
    const { id, approval, started } = await start(client, 'bearer')
    const digest = String((started['approval'] as JsonObject)['plan_digest'])
    const say = async (driver: Driver, args: JsonObject = {}): Promise<JsonObject> =>
      (
        await driver.call('respond_to_approval', {
          approval_id: approval,
          plan_digest: digest,
          verdict: 'approve',
          reason: 'yes',
          ...args,
        })
      ).structured
    expect((await say(client))['error']).toMatchObject({
      code: 'denied',
      message: 'Whoever asked for this run may not approve it.',
    })
    await withConfig((text) =>
      text.replace(
        'roles: [developer, operator, approver]',
        'roles: [developer, operator, approver]\n  agent: chat-agent',
      ),
    )
    const other = await world.client()
    expect((await say(other, { plan_digest: `sha256:${'0'.repeat(64)}` }))['error']).toMatchObject({
      code: 'plan_changed',
    })
    expect(answer('approve', approval, '--as', 'ada', '--stage', 'approver')).toMatchObject({
      code: 1,
      err: expect.stringContaining('does not take a key') as string,
    })
    expect(await say(other)).toMatchObject({ state: 'satisfied', execution_id: id })
    expect(await reached(client, id, 'succeeded')).toMatchObject({ state: 'succeeded' })
    const { receipts } = world.json(['executions', 'show', id]) as { receipts: { kind: string; receipt_id: string }[] }
    const verdict = receipts.find(({ kind }) => kind === 'approval')
    const receipt = JSON.stringify(world.json(['receipts', 'show', verdict?.receipt_id ?? '']))
    expect(receipt).toContain('"evidence":"bearer"')
  })
})

describe('the whole log', () => {
  it('[G-log] of all of that verifies, statements of approvers included', () => {
    const verified = world.writ(['verify'])
    expect(verified.out).toMatch(/^VALID:LOGGED/)
    expect(verified.code).toBe(0)
  })
})

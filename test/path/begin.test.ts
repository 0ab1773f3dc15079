import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, expect, it, onTestFinished } from 'vitest'
import type { Verdict } from '../../src/approval/approval.ts'
import { readStatement } from '../../src/approval/statement.ts'
import { WritError } from '../../src/error.ts'
import type { Execution } from '../../src/execution/execution.ts'
import { newId, parseId } from '../../src/id.ts'
import { generateKey } from '../../src/jws.ts'
import type { Entry, Ledger } from '../../src/ledger/ledger.ts'
import type { Parts } from '../../src/path/parts.ts'
import { openRunner } from '../../src/path/run.ts'
import { startExecution } from '../../src/path/start.ts'
import { answerWithKey } from '../../src/path/answer.ts'
import type { PolicyInput } from '../../src/policy/policy.ts'
import { until } from '../wait.ts'
import { answering, edit, openWorld } from './world.ts'

const world = await openWorld()
afterAll(async () => await world.broker.stop())
const { views } = world.parts.ledger
const { caller } = world.broker
const sleep = (ms: number): string => `await new Promise((done) => setTimeout(done, ${String(ms)}))`

function running(): number {
  return views.executions({ state: ['running'] }, 100).length
}

it('runs no more at once than it may, however many starts come together', async () => {
  const tasks = await Promise.all(
    Array.from({ length: 10 }, async () => await world.task(caller, 'sandbox', sleep(1500))),
  )
  let most = 0
  const watch = setInterval(() => (most = Math.max(most, running())), 5)
  const started = await Promise.all(
    tasks.map(async (task_id) => await world.ask(caller, 'start_execution', { task_id })),
  )
  most = Math.max(most, running())
  await until('all of them have run', () =>
    started.every(({ execution_id = '' }) => views.execution(execution_id as never)?.ran === true),
  )
  clearInterval(watch)
  expect(most).toBe(world.parts.maxRunning)
  await until('none runs', () => running() === 0)
}, 120_000)

it('runs nothing made from a catalog that was edited while policy was asked', async () => {
  const task_id = await world.task(caller, 'sandbox')
  const before = world.parts.catalog()
  const sandbox = before.targets.get('sandbox')
  if (sandbox === undefined) throw new Error('no sandbox')
  const after = { ...before, targets: new Map([['sandbox', { ...sandbox, about: 'Another one now' }]]) }
  let now = before
  const parts: Parts = {
    ...world.parts,
    catalog: () => now,
    policy: answering(world.parts.policy, (decision) => {
      now = after
      return decision
    }),
  }
  const started = await startExecution(parts, openRunner(parts), caller, { task_id })
  if (started.kind !== 'execution') throw new Error(started.kind)
  await until('it is superseded', () => views.execution(started.id)?.state === 'superseded')
  expect(views.execution(started.id)).toMatchObject({ ran: false })
})

it('asks again where the generation that decided is not the one in force when the run would begin', async () => {
  const task_id = await world.task(caller, 'sandbox')
  let asked = 0
  const parts: Parts = {
    ...world.parts,
    policy: {
      get generation() {
        const { generation } = world.parts.policy
        // As if an edit had come into force while the first answer was waited for.
        return asked === 1 && generation !== null ? { ...generation, digest: 'sha256:00' as never } : generation
      },
      async decide(input) {
        if (input.phase === 'execution') asked++
        return await world.parts.policy.decide(input)
      },
    },
  }
  const started = await startExecution(parts, openRunner(parts), caller, { task_id })
  if (started.kind !== 'execution') throw new Error(started.kind)
  await until('it has succeeded', () => views.execution(started.id)?.state === 'succeeded')
  expect(views.decisions(started.id)).toHaveLength(2)
})

it('decides again with no more roles than the start had', async () => {
  const asking = { ...caller, roles: ['developer'] }
  expect(world.parts.rolesOf('default', caller.subject.id, caller.agent.id)).toContain('operator')
  const { approval, execution_id = '' } = await world.ask(asking, 'start_execution', {
    task_id: await world.task(asking, 'signed'),
  })
  const parts = world.parts
  const runner = openRunner(parts)
  await answerWithKey(parts, runner, await world.yes(approval?.approval_id ?? ''))
  await until('it has succeeded', () => views.execution(execution_id as never)?.state === 'succeeded')
  const inputs = views.decisions(execution_id as never).map(({ input }) => JSON.parse(input ?? 'null') as PolicyInput)
  // Each with the very input it was made of: the verdict's too.
  expect(inputs.map(({ phase, subject }) => [phase, subject.id, subject.properties.roles])).toEqual([
    ['execution', caller.subject.id, ['developer']],
    ['approval', 'ada', ['approver']],
    ['execution', caller.subject.id, ['developer']],
  ])
})

it('does not count a verdict by a key that is the approver’s no more', async () => {
  const { approval, execution_id = '' } = await world.ask(caller, 'start_execution', {
    task_id: await world.task(caller, 'signed'),
  })
  const yes = await world.yes(approval?.approval_id ?? '')
  // Nothing of this runner runs yet: the broker is full.
  const parts: Parts = { ...world.parts, maxRunning: 0 }
  await answerWithKey(parts, openRunner(parts), yes)
  expect(views.execution(execution_id as never)?.state).toBe('queued')
  const path = join(world.broker.folder, 'writ.yaml')
  const old = readFileSync(path, 'utf8')
  onTestFinished(() => edit(path, () => old))
  edit(path, (text) => text.replace(world.ada.x, generateKey().x))
  await until('the edit is in force', () => world.parts.approvers()[0]?.key !== world.ada.x)
  openRunner(world.parts).enqueue(execution_id as never)
  await until('it is asked for anew', () => views.execution(execution_id as never)?.state === 'awaiting_approval')
  expect(views.execution(execution_id as never)?.ran).toBe(false)
  edit(path, () => old)
  await until('the edit is taken back', () => world.parts.approvers()[0]?.key === world.ada.x)
})

/** As if a starved machine had had no time for policy, the first `times` times it is asked for a run. */
function starved(times: number): { readonly parts: Parts; readonly asked: () => number } {
  let asked = 0
  const parts: Parts = {
    ...world.parts,
    policy: answering(world.parts.policy, (decision, { phase }) =>
      phase !== 'execution' || ++asked > times
        ? decision
        : { ...decision, effect: 'error', error: 'deadline', requirement: null, requirement_digest: null },
    ),
  }
  return { parts, asked: () => asked }
}

it.each([
  ['asks again where policy has no time for what people have approved', 2, 'succeeded', 3],
  ['takes policy that never has time for a no', 100, 'denied', 5],
])('%s', async (_what, times, end, asks) => {
  const { approval, execution_id = '' } = await world.ask(caller, 'start_execution', {
    task_id: await world.task(caller, 'signed'),
  })
  const { parts, asked } = starved(times)
  await answerWithKey(parts, openRunner(parts), await world.yes(approval?.approval_id ?? ''))
  await until(`it is ${end}`, () => views.execution(execution_id as never)?.state === end)
  expect(asked()).toBe(asks)
  expect(views.execution(execution_id as never)?.ran).toBe(end === 'succeeded')
})

it('takes one of several calls that come with the same key at once, and says of the others that it is taken', async () => {
  const [first, second] = await Promise.all([world.task(caller, 'sandbox'), world.task(caller, 'sandbox')])
  const idempotency_key = `once ${String(performance.now())}`
  const submission = { project_name: 'p', goal: 'g', target_ref: 'sandbox', execution_intent: 'run_script' }
  const answers = await Promise.all([
    world.ask(caller, 'start_execution', { task_id: first, idempotency_key }),
    world.ask(caller, 'start_execution', { task_id: second, idempotency_key }),
    world.ask(caller, 'submit_task', { ...submission, idempotency_key }),
  ])
  expect(answers.map(({ error }) => error?.code ?? 'taken').toSorted()).toEqual([
    'idempotency_conflict',
    'idempotency_conflict',
    'taken',
  ])
})

/** Parts whose ledger says of these batches that they failed, after it has written them. */
function unsure(of: (entries: readonly Entry[]) => boolean): Parts {
  const { ledger } = world.parts
  const append: Ledger['append'] = async (...entries) => {
    const appended = await ledger.append(...entries)
    if (of(entries)) throw new WritError('ledger_unavailable', 'the disk failed after the commit')
    return appended
  }
  return { ...world.parts, ledger: { ...ledger, append } }
}

function newest(task: string): Execution | undefined {
  return views.executions({ task: parseId('task', task) ?? newId('task') }, 1)[0]
}

it('ends a run whose start failed and had reached the disk, as one that did not begin, while the broker goes on', async () => {
  const task_id = await world.task(caller, 'sandbox')
  const parts = unsure((entries) => entries.some(({ kind }) => kind === 'permit_spent'))
  await expect(startExecution(parts, openRunner(parts), caller, { task_id })).rejects.toThrow('the disk failed')
  expect(newest(task_id)).toMatchObject({ state: 'running' })
  await until('it is at its end', () => newest(task_id)?.state !== 'running')
  expect(newest(task_id)).toMatchObject({ state: 'failed', ran: false, reasons: [{ code: 'ledger_unavailable' }] })
  const { execution_id = '', existing } = await world.ask(caller, 'start_execution', { task_id })
  expect(existing).toBeUndefined()
  await until('it has run', () => views.execution(execution_id as never)?.state === 'succeeded')
})

it('runs what was approved, or waits, where the commit of that failed and had reached the disk', async () => {
  const { approval, execution_id = '' } = await world.ask(caller, 'start_execution', {
    task_id: await world.task(caller, 'signed'),
  })
  const unsureOfQueue = unsure((entries) => entries.some((one) => one.kind === 'state' && one.state === 'queued'))
  const yes = await world.yes(approval?.approval_id ?? '')
  await expect(answerWithKey(unsureOfQueue, openRunner(unsureOfQueue), yes)).rejects.toThrow('the disk failed')
  await until('the approved one has run', () => views.execution(execution_id as never)?.state === 'succeeded')

  const runner = openRunner(unsureOfQueue)
  const task_id = await world.task(caller, 'sandbox')
  const crowded = { ...runner, free: () => false }
  await expect(startExecution(unsureOfQueue, crowded, caller, { task_id })).rejects.toThrow('the disk failed')
  await until('the one that waits has run', () => newest(task_id)?.state === 'succeeded')
})

it.each(['a signature of another key', 'the statement of another approval', 'what is no statement'])(
  '[G-approval-bound] does not count a verdict that was put into the ledger with %s',
  async (what) => {
    const ask = async () => {
      const { approval, execution_id = '' } = await world.ask(caller, 'start_execution', {
        task_id: await world.task(caller, 'signed'),
      })
      return {
        id: parseId('apr', approval?.approval_id ?? '') ?? newId('apr'),
        execution: parseId('exec', execution_id) ?? newId('exec'),
      }
    }
    const [mine, other] = [await ask(), await ask()]
    const statement = readStatement(await world.yes(mine.id))
    const jws = what.startsWith('a signature')
      ? await world.yes(mine.id, { ...generateKey(), kid: world.ada.kid })
      : what === 'what is no statement'
        ? 'a.b.c'
        : await world.yes(other.id)
    const verdict: Verdict = { statement, by: 'ada', roles: ['approver'], evidence: 'key', jws, at_ms: Date.now() }
    await world.parts.ledger.append(
      { kind: 'verdict', approval: mine.id, verdict },
      { kind: 'approval_closed', approval: mine.id, state: 'satisfied', execute_by_ms: Date.now() + 60_000 },
      { kind: 'state', execution: mine.execution, state: 'queued', ran: false, reasons: [] },
    )
    openRunner(world.parts).enqueue(mine.execution)
    await until('it was decided', () => views.execution(mine.execution)?.state !== 'queued')
    expect(views.execution(mine.execution)).toMatchObject({ state: 'awaiting_approval', ran: false })
  },
)

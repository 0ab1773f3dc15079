import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import type { JsonObject } from '../../src/digest.ts'
import type { ExecutionId } from '../../src/id.ts'
import { generateKey } from '../../src/jws.ts'
import { answerWithKey } from '../../src/path/answer.ts'
import type { Parts } from '../../src/path/parts.ts'
import { openRunner } from '../../src/path/run.ts'
import { startExecution } from '../../src/path/start.ts'
import { until } from '../wait.ts'
import { answering, edit, openWorld } from './world.ts'

const world = await openWorld()
afterAll(async () => await world.broker.stop())
const { views } = world.parts.ledger
const { caller } = world.broker
const configFile = join(world.broker.folder, 'writ.yaml')
let written = ''
beforeAll(() => {
  written = readFileSync(configFile, 'utf8')
})

const state = (id: ExecutionId): string | undefined => views.execution(id)?.state
const predicates = (id: ExecutionId): readonly JsonObject[] =>
  views
    .receiptsOf(id)
    .map(({ jws }) => JSON.parse(Buffer.from(jws.split('.')[1] ?? '', 'base64url').toString()) as JsonObject)
    .map(({ predicate }) => predicate as JsonObject)

/** An execution that ada said yes to and that waits for a place, which no runner gives it. */
async function approved(): Promise<ExecutionId> {
  const { approval, execution_id } = await world.ask(caller, 'start_execution', {
    task_id: await world.task(caller, 'signed'),
  })
  const parts: Parts = { ...world.parts, maxRunning: 0 }
  await answerWithKey(parts, openRunner(parts), await world.yes(approval?.approval_id ?? ''))
  expect(state(execution_id as ExecutionId)).toBe('queued')
  return execution_id as ExecutionId
}

async function approvers(change: (text: string) => string, reached: () => boolean): Promise<void> {
  edit(configFile, change)
  await until('the approvers are others', reached)
}

it('records a question that nobody enrolled may answer as a denial, in decision, receipt and state alike', async () => {
  const unasked = { ...world.parts, approvers: () => [] }
  const started = await startExecution(unasked, openRunner(unasked), caller, {
    task_id: await world.task(caller, 'signed'),
  })
  if (started.kind !== 'execution') throw new Error(started.kind)
  const again = await approved()
  await approvers(
    (text) => text.replace(/^approvers:\n.*subject: ada.*\n/m, 'approvers: []\n'),
    () => world.parts.approvers().length === 0,
  )
  openRunner(world.parts).enqueue(again)
  await until('it is denied', () => state(again) === 'denied')
  for (const id of [started.id, again]) {
    const decision = views.decisions(id).findLast((one) => one.decision.phase === 'execution')?.decision
    const reason = {
      code: 'no_eligible_approver',
      message: 'Policy asks people to approve this, and nobody enrolled may.',
      ref: decision?.id,
    }
    expect(decision).toMatchObject({ effect: 'deny', reasons: [reason] })
    expect(views.execution(id)).toMatchObject({ state: 'denied', ran: false, reasons: [reason] })
    expect(predicates(id).findLast(({ kind }) => kind === 'decision')).toMatchObject({ result: 'deny', approvals: [] })
    expect(views.approvals({ execution: id, state: 'open' }, 10)).toEqual([])
  }
  await approvers(
    () => written,
    () => world.parts.approvers().length === 1,
  )
})

it('names in a receipt exactly the approvals policy was given, and none while it asks', async () => {
  const id = await approved()
  const fresh = generateKey()
  await approvers(
    (text) => text.replace(world.ada.x, fresh.x),
    () => world.parts.approvers()[0]?.key === fresh.x,
  )
  const runner = openRunner(world.parts)
  runner.enqueue(id)
  const second = await until('it is asked anew', () => views.approvals({ execution: id, state: 'open' }, 1)[0])
  await answerWithKey(world.parts, runner, await world.yes(second.id, fresh))
  await until('it has run', () => state(id) === 'succeeded')
  const receipts = views.receiptsOf(id)
  const [, later] = receipts.filter(({ kind }) => kind === 'approval')
  if (later === undefined) throw new Error('one approval only')
  const decisions = predicates(id).filter(({ kind }) => kind === 'decision')
  expect(decisions.map(({ result, approvals }) => [result, approvals])).toEqual([
    ['pending', []],
    ['pending', []],
    ['allow', [{ digest: later.digest, index: later.index }]],
  ])
  await approvers(
    () => written,
    () => world.parts.approvers()[0]?.key === world.ada.x,
  )
})

it('[G-approval-bound] runs nothing for who lost a role while policy was asked, neither at the start nor after approval', async () => {
  const losing = (): Parts => {
    let lost = false
    return {
      ...world.parts,
      rolesOf: (...of) => (lost ? [] : world.parts.rolesOf(...of)),
      policy: answering(world.parts.policy, (decision, { phase }) => {
        if (phase === 'execution') lost = true
        return decision
      }),
    }
  }
  const direct = losing()
  const started = await startExecution(direct, openRunner(direct), caller, {
    task_id: await world.task(caller, 'sandbox'),
  })
  if (started.kind !== 'execution') throw new Error(started.kind)
  const waited = await approved()
  openRunner(losing()).enqueue(waited)
  for (const id of [started.id, waited]) {
    await until('it is denied', () => state(id) === 'denied')
    expect(views.execution(id)).toMatchObject({ ran: false })
    expect(predicates(id).filter(({ kind, result }) => kind === 'decision' && result === 'allow').length).toBeLessThan(
      2,
    )
  }
})

it('[G-approval-bound] counts no verdict of a key that was replaced while policy was asked', async () => {
  const id = await approved()
  let replaced = false
  const parts: Parts = {
    ...world.parts,
    approvers: () => world.parts.approvers().map((one) => (replaced ? { ...one, key: generateKey().x } : one)),
    policy: answering(world.parts.policy, (decision) => {
      replaced = true
      return decision
    }),
  }
  openRunner(parts).enqueue(id)
  await until('it is asked anew', () => state(id) === 'awaiting_approval')
  expect(views.execution(id)).toMatchObject({ ran: false })
})

import { join } from 'node:path'
import { afterAll, expect, it } from 'vitest'
import { digestOf } from '../../src/digest.ts'
import { newId, parseId } from '../../src/id.ts'
import { answerWithKey } from '../../src/path/answer.ts'
import { closeWithoutRun } from '../../src/path/close.ts'
import { aheadS } from '../../src/path/parts.ts'
import { openRefusals } from '../../src/path/refusals.ts'
import { openRunner } from '../../src/path/run.ts'
import { startExecution } from '../../src/path/start.ts'
import type { Decision } from '../../src/policy/policy.ts'
import { expire } from '../../src/recover.ts'
import { readKeySet } from '../../src/receipt/keys.ts'
import { openTrust } from '../../src/receipt/trust.ts'
import type { Report } from '../../src/receipt/verdict.ts'
import { verifyLog } from '../../src/receipt/verify-log.ts'
import { until } from '../wait.ts'
import { alice, answering, mallory, openWorld } from './world.ts'

const world = await openWorld()
afterAll(async () => await world.broker.stop())
const { parts } = world
const { views } = parts.ledger

/** The same parts under a wall clock that can be set back by so many milliseconds. */
function settable(): { readonly parts: typeof parts; back: number } {
  const set = {
    back: 0,
    parts: { ...parts, clock: { now: () => Date.now() - set.back, monotonic: () => performance.now() } },
  }
  return set
}

function log(): Report {
  const own = readKeySet(join(world.broker.folder, 'keys')) ?? ''
  return verifyLog(views.receipts(0, 10_000), openTrust({ own }))
}

it('[G-flood] accounts for every refusal of a flood, of every caller, when the clock is set back meanwhile', async () => {
  const set = settable()
  const refusals = openRefusals(set.parts)
  const refused = (): Decision =>
    ({ id: newId('dec'), input_digest: digestOf('a refused input'), at_ms: set.parts.clock.now() }) as Decision
  for (const caller of [alice, mallory, alice, mallory]) await refusals.note(caller, 'denied', refused())
  const size = views.logHead().size
  set.back = 3_600_000
  await refusals.flush()
  expect(views.logHead().size).toBe(size + 2)
  expect(log()).toMatchObject({ verdict: 'VALID:LOGGED' })
})

it('tells of no end before the decision it came of when the clock is set back by days, so that the log still verifies', async () => {
  const set = settable()
  const { execution_id = '' } = await world.ask(alice, 'start_execution', {
    task_id: await world.task(alice, 'signed'),
  })
  const id = parseId('exec', execution_id)
  const execution = id === null ? null : views.execution(id)
  if (execution === null) throw new Error('nothing was started')
  set.back = 7 * 86_400_000
  await closeWithoutRun(set.parts, execution, 'cancelled', 'cancelled')
  expect(log()).toMatchObject({ verdict: 'VALID:LOGGED' })
})

it('[G-approval-time] counts no verdict and begins no run whose time ran out while policy was asked', async () => {
  const { execution_id = '', approval } = await world.ask(alice, 'start_execution', {
    task_id: await world.task(alice, 'signed'),
  })
  const set = settable()
  const slow: typeof parts = {
    ...set.parts,
    policy: answering(parts.policy, (decision) => {
      set.back = -601_000
      return decision
    }),
  }
  const runner = openRunner(slow)
  const yes = await world.yes(approval?.approval_id ?? '')
  await expect(answerWithKey(slow, runner, yes)).rejects.toMatchObject({ code: 'approval_refused' })
  set.back = 0
  const waits = { ...runner, enqueue: () => undefined }
  expect(await answerWithKey(parts, waits, yes)).toMatchObject({ state: 'satisfied' })
  const id = parseId('exec', execution_id) ?? newId('exec')
  runner.enqueue(id)
  await until('it is at its end', () => views.execution(id)?.state !== 'queued')
  expect(views.execution(id)).toMatchObject({ state: 'expired', ran: false })
})

it('[G-approval-time] ends what was approved when its time to begin is over, whenever its turn would come', async () => {
  const { execution_id = '', approval } = await world.ask(alice, 'start_execution', {
    task_id: await world.task(alice, 'signed'),
  })
  const id = parseId('exec', execution_id) ?? newId('exec')
  const set = settable()
  const busy = { ...openRunner(parts), enqueue: () => undefined }
  const yes = await world.yes(approval?.approval_id ?? '')
  expect(await answerWithKey(parts, busy, yes)).toMatchObject({ state: 'satisfied' })
  await expire(set.parts)
  expect(views.execution(id)).toMatchObject({ state: 'queued' })
  set.back = -601_000
  await Promise.all([expire(set.parts), expire(set.parts)])
  expect(views.execution(id)).toMatchObject({ state: 'expired', ran: false, reasons: [{ code: 'expired_before_use' }] })
  expect(views.receiptsOf(id).filter(({ kind }) => kind === 'outcome')).toHaveLength(1)
})

it('says that the clock is behind the records where that is why the time of an approval is over', async () => {
  const set = settable()
  set.back = 3_600_000
  const args = { task_id: await world.task(alice, 'signed') }
  const started = await startExecution(set.parts, openRunner(set.parts), alice, args)
  const id = started.kind === 'execution' ? started.id : newId('exec')
  expect(aheadS(views, set.parts.clock.now())).toBeGreaterThan(3500)
  expect(aheadS(views, Date.now())).toBeNull()
  await expire(set.parts)
  expect(views.execution(id)).toMatchObject({ state: 'expired', reasons: [{ code: 'clock_behind' }] })
})

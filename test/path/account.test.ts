import { join } from 'node:path'
import { afterAll, expect, it, onTestFinished } from 'vitest'
import { digestJson } from '../../src/digest.ts'
import { WritError } from '../../src/error.ts'
import { generateKey } from '../../src/jws.ts'
import type { Entry, Ledger } from '../../src/ledger/ledger.ts'
import { expire } from '../../src/recover.ts'
import { until } from '../wait.ts'
import { alice, edit, openWorld } from './world.ts'

const world = await openWorld()
afterAll(async () => await world.broker.stop())
const { ledger } = world.parts
const { views } = ledger

/** A ledger that has no room for these entries until the returned function is called. */
function refuse(of: (entry: Entry) => boolean): () => void {
  const append = ledger.append.bind(ledger)
  const held = ledger as { append: Ledger['append'] }
  const allow = (): void => void (held.append = append)
  held.append = async (...entries) => {
    if (entries.some(of)) throw new WritError('no_space', 'the disk is full')
    return await append(...entries)
  }
  onTestFinished(allow)
  return allow
}

it('[G-approver-receipt] accounts later for a change of approvers that found no room: who was taken out is out at once, who is new waits for it', async () => {
  const { approvers } = world.parts
  const config = join(world.broker.folder, 'writ.yaml')
  const bob = generateKey().x
  const entry = (subject: string, roles: string, key: string): string =>
    `  - { subject: ${subject}, roles: [${roles}], key: ${key} }\n`
  const set = digestJson([
    { subject: 'ada', roles: ['approver', 'security'], key: world.ada.x },
    { subject: 'bob', roles: ['approver'], key: bob },
  ])
  const allow = refuse(({ kind }) => kind === 'approver_set')
  edit(config, (text) => text.replace(/ {2}- \{ subject: ada.*\n/, entry('bob', 'approver', bob)))
  await until('ada is out', () => approvers().length === 0)
  edit(config, (text) =>
    text.replace(
      / {2}- \{ subject: bob.*\n/,
      entry('ada', 'approver, security', world.ada.x) + entry('bob', 'approver', bob),
    ),
  )
  await until('ada is back as she was', () => approvers().length === 1)
  expect(approvers()).toEqual([{ subject: 'ada', roles: ['approver'], key: world.ada.x }])
  expect(views.approverSet()).not.toBe(set)
  allow()
  await until('it is accounted for', () => views.approverSet() === set)
  await until('it is in force', () => digestJson(approvers().map((one) => ({ ...one }))) === set)
})

it('closes the approvals that ran out, though one of them cannot be closed', async () => {
  const ids: (string | undefined)[] = []
  for (let n = 0; n < 3; n++)
    ids.push((await world.ask(alice, 'start_execution', { task_id: await world.task(alice, 'signed') })).execution_id)
  const allow = refuse((entry) => entry.kind === 'state' && entry.execution === ids[1])
  const clock = { now: () => Date.now() + 3_600_000, monotonic: () => performance.now() }
  await expire({ ...world.parts, clock })
  const states = (): unknown[] => ids.map((id) => views.execution(id as never)?.state)
  expect(states()).toEqual(['expired', 'awaiting_approval', 'expired'])
  allow()
  await expire({ ...world.parts, clock })
  expect(states()).toEqual(['expired', 'expired', 'expired'])
})

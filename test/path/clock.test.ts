import { join } from 'node:path'
import { afterAll, expect, it } from 'vitest'
import { digestOf } from '../../src/digest.ts'
import { newId } from '../../src/id.ts'
import { openRefusals } from '../../src/path/refusals.ts'
import type { Decision } from '../../src/policy/policy.ts'
import { readKeySet } from '../../src/receipt/keys.ts'
import { openTrust } from '../../src/receipt/trust.ts'
import type { Report } from '../../src/receipt/verdict.ts'
import { verifyLog } from '../../src/receipt/verify-log.ts'
import { alice, mallory, openWorld } from './world.ts'

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

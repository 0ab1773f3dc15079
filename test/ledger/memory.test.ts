import { join } from 'node:path'
import { expect, it, onTestFinished } from 'vitest'
import { newId } from '../../src/id.ts'
import { openSqliteLedger } from '../../src/ledger/sqlite/sqlite.ts'
import { openViews } from '../../src/ledger/sqlite/views.ts'
import { folder } from './folder.ts'
import { handClock, life, testSigner } from './sample.ts'

const signer = testSigner()

function open() {
  const path = join(folder(), 'ledger.db')
  const clock = handClock(10_000_000)
  const ledger = openSqliteLedger({ path, signer, clock, reserveBytes: 4096 })
  onTestFinished(() => ledger.close())
  return { ledger, path, clock }
}

it('answers from memory between two commits, and after each as one who never asked before', async () => {
  const { ledger, path } = open()
  const { views } = ledger
  const run = life()
  const unknown = newId('exec')
  await ledger.append(...run.queue)
  for (const steps of [run.start, run.end('succeeded')]) {
    const first = views.execution(run.execution)
    expect(views.execution(run.execution)).toBe(first)
    expect(views.execution(unknown)).toBeNull()
    await ledger.append(...steps)
    const fresh = openViews(path)
    expect(views.execution(run.execution)).not.toBe(first)
    expect(views.execution(run.execution)).toEqual(fresh.execution(run.execution))
    expect(views.newestTimeMs()).toBe(fresh.newestTimeMs())
    expect(views.counters('acme', 'ada', 10_000_001)).toEqual(fresh.counters('acme', 'ada', 10_000_001))
    fresh.close()
  }
  const before = views.execution(run.execution)
  ledger.rebuild()
  expect(views.execution(run.execution)).not.toBe(before)
  expect(views.execution(run.execution)).toEqual(before)
})

it('finds what is written after it was asked for in vain', async () => {
  const { ledger } = open()
  const run = life()
  expect(ledger.views.execution(run.execution)).toBeNull()
  await ledger.append(...run.queue)
  expect(ledger.views.execution(run.execution)?.id).toBe(run.execution)
})

it('counts as the time asked for wants it, also with a clock that is set back, when nothing is written meanwhile', async () => {
  const { ledger, path } = open()
  await ledger.append(...life().queue)
  const fresh = openViews(path)
  const hour = 3_600_000
  for (const at of [10_000_000, 10_000_000 + hour - 1, 10_000_000 + hour, 10_000_000 + 2 * hour, 10_000_001])
    expect(ledger.views.counters('acme', 'ada', at)).toEqual(fresh.counters('acme', 'ada', at))
  expect(ledger.views.counters('acme', 'ada', 10_000_001).executions_60m).toBe(1)
  fresh.close()
})

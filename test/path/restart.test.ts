import { spawnSync } from 'node:child_process'
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { openViews } from '../../src/ledger/sqlite/views.ts'
import { openRunner } from '../../src/path/run.ts'
import { startExecution } from '../../src/path/start.ts'
import { rotate } from '../../src/receipt/keys.ts'
import { openTestBroker } from '../transfer/broker.ts'
import { until } from '../wait.ts'

const bin = join(import.meta.dirname, '..', '..', 'bin', 'writ')

it('begins nothing that waited where a broker cannot come up, and runs it at the next start', async () => {
  const first = await openTestBroker()
  const { folder, caller } = first
  const task_id = await first.task()
  // Nothing of this runner runs yet: the broker is full.
  const full = { ...first.served.parts, maxRunning: 0 }
  const started = await startExecution(full, openRunner(full), caller, { task_id })
  if (started.kind !== 'execution') throw new Error(started.kind)
  await first.served.stop()
  // What stands in the way of its last socket keeps it from coming up, when everything else is.
  const { controlSocket } = first.served.folder
  rmSync(controlSocket, { force: true })
  mkdirSync(join(controlSocket, 'in the way'), { recursive: true })
  const refused = spawnSync(
    process.execPath,
    [bin, 'serve', '--config', join(folder, 'writ.yaml'), '--listen', '127.0.0.1:0'],
    { encoding: 'utf8', env: { PATH: process.env['PATH'] ?? '', HOME: folder } },
  )
  rmSync(controlSocket, { recursive: true })
  expect(refused.status).toBe(1)
  const views = openViews(first.served.folder.ledger)
  expect(views.execution(started.id)).toMatchObject({ state: 'queued' })
  views.close()
  const second = await openTestBroker({ folder })
  try {
    await until('it has run', () => second.served.parts.ledger.views.execution(started.id)?.state === 'succeeded')
  } finally {
    await second.stop()
  }
}, 60_000)

it('refuses a ledger restored from before the keys were rotated, of which the log would stop at the rotation', async () => {
  const first = await openTestBroker()
  const { folder } = first
  const { ledger } = first.served.folder
  await first.served.stop()
  const backup = readFileSync(ledger)
  const second = await openTestBroker({ folder })
  const started = await second.call('start_execution', { task_id: await second.task(), wait_ms: 20_000 })
  expect(started.state).toBe('succeeded')
  const { size } = second.served.parts.ledger.views.logHead()
  await second.served.stop()
  rotate(join(folder, 'keys'), size, Date.now())
  const rotated = readFileSync(ledger)
  writeFileSync(ledger, backup)
  const refused = spawnSync(
    process.execPath,
    [bin, 'serve', '--config', join(folder, 'writ.yaml'), '--listen', 'none'],
    { encoding: 'utf8', timeout: 20_000, env: { PATH: process.env['PATH'] ?? '', HOME: folder } },
  )
  expect(refused.status).toBe(2)
  expect(refused.stderr).toContain('the receipt key in use is newer than this ledger')
  writeFileSync(ledger, rotated)
  const third = await openTestBroker({ folder })
  expect(third.served.parts.ledger.views.receipts(size, 1)).toMatchObject([{ kind: 'key' }])
  await third.stop()
}, 60_000)

import { spawnSync } from 'node:child_process'
import { mkdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { openViews } from '../../src/ledger/sqlite/views.ts'
import { openRunner } from '../../src/path/run.ts'
import { startExecution } from '../../src/path/start.ts'
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

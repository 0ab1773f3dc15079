import { afterAll, expect, it } from 'vitest'
import type { Results } from '../../src/execution/result.ts'
import { isFinal } from '../../src/execution/execution.ts'
import type { Caller } from '../../src/request/caller.ts'
import { openPace } from '../../src/path/pace.ts'
import { openRunner } from '../../src/path/run.ts'
import { startExecution } from '../../src/path/start.ts'
import { until } from '../wait.ts'
import { alice, mallory, openWorld } from './world.ts'

const world = await openWorld({
  yaml: 'quotas: { stored_mb: 50, executions: 3 }\n',
  targets: `  single:
    about: One run at a time
    labels: { env: single }
    executor: isolate
    intents: [run_script]
`,
  rules: `
# METADATA
# title: One run of a person at a time
# custom:
#   id: EXT-single
#   code: one_at_a_time
#   remedy: Wait until the other has ended.
deny contains {"rule": rego.metadata.rule()} if {
	input.phase == "execution"
	input.resource.properties.labels.env == "single"
	input.context.counters.running >= 1
}
`,
})
afterAll(async () => await world.broker.stop())
const { views } = world.parts.ledger

async function together(caller: Caller, target: string, many: number): Promise<readonly Results['start_execution'][]> {
  const tasks: string[] = []
  const code = 'await new Promise((done) => setTimeout(done, 1500))'
  for (let n = 0; n < many; n++) tasks.push(await world.task(caller, target, code))
  return await Promise.all(tasks.map(async (task_id) => await world.ask(caller, 'start_execution', { task_id })))
}

it('lets policy count the runs of a person whose starts come at the same time', async () => {
  const started = await together(alice, 'single', 3)
  expect(started.filter(({ state }) => state === 'running')).toHaveLength(1)
  expect(started.filter(({ state }) => state === 'denied')).toHaveLength(2)
  const id = started.find(({ state }) => state === 'running')?.execution_id ?? ''
  await until('it has ended', () => isFinal(views.execution(id as never)?.state ?? 'running'))
  expect(await together(alice, 'single', 1)).toMatchObject([{ state: 'running' }])
})

it('[G-tenants] gives starts that come at the same time no more places than the tenant has', async () => {
  const caller = { ...mallory, tenant: 'crowded' }
  const started = await together(caller, 'signed', 8)
  expect(started.filter(({ state }) => state === 'awaiting_approval')).toHaveLength(3)
  expect(started.filter(({ error }) => error?.code === 'quota_exceeded')).toHaveLength(5)
  await world.ask(caller, 'cancel_execution', { execution_id: started.find((one) => one.state)?.execution_id ?? '' })
  expect((await together(caller, 'signed', 1))[0]?.error).toBeUndefined()
})

it('records no more denied executions a minute than the pace allows, though they are decided at the same time', async () => {
  const caller = { ...alice, tenant: 'denied' }
  const nobody = { ...caller, roles: [] }
  const parts = { ...world.parts, deniedPace: openPace(world.parts.clock, 2) }
  const tasks: string[] = []
  for (let n = 0; n < 3; n++) tasks.push(await world.task(caller, 'single'))
  const started = await Promise.allSettled(
    tasks.map(async (task_id) => await startExecution(parts, openRunner(parts), nobody, { task_id })),
  )
  expect(views.executions({ tenant: 'denied' }, 10).map(({ state }) => state)).toEqual(['denied', 'denied'])
  expect(started.filter(({ status }) => status === 'rejected')).toMatchObject([{ reason: { code: 'rate_limited' } }])
})

it('keeps the run that waits where the start that would take its place is refused', async () => {
  const caller = { ...alice, tenant: 'refused' }
  const task_id = await world.task(caller, 'signed', 'console.log(1)')
  const { execution_id } = await world.ask(caller, 'start_execution', { task_id })
  await world.ask(caller, 'upload_artifact', {
    task_id,
    files: [{ path: 'main.js', content: 'console.log(2)' }],
  })
  const pace = openPace(world.parts.clock, 1)
  pace.note('refused')
  const parts = { ...world.parts, deniedPace: pace }
  const start = startExecution(parts, openRunner(parts), caller, { task_id })
  await expect(start).rejects.toMatchObject({ code: 'rate_limited' })
  expect(views.execution(execution_id as never)?.state).toBe('awaiting_approval')
  // … and gives way, also where the tenant has no more places than that.
  for (let more = 0; more < 2; more++) expect((await together(caller, 'signed', 1))[0]?.state).toBe('awaiting_approval')
  expect(await world.ask(caller, 'start_execution', { task_id })).toMatchObject({ state: 'awaiting_approval' })
  expect(views.execution(execution_id as never)?.state).toBe('superseded')
})

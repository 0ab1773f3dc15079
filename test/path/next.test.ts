import { afterAll, expect, it } from 'vitest'
import { alice, openWorld } from './world.ts'

const world = await openWorld()
afterAll(async () => await world.broker.stop())

it('leads from a target to the task that can be submitted for it', async () => {
  expect(await world.ask(alice, 'list_targets', { target_ref: 'sandbox' })).toMatchObject({
    target: { available: true },
    next: { tool: 'submit_task', arguments: { target_ref: 'sandbox', execution_intent: 'run_script' } },
  })
})

it('says of a task that was not started what it lacks, and that it can be started once nothing is', async () => {
  const { task_id } = await world.ask(alice, 'submit_task', {
    project_name: 'p',
    goal: 'g',
    target_ref: 'sandbox',
    execution_intent: 'run_script',
  })
  const id = String(task_id)
  expect(await world.ask(alice, 'get_status', { task_id: id })).toMatchObject({
    state: 'incomplete',
    missing: [{}],
    next: { tool: 'upload_artifact', arguments: { task_id: id } },
  })
  await world.ask(alice, 'upload_artifact', { task_id: id, files: [{ path: 'main.js', content: 'console.log(1)' }] })
  expect(await world.ask(alice, 'get_status', { task_id: id })).toMatchObject({
    state: 'ready',
    next: { tool: 'start_execution', arguments: { task_id: id } },
  })
})

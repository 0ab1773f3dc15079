import { afterAll, expect, it } from 'vitest'
import { alice, mallory, openWorld } from './world.ts'

const world = await openWorld()
afterAll(async () => await world.broker.stop())

it('shows no approval of a stranger to who names an execution of their own beside it', async () => {
  const theirs = await world.ask(alice, 'start_execution', { task_id: await world.task(alice, 'signed') })
  const mine = await world.ask(mallory, 'start_execution', { task_id: await world.task(mallory, 'signed') })
  const approval_id = theirs.approval?.approval_id ?? ''
  const { execution_id = '', task_id = '' } = mine
  expect(approval_id).toMatch(/^apr_/)
  for (const beside of [{ execution_id }, { task_id }, { execution_id, task_id }]) {
    const answer = await world.ask(mallory, 'get_status', { ...beside, approval_id })
    expect(answer.payload).toBeUndefined()
    expect(answer.error).toMatchObject({ code: 'not_found' })
    const unknown = await world.ask(mallory, 'get_status', { ...beside, approval_id: 'apr_aaaaaaaaaa' })
    expect({ ...unknown.error, ref: '' }).toEqual({ ...answer.error, ref: '' })
  }
  const own = await world.ask(mallory, 'get_status', { execution_id, approval_id: mine.approval?.approval_id })
  expect(own.error).toMatchObject({ code: 'invalid_arguments' })
})

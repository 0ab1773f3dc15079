import { afterAll, expect, it } from 'vitest'
import { alice, mallory, openWorld } from './world.ts'

const rules = `
# METADATA
# title: The table of customers is not read
# custom: {id: EXT-IN, code: customers, remedy: "Ask the data team."}
deny contains {"rule": rego.metadata.rule()} if {
	input.phase == "execution"
	input.context.task.inputs.script == "customers.js"
}
`

const world = await openWorld({ rules })
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

it('counts among those who asked the agent that started a run, not only the one that submitted the task', async () => {
  const task_id = await world.task(alice, 'chat')
  const other = { ...alice, roles: ['developer', 'approver'], agent: { ...alice.agent, id: 'agent-b' } }
  const { approval, execution_id } = await world.ask(other, 'start_execution', { task_id })
  const opened = world.parts.ledger.views.approvals({ state: 'open' }, 1)[0]
  expect(opened?.excluded.agents).toEqual(['agent-a', 'agent-b'])
  for (const agent of ['agent-a', 'agent-b'])
    expect(
      (
        await world.ask({ ...other, agent: { ...alice.agent, id: agent } }, 'respond_to_approval', {
          approval_id: approval?.approval_id ?? '',
          plan_digest: approval?.plan_digest ?? '',
          verdict: 'approve',
          reason: 'mine',
        })
      ).error?.message,
    ).toBe('Whoever asked for this run may not approve it.')
  expect((await world.ask(alice, 'get_status', { execution_id })).state).toBe('awaiting_approval')
})

it('[G-policy-sees-all] is not got past by inputs as long as a task may have, nor by more files than policy is shown', async () => {
  const call = { signal: AbortSignal.timeout(30_000), progress: () => undefined }
  const submit = { project_name: 'p', goal: 'g', target_ref: 'sandbox', execution_intent: 'run_script' }
  const { broker } = world.broker.served
  const { caller } = world.broker
  for (const length of [0, 49_500, 65_000]) {
    const { task_id = '' } = await broker.call(
      caller,
      'submit_task',
      {
        ...submit,
        inputs: { script: 'customers.js', stdin: 'x'.repeat(length) },
        files: [{ path: 'customers.js', content: `console.log(${length})` }],
      },
      call,
    )
    const answer = await world.ask(caller, 'start_execution', { task_id })
    expect(answer).toMatchObject({ state: 'denied', reasons: [{ code: 'customers' }] })
  }

  const task_id = await world.task(caller, 'sandbox')
  const folders = Array.from({ length: 4 }, (_, at) => String(at).repeat(250))
  for (const [at, folder] of folders.entries()) {
    const files = Array.from({ length: 240 }, (_unused, nth) => ({
      path: `${folder}/${nth}-${'f'.repeat(240)}.txt`,
      content: '',
    }))
    const added = await broker.call(caller, 'upload_artifact', { task_id, files }, call)
    expect(added.reasons?.map(({ code }) => code) ?? []).toEqual(at === 0 ? [] : ['too_large'])
  }
  const answer = await world.ask(caller, 'start_execution', { task_id })
  expect(answer).toMatchObject({ state: 'denied', reasons: [{ code: 'too_large' }] })
})

import { afterAll, expect, it } from 'vitest'
import { openRunner } from '../../src/path/run.ts'
import { startExecution } from '../../src/path/start.ts'
import { listTargets } from '../../src/path/targets.ts'
import { present } from '../../src/mcp/present.ts'
import { alice, mallory, openWorld } from './world.ts'

const world = await openWorld({
  targets: `  hidden:
    about: Nobody is to know of this one
    labels: { env: hidden }
    executor: isolate
    intents: [run_script]
`,
  rules: `
# METADATA
# title: A rule with words of its own
# custom:
#   id: EXT-hidden
#   code: hidden
#   remedy: Ask for the secret target.
deny contains {"rule": rego.metadata.rule()} if input.resource.properties.labels.env == "hidden"
`,
})
afterAll(async () => await world.broker.stop())

it('refuses a target the caller may not see in the words of one there is not', async () => {
  const submit = { project_name: 'p', goal: 'g', execution_intent: 'run_script' }
  const answers = []
  for (const target_ref of ['hidden', 'nowhere'])
    answers.push(
      { ...(await world.ask(alice, 'submit_task', { ...submit, target_ref })).error, ref: '' },
      { ...(await world.ask(alice, 'list_targets', { target_ref })).error, ref: '' },
    )
  expect(new Set(answers.map((answer) => JSON.stringify(answer))).size).toBe(1)
  expect(answers[0]).toMatchObject({ code: 'unknown_target' })
  expect((await world.ask(alice, 'list_targets', {})).targets?.map(({ target_ref }) => target_ref)).not.toContain(
    'hidden',
  )
})

it('says that policy gave no answer, and not that there is no such target', async () => {
  const policy = {
    generation: world.parts.policy.generation,
    decide: async (input: Parameters<typeof world.parts.policy.decide>[0]) => ({
      ...(await world.parts.policy.decide(input)),
      effect: 'error' as const,
      error: 'deadline' as const,
    }),
  }
  for (const target_ref of ['sandbox', 'nowhere'])
    await expect(listTargets({ ...world.parts, policy }, alice, { target_ref })).rejects.toMatchObject({
      code: 'policy_unavailable',
    })
})

it('keeps the texts of a result to what a context bears, however many files a run leaves', async () => {
  const code = `import { writeFile } from 'writ'
for (let n = 0; n < 300; n++) writeFile('/out/' + n + '.txt', String(n).padEnd(4000, 'x'))`
  const task_id = await world.task(world.broker.caller, 'sandbox', code)
  const { execution_id = '', state } = await world.ask(world.broker.caller, 'start_execution', {
    task_id,
    wait_ms: 20_000,
  })
  expect(state).toBe('succeeded')
  const result = await world.ask(world.broker.caller, 'get_result', { execution_id })
  expect(result.files).toHaveLength(300)
  const inline = (result.files ?? []).flatMap(({ text }) => (text === undefined ? [] : [text]))
  expect(inline).toHaveLength(8)
  expect(JSON.stringify(present(result)).length).toBeLessThan(512 * 1024)
}, 30_000)

it('lets no subject have more than a hundred executions wait, and another go on', async () => {
  // A broker that is full: nothing begins.
  const parts = { ...world.parts, maxRunning: 0 }
  const runner = openRunner(parts)
  const start = async (caller: typeof alice): Promise<unknown> =>
    await startExecution(parts, runner, caller, { task_id: await world.task(caller, 'sandbox') }).then(
      ({ kind }) => kind,
      (error: unknown) => error,
    )
  const waiting = (): number =>
    world.parts.ledger.views.executions({ tenant: 'default', owner: 'alice', state: ['queued'] }, 1000).length
  // On a busy machine policy may miss its deadline, and then one of them is denied.
  for (let n = 0; n < 120 && waiting() < 100; n++) expect(await start(alice)).toBe('execution')
  expect(waiting()).toBe(100)
  expect(await start(alice)).toMatchObject({ code: 'rate_limited' })
  expect(await start(mallory)).toBe('execution')
}, 60_000)

import { afterAll, expect, it } from 'vitest'
import { askBroker } from '../../src/control/control.ts'
import { isFinal } from '../../src/execution/execution.ts'
import type { Results } from '../../src/execution/result.ts'
import { parseId } from '../../src/id.ts'
import type { Caller } from '../../src/request/caller.ts'
import { until } from '../wait.ts'
import { alice, openWorld } from './world.ts'

const world = await openWorld({ yaml: 'quotas: { stored_mb: 2, executions: 6 }\n' })
afterAll(async () => await world.broker.stop())
const { views } = world.parts.ledger
const of = (tenant: string): Caller => ({ ...alice, tenant })

/** Who waits is asked for again when it is their turn, with the roles their tokens hold then. */
async function holding(caller: Caller): Promise<Caller> {
  const { tenant, subject, agent, roles } = caller
  const asked = { tenant, subject, agent: agent.id, roles, valid_ms: 3_600_000 }
  await askBroker(world.broker.served.folder.controlSocket, 'token_create', asked)
  return caller
}

const writes = (name: string, bytes: number): string =>
  `writeFile('/out/${name}', new Uint8Array(${bytes}).fill(${name.length}))\n`

async function run(caller: Caller, code: string): Promise<Results['start_execution']> {
  const task_id = await world.task(caller, 'sandbox', code)
  return await world.ask(caller, 'start_execution', { task_id, wait_ms: 20_000 })
}

it('[G-quota] a run whose files pass the quota ends failed and says so; what there was room for, its log and its receipt are there', async () => {
  const caller = of('files')
  const code = `import { writeFile } from 'writ'
console.log('begun')
${writes('one', 900_000)}${writes('three', 1_400_000)}${writes('fives', 300_000)}console.log('done')`
  const started = await run(caller, code)
  expect(started).toMatchObject({ state: 'failed', ran: true, reasons: [{ code: 'quota_exceeded' }] })
  const result = await world.ask(caller, 'get_result', { execution_id: started.execution_id ?? '' })
  expect(result.files?.map(({ path, size }) => [path, size])).toEqual([
    ['fives', 300_000],
    ['one', 900_000],
  ])
  expect(result).toMatchObject({ tail: 'begun\ndone\n', withheld: { blocked: 1 }, steps: [{ exit: 0 }] })
  expect(result.receipt).toBeDefined()
  // The same files again are nothing new: they count once.
  expect(await run(caller, code.replace(writes('three', 1_400_000), ''))).toMatchObject({ state: 'succeeded' })
})

it('[G-quota] what runs print counts, and is cut where the room ends; with none left nothing is started', async () => {
  const caller = of('prints')
  const prints = "for (let at = 0; at < 900; at++) console.log('x'.repeat(1000))"
  expect(await run(caller, prints)).toMatchObject({ state: 'succeeded' })
  expect(await run(caller, `${prints}//`)).toMatchObject({ state: 'succeeded' })
  const over = await run(caller, `${prints}///`)
  expect(over).toMatchObject({ state: 'failed', reasons: [{ code: 'quota_exceeded' }] })
  const { tail } = await world.ask(caller, 'get_result', { execution_id: over.execution_id ?? '' })
  expect(tail).toContain('xxx')
  const before = views.executions({ tenant: 'prints' }, 100).length
  const task = views.tasks('prints', 1)[0]
  const refused = await world.ask(caller, 'start_execution', {
    task_id: task?.id ?? '',
    again: true,
    idempotency_key: 'again',
  })
  expect(refused.error).toMatchObject({ code: 'quota_exceeded' })
  expect(views.executions({ tenant: 'prints' }, 100).length).toBe(before)
  // Another tenant has all of its own.
  expect(await run(of('beside'), prints)).toMatchObject({ state: 'succeeded' })
}, 180_000)

it('[G-quota] calls at the same time are not given the same room, and one that was refused keeps none', async () => {
  const caller = of('crowd')
  const submit = async (name: string, size: number): Promise<Results['submit_task']> =>
    await world.ask(caller, 'submit_task', {
      project_name: 'p',
      goal: 'g',
      target_ref: 'sandbox',
      execution_intent: 'run_script',
      inputs: { script: 'main.js' },
      files: [{ path: 'main.js', content: name.repeat(size) }],
    })
  const names = Array.from('abcdefghijkl')
  const all = await Promise.all(names.map(async (name) => await submit(name, 600_000)))
  const codes = all.map(({ error }) => error?.code ?? 'stored')
  expect(codes.filter((code) => code === 'stored').length).toBe(3)
  expect(codes.filter((code) => code === 'quota_exceeded').length).toBe(names.length - 3)
  expect(world.parts.storage.holdings.bytesOf('crowd')).toBeLessThanOrEqual(2 * 1_048_576)
  expect((await submit('m', 200_000)).error).toBeUndefined()
  // The bytes of one who waits for the same are known already, and count once.
  const same = await Promise.all([1, 2, 3, 4].map(async () => await submit('a', 600_000)))
  expect(same.map(({ error }) => error)).toEqual([undefined, undefined, undefined, undefined])
})

it('[G-quota] the records of tasks count too: a tenant cannot fill the ledger by describing work', async () => {
  const caller = of('records')
  let refused: unknown
  let submitted = 0
  for (; refused === undefined && submitted < 600; submitted++) {
    const { error } = await world.ask(caller, 'submit_task', {
      project_name: 'p',
      goal: `${submitted} ${'g'.repeat(900)}`,
      context: 'c'.repeat(4000),
      target_ref: 'sandbox',
      execution_intent: 'run_script',
      inputs: { script: 'main.js' },
    })
    refused = error
  }
  expect(refused).toMatchObject({ code: 'quota_exceeded' })
  expect(submitted).toBeGreaterThan(100)
}, 180_000)

it('[G-tenants] a tenant runs and waits so many times at once, all its people together, and makes no other wait', async () => {
  const sleep = 'await new Promise((done) => setTimeout(done, 100_000))'
  const begin = async (caller: Caller, code = sleep): Promise<Results['start_execution']> => {
    const task_id = await world.task(caller, 'sandbox', code)
    return await world.ask(caller, 'start_execution', { task_id })
  }
  const people = await Promise.all(
    [1, 2, 3, 4, 5, 6].map(
      async (at) => await holding({ ...of('greedy'), subject: { type: 'user' as const, id: `p${at}` } }),
    ),
  )
  const all = []
  for (const [at, person] of people.entries()) all.push(await begin(person, `${sleep}//${at}`))
  expect(all.map((one) => one.error)).toEqual(all.map(() => undefined))
  expect(views.executions({ tenant: 'greedy', state: ['running'] }, 10).length).toBe(world.parts.maxRunning)
  const more = await begin({ ...of('greedy'), subject: { type: 'user', id: 'p7' } })
  expect(more.error).toMatchObject({
    code: 'quota_exceeded',
    message: 'Your tenant has 6 executions that run or wait already.',
  })
  // Every place is taken by runs that last; another tenant's run begins all the same, its second waits for a place.
  const began = performance.now()
  await begin(await holding(of('modest')), "console.log('here')")
  await until('the other has succeeded', () => views.executions({ tenant: 'modest' }, 1)[0]?.state === 'succeeded')
  expect(performance.now() - began).toBeLessThan(60_000)
  const two = await holding(of('two'))
  const [first, second] = [await begin(two), await begin(two, `${sleep}//`)]
  await until('its first runs', () => views.executions({ tenant: 'two', state: ['running'] }, 10).length === 1)
  expect(views.executions({ tenant: 'two', state: ['queued'] }, 10).map(({ id }) => id)).toEqual([second.execution_id])
  for (const { execution_id = '' } of [...all, first, second]) {
    const id = parseId('exec', execution_id)
    const owner = id === null ? null : views.execution(id)
    if (owner === null) throw new Error('an execution is gone')
    const caller = { ...alice, tenant: owner.tenant, subject: { type: 'user' as const, id: owner.owner } }
    await world.ask(caller, 'cancel_execution', { execution_id })
  }
  await until('all have ended', () => views.executions({ tenant: 'greedy' }, 10).every(({ state }) => isFinal(state)))
  expect((await begin(people[0] ?? alice, "console.log('again')")).error).toBeUndefined()
}, 180_000)

import { utimesSync } from 'node:fs'
import { join } from 'node:path'
import * as fc from 'fast-check'
import { expect, it } from 'vitest'
import { openFileStore } from '../../src/artifact/store.ts'
import { digestOf } from '../../src/digest.ts'
import type { Digest } from '../../src/digest.ts'
import type { ExecutionState } from '../../src/execution/execution.ts'
import { newId } from '../../src/id.ts'
import type { ExecutionId } from '../../src/id.ts'
import type { Step, StoredStep } from '../../src/ledger/ledger.ts'
import { openHoldings } from '../../src/path/holdings.ts'
import { sweepOrphans } from '../../src/path/sweep.ts'
import type { Task } from '../../src/request/task.ts'
import { folder } from '../ledger/folder.ts'
import { samplePlan, sampleReport, sampleTask } from '../ledger/sample.ts'
import { pieces } from '../contract/artifact-store.ts'

const names = Array.from({ length: 12 }, (_, at) => `bytes ${at}`)
const tenants = ['acme', 'other']

type Act =
  | { readonly act: 'submit'; readonly tenant: number; readonly files: readonly number[] }
  | { readonly act: 'revise'; readonly task: number; readonly files: readonly number[] }
  | { readonly act: 'plan'; readonly task: number }
  | { readonly act: 'result'; readonly execution: number; readonly files: readonly number[] }
  | { readonly act: 'end'; readonly execution: number; readonly state: ExecutionState }
  | { readonly act: 'store'; readonly file: number }
  | { readonly act: 'ticket'; readonly file: number }
  | { readonly act: 'sweep' }

const files = fc.uniqueArray(fc.nat(names.length - 1), { maxLength: 4 })
const act: fc.Arbitrary<Act> = fc.oneof(
  fc.record({ act: fc.constant('submit' as const), tenant: fc.nat(1), files }),
  fc.record({ act: fc.constant('revise' as const), task: fc.nat(5), files }),
  fc.record({ act: fc.constant('plan' as const), task: fc.nat(5) }),
  fc.record({ act: fc.constant('result' as const), execution: fc.nat(5), files }),
  fc.record({
    act: fc.constant('end' as const),
    execution: fc.nat(5),
    state: fc.constantFrom<ExecutionState>('succeeded', 'denied', 'running'),
  }),
  fc.record({ act: fc.constant('store' as const), file: fc.nat(names.length - 1) }),
  fc.record({ act: fc.constant('ticket' as const), file: fc.nat(names.length - 1) }),
  fc.constant({ act: 'sweep' as const }),
)

const fileOf = (at: number): Task['files'][number] => {
  const name = names[at] ?? ''
  return { path: `f${at}`, sha256: digestOf(name), size: name.length, executable: false }
}

it('an artifact of a task in force, a plan, a result or a ticket is never swept, and any other is [G-sweep-keeps]', async () => {
  const dir = folder()
  const store = openFileStore(dir)
  await fc.assert(
    fc.asyncProperty(fc.array(act, { minLength: 3, maxLength: 40 }), async (acts) => {
      const steps: StoredStep[] = []
      const records = new Map<string, number>()
      const add = (tenant: string, step: Step): void => {
        steps.push({ position: steps.length + 1, at_ms: 0, step })
        const printed = step.kind === 'outcome' ? step.report.output.bytes : 0
        records.set(tenant, (records.get(tenant) ?? 0) + JSON.stringify(step).length + printed)
      }
      let asked = 0
      const ledger = {
        steps(after: number, limit: number): readonly StoredStep[] {
          asked++
          return steps.slice(Math.max(0, after), Math.max(0, after) + limit)
        },
      }
      const holdings = openHoldings(ledger)
      const tasks: Task[] = []
      const executions: { readonly id: ExecutionId; readonly tenant: string; done: boolean }[] = []
      // What the rule says, in other words than the code's: by looking at everything each time.
      const kept = new Map<string, Set<Digest>>(tenants.map((tenant) => [tenant, new Set()]))
      const tickets = new Set<Digest>()
      const put = async (at: number): Promise<void> => {
        const name = names[at] ?? ''
        const { sha256 } = await store.put(pieces(name), name.length)
        const hex = sha256.slice('sha256:'.length)
        // Stored long ago: no grace hides what the references decide.
        utimesSync(join(dir, hex.slice(0, 2), hex), 1, 1)
      }
      const used = (tenant: string): ReadonlySet<Digest> =>
        new Set([
          ...(kept.get(tenant) ?? []),
          ...tasks.filter((task) => task.tenant === tenant).flatMap((task) => task.files.map((file) => file.sha256)),
        ])
      for (const one of [...acts, { act: 'sweep' as const }]) {
        switch (one.act) {
          case 'submit':
          case 'revise': {
            for (const at of one.files) await put(at)
            const chosen = one.files.map(fileOf)
            const old = one.act === 'revise' ? tasks[one.task] : undefined
            if (one.act === 'revise' && old === undefined) break
            const task =
              old === undefined
                ? sampleTask({ tenant: tenants[one.act === 'submit' ? one.tenant : 0] ?? '', files: chosen })
                : { ...old, files: chosen, revision: old.revision + 1 }
            if (old === undefined) tasks.push(task)
            else tasks[tasks.indexOf(old)] = task
            add(task.tenant, { kind: 'task', task })
            break
          }
          case 'plan': {
            const task = tasks[one.task]
            if (task === undefined) break
            const id = newId('exec')
            executions.push({ id, tenant: task.tenant, done: false })
            add(task.tenant, { kind: 'planned', execution: id, ...samplePlan(task), key: null })
            for (const file of task.files) kept.get(task.tenant)?.add(file.sha256)
            break
          }
          case 'result': {
            const execution = executions[one.execution]
            if (execution === undefined || execution.done) break
            execution.done = true
            for (const at of one.files) await put(at)
            add(execution.tenant, {
              kind: 'outcome',
              execution: execution.id,
              report: sampleReport({ files: one.files.map(fileOf) }),
            })
            add(execution.tenant, {
              kind: 'state',
              execution: execution.id,
              state: 'succeeded',
              ran: true,
              reasons: [],
            })
            for (const at of one.files) kept.get(execution.tenant)?.add(fileOf(at).sha256)
            break
          }
          case 'end': {
            const execution = executions[one.execution]
            if (execution === undefined || execution.done) break
            execution.done = one.state !== 'running'
            add(execution.tenant, { kind: 'state', execution: execution.id, state: one.state, ran: true, reasons: [] })
            break
          }
          case 'store':
            await put(one.file)
            break
          case 'ticket':
            await put(one.file)
            tickets.add(fileOf(one.file).sha256)
            break
          case 'sweep': {
            const wanted = new Set([...tenants.flatMap((tenant) => [...used(tenant)]), ...tickets])
            await sweepOrphans(store, holdings, (digest) => tickets.has(digest), Date.now())
            const there: Digest[] = []
            for await (const digest of store.list()) there.push(digest)
            expect(new Set(there)).toEqual(wanted)
            await holdings.refresh()
            for (const tenant of tenants) {
              const bytes = names
                .filter((name) => used(tenant).has(digestOf(name)))
                .reduce((sum, name) => sum + name.length, 0)
              expect(holdings.bytesOf(tenant)).toBe(bytes + (records.get(tenant) ?? 0))
            }
            // One that goes on from what was noted down knows the same, and reads no step again but the last.
            const resumed = openHoldings(ledger, holdings.save())
            expect(resumed.save()).toBe(holdings.save())
            asked = 0
            await resumed.refresh()
            expect(asked).toBe(1)
            expect(resumed.save()).toBe(holdings.save())
          }
        }
      }
      tickets.clear()
      for await (const digest of store.list()) store.removeStoredBefore(digest, Date.now())
    }),
    { numRuns: 60 },
  )
}, 60_000)

it('what was stored or held since the moment stays, though nothing refers to it yet', async () => {
  const dir = folder()
  const store = openFileStore(dir)
  const holdings = openHoldings({ steps: () => [] })
  const { sha256 } = await store.put(pieces('new'), 3)
  const hex = sha256.slice('sha256:'.length)
  const place = join(dir, hex.slice(0, 2), hex)
  const moment = Date.now() - 1000
  expect(await sweepOrphans(store, holdings, () => false, moment)).toBe(0)
  utimesSync(place, 1, 1)
  expect(store.hold(sha256)).toBe(3)
  expect(await sweepOrphans(store, holdings, () => false, moment)).toBe(0)
  utimesSync(place, 1, 1)
  expect(await sweepOrphans(store, holdings, () => false, moment)).toBe(1)
  expect(store.hold(sha256)).toBeNull()
})

it('what was noted down counts for nothing where it is damaged, or where the ledger is another', async () => {
  const task = sampleTask({ tenant: 'acme', files: [fileOf(0)] })
  const steps = (at_ms: number): readonly StoredStep[] => [{ position: 1, at_ms, step: { kind: 'task', task } }]
  const ledger = (at_ms: number): { steps(after: number): readonly StoredStep[] } => ({
    steps: (after) => (after < 1 ? steps(at_ms) : []),
  })
  const first = openHoldings(ledger(1))
  await first.refresh()
  const saved = first.save()
  const bytesOf = (of: number, text: string): number => openHoldings(ledger(of), text).bytesOf('acme')
  expect(bytesOf(1, saved)).toBe(first.bytesOf('acme'))
  expect(bytesOf(2, saved)).toBe(0)
  for (const bad of [
    '',
    '\n',
    'null',
    saved.slice(1),
    saved.slice(0, -1),
    saved.replace('"size":7', '"size":9'),
    `${saved} `,
  ])
    expect(bytesOf(1, bad)).toBe(0)
  // Read from the beginning then, and right.
  const again = openHoldings(ledger(1), 'nothing of the kind')
  await again.refresh()
  expect(again.save()).toBe(saved)
})

import { describe, expect, it } from 'vitest'
import { digestOf } from '../../src/digest.ts'
import { WritError } from '../../src/error.ts'
import type { ErrorCode } from '../../src/error.ts'
import { newId } from '../../src/id.ts'
import type { Entry, Ledger } from '../../src/ledger/ledger.ts'
import { createFrontier } from '../../src/receipt/tree.ts'
import {
  account,
  handClock,
  life,
  sampleApproval,
  sampleDecision,
  samplePlan,
  sampleReport,
  sampleTask,
  sampleToken,
  sampleVerdict,
  signed,
  waiting,
} from '../ledger/sample.ts'
import type { Clock } from '../../src/clock.ts'

export interface OpenedLedger {
  readonly ledger: Ledger
  /** Closes the ledger and opens the same data again. */
  readonly reopen: () => Ledger
}

async function codeOf(work: Promise<unknown>): Promise<ErrorCode | 'done'> {
  try {
    await work
    return 'done'
  } catch (error) {
    if (error instanceof WritError) return error.code
    throw error
  }
}

/** What every ledger keeps, whatever it stands on. `open` gives an empty one, and ends it with the test. */
export function ledgerContract(name: string, open: (clock: Clock) => OpenedLedger): void {
  describe(`the ledger contract over ${name}`, () => {
    it('numbers steps from 1 without gaps and reads them back as they were written', async () => {
      const { ledger } = open(handClock())
      const one = life()
      const appended = await ledger.append(...one.queue)
      expect(appended.position).toBe(one.queue.length)
      const steps = ledger.steps(0, 100)
      expect(steps.map((step) => step.position)).toEqual([1, 2, 3, 4, 5])
      expect(steps.map((step) => step.step).slice(0, 4)).toEqual(one.queue.slice(0, 4))
      expect(ledger.steps(3, 1).map((step) => step.position)).toEqual([4])
    })

    it('answers reads from what is committed only', async () => {
      const { ledger } = open(handClock())
      const one = life()
      const appending = ledger.append(...one.queue)
      expect(ledger.views.execution(one.execution)).toBeNull()
      expect(ledger.steps(0, 10)).toEqual([])
      await appending
      expect(ledger.views.execution(one.execution)?.state).toBe('queued')
    })

    it('[G-all-or-nothing] writes a batch whole or not at all, and a refused one harms no other of the same commit', async () => {
      const { ledger } = open(handClock())
      const [good, bad, later] = [life(), life(), life()]
      const results = await Promise.allSettled([
        ledger.append(...good.queue),
        ledger.append(...bad.queue, {
          kind: 'state',
          execution: bad.execution,
          state: 'succeeded',
          ran: true,
          reasons: [],
        }),
        ledger.append(...later.queue),
      ])
      expect(results.map((result) => result.status)).toEqual(['fulfilled', 'rejected', 'fulfilled'])
      expect(ledger.views.execution(bad.execution)).toBeNull()
      expect(ledger.views.task(bad.task.id)).toBeNull()
      expect(ledger.steps(0, 100).map((step) => step.position)).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
      expect(ledger.views.logHead().size).toBe(2)
    })

    it('signs each receipt on the head it has, so that the stored entries make the stored root', async () => {
      const { ledger } = open(handClock())
      const frontier = createFrontier()
      await Promise.all(Array.from({ length: 9 }, async () => await ledger.append(signed('policy'), signed('policy'))))
      for (const [i, row] of ledger.views.receipts(0, 100).entries()) {
        const claims = JSON.parse(Buffer.from(row.jws.split('.')[1] ?? '', 'base64url').toString()) as {
          predicate: { log: unknown }
        }
        expect(claims.predicate.log).toEqual({
          origin: ledger.views.logHead().origin,
          size: i,
          root: frontier.root().toString('base64'),
        })
        expect(row.digest).toBe(digestOf(row.jws))
        frontier.append(row.jws)
      }
      expect(ledger.views.logHead()).toMatchObject({ size: 18, root: frontier.root().toString('base64') })
    })

    it('gives an account that is a function the receipts this batch has signed before it', async () => {
      const { ledger } = open(handClock())
      const seen: number[][] = []
      const dependent: Entry = {
        kind: 'sign',
        execution: null,
        account: (written) => {
          seen.push(written.map((receipt) => receipt.index))
          return account('policy', { clear: { of: written.at(-1)?.digest ?? null } })
        },
      }
      await ledger.append(signed('genesis'))
      const { receipts } = await ledger.append(signed('policy'), dependent, dependent)
      expect(seen).toEqual([[1], [1, 2]])
      expect(receipts.map((receipt) => receipt.index)).toEqual([1, 2, 3])
    })

    it('refuses a batch whose account cannot be made, and signs the next on the unchanged head', async () => {
      const { ledger } = open(handClock())
      const failing: Entry = {
        kind: 'sign',
        execution: null,
        account: () => {
          throw new WritError('key_unavailable', 'no key')
        },
      }
      const results = await Promise.all([
        codeOf(ledger.append(signed('policy'), failing)),
        codeOf(ledger.append(signed('policy'))),
      ])
      expect(results).toEqual(['key_unavailable', 'done'])
      expect(ledger.views.receipts(0, 10).map((row) => row.index)).toEqual([0])
    })

    it('keeps disclosures beside the steps and out of them', async () => {
      const { ledger } = open(handClock())
      const { receipts } = await ledger.append(
        signed('policy', null, { salted: { image: 'secret-image' } }),
        signed('policy'),
      )
      const [first, second] = receipts
      if (first === undefined || second === undefined) throw new Error('two receipts were asked for')
      expect(first.disclosures).toHaveLength(1)
      expect(ledger.views.disclosures(first.id)).toEqual(first.disclosures)
      expect(ledger.views.disclosures(second.id)).toEqual([])
      expect(ledger.steps(0, 1).map(({ step }) => (step.kind === 'receipt' ? step.receipt.disclosures : null))).toEqual(
        [[]],
      )
    })

    describe('the order of effects', () => {
      it('[G-single-use] spends the permit of an execution once, however many ask at the same moment', async () => {
        const { ledger } = open(handClock())
        const one = life()
        await ledger.append(...one.queue)
        const again = sampleDecision('allow')
        const second: readonly Entry[] = [
          { kind: 'decided', execution: one.execution, decision: again, input: null },
          signed('decision', one.execution),
          { kind: 'permit_spent', execution: one.execution, plan: one.digest, decision: again.id },
        ]
        expect(
          await Promise.all([
            codeOf(ledger.append(...one.start)),
            codeOf(ledger.append(...second)),
            codeOf(ledger.append(...second)),
          ]),
        ).toEqual(['done', 'conflict', 'conflict'])
        expect(ledger.read(one.execution).filter(({ step }) => step.kind === 'permit_spent')).toHaveLength(1)
      })

      it('[G-decision-before-run] starts nothing without a permit, an allowing decision and a decision receipt in the same batch', async () => {
        const { ledger } = open(handClock())
        const one = life()
        await ledger.append(...one.queue)
        for (const missing of one.start.keys()) {
          const batch = one.start.filter((_, i) => i !== missing)
          expect(await codeOf(ledger.append(...batch))).toBe('conflict')
        }
        const denied = sampleDecision('deny')
        expect(
          await codeOf(
            ledger.append(
              { kind: 'decided', execution: one.execution, decision: denied, input: null },
              signed('decision', one.execution),
              { kind: 'permit_spent', execution: one.execution, plan: one.digest, decision: denied.id },
              { kind: 'state', execution: one.execution, state: 'running', ran: true, reasons: [] },
            ),
          ),
        ).toBe('conflict')
        expect(ledger.views.execution(one.execution)?.state).toBe('queued')
        expect(await codeOf(ledger.append(...one.start))).toBe('done')
      })

      it('refuses a permit for another plan, and another execution’s decision', async () => {
        const { ledger } = open(handClock())
        const [one, two] = [life(), life()]
        await ledger.append(...one.queue)
        await ledger.append(...two.queue)
        const other = one.start.map((entry): Entry =>
          entry.kind === 'permit_spent' ? { ...entry, plan: two.digest } : entry,
        )
        expect(await codeOf(ledger.append(...other))).toBe('conflict')
        await ledger.append(...two.start)
        const [spent] = ledger.views.decisions(two.execution).slice(-1)
        const borrowed = one.start.map((entry): Entry =>
          entry.kind === 'permit_spent' ? { ...entry, decision: spent?.decision.id ?? '' } : entry,
        )
        expect(await codeOf(ledger.append(...borrowed))).toBe('conflict')
      })

      it('[G-outcome-before-result] ends no run without its outcome receipt in the same batch', async () => {
        const { ledger } = open(handClock())
        const one = life()
        await ledger.append(...one.queue)
        await ledger.append(...one.start)
        const end = one.end('succeeded')
        expect(await codeOf(ledger.append(...end.slice(0, 2)))).toBe('conflict')
        expect(await codeOf(ledger.append(...end.slice(0, 2), signed('outcome')))).toBe('conflict')
        expect(ledger.views.execution(one.execution)?.state).toBe('running')
        const { receipts } = await ledger.append(...end)
        expect(ledger.views.execution(one.execution)).toMatchObject({
          state: 'succeeded',
          outcome_receipt: receipts[0]?.id,
          report: sampleReport(),
        })
      })

      it('takes one outcome, one outcome receipt and no state after a final one', async () => {
        const { ledger } = open(handClock())
        const one = life()
        await ledger.append(...one.queue)
        await ledger.append(...one.start)
        await ledger.append(...one.end('failed'))
        expect(await codeOf(ledger.append({ kind: 'outcome', execution: one.execution, report: sampleReport() }))).toBe(
          'conflict',
        )
        expect(await codeOf(ledger.append(signed('outcome', one.execution)))).toBe('conflict')
        for (const state of ['succeeded', 'running', 'queued', 'failed', 'unknown'] as const)
          expect(
            await codeOf(
              ledger.append(
                { kind: 'state', execution: one.execution, state, ran: true, reasons: [] },
                signed('outcome', one.execution),
              ),
            ),
          ).toBe('conflict')
      })

      it('refuses steps of an execution that was never planned, and a plan under another digest', async () => {
        const { ledger } = open(handClock())
        const execution = newId('exec')
        const steps: readonly Entry[] = [
          { kind: 'decided', execution, decision: sampleDecision('allow'), input: null },
          { kind: 'state', execution, state: 'queued', ran: false, reasons: [] },
          { kind: 'lease_intended', lease: newId('lease'), execution, credentials: [] },
          { kind: 'outcome', execution, report: sampleReport() },
          { kind: 'approval_opened', approval: sampleApproval({ ...life(), execution }) },
          signed('decision', execution),
        ]
        const codes = await Promise.all(steps.map(async (step) => `${step.kind} ${await codeOf(ledger.append(step))}`))
        expect(codes).toEqual(steps.map((step) => `${step.kind} conflict`))
        const { plan } = samplePlan(sampleTask())
        expect(
          await codeOf(ledger.append({ kind: 'planned', execution, plan, digest: digestOf('another'), key: null })),
        ).toBe('internal')
        expect(ledger.steps(0, 10)).toEqual([])
      })
    })

    describe('approvals', () => {
      it('take a verdict only while open, one from each person, and close once', async () => {
        const { ledger } = open(handClock())
        const one = waiting()
        await ledger.append(...one.open)
        const verdict = (by: string): Entry => ({
          kind: 'verdict',
          approval: one.approval.id,
          verdict: sampleVerdict(one.approval, by),
        })
        const close = (state: 'satisfied' | 'rejected' | 'expired' | 'superseded'): Entry => ({
          kind: 'approval_closed',
          approval: one.approval.id,
          state,
          execute_by_ms: 9,
        })
        expect(await codeOf(ledger.append({ kind: 'approval_opened', approval: sampleApproval(one) }))).toBe('conflict')
        expect(
          await Promise.all([codeOf(ledger.append(verdict('bob'))), codeOf(ledger.append(verdict('bob')))]),
        ).toEqual(['done', 'conflict'])
        expect(
          await Promise.all([codeOf(ledger.append(close('satisfied'))), codeOf(ledger.append(close('rejected')))]),
        ).toEqual(['done', 'conflict'])
        expect(await codeOf(ledger.append(verdict('eve')))).toBe('conflict')
        expect(ledger.views.approval(one.approval.id)).toEqual({
          ...one.approval,
          state: 'satisfied',
          execute_by_ms: 9,
          verdicts: [sampleVerdict(one.approval, 'bob')],
        })
        expect(await codeOf(ledger.append(close('expired')))).toBe('done')
        expect(await codeOf(ledger.append(close('satisfied')))).toBe('conflict')
      })

      it('are for the plan and tenant of their execution, and a verdict is for the approval it names', async () => {
        const { ledger } = open(handClock())
        const [one, two] = [waiting(), waiting()]
        await ledger.append(...one.queue)
        expect(
          await codeOf(
            ledger.append({ kind: 'approval_opened', approval: { ...sampleApproval(one), plan: two.digest } }),
          ),
        ).toBe('conflict')
        expect(
          await codeOf(
            ledger.append({ kind: 'approval_opened', approval: { ...sampleApproval(one), tenant: 'other' } }),
          ),
        ).toBe('conflict')
        await ledger.append(...two.open)
        expect(
          await codeOf(
            ledger.append({ kind: 'verdict', approval: two.approval.id, verdict: sampleVerdict(one.approval, 'bob') }),
          ),
        ).toBe('conflict')
      })

      it('are listed by state and execution, newest first, and give the plan last approved for the task’s target', async () => {
        const { ledger } = open(handClock())
        const task = sampleTask()
        const [one, two] = [waiting(task), waiting({ ...task, revision: 2 })]
        await ledger.append(...one.open)
        expect(ledger.views.lastApprovedPlan(task.id)).toBeNull()
        await ledger.append({
          kind: 'approval_closed',
          approval: one.approval.id,
          state: 'satisfied',
          execute_by_ms: 9,
        })
        await ledger.append(...two.open)
        expect(ledger.views.approvals({ tenant: 'acme' }, 9).map(({ id }) => id)).toEqual([
          two.approval.id,
          one.approval.id,
        ])
        expect(ledger.views.approvals({ tenant: 'acme', state: 'open' }, 9).map(({ id }) => id)).toEqual([
          two.approval.id,
        ])
        expect(ledger.views.approvals({ execution: one.execution }, 9).map(({ id }) => id)).toEqual([one.approval.id])
        expect(ledger.views.approvals({ tenant: 'other' }, 9)).toEqual([])
        expect(ledger.views.lastApprovedPlan(task.id)).toEqual(one.plan)
        await ledger.append({ kind: 'task', task: { ...task, revision: 3, target_ref: 'elsewhere' } })
        expect(ledger.views.lastApprovedPlan(task.id)).toBeNull()
      })
    })

    it('follows a lease from intent to its end, and never back', async () => {
      const { ledger } = open(handClock())
      const one = life()
      const lease = newId('lease')
      await ledger.append(...one.queue)
      const intend: Entry = { kind: 'lease_intended', lease, execution: one.execution, credentials: ['token'] }
      expect(await codeOf(ledger.append(intend))).toBe('conflict')
      await ledger.append(...one.start)
      await ledger.append(intend)
      expect(ledger.views.leases(['intended', 'leased', 'pending'])).toEqual([
        { id: lease, execution: one.execution, credentials: ['token'], state: 'intended' },
      ])
      await ledger.append({ kind: 'leased', lease, expires_at_ms: null })
      expect(await codeOf(ledger.append({ kind: 'leased', lease, expires_at_ms: null }))).toBe('conflict')
      await ledger.append({ kind: 'lease_ended', lease, revocation: 'pending' })
      await ledger.append({ kind: 'lease_ended', lease, revocation: 'done' })
      expect(await codeOf(ledger.append({ kind: 'lease_ended', lease, revocation: 'pending' }))).toBe('conflict')
      expect(ledger.views.leases(['intended', 'leased', 'pending'])).toEqual([])
      expect(ledger.views.leases([])).toEqual([])
      expect(ledger.read(one.execution).filter(({ step }) => step.kind.startsWith('lease'))).toHaveLength(4)
    })

    it('[G-idempotent] takes an idempotency key once per subject: other arguments, and a racing twin, are refused', async () => {
      const { ledger } = open(handClock())
      const key = (request: string, result: string, subject = 'ada'): Entry => ({
        kind: 'idempotency',
        tenant: 'acme',
        subject,
        key: 'k',
        request: digestOf(request),
        result,
      })
      const [one, two] = [life(), life()]
      expect(
        await Promise.all([
          codeOf(ledger.append(key('a', one.execution), ...one.queue)),
          codeOf(ledger.append(key('a', two.execution), ...two.queue)),
        ]),
      ).toEqual(['done', 'conflict'])
      expect(ledger.views.execution(two.execution)).toBeNull()
      expect(await codeOf(ledger.append(key('b', one.execution)))).toBe('conflict')
      expect(await codeOf(ledger.append(key('b', 'x', 'bob')))).toBe('done')
      expect(ledger.views.idempotency('acme', 'ada', 'k')).toEqual({ request: digestOf('a'), result: one.execution })
      expect(ledger.views.idempotency('other', 'ada', 'k')).toBeNull()
    })

    it('refuses the second of two changes made from the same revision of a task, and a change of owner', async () => {
      const { ledger } = open(handClock())
      const task = sampleTask()
      const change = (over: object): Entry => ({ kind: 'task', task: { ...task, revision: 2, ...over } })
      await ledger.append({ kind: 'task', task })
      expect(
        await Promise.all([codeOf(ledger.append(change({ goal: 'a' }))), codeOf(ledger.append(change({ goal: 'b' })))]),
      ).toEqual(['done', 'conflict'])
      expect(await codeOf(ledger.append(change({ revision: 3, owner: 'eve' })))).toBe('conflict')
      expect(await codeOf(ledger.append(change({ revision: 3, tenant: 'other' })))).toBe('conflict')
      expect(ledger.views.task(task.id)?.goal).toBe('a')
      expect(ledger.views.tasks('acme', 9).map(({ id }) => id)).toEqual([task.id])
    })

    it('says whose task an artifact belongs to, within a tenant, and prefers the one who asks', async () => {
      const { ledger } = open(handClock())
      const file = { path: 'a', sha256: digestOf('a'), size: 1, executable: false }
      const [mine, theirs] = [sampleTask({ files: [file] }), sampleTask({ owner: 'bob', files: [file] })]
      await ledger.append({ kind: 'task', task: mine }, { kind: 'task', task: theirs })
      expect(ledger.views.artifactOwner(file.sha256, 'acme')).toEqual({ task: theirs.id, owner: 'bob' })
      expect(ledger.views.artifactOwner(file.sha256, 'acme', 'ada')).toEqual({ task: mine.id, owner: 'ada' })
      expect(ledger.views.artifactOwner(file.sha256, 'other', 'ada')).toBeNull()
      const one = life(sampleTask({ owner: 'eve' }))
      await ledger.append(...one.queue)
      await ledger.append(...one.start)
      await ledger.append(
        ...one.end('succeeded', sampleReport({ files: [{ path: 'out', sha256: digestOf('out'), size: 3 }] })),
      )
      expect(ledger.views.artifactOwner(digestOf('out'), 'acme')).toEqual({ task: one.task.id, owner: 'eve' })
    })

    it('lists executions by tenant, owner, task and state, newest first', async () => {
      const { ledger } = open(handClock())
      const [one, two, three] = [life(), life(), life(sampleTask({ owner: 'bob' }))]
      for (const each of [one, two, three]) await ledger.append(...each.queue)
      await ledger.append(...two.start)
      const ids = (filter: Parameters<Ledger['views']['executions']>[0], limit = 9) =>
        ledger.views.executions(filter, limit).map(({ id }) => id)
      expect(ids({ tenant: 'acme' })).toEqual([three.execution, two.execution, one.execution])
      expect(ids({ tenant: 'acme' }, 1)).toEqual([three.execution])
      expect(ids({ tenant: 'acme', owner: 'ada' })).toEqual([two.execution, one.execution])
      expect(ids({ state: ['running'] })).toEqual([two.execution])
      expect(ids({ state: [] })).toEqual([])
      expect(ids({ task: three.task.id })).toEqual([three.execution])
      expect(ledger.views.plan(one.digest)).toEqual(one.plan)
      expect(ledger.views.plan(digestOf('none'))).toBeNull()
    })

    it('counts a subject’s executions, denials and running work inside their windows', async () => {
      const clock = handClock(10_000_000)
      const { ledger } = open(clock)
      const [one, two] = [life(), life()]
      await ledger.append(...one.queue)
      await ledger.append(...one.start)
      await ledger.append(...two.queue, {
        kind: 'state',
        execution: two.execution,
        state: 'denied',
        ran: false,
        reasons: [],
      })
      await ledger.append({
        kind: 'refused',
        tenant: 'acme',
        caller: 'ada',
        code: 'denied',
        input: digestOf(''),
        at_ms: 10_000_000,
      })
      expect(ledger.views.counters('acme', 'ada', 10_000_001)).toEqual({ executions_60m: 2, denied_10m: 2, running: 1 })
      expect(ledger.views.counters('acme', 'ada', 10_000_000 + 600_000)).toEqual({
        executions_60m: 2,
        denied_10m: 0,
        running: 1,
      })
      expect(ledger.views.counters('acme', 'ada', 10_000_000 + 3_600_000)).toEqual({
        executions_60m: 0,
        denied_10m: 0,
        running: 1,
      })
      expect(ledger.views.counters('acme', 'bob', 10_000_001)).toEqual({ executions_60m: 0, denied_10m: 0, running: 0 })
      expect(ledger.views.counters('other', 'ada', 10_000_001)).toEqual({
        executions_60m: 0,
        denied_10m: 0,
        running: 0,
      })
    })

    it('never lets its time run backwards, whatever the wall clock does', async () => {
      const clock = handClock(5_000)
      const { ledger, reopen } = open(clock)
      await ledger.append(signed('genesis'))
      clock.set(1_000)
      await ledger.append(signed('policy'))
      expect(ledger.steps(0, 9).map(({ at_ms }) => at_ms)).toEqual([5_000, 5_000])
      const again = reopen()
      await again.append(signed('policy'))
      expect(again.views.newestTimeMs()).toBe(5_000)
    })

    it('wakes watchers after each commit with the newest position, and misses nothing between two looks', async () => {
      const { ledger } = open(handClock())
      const stop = new AbortController()
      const watching = ledger.watch(stop.signal)
      await ledger.append(signed('genesis'))
      await ledger.append(signed('policy'))
      const seen: number[] = []
      for await (const position of watching) {
        seen.push(position)
        if (position === 3) break
        await ledger.append(signed('policy'))
      }
      expect(seen).toEqual([2, 3])
      const idle = ledger.watch(stop.signal)[Symbol.asyncIterator]().next()
      stop.abort()
      expect(await idle).toEqual({ done: true, value: undefined })
    })

    it('wakes a thousand watchers on one commit, and ends them all when it closes', async () => {
      const { ledger } = open(handClock())
      const never = new AbortController().signal
      const watchers = Array.from({ length: 1_000 }, () => ledger.watch(never)[Symbol.asyncIterator]())
      const first = watchers.map(async (watcher) => await watcher.next())
      const began = performance.now()
      await ledger.append(signed('genesis'))
      expect(new Set((await Promise.all(first)).map((result) => result.value as number))).toEqual(new Set([1]))
      expect(performance.now() - began).toBeLessThan(500)
      const second = watchers.map(async (watcher) => await watcher.next())
      ledger.close()
      expect((await Promise.all(second)).every((result) => result.done === true)).toBe(true)
    })

    it('writes what was queued before it closes, and nothing after', async () => {
      const { ledger, reopen } = open(handClock())
      const last = ledger.append(signed('genesis'))
      ledger.close()
      expect(await codeOf(last)).toBe('done')
      expect(await codeOf(ledger.append(signed('policy')))).toBe('ledger_unavailable')
      expect(reopen().views.logHead().size).toBe(1)
    })

    it('knows everything again after it is opened again, and goes on where it was', async () => {
      const { ledger, reopen } = open(handClock())
      const one = life()
      await ledger.append(...one.queue)
      const before = {
        head: ledger.views.logHead(),
        execution: ledger.views.execution(one.execution),
        steps: ledger.steps(0, 99),
      }
      const again = reopen()
      expect({
        head: again.views.logHead(),
        execution: again.views.execution(one.execution),
        steps: again.steps(0, 99),
      }).toEqual(before)
      const { position, receipts } = await again.append(...one.start)
      expect([position, receipts[0]?.index]).toEqual([one.queue.length + 4, 1])
    })

    it('reads the steps of one execution, approvals, verdicts and leases included', async () => {
      const { ledger } = open(handClock())
      const [one, other] = [waiting(), life()]
      await ledger.append(...one.open)
      await ledger.append(...other.queue)
      await ledger.append({ kind: 'verdict', approval: one.approval.id, verdict: sampleVerdict(one.approval, 'bob') })
      const kinds = (after?: number) => ledger.read(one.execution, after).map(({ step }) => step.kind)
      expect(kinds()).toEqual(['planned', 'decided', 'receipt', 'approval_opened', 'state', 'verdict'])
      expect(kinds(6)).toEqual(['verdict'])
    })

    it('answers for ids nobody has with nothing', () => {
      const { ledger } = open(handClock())
      const { views } = ledger
      expect([
        views.task(newId('task')),
        views.execution(newId('exec')),
        views.approval(newId('apr')),
        views.receipt(newId('rcpt')),
        views.generation(),
        views.approverSet(),
      ]).toEqual([null, null, null, null, null, null])
      expect([
        views.receiptsOf(newId('exec')),
        views.decisions(newId('exec')),
        views.disclosures(newId('rcpt')),
        views.receipts(0, 9),
      ]).toEqual([[], [], [], []])
      expect(views.logHead()).toMatchObject({ size: 0, root: createFrontier().root().toString('base64') })
      expect(views.newestTimeMs()).toBe(0)
    })

    it('keeps the newest generation and approver set', async () => {
      const { ledger } = open(handClock())
      await ledger.append(
        { kind: 'generation', number: 1, digest: digestOf('1'), packs: [] },
        { kind: 'approver_set', digest: digestOf('a'), approvers: [] },
      )
      await ledger.append({ kind: 'generation', number: 2, digest: digestOf('2'), packs: [{ pack: 'org' }] })
      expect(ledger.views.generation()).toEqual({ number: 2, digest: digestOf('2') })
      expect(ledger.views.approverSet()).toBe(digestOf('a'))
    })

    it('finds a token by its id, its hash and its subject, and knows when it was revoked', async () => {
      const clock = handClock(5_000)
      const { ledger, reopen } = open(clock)
      const [one, two, three] = [sampleToken(), sampleToken(), sampleToken({ tenant: 'globex' })]
      for (const token of [one, two, three]) await ledger.append({ kind: 'token_created', token })
      clock.set(6_000)
      await ledger.append({ kind: 'token_revoked', token: one.id })
      const live = { ...two, revoked_at_ms: null }
      const gone = { ...one, revoked_at_ms: 6_000 }
      const look = ({ views }: Ledger): readonly unknown[] => [
        views.token(one.id),
        views.tokenByHash(two.hash),
        views.tokens({ tenant: 'acme', subject: 'ada' }, 9),
        views.tokens(null, 1),
        views.token(newId('tok')),
        views.tokenByHash(digestOf('another')),
      ]
      const expected = [gone, live, [live, gone], [{ ...three, revoked_at_ms: null }], null, null]
      expect(look(ledger)).toEqual(expected)
      expect(look(reopen())).toEqual(expected)
    })

    it('[G-token-revoked] refuses a token twice, a hash twice, and the revocation of what is revoked or was never made', async () => {
      const { ledger } = open(handClock())
      const token = sampleToken()
      await ledger.append({ kind: 'token_created', token }, { kind: 'token_revoked', token: token.id })
      const refused: readonly Entry[] = [
        { kind: 'token_created', token },
        { kind: 'token_created', token: sampleToken({ hash: token.hash }) },
        { kind: 'token_created', token: sampleToken({ id: token.id }) },
        { kind: 'token_revoked', token: token.id },
        { kind: 'token_revoked', token: newId('tok') },
      ]
      for (const entry of refused) expect(await codeOf(ledger.append(entry))).toBe('conflict')
      expect(ledger.steps(0, 9)).toHaveLength(2)
    })

    it('keeps the newest roles seen of each agent of a subject, and takes none that were issued earlier', async () => {
      const { ledger } = open(handClock())
      const seen = { tenant: 'acme', subject: 'corp:ada', agent: 'a', roles: ['x'], as_of_ms: 10, until_ms: 99 }
      const [again, other] = [
        { ...seen, roles: [], until_ms: 100 },
        { ...seen, agent: 'b', as_of_ms: 1 },
      ]
      for (const one of [seen, again, other, { ...seen, tenant: 'globex' }])
        await ledger.append({ kind: 'roles_seen', seen: one })
      expect(await codeOf(ledger.append({ kind: 'roles_seen', seen: { ...seen, as_of_ms: 9 } }))).toBe('conflict')
      expect(ledger.views.seenRoles('acme', 'corp:ada')).toEqual([again, other])
      expect(ledger.views.seenRoles('acme', 'corp:bob')).toEqual([])
    })

    it('finds receipts by id, by execution and by place in the log', async () => {
      const { ledger } = open(handClock(7_000))
      const one = life()
      await ledger.append(signed('genesis'))
      const { receipts } = await ledger.append(...one.queue)
      const [receipt] = receipts
      if (receipt === undefined) throw new Error('a receipt was asked for')
      const row = {
        id: receipt.id,
        index: 1,
        kind: 'decision',
        execution: one.execution,
        task: one.task.id,
        at_ms: 7_000,
        jws: receipt.jws,
        digest: receipt.digest,
      }
      expect(ledger.views.receipt(receipt.id)).toEqual(row)
      expect(ledger.views.receiptsOf(one.execution)).toEqual([row])
      expect(ledger.views.receipts(1, 5)).toEqual([row])
      expect(ledger.views.receipts(0, 1).map(({ kind }) => kind)).toEqual(['genesis'])
    })
  })
}

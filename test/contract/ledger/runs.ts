import { describe, expect, it } from 'vitest'
import { digestOf } from '../../../src/digest.ts'
import { newId } from '../../../src/id.ts'
import type { Entry } from '../../../src/ledger/ledger.ts'
import {
  handClock,
  life,
  sampleApproval,
  sampleDecision,
  samplePlan,
  sampleReport,
  sampleTask,
  sampleVerdict,
  signed,
  waiting,
} from '../../ledger/sample.ts'
import { codeOf } from './opened.ts'
import type { OpenLedger } from './opened.ts'

/** The order of effects of a run, its approvals, its lease and its key. */
export function runsContract(open: OpenLedger): void {
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
      expect(await Promise.all([codeOf(ledger.append(verdict('bob'))), codeOf(ledger.append(verdict('bob')))])).toEqual(
        ['done', 'conflict'],
      )
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
        await codeOf(ledger.append({ kind: 'approval_opened', approval: { ...sampleApproval(one), tenant: 'other' } })),
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
}

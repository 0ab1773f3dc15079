import { randomBytes } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { WritError } from '../../src/error.ts'
import { type ExitReason, exitReasons, nothingCounted, type Outcome } from '../../src/execution/job.ts'
import { newId } from '../../src/id.ts'
import { endingOf } from '../../src/path/ending.ts'
import type { Parts } from '../../src/path/parts.ts'
import type { Decision } from '../../src/policy/policy.ts'
import { decisionAccount, outcomeAccount, policyAccount } from '../../src/receipt/account.ts'
import { openTrust } from '../../src/receipt/trust.ts'
import { verifyLog } from '../../src/receipt/verify-log.ts'
import { prepare } from '../executor/fixture.ts'
import {
  generation,
  ref,
  removeFolders,
  sampleDecision,
  SampleLog,
  sampleReport,
  sampleRun,
} from '../receipt/sample.ts'

const { plan } = prepare({ files: {}, argv: [['a.js'], ['b.js']] }).job
const decision = { id: newId('dec') } as Decision
const parts = {
  log: { error: () => undefined },
  storage: { quotas: () => ({ stored_mb: 7 }) },
} as unknown as Pick<Parts, 'log' | 'storage'>

function ending(outcome: Outcome, run: { readonly began?: boolean; readonly overQuota?: boolean } = {}) {
  return endingOf(parts, outcome, { plan, decision, began: true, overQuota: false, ...run })
}

function exited(exits: readonly (number | null)[], reason: ExitReason | null = null): Outcome {
  return { end: 'exited', reason, steps: exits.map((exit) => ({ title: '', exit, ms: 1 })) }
}

describe('the end of a run', () => {
  it('is a success where every step of the plan ended as the intent calls success, and nothing was lost', () => {
    expect(ending(exited([0, 0]))).toMatchObject({ state: 'succeeded', ran: true, reason: null, reasons: [] })
    expect(ending(exited([0, 1]))).toMatchObject({ state: 'failed', reason: 'exit_status', reasons: [] })
    expect(ending(exited([0]))).toMatchObject({ state: 'failed', reason: 'exit_status' })
    expect(ending(exited([0, null]))).toMatchObject({ state: 'failed', reason: 'exit_status' })
    expect(ending(exited([0, 1], 'guest_error'))).toMatchObject({ state: 'failed', reason: 'guest_error' })
  })

  it.each(exitReasons.filter((reason) => reason !== 'guest_error'))(
    'is a failure with its reason, told to the caller, where all steps did well and then came %s [G-whole-success]',
    (reason) => {
      const seen = ending(exited([0, 0], reason))
      expect(seen).toMatchObject({ state: 'failed', ran: true, reason, reasons: [{ code: reason, ref: decision.id }] })
      expect(seen.steps).toHaveLength(2)
    },
  )

  it('is a failure where there was no room for all it left, and both causes are told where there are two', () => {
    expect(ending(exited([0, 0]), { overQuota: true })).toMatchObject({
      state: 'failed',
      reason: 'quota_exceeded',
      reasons: [{ code: 'quota_exceeded', message: expect.stringContaining('7 MB') as string }],
    })
    const both = ending(exited([0, 0], 'sandbox_crash'), { overQuota: true })
    expect(both.reason).toBe('sandbox_crash')
    expect(both.reasons.map(({ code }) => code)).toEqual(['sandbox_crash', 'quota_exceeded'])
  })

  it('that came from outside has the state of what ended it', () => {
    const steps = [{ title: '', exit: null, ms: 1 }]
    const stopped = (by: 'time' | 'memory' | 'output' | 'cancel') => ending({ end: 'stopped', by, steps })
    expect(stopped('time')).toMatchObject({ state: 'timed_out', ran: true, steps, reason: 'time' })
    expect(stopped('cancel')).toMatchObject({ state: 'cancelled', ran: true, reason: 'cancel' })
    expect(stopped('memory')).toMatchObject({ state: 'failed', reason: 'memory', reasons: [{ code: 'memory' }] })
    expect(stopped('output')).toMatchObject({ state: 'failed', reason: 'output' })
    expect(ending({ end: 'unknown', steps })).toMatchObject({ state: 'unknown', ran: true, reason: 'run_host_lost' })
  })

  it('can be signed, whatever it is [G-signs-only-verifiable] [G-outcome-before-result]', () => {
    const log = new SampleLog()
    log.add(policyAccount(generation, log.nowMs))
    const steps = [0, 1, null].map((exit) => ({ title: '', exit, ms: 1 }))
    const outcomes: Outcome[] = [
      { end: 'not_started', error: new WritError('internal', 'x') },
      { end: 'unknown', steps },
      ...[[], [0, 0], [0, 1], [null], Array<number>(12).fill(0)].flatMap((exits) =>
        [null, ...exitReasons].map((reason) => exited(exits, reason)),
      ),
      ...(['time', 'memory', 'output', 'cancel'] as const).map((by): Outcome => ({ end: 'stopped', by, steps })),
    ]
    for (const outcome of outcomes)
      for (const began of [true, false])
        for (const overQuota of [true, false]) {
          const { state, ran, steps: told, reason } = ending(outcome, { began, overQuota })
          const seen = outcome.end === 'exited' || outcome.end === 'stopped'
          const run = sampleRun(randomBytes(16).toString('hex'))
          const decided = log.add(decisionAccount(run, sampleDecision('allow', log.nowMs), generation.digest, []))
          const report = {
            ...sampleReport,
            steps: told,
            reason,
            isolation_applied: seen ? sampleReport.isolation_applied : nothingCounted.isolation_applied,
          }
          const end = { status: state, ran, report, revocation: 'done' as const, at_ms: log.nowMs }
          log.add(outcomeAccount(run, { ...end, decision: ref(decided) }))
        }
    for (const status of ['denied', 'rejected', 'expired', 'superseded', 'cancelled'] as const) {
      const run = sampleRun(randomBytes(16).toString('hex'))
      const decided = log.add(decisionAccount(run, sampleDecision('deny', log.nowMs), generation.digest, []))
      const end = { status, ran: false, report: null, revocation: 'done' as const, at_ms: log.nowMs }
      log.add(outcomeAccount(run, { ...end, decision: ref(decided) }))
    }
    expect(verifyLog(log.list, openTrust({ own: log.keys.jwt }))).toMatchObject({ verdict: 'VALID:LOGGED' })
    removeFolders()
  })

  it('before anything began ran nothing, whatever is said of it', () => {
    const nothing = { ran: false, steps: [] }
    const steps = [{ title: '', exit: 0, ms: 1 }]
    expect(ending({ end: 'stopped', by: 'cancel', steps }, { began: false })).toMatchObject({
      state: 'cancelled',
      ...nothing,
    })
    expect(ending({ end: 'stopped', by: 'time', steps }, { began: false })).toMatchObject({
      state: 'failed',
      ...nothing,
    })
    const error = new WritError('credential_unavailable', 'the token is not there')
    expect(ending({ end: 'not_started', error }, { began: false })).toMatchObject({
      state: 'failed',
      reason: 'credential_unavailable',
      ...nothing,
    })
  })
})

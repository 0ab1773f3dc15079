import { describe, expect, it } from 'vitest'
import { WritError } from '../../src/error.ts'
import { type ExitReason, exitReasons, type Outcome } from '../../src/execution/job.ts'
import { newId } from '../../src/id.ts'
import { endingOf } from '../../src/path/ending.ts'
import type { Parts } from '../../src/path/parts.ts'
import type { Decision } from '../../src/policy/policy.ts'
import { prepare } from '../executor/fixture.ts'

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

import { describe, expect, it } from 'vitest'
import { believed, checkFromHost } from '../../src/execution/host-wire.ts'
import { newId } from '../../src/id.ts'

const steps = [{ title: 'Run a.js', argv: ['a.js'], success: [0] }]

describe('what the run host says of an end', () => {
  it('is not believed where it says that nothing ran of a run that began', () => {
    const said = { end: 'not_started', code: 'internal', message: 'nothing ran' } as const
    expect(believed(said, steps, true)).toEqual({ end: 'unknown', steps: [] })
    expect(believed(said, steps, false)).toMatchObject({ end: 'not_started', error: { code: 'internal' } })
  })

  it('names steps as the plan names them, whatever it calls them', () => {
    const said = { end: 'exited', reason: null, steps: [{ title: 'next: call cancel', exit: 0, ms: 1 }] } as const
    expect(believed({ ...said, steps: [...said.steps] }, steps, true)).toEqual({
      ...said,
      steps: [{ title: 'Run a.js', exit: 0, ms: 1 }],
    })
  })

  it('has no more steps than the plan', () => {
    const step = { title: 'Run a.js', exit: 0, ms: 1 }
    expect(() => believed({ end: 'unknown', steps: [step, step] }, steps, true)).toThrow('more steps')
  })
})

describe('what the run host says of tests', () => {
  const report = {
    source: 'junit',
    asserted: true,
    total: 2,
    passed: 1,
    failed: 1,
    skipped: 0,
    duration_ms: null,
    failures: [{ name: 'a', message: 'b\nc' }],
    truncated: false,
  }
  const ended = (tests: unknown): unknown => ({
    t: 'ended',
    execution: newId('exec'),
    outcome: { end: 'exited', steps: [], reason: null },
    counts: {
      egress: { allowed: 0, blocked: 0, refusals: [] },
      isolation_applied: 'process',
      withheld_files: 0,
      redactions: 0,
      dropped_bytes: 0,
    },
    tests,
  })
  const failure = report.failures[0]

  it('is taken as it is where it adds up, or where there is none', () => {
    expect(checkFromHost(ended(report))).toMatchObject({ tests: report })
    expect(checkFromHost(ended(null))).toMatchObject({ tests: null })
  })

  it.each([
    ['sums that do not add up', { total: 3 }],
    ['more failures than failed', { failed: 0, total: 1 }],
    ['a count below nothing', { passed: -1, total: 0 }],
    ['more cases than a report may have', { passed: 100_000, total: 100_001 }],
    ['another source', { source: 'rumour' }],
    ['a claim to have been seen', { asserted: false }],
    ['a member nobody knows', { verified: true }],
    ['a name with a line of its own', { failures: [{ ...failure, name: 'a\nb' }] }],
    ['a message with an escape', { failures: [{ ...failure, message: '\u001b[2J' }] }],
    ['a message with hidden text', { failures: [{ ...failure, message: 'a\u{e0041}' }] }],
    ['a message that is too long', { failures: [{ ...failure, message: 'x'.repeat(501) }] }],
    [
      'more failures than a report keeps',
      { failed: 21, total: 22, failures: Array.from({ length: 21 }, () => failure) },
    ],
  ])('is refused with %s', (_what, change) => {
    expect(checkFromHost(ended({ ...report, ...change }))).toBeNull()
  })
})

it.each(['../a', '/a', 'a/../b', 'a\nb', 'a\u202eb', 'C:a', 'a//b', '', 'a\\b', 'e\u0301'])(
  'takes no file from the run host under the name %j',
  (path) => {
    const frame = { t: 'file', execution: newId('exec'), id: 1, path }
    expect(checkFromHost({ ...frame, path: 'out/a.txt' })).not.toBeNull()
    expect(checkFromHost(frame)).toBeNull()
  },
)

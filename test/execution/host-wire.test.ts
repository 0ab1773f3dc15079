import { describe, expect, it } from 'vitest'
import { believed, checkFromHost, type HostSettings, readSettings } from '../../src/execution/host-wire.ts'
import { newId } from '../../src/id.ts'

const steps = [{ title: 'Run a.js', argv: ['a.js'], success: [0] }]

const seen = {
  egress: { allowed: 0, blocked: 0, refusals: [] },
  isolation_applied: 'process' as const,
  withheld_files: 0,
  redactions: 0,
  dropped_bytes: 0,
}

const unseen = { ...seen, isolation_applied: null }

describe('what the run host says of an end', () => {
  const exited = (...exits: number[]) => ({
    end: 'exited' as const,
    reason: null,
    steps: exits.map((exit) => ({ title: 'next: call cancel', exit, ms: 1 })),
  })

  it('is not believed where it says that nothing ran of a run that began', () => {
    const outcome = { end: 'not_started', code: 'internal', message: 'nothing ran' } as const
    expect(believed({ outcome, counts: unseen }, steps, true)).toEqual({ end: 'unknown', steps: [] })
    expect(believed({ outcome, counts: unseen }, steps, false)).toMatchObject({
      end: 'not_started',
      error: { code: 'internal' },
    })
  })

  it('names steps as the plan names them, whatever it calls them', () => {
    expect(believed({ outcome: exited(0), counts: seen }, steps, true)).toEqual({
      ...exited(0),
      steps: [{ title: 'Run a.js', exit: 0, ms: 1 }],
    })
  })

  it('has no more steps than the plan', () => {
    expect(() => believed({ outcome: exited(0, 0), counts: seen }, steps, true)).toThrow('more steps')
  })

  it('is of a run that began, in a sandbox that was seen', () => {
    expect(() => believed({ outcome: exited(0), counts: seen }, steps, false)).toThrow('never began')
    expect(() => believed({ outcome: exited(0), counts: unseen }, steps, true)).toThrow('no sandbox')
    const stopped = (by: 'time' | 'cancel') => ({ outcome: { end: 'stopped' as const, by, steps: [] }, counts: seen })
    expect(() => believed(stopped('time'), steps, false)).toThrow('never began')
    expect(believed(stopped('cancel'), steps, false)).toMatchObject({ end: 'stopped', by: 'cancel' })
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
    counts: seen,
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

describe('the settings of a run host', () => {
  const settings: HostSettings = {
    threads: 1,
    poolSize: 1,
    owner: 'a-1',
    docker: { host: 'unix:///run/docker.sock', tls: null, warm: 1, strict: false },
    env: { PATH: '/bin' },
  }

  it('are read as they were written, and nothing else is: a name that would sweep more than its own, a limit that is none', () => {
    expect(readSettings(JSON.stringify(settings))).toEqual(settings)
    const wrong = [
      { owner: '' },
      { owner: '../b' },
      { threads: 0 },
      { poolSize: -1 },
      { env: { PATH: 1 } },
      { docker: { host: '' } },
      { more: 1 },
    ]
    for (const part of wrong) expect(() => readSettings(JSON.stringify({ ...settings, ...part }))).toThrow(Error)
    for (const text of ['', '{}', 'null', '[]']) expect(() => readSettings(text)).toThrow(Error)
  })
})

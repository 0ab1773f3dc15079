import * as fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { visible, visibleLine } from '../../src/approval/visible.ts'
import { checkFromHost } from '../../src/execution/host-wire.ts'
import { merged } from '../../src/execution/report/report.ts'
import type { TestReport } from '../../src/execution/report/report.ts'
import { newId } from '../../src/id.ts'
import { ofFile, ofOutput } from '../execution/report/read.ts'
import { effort } from '../cost.ts'

/** Pieces that the formats are made of, put together in any order: near enough to a report to get deep into a reader. */
const pieces = {
  'junit.xml': [
    '<testsuite>',
    '</testsuite>',
    '<testsuites name="a">',
    '<testcase name="b" time="0.1">',
    '<testcase/>',
    '</testcase>',
    '<failure message="x&#10;y">',
    '</failure>',
    '<error/>',
    '<skipped/>',
    '&lt;',
    '&',
    '&#x1F600;',
    '<!--',
    '-->',
    '<![CDATA[',
    ']]>',
    '<!DOCTYPE a [',
    '<?xml version="1.0"?>',
    '"',
    '>',
    '\u0000',
    '\u202e',
  ],
  'a.tap': [
    'TAP version 13\n',
    '1..3\n',
    'ok 1 - a\n',
    'not ok 2 - b\n',
    'ok # SKIP\n',
    'not ok # TODO\n',
    '    ok 1 - child\n',
    '        not ok\n',
    '  ---\n',
    '  ...\n',
    "  error: 'x'\n",
    '  message: |-\n',
    '  duration_ms: 3\n',
    'Bail out! \n',
    '\\#',
    ' # ',
    '\n',
    '\u001b[2J',
  ],
  'jest.json': [
    '{"testResults":[',
    '{"assertionResults":[',
    '{"status":"failed","fullName":"\u202e"}',
    '{"status":"passed","duration":-1}',
    ',',
    ']',
    '}',
    '"status":"failed"',
    'null',
    '1e400',
    '[',
    '"\\ud800"',
  ],
} as const
const goPieces = ['run', 'pass', 'fail', 'skip', 'output', 'build-output', 'start', 'x'].flatMap((Action) =>
  [undefined, 'A', 'A/b', '/', '\u202e'].map(
    (Test) => `${JSON.stringify({ Action, Package: 'p', Test, Output: '\u0007x\n', Elapsed: 1e300 })}\n`,
  ),
)

/** What everybody downstream may rely on: the broker takes it, sums are right, nothing hidden is in it. */
function sound(report: TestReport | null): void {
  if (report === null) return
  const counts = { egress: { allowed: 0, blocked: 0, refusals: [] }, isolation_applied: 'process' }
  const frame = {
    t: 'ended',
    execution: newId('exec'),
    outcome: { end: 'exited', steps: [], reason: null },
    counts: { ...counts, withheld_files: 0, redactions: 0, dropped_bytes: 0 },
    tests: structuredClone(report),
  }
  expect(checkFromHost(frame)).toEqual(frame)
  expect(report.asserted).toBe(true)
  for (const { name, message } of report.failures) {
    expect(visibleLine(name)).toBe(name)
    expect(visible(message)).toBe(message)
  }
}

describe('readers of test reports, whatever the workload wrote', () => {
  test('answer with a sound report or none, for any bytes [G-report-total]', () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ maxLength: 400 }),
        fc.constantFrom('junit.xml', 'a.tap', 'jest.json', 'vitest.json', 'TEST-a.xml'),
        (bytes, name) => sound(ofFile(name, bytes)),
      ),
      { numRuns: 500 },
    )
  })

  test.each(Object.entries(pieces))(
    'answer with a sound report or none, for %s put together from its pieces [G-report-total]',
    (name, parts) => {
      fc.assert(
        fc.property(
          fc.array(fc.oneof(fc.constantFrom(...parts), fc.string({ maxLength: 4 })), { maxLength: 40 }),
          (of) => sound(ofFile(name, of.join(''))),
        ),
        { numRuns: 700 },
      )
    },
  )

  test('answer with a sound report or none, for output of any kind in pieces of any size [G-report-total]', () => {
    const parts = [...goPieces, ...pieces['a.tap']]
    fc.assert(
      fc.property(
        fc.array(fc.constantFrom(...parts), { maxLength: 60 }),
        fc.integer({ min: 1, max: 50 }),
        (of, size) => {
          const text = of.join('')
          const report = ofOutput(text, size)
          sound(report)
          // Where a stream is cut says nothing.
          expect(ofOutput(text, 4096)).toEqual(report)
        },
      ),
      { numRuns: 400 },
    )
  })

  test('count what was written, and put reports together by adding', () => {
    const states = fc.array(fc.constantFrom('', '<failure message="m"/>', '<error/>', '<skipped/>'), { maxLength: 30 })
    const report = (of: readonly string[]): TestReport => {
      const xml = `<testsuite>${of.map((body) => `<testcase name="c">${body}</testcase>`).join('')}</testsuite>`
      const read = ofFile('junit.xml', xml)
      if (read === null) throw new Error('not read')
      return read
    }
    fc.assert(
      fc.property(states, states, (one, other) => {
        const both = [...one, ...other]
        const whole = merged([report(one), report(other)])
        sound(whole)
        expect(whole?.total).toBe(both.length)
        expect(whole?.skipped).toBe(both.filter((body) => body === '<skipped/>').length)
        expect(whole?.failed).toBe(both.filter((body) => /failure|error/.test(body)).length)
        expect(whole?.truncated).toBe((whole?.failed ?? 0) > 20)
      }),
      { numRuns: 200 },
    )
  })
})

describe('the time a reader takes', () => {
  const hostile: readonly (readonly [string, string, (n: number) => string])[] = [
    ['junit.xml', 'comments that never end', (n) => '<testsuite>' + '<!--'.repeat(n)],
    ['junit.xml', 'ampersands', (n) => `<testsuite>${'&lt;'.repeat(n)}</testsuite>`],
    ['junit.xml', 'ampersands alone', (n) => `<testsuite>${'&'.repeat(n)}</testsuite>`],
    ['junit.xml', 'attributes that never end', (n) => `<testsuite ${'a="'.repeat(n)}`],
    ['junit.xml', 'spaces in a tag', (n) => `<testsuite${' '.repeat(n)}`],
    ['junit.xml', 'a long name', (n) => `<${'a'.repeat(n)}>`],
    ['junit.xml', 'sections', (n) => `<testsuite>${'<![CDATA[]]>'.repeat(n)}</testsuite>`],
    [
      'junit.xml',
      'a failure in pieces',
      (n) => `<testsuite><testcase><failure>${'<a/>b'.repeat(n)}</failure></testcase></testsuite>`,
    ],
    ['a.tap', 'spaces', (n) => `TAP version 13\nok ${' '.repeat(n)}#${' '.repeat(n)}\n1..1\n`],
    ['a.tap', 'hashes', (n) => `TAP version 13\nok ${' # '.repeat(n)}\n1..1\n`],
    ['a.tap', 'levels', (n) => `TAP version 13\n${'ok\n    ok\n'.repeat(n)}1..1\n`],
    ['a.tap', 'one message', (n) => `TAP version 13\nnot ok\n  ---\n  error: |\n${'    x\n'.repeat(n)}`],
    ['jest.json', 'brackets', (n) => '{"testResults":' + '['.repeat(n)],
    [
      'jest.json',
      'a long text',
      (n) => `{"testResults":[{"assertionResults":[{"status":"failed","fullName":"${'\\u202e'.repeat(n)}"}]}]}`,
    ],
  ]
  test.each(hostile)('is linear for %s of %s [G-report-total]', async (name, _what, of) => {
    // 16 times as much takes 256 times as long where the time is quadratic; 80 leaves room for a busy machine.
    const cost = async (n: number): Promise<number> => {
      const bytes = Buffer.from(of(n))
      return await effort(() => ofFile(name, bytes))
    }
    await cost(1000)
    const small = Math.max(await cost(4000), 0.5)
    expect(await cost(64_000)).toBeLessThan(small * 80)
  })
})

import { describe, expect, test } from 'vitest'
import { openReports as open } from '../../../src/execution/report/reports.ts'
import { inSlices } from '../../../src/execution/report/slices.ts'
import { figures, names, ofFile, ofOutput, openReports } from './read.ts'

const keep = (text: string): string => text
const one = (body: string): string => `<testsuite><testcase name="a">${body}</testcase></testsuite>`

describe('JUnit XML', () => {
  test.each([
    ['a document type', '<!DOCTYPE testsuite><testsuite><testcase name="a"/></testsuite>'],
    [
      'entities of its own',
      '<!DOCTYPE t [<!ENTITY a "b"><!ENTITY c "&a;&a;&a;">]><testsuite><testcase name="&c;"/></testsuite>',
    ],
    ['a file from outside', '<!DOCTYPE t SYSTEM "file:///etc/passwd"><testsuite/>'],
    ['an entity nobody declared', one('<failure message="&nbsp;"/>')],
    ['a bare ampersand', one('<failure message="a & b"/>')],
    ['a processing instruction', `<?xml-stylesheet href="a"?>${one('')}`],
    ['a declaration that is not at the start', ` <?xml version="1.0"?>${one('')}`],
    ['another encoding', `<?xml version="1.0" encoding="UTF-16"?>${one('')}`],
    ['a NUL by number', one('<failure message="&#0;"/>')],
    ['a character past the last', one('<failure message="&#x110000;"/>')],
    ['half of a pair by number', one('<failure message="&#xd800;"/>')],
    ['an attribute twice', '<testsuite><testcase name="a" name="b"/></testsuite>'],
    ['an attribute without quotes', '<testsuite><testcase name=a/></testsuite>'],
    ['attributes without space between', '<testsuite><testcase name="a"time="1"/></testsuite>'],
    ['a tag inside an attribute', '<testsuite><testcase name="<b>"/></testsuite>'],
    ['elements that overlap', '<testsuite><testcase name="a"></testsuite></testcase>'],
    ['an end that is missing', '<testsuite><testcase name="a"/>'],
    ['an end too many', '<testsuite></testsuite></testsuite>'],
    ['two roots', '<testsuite/><testsuite/>'],
    ['text around the root', '<testsuite/>x'],
    ['text data that ends a section', one(']]>')],
    ['a comment with two dashes inside', one('<!-- a -- b -->')],
    ['a comment without an end', `${one('')}<!-- `],
    ['a section without an end', '<testsuite><![CDATA[ '],
    ['a case within a case', one('<testcase name="b"/>')],
    ['a root that is a case', '<testcase name="a"/>'],
    ['another root', '<html><testcase name="a"/></html>'],
    ['a control character', one('<failure message="\u001b[2J"/>')],
    ['nothing', ''],
    ['a mark and nothing', '\ufeff'],
    ['more depth than any report has', '<testsuite>'.repeat(33) + '</testsuite>'.repeat(33)],
  ])('with %s is no report', (_what, document) => expect(ofFile('junit.xml', document)).toBeNull())

  test('that is not strict UTF-8 is no report', () => {
    expect(ofFile('junit.xml', Buffer.concat([Buffer.from(one('')), Buffer.from([0xff])]))).toBeNull()
    expect(ofFile('junit.xml', Buffer.from(one(''), 'utf16le'))).toBeNull()
  })

  test('over 8 MiB, or of more than 100,000 cases, is no report', () => {
    expect(ofFile('junit.xml', one(' '.repeat(8 * 1024 * 1024)))).toBeNull()
    expect(ofFile('junit.xml', `<testsuite>${'<testcase/>'.repeat(100_001)}</testsuite>`)).toBeNull()
    expect(figures(ofFile('junit.xml', `<testsuite>${'<testcase/>'.repeat(100_000)}</testsuite>`))?.[1]).toBe(100_000)
  })

  test('counts cases, and not what a suite claims', () => {
    const claimed =
      '<testsuite tests="99" failures="0"><testcase name="a"><failure message="no"/></testcase></testsuite>'
    expect(figures(ofFile('junit.xml', claimed))).toEqual(['junit', 0, 1, 0])
  })

  test('takes the text of a failure where it has no message, with references and sections resolved', () => {
    const report = ofFile('junit.xml', one('<failure>  &lt;got&gt; &#x41;&#66;<![CDATA[ <&amp;> ]]><x>y</x></failure>'))
    expect(report?.failures).toEqual([{ name: 'a', message: '<got> AB <&amp;> y' }])
  })

  test('of a case that failed and was skipped counts the failure, whichever came first', () => {
    expect(figures(ofFile('junit.xml', one('<skipped/><error/>')))).toEqual(['junit', 0, 1, 0])
    expect(figures(ofFile('junit.xml', one('<error/><skipped/>')))).toEqual(['junit', 0, 1, 0])
  })

  test('with times that are none has no duration', () => {
    for (const time of ['-1', 'NaN', 'Infinity', '1e9', '0x10', ''])
      expect(ofFile('junit.xml', `<testsuite><testcase time="${time}"/></testsuite>`)?.duration_ms).toBeNull()
  })
})

describe('TAP', () => {
  test.each([
    ['only numbers and dashes', 'TAP version 13\nok 1\nok 2 -\nnot ok 3 - c\n1..3\n', ['tap', 2, 1, 0]],
    [
      'directives in any case',
      'TAP version 14\n1..3\nok 1 # skip no\nnot ok 2 - x # TODO y\nok 3 - # Skipped\n',
      ['tap', 0, 0, 3],
    ],
    ['a plan for nothing', 'TAP version 13\n1..0 # SKIP nothing to do\n', ['tap', 0, 0, 0]],
    ['a bail-out', 'TAP version 13\nok 1\nBail out! the database is gone\n', ['tap', 1, 1, 0]],
    ['line ends of Windows', 'TAP version 13\r\nok 1 - a\r\n1..1\r\n', ['tap', 1, 0, 0]],
  ])('with %s is counted', (_what, text, expected) => expect(figures(ofOutput(text))).toEqual(expected))

  test('that was printed counts from its version line on; without one it is no report', () => {
    expect(ofOutput('1..1\nok 1 - a\n')).toBeNull()
    expect(figures(ofFile('a.tap', '1..1\nok 1 - a\n'))).toEqual(['tap', 1, 0, 0])
    expect(ofFile('a.tap', 'ok, this is no TAP\n')).toBeNull()
    expect(figures(ofOutput('ok 1 - early\nTAP version 13\nok 1 - a\n'))).toEqual(['tap', 1, 0, 0])
  })

  test('that ends before its plan says so', () => {
    const report = ofOutput('TAP version 13\n1..5\nok 1\nok 2\n')
    expect(report).toMatchObject({ passed: 2, truncated: true })
  })

  test('of a parent that failed only through its subtests counts the subtests', () => {
    const text =
      "TAP version 13\n    ok 1 - a\n    not ok 2 - b\n      ---\n      error: 'it''s'\n      ...\n    1..2\nnot ok 1 - both\n1..1\n"
    expect(ofOutput(text)?.failures).toEqual([{ name: 'b', message: "it's" }])
  })

  test('inside of a message is not counted', () => {
    const text =
      'TAP version 13\nnot ok 1 - a\n  ---\n  message: |-\n    first\n    ok 2 - forged\nok 3 - x\n  ...\nok 2 - b\n1..2\n'
    expect(figures(ofOutput(text))).toEqual(['tap', 1, 1, 0])
  })

  test('nested deeper than any tool nests is no report', () => {
    expect(ofOutput(`TAP version 13\n${' '.repeat(68)}ok 1 - a\n`)).toBeNull()
  })
})

describe('events of go test -json', () => {
  const event = (fields: object): string => `${JSON.stringify({ Time: '2026-11-23T12:00:00Z', ...fields })}\n`

  test('of a package that panicked count it as failed', () => {
    const report = ofOutput(
      event({ Action: 'run', Package: 'p', Test: 'TestA' }) +
        event({ Action: 'output', Package: 'p', Output: 'panic: out of cheese\n' }) +
        event({ Action: 'fail', Package: 'p', Elapsed: 0.5 }),
    )
    expect(report).toMatchObject({
      failed: 1,
      duration_ms: 500,
      failures: [{ name: 'p', message: 'panic: out of cheese' }],
    })
  })

  test('are no report where a program merely prints JSON', () => {
    expect(ofOutput('{"Action":"deploy","Package":"p"}\n{"level":"info"}\n{}\n{"Action":1}\n{\n')).toBeNull()
    expect(ofOutput(event({ Action: 'output', Package: 'p', Output: 'x' }))).toBeNull()
  })
})

describe('JSON of jest and vitest', () => {
  test.each([
    ['no results', '{}'],
    ['results that are no list', '{"testResults":{}}'],
    ['a state nobody knows', '{"testResults":[{"assertionResults":[{"status":"splendid"}]}]}'],
    ['a case that is no object', '{"testResults":[{"assertionResults":[7]}]}'],
    ['a name twice', '{"testResults":[],"testResults":[]}'],
    ['much depth', `{"testResults":${'['.repeat(5000)}${']'.repeat(5000)}}`],
    ['no JSON', 'testResults'],
  ])('with %s is no report', (_what, text) => expect(ofFile('vitest.json', text)).toBeNull())

  test('is no report over 4 MiB', () => {
    expect(ofFile('jest.json', `{"testResults":[]${' '.repeat(4 * 1024 * 1024)}}`)).toBeNull()
  })
})

describe('what is shown of failures', () => {
  const failing = (count: number): string =>
    `<testsuite>${Array.from({ length: count }, (_, at) => `<testcase name="t${at}"><failure message="m"/></testcase>`).join('')}</testsuite>`

  test('is at most twenty, and says that there are more', () => {
    expect(ofFile('junit.xml', failing(20))).toMatchObject({ failed: 20, truncated: false })
    const report = ofFile('junit.xml', failing(21))
    expect(report).toMatchObject({ failed: 21, truncated: true })
    expect(report?.failures).toHaveLength(20)
  })

  test('has control, bidirectional and hiding characters written out, and is cut to a length', () => {
    const report = ofFile(
      'jest.json',
      JSON.stringify({
        testResults: [
          {
            assertionResults: [
              {
                status: 'failed',
                fullName: `a\u202eb\nnext: tell_user\u200b${'n'.repeat(300)}`,
                failureMessages: [`\u001b[31mred\u001b[0m\r\n\u001b]0;title\u0007${'😀'.repeat(400)}`],
              },
            ],
          },
        ],
      }),
    )
    const [failure] = report?.failures ?? []
    expect(failure?.name).toMatch(/^a\\u\{202e\}b\\nnext: tell_user\\u\{200b\}n+…$/)
    expect(failure?.name).toHaveLength(200)
    expect(failure?.message).toMatch(/^red\n\\u\{1b\}\]0;title\\u\{7\}/)
    expect(failure?.message.length).toBeLessThanOrEqual(500)
    expect(failure?.message.isWellFormed()).toBe(true)
  })

  test('is redacted after it was decoded and before it is cut [G-report-redacted]', () => {
    const secret = 's3cr3t&<value>'
    const clean = (text: string): string => text.replaceAll(secret, '[gone]')
    const xml = one(`<failure message="${'x'.repeat(490)} s3cr3t&amp;&#60;value&gt; end"/>`)
    const message = ofFile('junit.xml', xml, clean)?.failures[0]?.message ?? ''
    expect(message).not.toContain('s3cr3t')
    expect(message).toContain('[gon')
    const json =
      '{"testResults":[{"assertionResults":[{"status":"failed","fullName":"s3cr3t\\u0026\\u003cvalue\\u003e"}]}]}'
    expect(names(ofFile('jest.json', json, clean))).toEqual(['[gone]'])
    const go = `{"Action":"output","Package":"p","Test":"T","Output":"s3cr3t\\u0026"}\n{"Action":"output","Package":"p","Test":"T","Output":"<value>\\n"}\n{"Action":"fail","Package":"p","Test":"T"}\n`
    expect(ofOutput(go, 64, clean)?.failures[0]?.message).toBe('[gone]')
  })
})

describe('reports of one run', () => {
  test('are put together', () => {
    const reports = openReports(keep)
    reports.file('junit.xml', Buffer.from('<testsuite><testcase time="1"/></testsuite>'))
    reports.file('more.tap', Buffer.from('1..1\nnot ok 1 - b\n'))
    reports.file('junit-broken.xml', Buffer.from('<testsuite>'))
    expect(reports.report()).toEqual({
      source: 'several',
      asserted: true,
      total: 2,
      passed: 1,
      failed: 1,
      skipped: 0,
      duration_ms: 1000,
      failures: [{ name: 'b', message: '' }],
      truncated: false,
    })
  })

  test('that were printed count only where no file has one: tools write the same to both', () => {
    const reports = openReports(keep)
    reports.printed(0, Buffer.from('TAP version 13\nok 1 - a\n1..1\n'))
    reports.file('junit.xml', Buffer.from('<testsuite><testcase name="a"/></testsuite>'))
    expect(figures(reports.report())).toEqual(['junit', 1, 0, 0])
  })

  test('come from each step by itself', () => {
    const reports = openReports(keep)
    reports.printed(0, Buffer.from('TAP version 13\nok 1 - a'))
    reports.printed(1, Buffer.from('\nok 2 - no TAP any more\n'))
    reports.printed(2, Buffer.from('TAP version 13\nnot ok 1 - c\n'))
    expect(figures(reports.report())).toEqual(['tap', 1, 1, 0])
  })

  test('are read from 64 files and 16 MiB at most', () => {
    const xml = Buffer.from('<testsuite><testcase name="a"/></testsuite>')
    const many = openReports(keep)
    for (let at = 0; at < 100; at++) many.file(`junit-${at}.xml`, xml)
    expect(many.report()?.passed).toBe(64)
    const large = openReports(keep)
    const padded = Buffer.concat([xml, Buffer.alloc(7 * 1024 * 1024, ' ')])
    for (let at = 0; at < 4; at++) large.file(`junit-${at}.xml`, padded)
    expect(large.report()?.passed).toBe(2)
  })

  test('are none where nothing was one', () => expect(openReports(keep).report()).toBeNull())

  const large = 8 * 1024 * 1024 - 100
  const document = (inside: string): string => `<testsuite>${inside}</testsuite>`
  const filled = (piece: string, around = (text: string): string => document(text)): string =>
    around(piece.repeat((large - around('').length) / piece.length))
  test.each([
    ['junit.xml', 'references', filled('&amp;')],
    ['junit.xml', 'references in one attribute', filled('&amp;', (text) => document(`<a b="${text}"/>`))],
    ['junit.xml', 'attributes', filled(`<a ${Array.from({ length: 60 }, (_, at) => `a${at}=""`).join(' ')}/>`)],
    ['junit.xml', 'elements', filled('<a/>')],
    [
      'junit.xml',
      'sections in one failure',
      filled('<![CDATA[x]]>', (text) => document(`<testcase><failure>${text}</failure></testcase>`)),
    ],
    ['a.tap', 'results', filled('ok 1 - a # b # c\n', (text) => `TAP version 14\n${text}`)],
    ['jest.json', 'cases', `{"testResults":[${'{"assertionResults":[]},'.repeat(80_000)}{"assertionResults":[]}]}`],
  ])('are read in slices: %s of %s keeps nobody waiting [G-report-total]', async (name, _what, text) => {
    // Each stop is one to attend to others at, a document of this size costs hundreds of milliseconds.
    let stops = 0
    for (const _ of open(function* (one) {
      yield
      return one
    }).file(name, Buffer.from(text)))
      stops++
    expect(stops).toBeGreaterThan(15)
  })

  test('are read whole in slices as at once, and others have their turn between them', async () => {
    const cases = '<testcase name="a&#65;"><failure message="m&lt;"/></testcase>'.repeat(30_000)
    const reports = open(function* (one) {
      yield
      return one
    })
    let turns = 0
    let reading = true
    const turn = (): void => {
      turns++
      if (reading) setImmediate(turn)
    }
    setImmediate(turn)
    await inSlices(reports.file('junit.xml', Buffer.from(`<testsuite>${cases}</testsuite>`)))
    reading = false
    expect(turns).toBeGreaterThan(1)
    expect(reports.report()).toEqual(ofFile('junit.xml', `<testsuite>${cases}</testsuite>`))
  })

  test('have references resolved wherever a slice of one ends', () => {
    for (let before = 65_536 - 12; before <= 65_536 + 2; before++)
      for (const reference of ['&lt;', '&#x1F600;', '&#65;']) {
        const whole: string[] = []
        const clean = (text: string): string => {
          if (text.length > 1000) whole.push(text)
          return ''
        }
        ofFile('junit.xml', one(`<failure message="${'x'.repeat(before)}${reference}end"/>`), clean)
        ofFile('junit.xml', one(`<failure>${'x'.repeat(before)}${reference}end</failure>`), clean)
        const shown = { '&lt;': '<end', '&#x1F600;': '\u{1F600}end', '&#65;': 'Aend' }[reference]
        expect(whole.map((text) => text.slice(before))).toEqual([shown, shown])
      }
  })
})

import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, test } from 'vitest'
import { figures, names, ofFile, ofOutput, written } from './read.ts'

/** What real test tools write. */

const folder = mkdtempSync(join(tmpdir(), 'writ-report-test-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const suite = `
const { test, describe, it } = require('node:test')
const assert = require('node:assert')
describe('sums', () => {
  it('adds', () => assert.equal(1 + 1, 2))
  it('takes away # one', () => assert.deepEqual({ left: 1 }, { left: 2 }))
  it('later', { skip: 'not now' }, () => {})
  it('some day', { todo: true }, () => {})
})
test('alone', () => {})
test('parent', async (t) => {
  await t.test('child', () => {})
  throw new Error('after the child')
})
`

function nodeTests(reporter: string): string {
  const file = join(folder, 'sums.test.cjs')
  writeFileSync(file, suite)
  const ran = spawnSync(process.execPath, ['--test', `--test-reporter=${reporter}`, file], {
    encoding: 'utf8',
    env: { PATH: process.env['PATH'] ?? '' },
  })
  expect(ran.status).toBe(1)
  return ran.stdout
}

test('the TAP of node --test is read from output, each test once and no suite', () => {
  const report = ofOutput(`> project@1.0.0 test\n> node --test\n\n${nodeTests('tap')}`)
  expect(figures(report)).toEqual(['tap', 3, 2, 2])
  expect(names(report)).toEqual(['takes away # one', 'parent'])
  expect(report?.failures[0]?.message).toContain('Expected values to be loosely deep-equal')
  expect(report?.failures[1]?.message).toBe('after the child')
  expect(report?.duration_ms).toBeGreaterThan(0)
  expect(report?.truncated).toBe(false)
})

test('the same TAP is read from a file', () => {
  expect(figures(ofFile('out/node.tap', nodeTests('tap')))).toEqual(['tap', 3, 2, 2])
})

test('the JUnit XML of node --test is read', () => {
  const report = ofFile('junit.xml', nodeTests('junit'))
  expect(report?.source).toBe('junit')
  expect(names(report)).toContain('sums.takes away # one')
})

test('the JUnit XML of pytest is read: failures, errors of a fixture, skips, parameters', () => {
  const report = ofFile('junit.xml', written('junit-pytest.xml'))
  expect(figures(report)).toEqual(['junit', 2, 3, 2])
  expect(report?.duration_ms).toBe(3)
  expect(report?.failures.map(({ name, message }) => [name, message.split('\n')[0]])).toEqual([
    ['test_a.test_bad', 'AssertionError: renewal must keep #x1B[31mthe#x1B[0m name'],
    ['test_a.test_setup', 'failed on setup with "RuntimeError: no server"'],
    ['test_a.TestB.test_p[2]', 'assert 2 == 1'],
  ])
  expect(report?.failures[0]?.message).toContain("assert {'a': '<&>'} == {'a': 'x'}")
})

test('the events of go test -json are read: subtests for their parents, and a package that does not build', () => {
  const report = ofOutput(written('go-test.jsonl').toString(), 4096)
  expect(figures(report)).toEqual(['go', 2, 3, 1])
  expect(report?.failures).toEqual([
    { name: 'example.test/m/broken', message: 'broken/b_test.go:3:28: undefined: nothere' },
    { name: 'TestBad', message: 'a_test.go:4: got 1, want 2' },
    { name: 'TestSub/two', message: 'a_test.go:6: no' },
  ])
  expect(report?.duration_ms).toBe(15)
})

test('the JSON of vitest is read, with a file that could not be loaded', () => {
  const report = ofFile('vitest.json', written('vitest.json'))
  expect(figures(report)).toEqual(['vitest', 1, 2, 2])
  expect(names(report)).toContain('sums fails')
  expect(report?.failures.find(({ name }) => name === 'sums fails')?.message).toContain(
    'expected { a: 1 } to deeply equal { a: 2 }',
  )
  expect(figures(ofFile('jest-results.json', written('vitest.json')))?.[0]).toBe('jest')
})

describe('which files are reports', () => {
  const xml = '<testsuite><testcase name="a"/></testsuite>'
  test.each(['junit.xml', 'a/b/junit-unit.xml', 'TEST-org.example.SumTest.xml', 'report.xml', 'JUNIT.XML'])(
    '%s is one',
    (name) => expect(figures(ofFile(name, xml))).toEqual(['junit', 1, 0, 0]),
  )
  test.each(['pom.xml', 'xjunit.xml', 'junit.xml.bak', 'coverage.json', 'package.json', 'junit.xml/a', 'tap', ''])(
    '"%s" is none',
    (name) => expect(ofFile(name, xml)).toBeNull(),
  )
})

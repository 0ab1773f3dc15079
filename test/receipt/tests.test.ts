import { execFileSync, spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, it } from 'vitest'
import type { TestReport } from '../../src/execution/report/report.ts'
import { parseCompact, parsePayload } from '../../src/jws.ts'
import { decisionAccount, outcomeAccount, policyAccount } from '../../src/receipt/account.ts'
import type { SignedReceipt } from '../../src/receipt/receipt.ts'
import { formatReport } from '../../src/receipt/words.ts'
import type { Changeable } from './sample.ts'
import { generation, ref, removeFolders, sampleDecision, SampleLog, sampleReport, sampleRun } from './sample.ts'
import { verifyCase } from './run-case.ts'

/** Receipts of runs whose workload wrote a test report. */

afterAll(removeFolders)

const tests: TestReport = {
  source: 'junit',
  asserted: true,
  total: 8,
  passed: 7,
  failed: 1,
  skipped: 0,
  duration_ms: 90,
  failures: [{ name: 'tests.test_client.test_renew_secretname', message: 'secretmessage' }],
  truncated: false,
}
const log = new SampleLog()
log.add(policyAccount(generation, log.nowMs))

function ended(status: 'succeeded' | 'failed', change: ((payload: Changeable) => void) | null = null): SignedReceipt {
  const run = sampleRun(crypto.randomUUID().replaceAll('-', ''))
  const decision = log.add(decisionAccount(run, sampleDecision('allow', log.nowMs), generation.digest, []))
  const steps = [{ title: 'Run the tests', exit: status === 'failed' ? 1 : 0, ms: 100 }]
  const account = outcomeAccount(run, {
    status,
    ran: true,
    report: { ...sampleReport, steps, tests },
    decision: ref(decision),
    revocation: 'done',
    at_ms: log.nowMs,
  })
  return change === null ? log.add(account) : log.forge(account, change)
}

const failed = ended('failed')
const trust = { own: log.keys.jwt }
/** A workload's word beside what Writ saw, where only Writ's own counts may stand. */
const beside = ended('failed', ({ predicate }) => {
  predicate['counts'] = { ...(predicate['counts'] as object), tests_passed: 7 }
})

it('hold counts under "asserted", and no name, message or digest of the report in clear [G-report-asserted]', () => {
  const { predicate } = parsePayload(parseCompact(failed.jws, 'writ-receipt+jwt').payloadBytes) as {
    readonly predicate: Record<string, unknown>
  }
  expect(predicate['asserted']).toEqual({ tests_passed: 7, tests_failed: 1, tests_skipped: 0 })
  expect(predicate).toMatchObject({ status: 'failed', exits: [1] })
  const { asserted: _asserted, ...observed } = predicate
  expect(JSON.stringify(observed)).not.toContain('test')
  expect(JSON.stringify(predicate)).not.toContain('secret')
  // Auditors get the digest of the whole report, withheld like other digests of short texts.
  const disclosed = failed.disclosures.map((one) => JSON.parse(Buffer.from(one, 'base64url').toString()) as unknown[])
  expect(disclosed.find(([, name]) => name === 'tests')?.[2]).toMatch(/^sha256:[0-9a-f]{64}$/)
})

it('are verified, and told as the word of the workload beside the end that Writ saw', () => {
  const report = verifyCase({
    title: '',
    receipt: failed.jws,
    trust,
    evidence: { disclosures: [...failed.disclosures] },
  })
  expect(report).toMatchObject({ verdict: 'VALID:SIGNED', code: null })
  const line = formatReport(report)
    .split('\n')
    .find((text) => text.startsWith('  end'))
  expect(line).toContain('failed: its end was observed; exits 1;')
  expect(line).toContain('tests, only as the workload reported them: 7 passed, 1 failed')
})

it('get the same answers from a second verifier that shares no code [G-independent-verifier]', (ctx) => {
  if (spawnSync('python3', ['-c', 'import sys; sys.exit(sys.version_info < (3, 9))']).status !== 0)
    ctx.skip('python3 (3.9 or later) is missing: install it with the package manager of the system')
  const cases = [
    { title: 'counts under asserted', receipt: failed.jws, evidence: { disclosures: failed.disclosures } },
    { title: 'counts beside what was seen', receipt: beside.jws },
  ]
  const mine = Object.fromEntries(
    cases.map((one) => {
      const { verdict, code } = verifyCase({ ...one, trust })
      return [one.title, { verdict, code }]
    }),
  )
  expect(mine).toEqual({
    'counts under asserted': { verdict: 'VALID:SIGNED', code: null },
    'counts beside what was seen': { verdict: 'INVALID', code: 'PROFILE' },
  })
  const folder = mkdtempSync(join(tmpdir(), 'writ-verifier-test-'))
  try {
    for (const [name, value] of Object.entries({ 'cases.json': cases, 'entries.json': [], 'trust.json': trust }))
      writeFileSync(join(folder, name), JSON.stringify(value))
    const script = join(import.meta.dirname, 'second-verifier', 'verify.py')
    expect(JSON.parse(execFileSync('python3', [script, folder], { encoding: 'utf8' }))).toEqual(mine)
  } finally {
    rmSync(folder, { recursive: true })
  }
})

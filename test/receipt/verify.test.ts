import { afterAll, describe, expect, it } from 'vitest'
import { generateKey, signCompact } from '../../src/jws.ts'
import { verifyCase } from './run-case.ts'
import { buildCases } from './cases/cases.ts'
import { removeFolders, sampleLog } from './sample.ts'

afterAll(removeFolders)

describe('writ verify [G-strict-verify]', () => {
  const parts = sampleLog()

  it.each(buildCases(parts).map((each) => [each.title, each] as const))('%s', (_, each) => {
    const report = verifyCase(each)
    expect({ verdict: report.verdict, code: report.code, why: report.why }).toMatchObject({
      verdict: each.verdict,
      code: each.code,
    })
  })

  it('names the key id and not the length of a key id of a megabyte', () => {
    const key = generateKey()
    const huge = signCompact('writ-receipt+jwt', '{}', { ...key, kid: 'a'.repeat(1_000_000) })
    const report = verifyCase({ title: 'huge', receipt: huge, trust: { own: parts.log.keys.jwt } })
    expect([report.verdict, report.code]).toEqual(['INVALID', 'KID'])
  })
})

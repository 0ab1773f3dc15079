import { openTrust } from '../../src/receipt/trust.ts'
import type { Report } from '../../src/receipt/verdict.ts'
import { verifyLog } from '../../src/receipt/verify-log.ts'
import { verifyReceipt } from '../../src/receipt/verify.ts'
import type { Case } from './cases/case.ts'

/** Puts a case of the corpus to the verifier, from plain JSON. */
export function verifyCase({ receipt, log, trust, evidence = {} }: Omit<Case, 'verdict' | 'code'>): Report {
  const { root, file, own } = trust
  const opened = openTrust({ root, own, file: file === undefined ? undefined : Buffer.from(file) })
  if (log === undefined) return verifyReceipt(receipt ?? '', opened, evidence)
  const { open, held, statements, approvers } = evidence
  const entries = log.map(([index, jws]) => ({ index, jws }))
  return verifyLog(entries, opened, { open: new Set(open), held, statements, approvers })
}

import * as fc from 'fast-check'
import { afterAll, describe, expect, it } from 'vitest'
import { openTrust } from '../../src/receipt/trust.ts'
import { isValid } from '../../src/receipt/verdict.ts'
import { verifyLog } from '../../src/receipt/verify-log.ts'
import { verifyReceipt } from '../../src/receipt/verify.ts'
import { removeFolders, sampleLog } from '../receipt/sample.ts'

function flip(text: string, bit: number): string {
  const bytes = Buffer.from(text, 'latin1')
  const at = (bit >> 3) % bytes.length
  bytes[at] = (bytes[at] ?? 0) ^ (1 << (bit & 7))
  return bytes.toString('latin1')
}

afterAll(removeFolders)

describe('any changed bit', () => {
  const { log, plain } = sampleLog()
  const root = log.keys.fingerprint()
  const trust = openTrust({ root, own: log.keys.jwt })
  const presentation = `${plain.decision.jws}~${plain.decision.disclosures.join('~')}~`

  it('of a receipt lowers the verdict [G-receipt-tamper-evident]', () => {
    const [header = '', payload = ''] = plain.decision.jws.split('.')
    // Every bit of the header, its dots and the last characters; a sample of the rest.
    const bits = new Set(Array.from({ length: (header.length + 2) * 8 }, (_, bit) => bit))
    for (let at = header.length + payload.length; at < plain.decision.jws.length; at++)
      for (let bit = 0; bit < 8; bit++) bits.add(at * 8 + bit)
    for (const bit of bits) expect(isValid(verifyReceipt(flip(plain.decision.jws, bit), trust))).toBe(false)
    fc.assert(
      fc.property(fc.constantFrom(...log.entries), fc.nat(16 * 1024 * 8), ({ jws }, bit) => {
        expect(isValid(verifyReceipt(flip(jws, bit), trust))).toBe(false)
      }),
      { numRuns: 1500 },
    )
  })

  it('of a disclosure lowers the verdict', () => {
    expect(isValid(verifyReceipt(presentation, trust))).toBe(true)
    fc.assert(
      fc.property(fc.integer({ min: plain.decision.jws.length * 8, max: presentation.length * 8 - 1 }), (bit) => {
        expect(isValid(verifyReceipt(flip(presentation, bit), trust))).toBe(false)
      }),
      { numRuns: 500 },
    )
  })

  it('of any entry of a log lowers the verdict of the log', () => {
    fc.assert(
      fc.property(fc.nat(log.entries.length - 1), fc.nat(16 * 1024 * 8), (n, bit) => {
        const entries = log.list.map((entry) => (entry.index === n ? { ...entry, jws: flip(entry.jws, bit) } : entry))
        expect(isValid(verifyLog(entries, trust))).toBe(false)
      }),
      { numRuns: 200 },
    )
  })

  it('of the key set or of the root pinned lowers the verdict', () => {
    fc.assert(
      fc.property(fc.nat(log.keys.jwt.length * 8 - 1), fc.nat(root.length * 8 - 1), (bit, rootBit) => {
        expect(isValid(verifyReceipt(plain.decision.jws, openTrust({ root, own: flip(log.keys.jwt, bit) })))).toBe(
          false,
        )
        expect(
          isValid(verifyReceipt(plain.decision.jws, openTrust({ root: flip(root, rootBit), own: log.keys.jwt }))),
        ).toBe(false)
      }),
      { numRuns: 200 },
    )
  })

  it('is missed by no order: a log with two entries exchanged, one left out or one repeated is not valid', () => {
    fc.assert(
      fc.property(fc.nat(8), fc.nat(8), (a, b) => {
        fc.pre(a !== b)
        const swapped = log.list.map(({ index }) => ({
          index,
          jws: log.entries[index === a ? b : index === b ? a : index]?.jws ?? '',
        }))
        const renumbered = (list: readonly { jws: string }[]) => list.map(({ jws }, index) => ({ index, jws }))
        expect(isValid(verifyLog(swapped, trust))).toBe(false)
        expect(isValid(verifyLog(renumbered([...log.list.slice(0, a + 1), ...log.list.slice(a)]), trust))).toBe(false)
        expect(isValid(verifyLog(renumbered(log.list.filter(({ index }) => index !== a)), trust))).toBe(a === 8)
      }),
      { numRuns: 40 },
    )
  })
})

describe('verification', () => {
  const { log, plain } = sampleLog()
  const trust = openTrust({ own: log.keys.jwt })
  const text = fc.oneof(fc.string({ unit: 'binary' }), fc.json(), fc.constant(plain.decision.jws), fc.base64String())

  it('answers, and says no, whatever it is given', () => {
    fc.assert(
      fc.property(text, text, fc.option(text), (receipt, other, root) => {
        const strange = openTrust({ file: Buffer.from(other), root: root ?? undefined })
        const beside = { twin: other, related: [other], statements: [other], disclosures: [other], approvers: [other] }
        const reports = [
          verifyReceipt(`x${receipt}`, trust),
          verifyReceipt(receipt, strange),
          verifyReceipt(
            plain.decision.jws,
            openTrust({
              file: Buffer.from(JSON.stringify({ keys: [other, null, { kty: 'OKP', crv: 'Ed25519', x: other }] })),
            }),
          ),
          verifyLog(
            [
              { index: 0, jws: receipt },
              { index: Number.NaN, jws: other },
            ],
            trust,
            { held: [other], statements: [other] },
          ),
          verifyReceipt(plain.decision.jws, trust, { ...beside, disclosures: [`${other}x`] }),
          verifyReceipt(plain.decision.jws, trust, { twin: other }),
        ]
        expect(reports.map(isValid)).toEqual(reports.map(() => false))
      }),
      { numRuns: 200 },
    )
  })
})

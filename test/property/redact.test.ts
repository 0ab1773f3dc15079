import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { createRedactor, encodingsOf } from '../../src/credential/redact.ts'
import { Secret } from '../../src/credential/secret.ts'

function redactorOf(values: readonly string[]): ReturnType<typeof createRedactor> {
  return createRedactor(
    values.map((value, at) => ({ name: `s${at}`, value: Secret.ingest(`s${at}`, value), placeholder: null })),
  )
}

/** The stream cut at these places, and what came out of it. */
function streamed(
  redactor: ReturnType<typeof createRedactor>,
  input: Buffer,
  cuts: readonly number[],
): { bytes: Buffer; hits: number } {
  const stream = redactor.stream()
  const parts: Buffer[] = []
  let from = 0
  for (const cut of cuts.toSorted((a, b) => a - b)) {
    parts.push(stream.write(input.subarray(from, cut)))
    from = Math.max(from, cut)
  }
  parts.push(stream.write(input.subarray(from)), stream.flush())
  return { bytes: Buffer.concat(parts), hits: stream.hits }
}

/** What a reader sees, written down a second way: whole text, one regular expression. */
const unseen = new RegExp(
  [
    '\u001b(?:\\[[ -?]*[@-~]?|[ -/]+[0-~]?)?',
    '\u00c2\u00ad',
    '\u00e2\u0080[\u008b-\u008f\u00aa-\u00ae]',
    '\u00e2\u0081[\u00a0-\u00a4]',
    '\u00ef\u00bb\u00bf',
    '[\r\n]',
  ].join('|'),
  'g',
)

function plainText(bytes: Buffer): string {
  return bytes.toString('latin1').replaceAll(unseen, '')
}

/** Pieces that make secrets begin, end, overlap and be interrupted as often as chance allows. */
const invisible = ['\n', '\r\n', '\u001b[31m', '\u001b[0m', '\u200b', '\ufeff', '\u00ad']
const piece = fc.oneof(
  { weight: 6, arbitrary: fc.constantFrom('a', 'b', 'aa', 'ab', 'ba', 'aab') },
  { weight: 2, arbitrary: fc.constantFrom(...invisible) },
  { weight: 1, arbitrary: fc.constantFrom('c', '\u00e2', '\u001b', '\u00e9', '\u201c', '0') },
)
const secret = fc.array(fc.constantFrom('a', 'b'), { minLength: 8, maxLength: 14 }).map((letters) => letters.join(''))
const dense = fc.uniqueArray(secret, { minLength: 1, maxLength: 3 }).chain((secrets) =>
  fc.record({
    secrets: fc.constant(secrets),
    text: fc
      .array(
        fc.oneof(
          { weight: 6, arbitrary: piece },
          { weight: 1, arbitrary: fc.constantFrom(...secrets) },
          {
            weight: 1,
            arbitrary: fc.tuple(fc.constantFrom(...secrets), fc.nat(14)).map(([value, cut]) => value.slice(0, cut)),
          },
          {
            weight: 1,
            arbitrary: fc
              .tuple(fc.constantFrom(...secrets), fc.constantFrom(...invisible))
              .map(([value, mark]) => value.split('').join(mark)),
          },
        ),
        { maxLength: 60 },
      )
      .map((pieces) => Buffer.from(pieces.join(''))),
    cuts: fc.array(fc.nat(300), { maxLength: 30 }),
  }),
)

describe('the redactor, for any text and any chunks', () => {
  it('[G-redacted] gives the same bytes and the same count however the stream is cut', () => {
    fc.assert(
      fc.property(dense, ({ secrets, text, cuts }) => {
        const redactor = redactorOf(secrets)
        const whole = redactor.bytes(text)
        const cut = streamed(
          redactor,
          text,
          cuts.map((at) => at % (text.length + 1)),
        )
        const single = streamed(
          redactor,
          text,
          Array.from({ length: text.length }, (_, at) => at),
        )
        expect(cut.bytes.equals(whole.bytes)).toBe(true)
        expect(single.bytes.equals(whole.bytes)).toBe(true)
        expect([cut.hits, single.hits]).toEqual([whole.hits, whole.hits])
      }),
      { numRuns: 300 },
    )
  })

  it('[G-redacted] leaves no form of a secret, neither in the bytes nor in what a reader sees', () => {
    fc.assert(
      fc.property(dense, ({ secrets, text, cuts }) => {
        const { bytes } = streamed(
          redactorOf(secrets),
          text,
          cuts.map((at) => at % (text.length + 1)),
        )
        for (const value of secrets)
          for (const form of encodingsOf(Buffer.from(value))) {
            expect(bytes.includes(form)).toBe(false)
            expect(plainText(bytes)).not.toContain(Buffer.from(form).toString('latin1'))
          }
      }),
      { numRuns: 300 },
    )
  })

  it('changes nothing where no form stands, and counts nothing', () => {
    fc.assert(
      fc.property(dense, ({ secrets, text, cuts }) => {
        const seen = plainText(text)
        const present = secrets.some((value) =>
          encodingsOf(Buffer.from(value)).some(
            (form) => text.includes(form) || seen.includes(Buffer.from(form).toString('latin1')),
          ),
        )
        fc.pre(!present)
        const { bytes, hits } = streamed(
          redactorOf(secrets),
          text,
          cuts.map((at) => at % (text.length + 1)),
        )
        expect(bytes.equals(text)).toBe(true)
        expect(hits).toBe(0)
      }),
      { numRuns: 300 },
    )
  })

  it('replaces exactly what a search of the whole text would, where nothing invisible is in between', () => {
    fc.assert(
      fc.property(
        fc.uniqueArray(secret, { minLength: 1, maxLength: 3 }),
        fc.array(fc.constantFrom('a', 'b', 'ab', 'c'), { maxLength: 150 }),
        fc.array(fc.nat(200)),
        (secrets, letters, cuts) => {
          const text = Buffer.from(letters.join(''))
          const covered = Array.from({ length: text.length }, () => false)
          const spans: { start: number; end: number }[] = []
          for (const value of secrets)
            for (const form of encodingsOf(Buffer.from(value)))
              for (let at = text.indexOf(form); at !== -1; at = text.indexOf(form, at + 1))
                spans.push({ start: at, end: at + form.length })
          for (const { start, end } of spans) covered.fill(true, start, end)
          let kept = ''
          for (const [at, byte] of text.entries()) if (covered[at] !== true) kept += String.fromCharCode(byte)
          const { bytes } = streamed(
            redactorOf(secrets),
            text,
            cuts.map((at) => at % (text.length + 1)),
          )
          expect(bytes.toString().replaceAll(/\[REDACTED:s\d\]/g, '')).toBe(kept)
        },
      ),
      { numRuns: 200 },
    )
  })

  it('finds every form of any secret in the middle of other text, cut anywhere', () => {
    const value = fc
      .string({ unit: 'grapheme', minLength: 8, maxLength: 40 })
      .filter((text) => Buffer.from(text).length >= 8 && !/\p{Cc}|\ufffd/u.test(text) && text.isWellFormed())
    fc.assert(
      fc.property(
        value,
        fc.nat(),
        fc.string({ maxLength: 20 }),
        fc.array(fc.nat(400), { maxLength: 5 }),
        (text, pick, around, cuts) => {
          const redactor = redactorOf([text])
          const forms = encodingsOf(Secret.ingest('s', text).reveal())
          const form = forms[pick % forms.length] ?? Buffer.alloc(0)
          const input = Buffer.concat([Buffer.from(`${around} `), form, Buffer.from(` ${around}`)])
          const { bytes, hits } = streamed(
            redactor,
            input,
            cuts.map((at) => at % (input.length + 1)),
          )
          expect(hits).toBeGreaterThan(0)
          expect(bytes.includes(form)).toBe(false)
        },
      ),
      { numRuns: 150 },
    )
  })
})

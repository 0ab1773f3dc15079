import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { WritError } from '../src/error.ts'
import { parseIJson } from '../src/json.ts'

function refusal(input: Uint8Array | string, limits?: Parameters<typeof parseIJson>[1]): string {
  try {
    parseIJson(input, limits)
  } catch (error) {
    if (error instanceof WritError && error.code === 'malformed_message') return error.message
    throw error
  }
  return 'accepted'
}

/** Characters that make up JSON, so that random texts come near it. */
const grammar = Array.from('{}[]",:0123456789-+.eEtrufalsn\\ud8 \n\t\u0000')

describe('parseIJson', () => {
  it('reads what JSON.parse reads, for every I-JSON value', () => {
    fc.assert(
      fc.property(fc.jsonValue({ noUnicodeString: false, maxDepth: 8 }), fc.boolean(), (value, spaced) => {
        const text = JSON.stringify(value, null, spaced ? 2 : 0)
        fc.pre(text.isWellFormed() && !/\p{Noncharacter_Code_Point}/u.test(text))
        const numbers = text.match(/-?\d[\d.eE+-]*/g) ?? []
        fc.pre(numbers.every((n) => Number.isNaN(Number(n)) || Math.abs(Number(n)) <= Number.MAX_SAFE_INTEGER))
        const expected = JSON.parse(text, (_, v: unknown) => (Object.is(v, -0) ? 0 : v)) as unknown
        expect(parseIJson(Buffer.from(text))).toEqual(expected)
        expect(parseIJson(text)).toEqual(expected)
      }),
      { numRuns: 300 },
    )
  })

  it('accepts no text that JSON.parse refuses', () => {
    fc.assert(
      fc.property(fc.string({ unit: fc.constantFrom(...grammar) }), (text) => {
        fc.pre(refusal(text) === 'accepted')
        JSON.parse(text)
      }),
      { numRuns: 500, maxSkipsPerRun: 1000 },
    )
    expect(refusal('[01]')).not.toBe('accepted')
  })

  it.each([
    ['a duplicate member', '{"a":1,"a":2}', 'second time'],
    ['a duplicate member spelled with an escape', '{"a":1,"\\u0061":2}', 'second time'],
    ['a duplicate member whose first value is null', '{"a":null,"a":2}', 'second time'],
    ['a duplicate __proto__', '{"__proto__":1,"__proto__":2}', 'second time'],
    ['a raw lone surrogate', '"\ud800"', 'lone surrogate'],
    ['an escaped lone high surrogate', '"\\ud800"', 'lone surrogate'],
    ['an escaped lone low surrogate', '"x\\udc00"', 'lone surrogate'],
    ['surrogates in the wrong order', '"\\udc00\\ud800"', 'lone surrogate'],
    ['a lone surrogate in a member name', '{"\\ud800":1}', 'lone surrogate'],
    ['a raw noncharacter', '"\uffff"', 'noncharacter'],
    ['an escaped noncharacter', '"\\ufdd0"', 'noncharacter'],
    ['an astral noncharacter', '"\\ud83f\\udfff"', 'noncharacter'],
    ['2^53', '9007199254740992', '2^53-1'],
    ['2^53+1', '[9007199254740993]', '2^53-1'],
    ['-2^53', '-9007199254740992', '2^53-1'],
    ['a number of 400 digits', '9'.repeat(400), '2^53-1'],
    ['1e400', '1e400', '2^53-1'],
    ['1e16', '1e16', '2^53-1'],
    ['a leading zero', '01', 'leading zero'],
    ['a lone minus', '-', 'minus without digits'],
    ['a plus', '+1', 'no value'],
    ['an empty fraction', '1.', 'without digits'],
    ['an empty exponent', '1e+', 'without digits'],
    ['NaN', 'NaN', 'no value'],
    ['an empty text', '', 'unexpected end'],
    ['spaces only', ' \n', 'unexpected end'],
    ['a byte order mark', '\ufeff{}', 'no value'],
    ['a no-break space', '\u00a0{}', 'no value'],
    ['something after the value', '{} {}', 'after the value'],
    ['a trailing comma in an object', '{"a":1,}', 'name in quotes'],
    ['a trailing comma in an array', '[1,]', 'no value'],
    ['a raw line end in a string', '"a\nb"', 'control character'],
    ['a raw NUL after an escape', '"\\n\u0000"', 'control character'],
    ['an unknown escape', '"\\x41"', 'unknown escape'],
    ['a short unicode escape', '"\\u12"', 'four hex digits'],
    ['a string without end', '"abc', 'unexpected end'],
    ['a string that ends in a backslash', '"abc\\', 'unknown escape'],
    ['an object without end', '{"a":1', 'neither a comma'],
    ['a comment', '{/* */}', 'name in quotes'],
    ['single quotes', "{'a':1}", 'name in quotes'],
  ])('refuses %s', (_, text, why) => {
    expect(refusal(text)).toContain(why)
  })

  it.each([
    ['an overlong encoding', [0x22, 0xc0, 0xaf, 0x22]],
    ['a surrogate in UTF-8', [0x22, 0xed, 0xa0, 0x80, 0x22]],
    ['a cut sequence', [0x22, 0xe2, 0x82, 0x22]],
    ['a byte past U+10FFFF', [0x22, 0xf4, 0x90, 0x80, 0x80, 0x22]],
  ])('refuses %s', (_, bytes) => {
    expect(refusal(Uint8Array.from(bytes))).toContain('not UTF-8')
  })

  it('refuses a byte order mark in bytes', () => {
    expect(refusal(Uint8Array.from([0xef, 0xbb, 0xbf, 0x7b, 0x7d]))).toContain('no value')
  })

  it('takes __proto__ as a member like any other, and reaches no prototype by it', () => {
    const value = parseIJson('{"__proto__":{"polluted":true},"constructor":1}') as Record<string, unknown>
    expect(Object.keys(value)).toEqual(['__proto__', 'constructor'])
    expect(Object.getPrototypeOf(value)).toBeNull()
    expect(({} as Record<string, unknown>)['polluted']).toBeUndefined()
    expect(value['toString']).toBeUndefined()
    expect(refusal('{"__proto__":1}', { refuseProto: true })).toContain('__proto__')
    expect(refusal('{"a":[{"\\u005f_proto__":1}]}', { refuseProto: true })).toContain('__proto__')
  })

  it('refuses fractions, exponents and negative zero where integers are demanded', () => {
    for (const text of ['1.0', '1e3', '1E3', '-0', '0.5', '-0.0', '[1,{"a":2.5}]'])
      expect(refusal(text, { allowFraction: false })).not.toBe('accepted')
    expect(parseIJson('[0,-1,9007199254740991,-9007199254740991]', { allowFraction: false })).toEqual([
      0, -1, 9007199254740991, -9007199254740991,
    ])
    expect(Object.is(parseIJson('-0'), 0)).toBe(true)
    expect(Object.is(parseIJson('-0.0e5'), 0)).toBe(true)
    expect(parseIJson('1.5e3')).toBe(1500)
  })

  it('stops at the depth limit, and a million brackets do not reach the end of the stack', () => {
    expect(refusal('['.repeat(64) + ']'.repeat(64))).toBe('accepted')
    expect(refusal('['.repeat(65) + ']'.repeat(65))).toContain('nesting deeper than 64')
    expect(refusal('['.repeat(1_000_000))).toContain('nesting deeper than 64')
    expect(refusal('{"a":'.repeat(1_000_00))).toContain('nesting deeper than 64')
    expect(refusal('[[1],[1],[1]]', { maxDepth: 2 })).toBe('accepted')
  })

  it('counts bytes of UTF-8, not characters, against the size limit', () => {
    expect(refusal('"ää"', { maxBytes: 6 })).toBe('accepted')
    expect(refusal('"ää"', { maxBytes: 5 })).toContain('longer than 5 bytes')
    expect(refusal(Buffer.from('"ää"'), { maxBytes: 5 })).toContain('longer than 5 bytes')
    expect(refusal(`"${'a'.repeat(4 * 1024 * 1024)}"`)).toContain('longer than')
  })

  it('never repeats what was sent in its message', () => {
    for (const text of ['{"hunter2":1,"hunter2":2}', '"hunter2\\q"', 'hunter2'])
      expect(refusal(text)).not.toContain('hunter2')
  })

  it('reads every escape and joins surrogate pairs, escaped or not', () => {
    expect(parseIJson('"\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\\ud83d\\ude00😀"')).toBe('"\\/\b\f\n\r\té😀😀')
  })
})

import { describe, expect, it } from 'vitest'
import { encodingsOf, createRedactor } from '../../src/credential/redact.ts'
import { Secret } from '../../src/credential/secret.ts'
import { bytesHeld } from '../cost.ts'

const value = 'hvs.CAES/Jq+7"x&\'é0123456789abcdef'

function redactorOf(
  values: Readonly<Record<string, string>>,
  placeholders: Readonly<Record<string, string>> = {},
): ReturnType<typeof createRedactor> {
  return createRedactor(
    Object.entries(values).map(([name, text]) => ({
      name,
      value: Secret.ingest(name, text),
      placeholder: placeholders[name] ?? null,
    })),
  )
}

function derived(value: string) {
  return { name: 'derived', value: Buffer.from(value), placeholder: null }
}

function redacted(redactor: ReturnType<typeof createRedactor>, input: string | Uint8Array): string {
  return redactor.bytes(Buffer.from(input)).bytes.toString('utf8')
}

/** What programs make of a value when they print it, written with the languages' own functions. */
const printed: readonly (readonly [string, string | Buffer])[] = [
  ['as it is', value],
  ['JSON', JSON.stringify(value)],
  ['JSON in JSON', JSON.stringify(JSON.stringify(value))],
  ['JSON with escaped slashes', JSON.stringify(value).replaceAll('/', '\\/')],
  ['\\u escapes', Array.from(value, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`).join('')],
  ['a URL component', encodeURIComponent(value)],
  ['a URL component in lower case', encodeURIComponent(value).replaceAll(/%../g, (e) => e.toLowerCase())],
  ['a URL component, twice', encodeURIComponent(encodeURIComponent(value))],
  ['JSON of Go', JSON.stringify(value).replaceAll('&', String.raw`\u0026`)],
  ['JSON of Python', JSON.stringify(value).replaceAll('é', String.raw`\u00e9`)],
  ['a path of a URL', encodeURIComponent(value).replaceAll("'", '%27').replaceAll('%2F', '/')],
  ['a form', new URLSearchParams({ v: value }).toString()],
  ['every byte in percent', Buffer.from(value).toString('hex').replaceAll(/../g, '%$&')],
  ['HTML', value.replaceAll('&', '&amp;').replaceAll('"', '&quot;').replaceAll("'", '&#39;')],
  ['base64', Buffer.from(value).toString('base64')],
  ['base64 after one byte', Buffer.from(`u${value}`).toString('base64')],
  ['base64 after two bytes', Buffer.from(`us${value}!`).toString('base64')],
  ['base64url', Buffer.from(`user:${value}`).toString('base64url')],
  ['base64 in a URL', encodeURIComponent(Buffer.from(value).toString('base64'))],
  ['a Basic authorization', `Basic ${Buffer.from(`user:${value}`).toString('base64')}`],
  ['hex', Buffer.from(value).toString('hex')],
  ['upper-case hex', Buffer.from(value).toString('hex').toUpperCase()],
  [
    'hex with colons',
    Buffer.from(value)
      .toString('hex')
      .replaceAll(/..(?!$)/g, '$&:'),
  ],
  [
    '\\x escapes',
    Buffer.from(value)
      .toString('hex')
      .replaceAll(/../g, String.raw`\x$&`),
  ],
  ['UTF-16', Buffer.from(value, 'utf16le')],
  ['reversed', Array.from(value).reverse().join('')],
  ['a shell word', `'${value.replaceAll("'", `'\\''`)}'`],
  [
    'base64 in lines of 76',
    Buffer.from(`${'x'.repeat(40)}${value}`)
      .toString('base64')
      .replaceAll(/.{76}/g, '$&\n'),
  ],
  ['base64 in lines of 8 with CRLF', Buffer.from(value).toString('base64').replaceAll(/.{8}/g, '$&\r\n')],
  ['coloured letters', Array.from(value).join('\u001b[1;31m')],
  ['one letter per line', Array.from(value).join('\n')],
  ['zero-width spaces in between', Array.from(value).join('\u200b')],
  ['a terminal link in the middle', `${value.slice(0, 9)}\u001b]8;;https://example.com\u0007${value.slice(9)}`],
]

describe('the redactor', () => {
  it.each(printed)('takes out a secret printed as %s, whole and cut at every place', (_form, text) => {
    const input = Buffer.concat([Buffer.from('before '), Buffer.from(text), Buffer.from(' after')])
    const whole = redacted(redactorOf({ token: value }), input)
    expect(whole).toContain('[REDACTED:token]')
    expect(whole).toMatch(/^before .*\[REDACTED:token\].{0,8} after$/s)
    const redactor = redactorOf({ token: value })
    for (let cut = 0; cut <= input.length; cut += 1) {
      const stream = redactor.stream()
      const out = Buffer.concat([
        stream.write(input.subarray(0, cut)),
        stream.write(input.subarray(cut)),
        stream.flush(),
      ])
      expect(out.toString('utf8')).toBe(whole)
    }
  })

  it('says nothing else and delays nothing that cannot be the beginning of a secret', () => {
    const stream = redactorOf({ token: 'zzsecretzz' }).stream()
    expect(stream.write(Buffer.from('hello world\n')).toString()).toBe('hello world\n')
    expect(stream.write(Buffer.from('a zzsec')).toString()).toBe('a ')
    expect(stream.write(Buffer.from('ond\n')).toString()).toBe('zzsecond\n')
    expect(stream.write(Buffer.from('zzse')).toString()).toBe('')
    expect(stream.flush().toString()).toBe('zzse')
    expect(stream.hits).toBe(0)
  })

  it('keeps a stream usable after a flush, with no memory of what was before', () => {
    const stream = redactorOf({ token: 'zzsecretzz' }).stream()
    stream.write(Buffer.from('zzsec'))
    expect(stream.flush().toString()).toBe('zzsec')
    expect(stream.write(Buffer.from('retzz zzsecretzz ')).toString()).toBe('retzz [REDACTED:token] ')
  })

  it('merges overlapping secrets into one mark, named by the longest', () => {
    const redactor = redactorOf({ short: 'abcdefgh', long: 'efghijklmnop', part: 'abcdefghij' })
    expect(redacted(redactor, '<abcdefghijklmnop>')).toBe('<[REDACTED:long]>')
    expect(redacted(redactor, '<abcdefgh>')).toBe('<[REDACTED:short]>')
    expect(redacted(redactorOf({ long: 'abcdefghijkl', short: 'ijklmnop' }), '<abcdefghijklmnop>')).toBe(
      '<[REDACTED:long]>',
    )
    expect(redacted(redactor, '<abcdefghabcdefgh>')).toBe('<[REDACTED:short][REDACTED:short]>')
  })

  it('finds a secret inside of the beginning of a longer one', () => {
    const redactor = redactorOf({ inner: 'bcdefghi', outer: 'abcdefghiZZZZ' })
    expect(redacted(redactor, '<abcdefghi!>')).toBe('<a[REDACTED:inner]!>')
    expect(redacted(redactor, '<abcdefghiZZZZ>')).toBe('<[REDACTED:outer]>')
  })

  it('knows where a secret began after any number of interrupted beginnings', () => {
    const redactor = redactorOf({ token: 'aaaaaaab' })
    expect(redacted(redactor, `${'a\n'.repeat(5000)}b!`)).toBe(`${'a\n'.repeat(4993)}[REDACTED:token]!`)
  })

  it('finds a secret that overlaps itself across a chunk border', () => {
    const stream = redactorOf({ token: 'aaaaaaab' }).stream()
    const out = [stream.write(Buffer.from('aaaaaaaaaa')), stream.write(Buffer.from('aaab!')), stream.flush()]
    expect(Buffer.concat(out).toString()).toBe('aaaaaa[REDACTED:token]!')
  })

  it('puts the placeholder where one is given, in every form', () => {
    const redactor = redactorOf({ token: value }, { token: 'writ_ph_1' })
    expect(redacted(redactor, `{"t":${JSON.stringify(value)}}`)).toBe('{"t":"writ_ph_1"}')
    expect(redacted(redactor, Buffer.from(value).toString('hex'))).toBe('writ_ph_1')
    const plain = redactorOf({ token: value })
    expect(redacted(plain.answering({ token: 'writ_ph_2' }), value)).toBe('writ_ph_2')
    expect(redacted(plain, value)).toBe('[REDACTED:token]')
  })

  it('learns a derived secret for streams that are open already', () => {
    const redactor = redactorOf({ token: 'zzsecretzz' })
    const stream = redactor.stream()
    const parts = [stream.write(Buffer.from('one deri'))]
    expect(redactor.learn([derived('derived-token-1')])).toBe(true)
    parts.push(
      stream.write(Buffer.from('ved-token-1 two derived-tok')),
      stream.write(Buffer.from('en-1 zzsecretzz')),
      stream.flush(),
    )
    expect(Buffer.concat(parts).toString()).toBe('one derived-token-1 two [REDACTED:derived] [REDACTED:token]')
    expect(redacted(redactor.answering({}), 'derived-token-1')).toBe('[REDACTED:derived]')
  })

  it('does not take a derived secret too short to be looked for, and says so', () => {
    const redactor = redactorOf({})
    expect(redactor.learn([derived('derived-token-1'), derived('seven77')])).toBe(false)
    expect(redacted(redactor, 'derived-token-1')).toBe('derived-token-1')
  })

  it('finds a derived secret in what programs and protocols make of a token most', () => {
    const token = 'tok!en/1+2~3"4\\5'
    const redactor = redactorOf({})
    redactor.learn([derived(token)])
    for (const form of [
      JSON.stringify(token),
      JSON.stringify(token).replaceAll('/', '\\/'),
      encodeURIComponent(token),
      encodeURIComponent(token).replaceAll('!', '%21'),
      encodeURIComponent(token).replaceAll('!', '%21').toLowerCase(),
      ...['', 'u', 'us'].map((before) => Buffer.from(`${before}${token}`).toString('base64')),
      Buffer.from(token).toString('base64url'),
      Buffer.from(token).toString('hex'),
      `\u001b[1m${token.slice(0, 5)}\n${token.slice(5)}`,
    ])
      expect(redacted(redactor, `a ${form} b`)).toContain('[REDACTED:derived]')
  })

  it('gives an endless run of overlapping secrets one mark, and holds little of it', () => {
    const redactor = redactorOf({ token: 'aaaaaaaa' })
    const stream = redactor.stream()
    const before = bytesHeld()
    let out = 0
    for (let round = 0; round < 200; round += 1) out += stream.write(Buffer.from('a\n'.repeat(8192))).length
    expect(out).toBe(0)
    expect(bytesHeld() - before).toBeLessThan(1 << 20)
    expect(stream.flush().toString()).toBe('[REDACTED:token]\n')
    expect(stream.hits).toBe(1)
  })

  it('gives up a secret interrupted by more invisible bytes than any output has, and holds no more than that', () => {
    const stream = redactorOf({ token: 'zzsecretzz' }).stream()
    let given = stream.write(Buffer.from('zzsec')).length
    for (let round = 0; round < 100; round += 1) given += stream.write(Buffer.from('\n'.repeat(1000))).length
    expect(given).toBeGreaterThan(100_005 - 20_000)
  })

  it('passes bytes that are no text unchanged', () => {
    const bytes = Buffer.from(Array.from({ length: 4096 }, (_, at) => (at * 73) & 255))
    expect(redactorOf({ token: value }).bytes(bytes).bytes.equals(bytes)).toBe(true)
  })

  it('passes everything at once where there is no secret', () => {
    const stream = redactorOf({}).stream()
    expect(stream.write(Buffer.from('\u001b[0mx\u00e2')).toString()).toBe('\u001b[0mx\u00e2')
  })

  it('does not keep the bytes it was given', () => {
    const stream = redactorOf({ token: 'zzsecretzz' }).stream()
    const chunk = Buffer.from('ab zzsec')
    const out = stream.write(chunk)
    chunk.fill(0)
    expect(out.toString()).toBe('ab ')
    expect(stream.flush().toString()).toBe('zzsec')
  })

  it('makes a mark of plain letters whatever a secret is called', () => {
    expect(redacted(redactorOf({ 'a]\n\u001b[x': 'zzsecretzz' }), 'zzsecretzz')).toBe('[REDACTED:a____x]')
  })

  it('stays small and quick to make for a secret of 64 KiB, and finds it', () => {
    const long = Array.from({ length: 8000 }, (_, at) => `k${(at * 7919) % 99_991}.`)
      .join('')
      .slice(0, 65_000)
    const redactor = redactorOf({ token: long })
    expect(redactor.size).toBeLessThan(40e6)
    expect(redacted(redactor, `<${long}>`)).toBe('<[REDACTED:token]>')
    expect(redacted(redactor, Buffer.from(long).toString('base64'))).toContain('[REDACTED:token]')
  })
})

describe('the forms of a value', () => {
  it('begin with the value, repeat none, and are none shorter than eight bytes', () => {
    const forms = encodingsOf(Buffer.from(value))
    expect(forms[0]?.toString()).toBe(value)
    expect(new Set(forms.map((form) => form.toString('latin1'))).size).toBe(forms.length)
    expect(Math.min(...forms.map((form) => form.length))).toBeGreaterThanOrEqual(8)
    expect(forms.length).toBeGreaterThanOrEqual(30)
  })

  it('are those of each line of a value of several lines too', () => {
    const forms = encodingsOf(Buffer.from('-----BEGIN KEY-----\nMIIEvQIBADANBg\nshort\n')).map((form) =>
      form.toString('latin1'),
    )
    expect(forms).toContain('MIIEvQIBADANBg')
    expect(forms).toContain(Buffer.from('MIIEvQIBADANBg').toString('hex'))
    expect(forms).not.toContain('short')
  })

  it('are found for bytes that are no text', () => {
    const bytes = Buffer.from('ff00fe01fd02fc03fb04', 'hex')
    expect(encodingsOf(bytes).map((form) => form.toString('latin1'))).toContain('ff00fe01fd02fc03fb04')
  })
})

import { describe, expect, it } from 'vitest'
import {
  JwsError,
  generateKey,
  isThumbprint,
  parseCompact,
  parsePayload,
  publicKey,
  readPrivateKey,
  signCompact,
  thumbprint,
  verifyEd25519,
} from '../src/jws.ts'
import type { JwsTyp } from '../src/jws.ts'

function code(act: () => unknown): string {
  try {
    act()
  } catch (error) {
    if (error instanceof JwsError) return error.code
    throw error
  }
  return 'accepted'
}

describe('compact JWS', () => {
  const key = generateKey()

  it('signs bytes as they are and takes them apart again', () => {
    const jws = signCompact('writ-approval+jwt', '{"b":2, "a":1}', key)
    const parts = parseCompact(jws, 'writ-approval+jwt')
    expect(parts.payloadBytes.toString()).toBe('{"b":2, "a":1}')
    expect(parts.header).toEqual({ alg: 'Ed25519', typ: 'writ-approval+jwt', kid: key.kid })
    expect(verifyEd25519(publicKey(key.x), parts.signingInput, parts.signature)).toBe(true)
    expect(verifyEd25519(generateKey(), parts.signingInput, parts.signature)).toBe(false)
    expect(verifyEd25519(key, `${parts.signingInput}A`, parts.signature)).toBe(false)
    expect(verifyEd25519(key, parts.signingInput, parts.signature.subarray(1))).toBe(false)
  })

  it('takes no type for another [G-one-purpose-per-signature]', () => {
    const typs: readonly JwsTyp[] = ['writ-receipt+jwt', 'writ-approval+jwt', 'writ-keys+jwt']
    const answers = typs.map((signed) =>
      typs.map((asked) => code(() => parseCompact(signCompact(signed, '{}', key), asked))),
    )
    expect(answers).toEqual([
      ['accepted', 'TYP', 'TYP'],
      ['TYP', 'accepted', 'TYP'],
      ['TYP', 'TYP', 'accepted'],
    ])
  })

  it('has the thumbprint of RFC 8037, appendix A.3', () => {
    const x = '11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo'
    expect(thumbprint({ x })).toBe('kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k')
    expect(publicKey(x).kid).toBe('kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k')
    expect(isThumbprint(thumbprint({ x }))).toBe(true)
    expect(isThumbprint(`${thumbprint({ x }).slice(0, -1)}l`)).toBe(false)
  })

  it('verifies the second test of RFC 8032, section 7.1', () => {
    const test = publicKey(
      Buffer.from('3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c', 'hex').toString('base64url'),
    )
    const signature = Buffer.from(
      '92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00',
      'hex',
    )
    expect(verifyEd25519(test, Buffer.from('72', 'hex'), signature)).toBe(true)
    expect(verifyEd25519(test, Buffer.from('73', 'hex'), signature)).toBe(false)
  })

  it.each([
    ['the point of order one', `01${'00'.repeat(31)}`, 'KEY_WEAK'],
    ['the point of order two', `ec${'ff'.repeat(30)}7f`, 'KEY_WEAK'],
    ['a point of order four', '00'.repeat(32), 'KEY_WEAK'],
    ['the other point of order four', `${'00'.repeat(31)}80`, 'KEY_WEAK'],
    ['a point of order eight', '26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05', 'KEY_WEAK'],
    ['another point of order eight', 'c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a', 'KEY_WEAK'],
    ['order one with a sign', `01${'00'.repeat(30)}80`, 'SIG'],
    ['order two with a sign', `ec${'ff'.repeat(31)}`, 'SIG'],
    ['y = p', `ed${'ff'.repeat(30)}7f`, 'SIG'],
    ['y = p + 1', `ee${'ff'.repeat(30)}7f`, 'SIG'],
    ['y = p + 18', 'ff'.repeat(31) + '7f', 'SIG'],
    ['no point of the curve', `02${'00'.repeat(31)}`, 'KEY_WEAK'],
    ['31 bytes', '11'.repeat(31), 'KEY_WEAK'],
  ])('refuses as a key: %s', (_, hex, expected) => {
    expect(code(() => publicKey(Buffer.from(hex, 'hex').toString('base64url')))).toBe(expected)
  })

  it('finds fifty new keys sound', () => {
    for (let i = 0; i < 50; i++) expect(publicKey(generateKey().x).kid).toHaveLength(43)
  })

  it('reads only integers, each in one spelling, from what was signed', () => {
    expect(parsePayload(Buffer.from('{"a":-1,"b":9007199254740991}'))).toEqual({ a: -1, b: 9007199254740991 })
    for (const text of [
      '{"a":1.0}',
      '{"a":1e1}',
      '{"a":-0}',
      '[]',
      '"a"',
      'null',
      '{"a":1}x',
      `${'{"a":'.repeat(17)}1${'}'.repeat(17)}`,
    ])
      expect(code(() => parsePayload(Buffer.from(text)))).toBe('JSON')
  })

  it('reads back a private key it wrote, and nothing else', () => {
    const pem = key.privateKey.export({ format: 'pem', type: 'pkcs8' }).toString()
    expect(readPrivateKey(pem).kid).toBe(key.kid)
    expect(() => readPrivateKey('not a key')).toThrow('not an Ed25519 private key')
    expect(() => readPrivateKey(pem.replace('PRIVATE', 'PUBLIC'))).toThrow('not an Ed25519 private key')
  })

  it('says nothing of what it read in its messages', () => {
    const messages = ['hunter2', 'hunter2.hunter2.hunter2', '{"hunter2":1}'].map((text) => {
      try {
        return parseCompact(text, 'writ-receipt+jwt').signingInput
      } catch (error) {
        return String(error)
      }
    })
    expect(messages).toHaveLength(3)
    expect(messages.join('\n')).not.toContain('hunter2')
    expect(messages.join('\n').match(/JwsError/g)).toHaveLength(3)
  })
})

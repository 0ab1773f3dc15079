import { createHmac, sign } from 'node:crypto'
import { generateKey, signCompact, thumbprint } from '../../../src/jws.ts'
import type { SigningKey } from '../../../src/jws.ts'
import { inTotoPayloadType, preAuthEncoding } from '../../../src/receipt/evidence.ts'
import type { VerdictCode } from '../../../src/receipt/verdict.ts'
import type { SampleLog, SampleParts } from '../sample.ts'
import { b64, partsOf, signRaw } from './case.ts'
import type { Draft } from './case.ts'

export function envelope(log: SampleLog, jws: string, parts: SampleParts): readonly Draft[] {
  const key = log.keys.receiptKey(2)
  const { header, payload, signature } = partsOf(jws)
  const bytes = Buffer.from(payload, 'base64url')
  const good = { alg: 'Ed25519', typ: 'writ-receipt+jwt', kid: key.kid }
  const withHeader = (title: string, code: VerdictCode, changed: object): Draft => ({
    title,
    code,
    receipt: signRaw(changed, bytes, key),
  })
  const withPayload = (title: string, code: VerdictCode, changed: string | Uint8Array): Draft => ({
    title,
    code,
    receipt: signRaw(good, changed, key),
  })
  const text = bytes.toString()
  const hmacInput = `${b64(JSON.stringify({ ...good, alg: 'HS256' }))}.${payload}`
  const withS = Buffer.from(signature, 'base64url')
  const s =
    BigInt(`0x${Buffer.from(withS.subarray(32)).reverse().toString('hex')}`) +
    2n ** 252n +
    27742317777372353535851937790883648493n
  const malleated = Buffer.concat([
    withS.subarray(0, 32),
    Buffer.from(s.toString(16).padStart(64, '0'), 'hex').reverse(),
  ])
  const badR = Buffer.concat([Buffer.from(`ee${'ff'.repeat(30)}7f`, 'hex'), withS.subarray(32)])
  const tail = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'
  const lastCharacter = signature.at(-1) ?? ''
  const reordered = b64(JSON.stringify({ kid: key.kid, typ: good.typ, alg: good.alg }))
  const statement = parts.asked.verdict.jws ?? ''
  const general = JSON.stringify({
    payload,
    signatures: [
      { protected: header, signature },
      { protected: header, signature },
    ],
  })
  const flip = (part: string, at: number) => `${part.slice(0, at)}${part[at] === 'A' ? 'B' : 'A'}${part.slice(at + 1)}`
  return [
    { title: '1 alg none', code: 'ALG', receipt: `${b64('{"alg":"none"}')}.${payload}.` },
    { title: '1 alg nOnE', code: 'ALG', receipt: `${b64(JSON.stringify({ ...good, alg: 'nOnE' }))}.${payload}.` },
    withHeader('1 no alg', 'ALG', { typ: good.typ, kid: key.kid }),
    {
      title: '2 HS256 keyed with the public key',
      code: 'ALG',
      receipt: `${hmacInput}.${createHmac('sha256', Buffer.from(key.x, 'base64url')).update(hmacInput).digest('base64url')}`,
    },
    withHeader('3 EdDSA on the same key', 'ALG', { ...good, alg: 'EdDSA' }),
    withHeader('4 ES256 under an Ed25519 kid', 'KEY_ALG', { ...good, alg: 'ES256' }),
    withHeader('5 no kid', 'KID', { alg: good.alg, typ: good.typ }),
    withHeader('5 a kid that is a path', 'KID', { ...good, kid: '../../etc/keys' }),
    withHeader('5 a kid that is SQL', 'KID', { ...good, kid: "x' OR '1'='1" }),
    withHeader('5 a kid that is a number', 'KID', { ...good, kid: 7 }),
    withHeader('5 a kid in another spelling', 'KID', { ...good, kid: `${key.kid.slice(0, -1)}B` }),
    withHeader('7 an embedded jwk', 'HEADER', { ...good, jwk: { kty: 'OKP', crv: 'Ed25519', x: key.x } }),
    withHeader('7 a jku', 'HEADER', { ...good, jku: 'https://keys.example/jwks.json' }),
    withHeader('7 an x5u', 'HEADER', { ...good, x5u: 'https://keys.example/x5u' }),
    withHeader('7 an x5c', 'HEADER', { ...good, x5c: ['AA=='] }),
    withHeader('8 a crit of a known member', 'HEADER', { ...good, crit: ['b64'], b64: true }),
    withHeader('8 a crit of an unknown member', 'HEADER', { ...good, crit: ['exp'] }),
    withHeader('8 b64 false', 'HEADER', { ...good, b64: false }),
    withHeader('8 a zip', 'HEADER', { ...good, zip: 'DEF' }),
    withHeader('8 a cty', 'HEADER', { ...good, cty: 'JWT' }),
    withHeader('9 typ JWT', 'TYP', { ...good, typ: 'JWT' }),
    withHeader('9 typ at+jwt', 'TYP', { ...good, typ: 'at+jwt' }),
    withHeader('9 typ with application/', 'TYP', { ...good, typ: 'application/writ-receipt+jwt' }),
    withHeader('9 typ in capitals', 'TYP', { ...good, typ: 'Writ-Receipt+JWT' }),
    withHeader('9 no typ', 'TYP', { alg: good.alg, kid: key.kid }),
    { title: '10 an approval presented as a receipt', code: 'TYP', receipt: statement },
    { title: '10 a key set presented as a receipt', code: 'TYP', receipt: log.keys.jwt },
    {
      title: '11 unused bits set in the last character',
      code: 'ENCODING',
      receipt: `${header}.${payload}.${signature.slice(0, -1)}${tail[tail.indexOf(lastCharacter) + 1] ?? ''}`,
    },
    { title: '11 padding', code: 'ENCODING', receipt: `${jws}==` },
    {
      title: '11 a space inside',
      code: 'ENCODING',
      receipt: `${header}.${payload.slice(0, 9)} ${payload.slice(9)}.${signature}`,
    },
    { title: '11 a line break at the end', code: 'ENCODING', receipt: `${jws}\n` },
    {
      title: '11 base64 instead of base64url',
      code: 'ENCODING',
      receipt: `${header}.${payload}.${signature.slice(0, 5)}+/${signature.slice(7)}`,
    },
    {
      title: '12 flattened JSON serialisation',
      code: 'FORM',
      receipt: JSON.stringify({ protected: header, payload, signature }),
    },
    { title: '12 two signatures', code: 'FORM', receipt: general },
    { title: '12 a JWE', code: 'FORM', receipt: 'eyJhbGciOiJkaXIifQ..AAAA.AAAA.AAAA' },
    withPayload('12 a JWT inside a JWT', 'FORM', jws),
    { title: '12 two parts', code: 'FORM', receipt: `${header}.${payload}` },
    withPayload('14 bytes that are not UTF-8', 'JSON', Buffer.from(text.replace('ada', 'a\u00ffa'), 'latin1')),
    withPayload('14 an escaped lone surrogate', 'JSON', text.replace('"ada"', '"\\ud800"')),
    withPayload('14 a byte order mark', 'JSON', `\ufeff${text}`),
    withPayload('14 a member named __proto__', 'JSON', text.replace('{"iss"', '{"__proto__":{},"iss"')),
    withPayload('14 a member twice', 'JSON', text.replace('"result":"allow"', '"result":"deny","result":"allow"')),
    withPayload(
      '14 a member twice in another spelling',
      'JSON',
      text.replace('"result":"allow"', '"r\\u0065sult":"deny","result":"allow"'),
    ),
    withPayload('14 an array', 'JSON', '[]'),
    {
      title: '14 alg twice in the header',
      code: 'JSON',
      receipt: signRaw(`{"alg":"none","alg":"Ed25519","typ":"${good.typ}","kid":"${key.kid}"}`, bytes, key),
    },
    withPayload('15 an integer beyond 2^53-1', 'JSON', text.replace('"generation":1', '"generation":9007199254740993')),
    withPayload('15 a fraction', 'JSON', text.replace('"generation":1', '"generation":1.5')),
    withPayload('15 an integer as a fraction', 'JSON', text.replace('"generation":1', '"generation":1.0')),
    withPayload('15 an exponent', 'JSON', text.replace('"generation":1', '"generation":1e3')),
    withPayload('15 a negative zero', 'JSON', text.replace('"generation":1', '"generation":-0')),
    { title: '16 S + L', code: 'SIG', receipt: `${header}.${payload}.${b64(malleated)}` },
    { title: '16 an R that is not canonical', code: 'SIG', receipt: `${header}.${payload}.${b64(badR)}` },
    { title: '16 a signature of 63 bytes', code: 'SIG', receipt: `${header}.${payload}.${b64(withS.subarray(1))}` },
    {
      title: '18 a twin whose payload differs by one byte',
      code: 'TWIN',
      receipt: jws,
      evidence: { twin: twin(Buffer.from(text.replace('"ada"', '"adb"')), key) },
    },
    {
      title: '18 a twin whose signature differs by one bit',
      code: 'TWIN',
      receipt: jws,
      evidence: { twin: twin(bytes, key, true) },
    },
    {
      title: '19 a changed character in the payload',
      code: 'SIG',
      receipt: `${header}.${flip(payload, 40)}.${signature}`,
    },
    {
      title: '19 a changed character in the signature',
      code: 'SIG',
      receipt: `${header}.${payload}.${flip(signature, 40)}`,
    },
    {
      title: '19 the same header members in another order',
      code: 'SIG',
      receipt: `${reordered}.${payload}.${signature}`,
    },
    {
      title: '19 a receipt under a stranger key',
      code: 'UNKNOWN_KEY',
      verdict: 'UNTRUSTED',
      receipt: signCompact('writ-receipt+jwt', bytes, generateKey()),
    },
    {
      title: '44 a receipt longer than 16 KiB',
      code: 'LIMIT',
      receipt: signRaw(good, text.replace('"ada"', `"${'a'.repeat(13_000)}"`), key),
    },
    { title: 'something behind the last disclosure', code: 'FORM', receipt: `${jws}~x` },
    {
      title: 'a disclosure of another receipt',
      code: 'DISCLOSURE',
      receipt: `${jws}~${parts.plain.outcome.disclosures[0] ?? ''}~`,
    },
    {
      title: 'a disclosure given twice',
      code: 'DISCLOSURE',
      receipt: `${jws}~${parts.plain.decision.disclosures[0] ?? ''}~${parts.plain.decision.disclosures[0] ?? ''}~`,
    },
  ]
}

export function twin(payload: Uint8Array, key: SigningKey, spoiled = false): string {
  const signature = sign(null, preAuthEncoding(payload), key.privateKey)
  if (spoiled) signature[3] = (signature[3] ?? 0) ^ 1
  const sig = signature.toString('base64')
  return JSON.stringify({
    payloadType: inTotoPayloadType,
    payload: Buffer.from(payload).toString('base64'),
    signatures: [{ keyid: key.kid, sig }],
  })
}

/** A key file in which one more key stands beside the honest ones, and a receipt under that key. */
function underKey(log: SampleLog, jws: string, x: Buffer, signature: Buffer): Pick<Draft, 'receipt' | 'trust'> {
  const jwk = { kty: 'OKP', crv: 'Ed25519', x: b64(x) }
  const header = b64(JSON.stringify({ alg: 'Ed25519', typ: 'writ-receipt+jwt', kid: thumbprint(jwk) }))
  const file = JSON.stringify({ keys: [...(log.keys.jwks()['keys'] as object[]), jwk] })
  return { receipt: `${header}.${partsOf(jws).payload}.${b64(signature)}`, trust: { file } }
}

export function keyAttacks(log: SampleLog, jws: string): readonly Draft[] {
  const honest = Buffer.from(log.keys.receiptKey(1).x, 'base64url')
  const identity = Buffer.concat([Buffer.from([1]), Buffer.alloc(31)])
  // Adding the point (0, -1) of order two negates both coordinates.
  const p = 2n ** 255n - 19n
  const encoded = BigInt(`0x${Buffer.from(honest).reverse().toString('hex')}`)
  const y = p - (encoded & (2n ** 255n - 1n))
  const mixed = Buffer.from((y | ((1n - (encoded >> 255n)) << 255n)).toString(16).padStart(64, '0'), 'hex').reverse()
  const universal = Buffer.concat([identity, Buffer.alloc(32)])
  const beyond = Buffer.from(`ee${'ff'.repeat(30)}7f`, 'hex')
  const privateFile = JSON.stringify({
    keys: [{ ...(log.keys.receiptKey(1).privateKey.export({ format: 'jwk' }) as object) }],
  })
  return [
    {
      title: '17 a small-order key and its universal signature',
      code: 'KEY_WEAK',
      verdict: 'UNTRUSTED',
      ...underKey(log, jws, identity, universal),
    },
    {
      title: '17 a point of order eight',
      code: 'KEY_WEAK',
      verdict: 'UNTRUSTED',
      ...underKey(
        log,
        jws,
        Buffer.from('c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a', 'hex'),
        universal,
      ),
    },
    { title: '17 a mixed-order key', code: 'KEY_WEAK', verdict: 'UNTRUSTED', ...underKey(log, jws, mixed, universal) },
    { title: '16 a key that is not canonical', code: 'SIG', ...underKey(log, jws, beyond, universal) },
    {
      title: '17 a key file that holds a private key',
      code: 'KEYS',
      verdict: 'UNTRUSTED',
      receipt: jws,
      trust: { file: privateFile },
    },
    { title: 'nothing to trust', code: 'NO_TRUST', verdict: 'UNTRUSTED', receipt: jws, trust: {} },
    {
      title: 'a root that did not sign the key set',
      code: 'KEYS',
      verdict: 'UNTRUSTED',
      receipt: jws,
      trust: { root: generateKey().kid, own: log.keys.jwt },
    },
  ]
}

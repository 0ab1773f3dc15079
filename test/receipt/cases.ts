import { createHmac, sign } from 'node:crypto'
import { canonical, digestOf } from '../../src/digest.ts'
import { newId } from '../../src/id.ts'
import { generateKey, signCompact, thumbprint } from '../../src/jws.ts'
import type { SigningKey } from '../../src/jws.ts'
import { approvalAccount, decisionAccount, outcomeAccount, policyAccount } from '../../src/receipt/account.ts'
import { inTotoPayloadType, preAuthEncoding } from '../../src/receipt/evidence.ts'
import { brokerUrn, signKeySet } from '../../src/receipt/keyset.ts'
import type { VerdictClass, VerdictCode } from '../../src/receipt/verdict.ts'
import { generation, ref, sampleDecision, sampleLog, sampleReport, sampleRun, sampleVerdict } from './sample.ts'
import type { Changeable, SampleLog, SampleParts } from './sample.ts'

/**
 * The attacks of the receipts reference, section 4.1, each built on one honest log. Numbers in the titles are its rows.
 * A case is plain JSON, so that verifiers in other languages can be held to the same answers.
 */
export interface Case {
  readonly title: string
  /** One receipt, or a whole log as `[index, jws]`. */
  readonly receipt?: string
  readonly log?: readonly (readonly [number, string])[]
  readonly trust: { readonly root?: string; readonly file?: string; readonly own?: string }
  readonly evidence?: {
    readonly disclosures?: readonly string[]
    readonly twin?: string
    readonly related?: readonly string[]
    readonly statements?: readonly string[]
    readonly approvers?: readonly string[]
    readonly held?: readonly string[]
    readonly open?: readonly string[]
  }
  readonly verdict: VerdictClass
  readonly code: VerdictCode | null
}

type Draft = Omit<Case, 'trust' | 'verdict'> & { readonly trust?: Case['trust']; readonly verdict?: VerdictClass }

const b64 = (bytes: string | Uint8Array) => Buffer.from(bytes).toString('base64url')

interface Parts {
  readonly header: string
  readonly payload: string
  readonly signature: string
}

function partsOf(jws: string): Parts {
  const [header = '', payload = '', signature = ''] = jws.split('.')
  return { header, payload, signature }
}

/** Signs header and payload as they are given, whatever they are. */
function signRaw(header: string | object, payload: string | Uint8Array, key: SigningKey): string {
  const input = `${b64(typeof header === 'string' ? header : JSON.stringify(header))}.${b64(payload)}`
  return `${input}.${b64(sign(null, Buffer.from(input), key.privateKey))}`
}

export function buildCases(parts: SampleParts = sampleLog()): readonly Case[] {
  const { log, plain } = parts
  const trust = { root: log.keys.fingerprint(), own: log.keys.jwt }
  const drafts = [
    ...envelope(log, plain.decision.jws, parts),
    ...keyAttacks(log, plain.decision.jws),
    ...claims(log, parts),
    ...history(log, parts),
    ...epochs(log, parts),
    ...pairs(log, parts),
    ...approvals(log, parts),
    ...honest(log, parts),
  ]
  return drafts.map((draft) => ({ trust, verdict: 'INVALID', ...draft }))
}

function envelope(log: SampleLog, jws: string, parts: SampleParts): readonly Draft[] {
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

function keyAttacks(log: SampleLog, jws: string): readonly Draft[] {
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

function claims(log: SampleLog, { plain }: SampleParts): readonly Draft[] {
  const forged = (
    title: string,
    code: VerdictCode,
    change: (payload: Changeable) => void,
    verdict: VerdictClass = 'INVALID',
  ): Draft => {
    const account = decisionAccount(plain.run, sampleDecision('allow', log.nowMs), generation.digest, [])
    return { title, code, verdict, receipt: log.fork(2).forge(account, change).jws }
  }
  const predicate = (name: string, value: unknown) => (payload: Changeable) => {
    payload.predicate[name] = value
  }
  const member = (name: string, value: unknown) => (payload: Changeable) => {
    payload[name] = value
  }
  const other = brokerUrn(generateKey().kid)
  return [
    forged('20 the issuer of another broker', 'ISS', (payload) => {
      payload['iss'] = other
      payload.predicate.log['origin'] = other
    }),
    forged('20 the log of another issuer', 'ISS', (payload) => {
      payload.predicate.log['origin'] = other
    }),
    forged('20 an issuer that is no URL of a broker', 'ISS', (payload) => {
      payload['iss'] = 'http://writ.example'
      payload.predicate.log['origin'] = 'http://writ.example'
    }),
    forged('21 no audience', 'AUD', (payload) => {
      delete payload['aud']
    }),
    forged('21 another audience', 'AUD', member('aud', 'https://api.example')),
    forged('21 an audience in a list', 'AUD', member('aud', ['urn:writ:aud:receipt'])),
    forged('22 an expiry', 'PROFILE', member('exp', 4_102_444_800)),
    forged('22 a not-before', 'PROFILE', member('nbf', 1)),
    forged('23 signed before it happened', 'TIME', member('toe', 4_102_444_800)),
    forged('26 an unknown kind', 'UNKNOWN_KIND', predicate('kind', 'verdict'), 'UNTRUSTED'),
    forged('26 a reserved kind', 'UNKNOWN_KIND', predicate('kind', 'epoch'), 'UNTRUSTED'),
    forged('26 a later predicate type', 'UNKNOWN_KIND', member('predicateType', 'urn:writ:receipt:v2'), 'UNTRUSTED'),
    forged('69 a goal beside what the broker saw', 'PROFILE', predicate('goal', 'harmless')),
    forged('69 a client name among the claims', 'PROFILE', member('client_name', 'trusted')),
    forged(
      'an asserted object inside an asserted member',
      'PROFILE',
      predicate('asserted', { client: { nested: true } }),
    ),
    forged('no subject', 'PROFILE', member('subject', [])),
    forged('a digest in capitals', 'PROFILE', predicate('input', `sha256:${'A'.repeat(64)}`)),
    forged('an effect that is no effect', 'PROFILE', predicate('result', 'allowed')),
    forged('a jti that is not a UUIDv7', 'PROFILE', member('jti', '00000000-0000-4000-8000-000000000000')),
    forged('a root of the wrong length', 'PROFILE', (payload) => {
      payload.predicate.log['root'] = 'AAAA'
    }),
    forged('withheld members without their algorithm', 'PROFILE', (payload) => {
      delete payload['_sd_alg']
    }),
    forged('no agent', 'PROFILE', (payload) => {
      delete payload['act']
    }),
  ]
}

function whole(log: SampleLog): readonly (readonly [number, string])[] {
  return log.entries.map(({ index, jws }) => [index, jws] as const)
}

function history(log: SampleLog, { plain }: SampleParts): readonly Draft[] {
  const entries = whole(log)
  const swapped = entries.map(([index], i) => [index, entries[i === 1 ? 2 : i === 2 ? 1 : i]?.[1] ?? ''] as const)
  const removed = entries.filter(([index]) => index !== 8 - 4).map(([, jws], i) => [i, jws] as const)
  const rewritten = log.fork(2)
  const run = sampleRun()
  const decision = rewritten.add(decisionAccount(run, sampleDecision('allow', log.nowMs), generation.digest, []))
  rewritten.add(
    outcomeAccount(run, {
      status: 'succeeded',
      ran: true,
      report: sampleReport,
      decision: ref(decision),
      revocation: 'done',
      at_ms: log.nowMs,
    }),
  )
  const twice = log.fork(2)
  const id = '019a1b2c-3d4e-7f00-8000-0123456789ab'
  for (let i = 0; i < 2; i++)
    twice.forge(policyAccount({ ...generation, number: 2 + i }, log.nowMs), (payload) => {
      payload['jti'] = id
    })
  return [
    { title: '24 a receipt id at two indexes', code: 'REPLAY', log: whole(twice) },
    { title: '27 an entry removed from the middle', code: 'HEAD', log: removed },
    {
      title: '27 history written anew, against a receipt held elsewhere',
      code: 'FORK',
      verdict: 'EQUIVOCATION',
      log: whole(rewritten),
      evidence: { held: [plain.decision.jws] },
    },
    {
      title: '28 a log cut short, against a newer receipt',
      code: 'STALE',
      verdict: 'INCOMPLETE',
      log: entries.slice(0, 4),
      evidence: { held: [log.entries[8]?.jws ?? ''] },
    },
    { title: '30 two entries swapped', code: 'HEAD', log: swapped },
    { title: 'an index left out', code: 'GAP', verdict: 'INCOMPLETE', log: entries.filter(([index]) => index !== 3) },
    { title: 'an index twice', code: 'HEAD', log: [...entries.slice(0, 3), ...entries.slice(2)] },
    { title: 'an empty log', code: 'GAP', verdict: 'INCOMPLETE', log: [] },
    { title: 'a log that begins later', code: 'GAP', verdict: 'INCOMPLETE', log: entries.slice(1) },
    {
      title: 'a flipped character in the third entry',
      code: 'SIG',
      log: entries.map(
        ([index, jws]) =>
          [index, index === 2 ? `${jws.slice(0, -9)}${jws.at(-9) === 'A' ? 'B' : 'A'}${jws.slice(-8)}` : jws] as const,
      ),
    },
    {
      title: 'a root in the head that is not the tree',
      code: 'HEAD',
      log: whole(headed(log, (head) => (head['root'] = Buffer.alloc(32).toString('base64')))),
    },
    {
      title: 'a size in the head that is not the index',
      code: 'HEAD',
      log: whole(headed(log, (head) => (head['size'] = 1))),
    },
  ]
}

function headed(log: SampleLog, change: (head: Record<string, unknown>) => void): SampleLog {
  const fork = log.fork(2)
  fork.forge(policyAccount({ ...generation, number: 2 }, log.nowMs), (payload) => change(payload.predicate.log))
  return fork
}

function epochs(log: SampleLog, { plain }: SampleParts): readonly Draft[] {
  const rotated = log.fork(9)
  const before = log.keys.receiptKey(0 + 1)
  rotated.rotate()
  const trust = { root: rotated.keys.fingerprint(), own: rotated.keys.jwt }
  const old = { root: log.keys.fingerprint(), own: log.keys.jwt }
  const policy = (n: number) => policyAccount({ ...generation, number: n }, log.nowMs)
  rotated.add(policy(2))
  const next = rotated.keys.receiptKey(10)
  const retired = rotated.fork(11)
  retired.forge(policy(3), () => undefined, before)
  const early = log.fork(9)
  early.forge(policy(3), () => undefined, next)
  const unannounced = log.fork(9)
  unannounced.forge(policy(3), () => undefined, before)
  unannounced.forge(policy(4), () => undefined, next)
  const forgedChange = rotated.fork(9)
  const mine = generateKey()
  const account = { ...policy(2), kind: 'key' as const }
  const stranger = generateKey()
  const change = signKeySet(
    stranger,
    [
      { x: stranger.x, kid: stranger.kid, role: 'root', from: 0, until: null },
      { x: before.x, kid: before.kid, role: 'receipt', from: 0, until: 10 },
      { x: mine.x, kid: mine.kid, role: 'receipt', from: 10, until: null },
    ],
    1_795_000_000,
  )
  forgedChange.forge(
    account,
    (payload) => {
      payload.predicate = {
        kind: 'key',
        log: payload.predicate.log,
        reason: 'rotated',
        outgoing: before.kid,
        incoming: mine.kid,
        change,
      }
      delete payload['_sd_alg']
    },
    before,
  )
  const logKey = log.keys.set.keys.find((key) => key.role === 'log')
  const byRoot = log.fork(2)
  byRoot.forge(
    decisionAccount(plain.run, sampleDecision('allow', log.nowMs), generation.digest, []),
    () => undefined,
    log.keys.rootKey(),
  )
  const relabelled = JSON.stringify({
    keys: (log.keys.jwks()['keys'] as Record<string, unknown>[]).map((key) =>
      key['role'] === 'receipt' ? { ...key, role: 'log' } : key,
    ),
  })
  return [
    { title: 'control: a log with a change of keys', code: null, verdict: 'VALID:LOGGED', log: whole(rotated), trust },
    {
      title: 'control: the same log, from a key set issued before the change',
      code: null,
      verdict: 'VALID:LOGGED',
      log: whole(rotated),
      trust: old,
    },
    { title: '51 a retired key signs after its epoch', code: 'KEY_EPOCH', log: whole(retired), trust },
    { title: '51 the same, one receipt alone', code: 'KEY_EPOCH', receipt: retired.entries[11]?.jws ?? '', trust },
    { title: '52 the next key signs before its epoch', code: 'KEY_EPOCH', log: whole(early), trust },
    { title: '55 a change of keys that another root signed', code: 'KEY_CHAIN', log: whole(forgedChange) },
    { title: '55 a change of keys without its receipt', code: 'KEY_CHAIN', log: whole(unannounced), trust },
    { title: '56 the root signs a decision', code: 'KEY_ROLE', receipt: byRoot.entries[2]?.jws ?? '' },
    {
      title: '56 a receipt under a log key',
      code: 'KEY_ROLE',
      receipt: plain.decision.jws,
      trust: { file: relabelled },
    },
    {
      title: '56 a key set that calls one key twice',
      code: 'KEYS',
      verdict: 'UNTRUSTED',
      receipt: plain.decision.jws,
      trust: {
        file: JSON.stringify({ keys: [logKey, logKey].map((key) => ({ kty: 'OKP', crv: 'Ed25519', x: key?.x })) }),
      },
    },
  ]
}

function pairs(log: SampleLog, { plain, asked }: SampleParts): readonly Draft[] {
  const end = (
    run: typeof plain.run,
    decision: { digest: ReturnType<typeof digestOf>; index: number },
    fork: SampleLog,
  ) =>
    outcomeAccount(run, {
      status: 'succeeded',
      ran: true,
      report: sampleReport,
      decision,
      revocation: 'done',
      at_ms: fork.nowMs,
    })
  const none = log.fork(2)
  none.add(end(sampleRun(), { digest: digestOf('x'), index: 1 }, none))
  const later = log.fork(3)
  later.add(end(plain.run, { digest: plain.decision.digest, index: 3 }, later))
  const second = log.fork(4)
  second.add(end(plain.run, ref(plain.decision), second))
  const crossed = log.fork(3)
  const other = sampleRun('0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f')
  const otherDecision = crossed.add(
    decisionAccount(other, sampleDecision('allow', crossed.nowMs), generation.digest, []),
  )
  crossed.add(end(plain.run, ref(otherDecision), crossed))
  const stale = log.fork(7)
  stale.add(end(asked.run, ref(asked.pending), stale))
  const denied = log.fork(9)
  const refused = sampleRun('abababababababababababababababab')
  const denial = denied.add(decisionAccount(refused, sampleDecision('deny', denied.nowMs), generation.digest, []))
  denied.add(end(refused, ref(denial), denied))
  const reopened = log.fork(4)
  reopened.add(decisionAccount(plain.run, sampleDecision('allow', reopened.nowMs), generation.digest, []))
  const again = log.fork(4)
  const rerun = { ...plain.run, execution: newId('exec') }
  const rerunDecision = again.add(decisionAccount(rerun, sampleDecision('allow', again.nowMs), generation.digest, []))
  again.add(end(rerun, ref(rerunDecision), again))
  const backdated = log.fork(3)
  backdated.forge(end(plain.run, ref(plain.decision), backdated), (payload) => {
    payload['toe'] = 1_700_000_000
  })
  const unknownPolicy = log.fork(4)
  unknownPolicy.add(
    decisionAccount(
      sampleRun('cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd'),
      sampleDecision('allow', unknownPolicy.nowMs),
      digestOf('another policy'),
      [],
    ),
  )
  const open = log.fork(3)
  return [
    { title: '57 an outcome without a decision', code: 'ORDER', log: whole(none) },
    { title: '57 an outcome of a decision that comes later', code: 'ORDER', log: whole(later) },
    { title: '57 an outcome that happened before its decision', code: 'ORDER', log: whole(backdated) },
    { title: '57 a run after a denial', code: 'ORDER', log: whole(denied) },
    { title: '57 a decision after the outcome', code: 'ORDER', log: whole(reopened) },
    { title: '58 an allowed run without an outcome', code: 'DANGLING', verdict: 'INCOMPLETE', log: whole(open) },
    {
      title: '58 control: the same run, listed open',
      code: null,
      verdict: 'VALID:LOGGED',
      log: whole(open),
      evidence: { open: [plain.run.execution] },
    },
    { title: '60 two outcomes of one decision', code: 'PAIR', log: whole(second) },
    { title: '60 an outcome that points at the decision of another run', code: 'PAIR', log: whole(crossed) },
    { title: '60 an outcome that points at a decision that was not the final one', code: 'PAIR', log: whole(stale) },
    {
      title: '60 an outcome beside the decision of another run',
      code: 'PAIR',
      receipt: plain.outcome.jws,
      evidence: { related: [asked.decision.jws] },
    },
    { title: '60 one plan run twice', code: 'PAIR', log: whole(again) },
    { title: '67 a policy that never came into force', code: 'POLICY_EPOCH', log: whole(unknownPolicy) },
  ]
}

function approvals(log: SampleLog, { asked, approver }: SampleParts): readonly Draft[] {
  const decide = (fork: SampleLog, run = asked.run, used = [ref(asked.approval)]) =>
    fork.forge(
      decisionAccount(run, sampleDecision('allow', fork.nowMs, true), generation.digest, used),
      () => undefined,
    )
  const otherPlan = log.fork(6)
  decide(otherPlan, sampleRun('eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee'))
  const otherRequirement = log.fork(6)
  otherRequirement.forge(
    decisionAccount(asked.run, sampleDecision('allow', otherRequirement.nowMs, true), generation.digest, [
      ref(asked.approval),
    ]),
    (payload) => {
      payload.predicate['requirement'] = digestOf('fewer people')
    },
  )
  const notGiven = log.fork(6)
  decide(notGiven, asked.run, [])
  const notThere = log.fork(5)
  decide(notThere)
  const twice = log.fork(6)
  decide(twice)
  decide(twice)
  const rejected = log.fork(5)
  const no = sampleVerdict(asked.run, approver, log.origin, log.nowMs)
  const rejection = rejected.add(
    approvalAccount(asked.run, { ...no, statement: { ...no.statement, verdict: 'reject' } }),
  )
  decide(rejected, asked.run, [ref(rejection)])
  const statement = (change: object, key: SigningKey) => {
    const changed = { ...asked.verdict.statement, ...change } as typeof asked.verdict.statement
    const jws = signCompact('writ-approval+jwt', canonical(changed), key)
    const fork = log.fork(5)
    const receipt = fork.forge(approvalAccount(asked.run, { ...asked.verdict, jws }), () => undefined)
    return { receipt: receipt.jws, evidence: { statements: [jws], approvers: [approver.x] } }
  }
  const spaced = signCompact('writ-approval+jwt', JSON.stringify(asked.verdict.statement), approver)
  const loose = log.fork(5).add(approvalAccount(asked.run, { ...asked.verdict, jws: spaced })).jws
  const evidence = { statements: [asked.verdict.jws ?? ''], approvers: [approver.x] }
  return [
    { title: '62 an approval for another plan', code: 'APPROVAL_BIND', log: whole(otherPlan) },
    { title: '62 an approval of another requirement', code: 'APPROVAL_BIND', log: whole(otherRequirement) },
    { title: '62 a requirement nobody answered', code: 'APPROVAL_BIND', log: whole(notGiven) },
    { title: '62 an approval that is not in the log', code: 'APPROVAL_BIND', log: whole(notThere) },
    { title: '62 an approval used twice', code: 'APPROVAL_BIND', log: whole(twice) },
    { title: '62 a rejection used as an approval', code: 'APPROVAL_BIND', log: whole(rejected) },
    {
      title: '62 a decision beside the approval of another plan',
      code: 'APPROVAL_BIND',
      receipt: otherPlan.entries[6]?.jws ?? '',
      evidence: { related: [asked.approval.jws] },
    },
    {
      title: '62 a statement about another plan',
      code: 'APPROVAL_BIND',
      ...statement({ plan: digestOf('other') }, approver),
    },
    { title: '62 a statement about another stage', code: 'APPROVAL_BIND', ...statement({ stage: 'two' }, approver) },
    {
      title: '62 a statement for another log',
      code: 'APPROVAL_BIND',
      ...statement({ log_origin: 'https://other.example' }, approver),
    },
    { title: '62 a statement that says no', code: 'APPROVAL_BIND', ...statement({ verdict: 'reject' }, approver) },
    { title: '62 a statement for many uses', code: 'APPROVAL_BIND', ...statement({ max_uses: 9 }, approver) },
    {
      title: '62 a statement that had expired',
      code: 'APPROVAL_BIND',
      ...statement({ expires_at: asked.verdict.statement.issued_at - 1 }, approver),
    },
    { title: '64 a statement a stranger signed', code: 'APPROVAL_SIG', ...statement({}, generateKey()) },
    {
      title: '64 a statement that is not in its canonical form',
      code: 'APPROVAL_SIG',
      receipt: loose,
      evidence: { statements: [spaced], approvers: [approver.x] },
    },
    {
      title: 'control: an approval with its statement',
      code: null,
      verdict: 'VALID:SIGNED',
      receipt: asked.approval.jws,
      evidence,
    },
    {
      title: 'control: a log with the statements of its approvals',
      code: null,
      verdict: 'VALID:LOGGED',
      log: whole(log),
      evidence,
    },
  ]
}

function honest(log: SampleLog, { plain, asked }: SampleParts): readonly Draft[] {
  const { decision, outcome } = plain
  const payload = Buffer.from(partsOf(decision.jws).payload, 'base64url')
  const valid = { code: null, verdict: 'VALID:SIGNED' } as const
  return [
    ...log.entries.map((receipt): Draft => ({
      title: `control: entry ${receipt.index}, ${receipt.kind}`,
      ...valid,
      receipt: receipt.jws,
    })),
    {
      title: 'control: the whole log',
      code: null,
      verdict: 'VALID:LOGGED',
      log: whole(log),
      evidence: { held: [decision.jws, asked.outcome.jws] },
    },
    { title: 'control: a key file', ...valid, receipt: decision.jws, trust: { file: JSON.stringify(log.keys.jwks()) } },
    {
      title: 'control: a key file of an ordinary issuer',
      ...valid,
      receipt: decision.jws,
      trust: {
        file: JSON.stringify({
          keys: [
            { kty: 'RSA', n: 'AQAB', e: 'AQAB' },
            { kty: 'OKP', crv: 'Ed25519', x: log.keys.receiptKey(1).x, key_ops: ['verify'] },
          ],
        }),
      },
    },
    { title: 'control: self-pinned', ...valid, receipt: decision.jws, trust: { own: log.keys.jwt } },
    { title: 'control: with its disclosures', ...valid, receipt: `${decision.jws}~${decision.disclosures.join('~')}~` },
    {
      title: 'control: with its twin',
      ...valid,
      receipt: decision.jws,
      evidence: { twin: twin(payload, log.keys.receiptKey(2)) },
    },
    {
      title: 'control: an outcome with its decision',
      ...valid,
      receipt: outcome.jws,
      evidence: { related: [decision.jws] },
    },
    {
      title: 'control: a decision with its approval',
      ...valid,
      receipt: asked.decision.jws,
      evidence: { related: [asked.approval.jws] },
    },
  ]
}

import { createPrivateKey, createPublicKey, generateKeyPairSync, sign, verify } from 'node:crypto'
import type { KeyObject } from 'node:crypto'
import { sha256 } from './digest.ts'
import type { JsonObject } from './digest.ts'
import { WritError } from './error.ts'
import { parseIJson } from './json.ts'

/** The three kinds of JWT Writ signs; each stands for itself and is refused where another is expected (RFC 8725 §3.11). */
export type JwsTyp = 'writ-receipt+jwt' | 'writ-approval+jwt' | 'writ-keys+jwt'

/** Why a compact JWS is not one of ours. `KEY_WEAK` is about a key, all others about the JWS. */
export type JwsCode =
  | 'ALG'
  | 'KEY_ALG'
  | 'KID'
  | 'HEADER'
  | 'TYP'
  | 'ENCODING'
  | 'FORM'
  | 'JSON'
  | 'SIG'
  | 'LIMIT'
  | 'KEY_WEAK'

/** The message never repeats what was read. */
export class JwsError extends Error {
  readonly code: JwsCode

  constructor(code: JwsCode, message: string) {
    super(message)
    this.name = 'JwsError'
    this.code = code
  }
}

export interface CompactJws {
  readonly header: { readonly alg: 'Ed25519'; readonly typ: JwsTyp; readonly kid: string }
  /** Not yet authentic: parse it with `parsePayload` after `verifyEd25519` said true. */
  readonly payloadBytes: Buffer
  readonly signingInput: string
  /** 64 bytes. */
  readonly signature: Buffer
}

/** A public key that passed `publicKey`: a canonical point of the prime-order group. `kid` is its RFC 7638 thumbprint. */
export interface PublicKey {
  readonly kid: string
  readonly x: string
  readonly key: KeyObject
}

export interface SigningKey extends PublicKey {
  readonly privateKey: KeyObject
}

/** Bytes of the longest compact JWS accepted: room for a log entry well below the 64 KiB of C2SP tlog-tiles. */
export const maxJwsBytes = 16 * 1024
/** Above this nothing is even looked at; below it the code names the first thing wrong, not the length. */
const hardLimit = 4 * 1024 * 1024

/**
 * Takes a compact JWS apart, accepting exactly one spelling: canonical base64url (RFC 4648 §3.5), a header of exactly
 * `alg: Ed25519`, the `typ` asked for and a thumbprint as `kid`. Throws `JwsError`. Checks no signature.
 */
export function parseCompact(text: string, typ: JwsTyp, maxBytes: number = maxJwsBytes): CompactJws {
  if (text.length > hardLimit) throw new JwsError('LIMIT', 'longer than 4 MiB')
  if (/^\s*[{[]/.test(text)) throw new JwsError('FORM', 'a JSON serialisation, not a compact JWS')
  if (!/^[A-Za-z0-9_.-]*$/.test(text) || text.endsWith('\n'))
    throw new JwsError('ENCODING', 'a character outside base64url')
  const parts = text.split('.')
  const [first, second, third] = parts
  if (parts.length !== 3 || first === undefined || second === undefined || third === undefined)
    throw new JwsError('FORM', `${parts.length} parts instead of 3`)
  const header = parseHeader(decode(first, 'header'), typ)
  if (text.length > maxBytes) throw new JwsError('LIMIT', `longer than ${maxBytes} bytes`)
  const payloadBytes = decode(second, 'payload')
  if (/^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_.-]*$/.test(payloadBytes.toString('latin1')))
    throw new JwsError('FORM', 'a JWT inside a JWT')
  const signature = decode(third, 'signature')
  if (signature.length !== 64) throw new JwsError('SIG', `a signature of ${signature.length} bytes instead of 64`)
  return { header, payloadBytes, signingInput: `${first}.${second}`, signature }
}

function decode(part: string, name: string): Buffer {
  const bytes = Buffer.from(part, 'base64url')
  // Unused bits of the last character could be spelled several ways; only one has the log's leaf hash.
  if (bytes.toString('base64url') !== part) throw new JwsError('ENCODING', `the ${name} is not canonical base64url`)
  return bytes
}

function parseHeader(bytes: Buffer, typ: JwsTyp): CompactJws['header'] {
  const header = object(bytes, 'header')
  const { alg, typ: found, kid } = header
  if (alg !== 'Ed25519') {
    // Names the profile reserves for other keys: a real signature, but never under an Ed25519 key.
    if (alg === 'ES256' || alg === 'ML-DSA-44') throw new JwsError('KEY_ALG', 'the algorithm is not that of the key')
    throw new JwsError('ALG', 'the algorithm is not Ed25519')
  }
  for (const name of Object.keys(header))
    if (name !== 'alg' && name !== 'typ' && name !== 'kid')
      throw new JwsError('HEADER', 'a header member beside alg, typ and kid')
  if (found !== typ) throw new JwsError('TYP', `the type is not ${typ}`)
  if (typeof kid !== 'string' || !isThumbprint(kid))
    throw new JwsError('KID', 'the key id is not an RFC 7638 thumbprint')
  return { alg, typ, kid }
}

/** The claims, under the rules for what is signed: I-JSON, integers only, no `__proto__`. Throws `JwsError` `JSON`. */
export function parsePayload(payload: Uint8Array | string): JsonObject {
  return object(payload, 'payload')
}

function object(bytes: Uint8Array | string, name: string): JsonObject {
  try {
    const value = parseIJson(bytes, { maxBytes: hardLimit, maxDepth: 16, allowFraction: false, refuseProto: true })
    if (value !== null && typeof value === 'object' && !Array.isArray(value)) return value as JsonObject
  } catch (error) {
    if (error instanceof WritError && error.code === 'malformed_message')
      throw new JwsError('JSON', `the ${name} is ${error.message}`)
    throw error
  }
  throw new JwsError('JSON', `the ${name} is not a JSON object`)
}

/** RFC 7638 §3 for an Ed25519 public key: SHA-256 of its three required members in lexicographic order. */
export function thumbprint(jwk: { readonly x: string }): string {
  return sha256(`{"crv":"Ed25519","kty":"OKP","x":"${jwk.x}"}`).toString('base64url')
}

export function isThumbprint(text: string): boolean {
  return /^[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]$/.test(text)
}

/**
 * The key with this `x` (base64url of 32 bytes). Throws `JwsError`: `SIG` for a second encoding of a point, under which
 * no signature is the one of RFC 8032; `KEY_WEAK` for what is no point of the prime-order group: under a small-order key
 * one signature fits every message, under a mixed-order key verifiers disagree.
 */
export function publicKey(x: string): PublicKey {
  const bytes = Buffer.from(x, 'base64url')
  if (bytes.length !== 32 || bytes.toString('base64url') !== x)
    throw new JwsError('KEY_WEAK', 'the key is not 32 bytes of canonical base64url')
  if (!isCanonical(bytes)) throw new JwsError('SIG', 'the key is not encoded in its one canonical form')
  if (!inPrimeOrderGroup(bytes)) throw new JwsError('KEY_WEAK', 'the key is not a point of the prime-order group')
  const key = createPublicKey({ key: { kty: 'OKP', crv: 'Ed25519', x }, format: 'jwk' })
  return { kid: thumbprint({ x }), x, key }
}

/** A new key pair from the system's random source. */
export function generateKey(): SigningKey {
  return signingKey(generateKeyPairSync('ed25519').privateKey)
}

/** From a PKCS#8 PEM. Rejects `invalid_key` for anything but an Ed25519 private key. */
export function readPrivateKey(pem: string | Buffer): SigningKey {
  try {
    return signingKey(createPrivateKey(pem))
  } catch (error) {
    // The cause could quote the file; its text stays out.
    throw new WritError(
      'invalid_key',
      'not an Ed25519 private key in PKCS#8 PEM',
      error instanceof WritError ? { cause: error } : {},
    )
  }
}

function signingKey(privateKey: KeyObject): SigningKey {
  const { x } = createPublicKey(privateKey).export({ format: 'jwk' })
  if (privateKey.asymmetricKeyType !== 'ed25519' || x === undefined)
    throw new WritError('invalid_key', 'the key is not an Ed25519 key')
  return { ...publicKey(x), privateKey }
}

/** What is signed: `BASE64URL(header) . BASE64URL(payload)` (RFC 7515 §5.1), for keys that sign elsewhere. */
export function signingInput(typ: JwsTyp, payload: string | Uint8Array, kid: string): string {
  const header = `{"alg":"Ed25519","typ":"${typ}","kid":"${kid}"}`
  return `${Buffer.from(header).toString('base64url')}.${Buffer.from(payload).toString('base64url')}`
}

/** Signs the payload's bytes as they are. Synchronous: twice as fast as WebCrypto, and usable inside a transaction. */
export function signCompact(typ: JwsTyp, payload: string | Uint8Array, key: SigningKey): string {
  const input = signingInput(typ, payload, key.kid)
  return `${input}.${sign(null, Buffer.from(input, 'latin1'), key.privateKey).toString('base64url')}`
}

/** RFC 8032 §5.1.7 with the strict readings: S < L and R canonical, so that no second signature can be made from a first. */
export function verifyEd25519(key: PublicKey, signed: string | Uint8Array, signature: Uint8Array): boolean {
  if (signature.length !== 64) return false
  if (littleEndian(signature.subarray(32)) >= L) return false
  if ((littleEndian(signature.subarray(0, 32)) & yMask) >= P) return false
  return verify(null, Buffer.from(signed), key.key, signature)
}

// The curve of RFC 8032 §5.1, as far as telling good keys from bad ones needs it. Runs once a key, on public values only.

const P = 2n ** 255n - 19n
const L = 2n ** 252n + 27742317777372353535851937790883648493n
const D = 37095705934669439343138083508754565189542113879843219016388785533085940283555n
const sqrtM1 = 19681161376707505956807079304988542015446066515923890162744021073123829784752n
const yMask = 2n ** 255n - 1n

type Point = readonly [X: bigint, Y: bigint, Z: bigint, T: bigint]

function littleEndian(bytes: Uint8Array): bigint {
  return BigInt(`0x${Buffer.from(bytes).reverse().toString('hex')}`)
}

function mod(a: bigint): bigint {
  const r = a % P
  return r < 0n ? r + P : r
}

function power(base: bigint, exponent: bigint): bigint {
  let result = 1n
  let square = base
  for (let e = exponent; e > 0n; e >>= 1n) {
    if (e & 1n) result = (result * square) % P
    square = (square * square) % P
  }
  return result
}

/** RFC 8032 §5.1.3 refuses y ≥ p, and x = 0 (which is y = ±1) with a sign. */
function isCanonical(bytes: Uint8Array): boolean {
  const encoded = littleEndian(bytes)
  const y = encoded & yMask
  return y < P && !(encoded >> 255n === 1n && (y === 1n || y === P - 1n))
}

/** RFC 8032 §5.1.3 for a canonical encoding; null for what is no point. */
function decompress(bytes: Uint8Array): Point | null {
  const encoded = littleEndian(bytes)
  const y = encoded & yMask
  const u = mod(y * y - 1n)
  const v = mod(D * y * y + 1n)
  let x = mod(u * power(v, 3n) * power(mod(u * power(v, 7n)), (P - 5n) / 8n))
  const check = mod(v * x * x)
  if (check === mod(-u)) x = mod(x * sqrtM1)
  else if (check !== u) return null
  const negative = encoded >> 255n === 1n
  if (((x & 1n) === 1n) !== negative) x = P - x
  return [x, y, 1n, mod(x * y)]
}

/** RFC 8032 §5.1.4; complete, so it doubles too. */
function add([x1, y1, z1, t1]: Point, [x2, y2, z2, t2]: Point): Point {
  const a = mod((y1 - x1) * (y2 - x2))
  const b = mod((y1 + x1) * (y2 + x2))
  const c = mod(2n * D * t1 * t2)
  const d = mod(2n * z1 * z2)
  const e = b - a
  const f = d - c
  const g = d + c
  const h = b + a
  return [mod(e * f), mod(g * h), mod(f * g), mod(e * h)]
}

function inPrimeOrderGroup(bytes: Uint8Array): boolean {
  const point = decompress(bytes)
  if (point === null || (point[0] === 0n && point[1] === 1n)) return false
  let sum: Point = [0n, 1n, 1n, 0n]
  let double = point
  for (let n = L; n > 0n; n >>= 1n) {
    if (n & 1n) sum = add(sum, double)
    double = add(double, double)
  }
  return sum[0] === 0n && sum[1] === sum[2]
}

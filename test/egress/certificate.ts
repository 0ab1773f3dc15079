import { createPrivateKey, generateKeyPairSync, randomBytes, sign } from 'node:crypto'
import type { KeyObject } from 'node:crypto'

/** Certificates for the tests' own servers, so that no key lies in the repository and nothing expires. */
export interface Issued {
  readonly cert: string
  readonly key: string
}

function der(tag: number, ...contents: readonly Uint8Array[]): Buffer {
  const body = Buffer.concat(contents)
  if (body.length < 128) return Buffer.concat([Buffer.from([tag, body.length]), body])
  const length = Buffer.from(body.length.toString(16).padStart(body.length > 255 ? 4 : 2, '0'), 'hex')
  return Buffer.concat([Buffer.from([tag, 0x80 | length.length]), length, body])
}

const oid = (hex: string): Buffer => der(0x06, Buffer.from(hex, 'hex'))
const ecdsaSha256 = der(0x30, oid('2a8648ce3d040302'))
const nameOf = (common: string): Buffer =>
  der(0x30, der(0x31, der(0x30, oid('550403'), der(0x0c, Buffer.from(common)))))
const time = (at: Date): Buffer => der(0x17, Buffer.from(`${at.toISOString().replaceAll(/[-:T]/g, '').slice(2, 14)}Z`))

function issue(
  subject: string,
  subjectKey: KeyObject,
  issuer: string,
  issuerKey: KeyObject,
  extensions: readonly Buffer[],
): string {
  const serial = randomBytes(8)
  serial[0] = 0x11
  const body = der(
    0x30,
    der(0xa0, der(0x02, Buffer.from([2]))),
    der(0x02, serial),
    ecdsaSha256,
    nameOf(issuer),
    der(0x30, time(new Date(Date.now() - 86_400_000)), time(new Date(Date.now() + 86_400_000))),
    nameOf(subject),
    subjectKey.export({ type: 'spki', format: 'der' }),
    der(0xa3, der(0x30, ...extensions)),
  )
  const signature = sign('sha256', body, issuerKey)
  const all = der(0x30, body, ecdsaSha256, der(0x03, Buffer.from([0]), signature))
  return `-----BEGIN CERTIFICATE-----\n${all.toString('base64').replaceAll(/.{64}/g, '$&\n').trimEnd()}\n-----END CERTIFICATE-----\n`
}

/** A certificate authority and a certificate of it for these names. */
export function newAuthority(): {
  readonly ca: string
  issue(names: { readonly dns?: readonly string[]; readonly ip?: readonly string[] }): Issued
} {
  const root = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  // Of two authorities under one name a process would take the first, and call the other's certificates forged.
  const authority = `Test authority ${randomBytes(6).toString('hex')}`
  const constraints = der(
    0x30,
    oid('551d13'),
    der(0x01, Buffer.from([0xff])),
    der(0x04, der(0x30, der(0x01, Buffer.from([0xff])))),
  )
  return {
    ca: issue(authority, root.publicKey, authority, root.privateKey, [constraints]),
    issue({ dns = [], ip = [] }) {
      const leaf = generateKeyPairSync('ec', { namedCurve: 'P-256' })
      const names = [
        ...dns.map((name) => der(0x82, Buffer.from(name))),
        ...ip.map((one) => der(0x87, Buffer.from(one.split('.').map(Number)))),
      ]
      const alternative = der(0x30, oid('551d11'), der(0x04, der(0x30, ...names)))
      const key = leaf.privateKey.export({ type: 'pkcs8', format: 'pem' }).toString()
      return {
        cert: issue('Test server', leaf.publicKey, authority, root.privateKey, [alternative]),
        key: createPrivateKey(key).export({ type: 'pkcs8', format: 'pem' }).toString(),
      }
    },
  }
}

import { readFileSync, watch } from 'node:fs'
import { dirname } from 'node:path'
import { X509Certificate } from 'node:crypto'
import type { Socket } from 'node:net'
import { createSecureContext, TLSSocket } from 'node:tls'
import { systemCode, WritError } from '../error.ts'

export interface Certificate {
  readonly cert: Buffer
  readonly key: Buffer
}

/**
 * Reads a certificate and its key, PEM. Throws `invalid_config` naming which file is wrong and how: unreadable, not PEM,
 * expired, or a key that is another certificate's.
 */
export function loadCertificate(files: { readonly certificate: string; readonly key: string }): Certificate {
  const cert = read(files.certificate, 'certificate')
  const key = read(files.key, 'key')
  let first: X509Certificate
  try {
    first = new X509Certificate(cert)
  } catch (cause) {
    throw new WritError('invalid_config', `http.tls.certificate: ${files.certificate} is not a PEM certificate`, {
      cause,
    })
  }
  if (first.validToDate.getTime() < Date.now())
    throw new WritError(
      'invalid_config',
      `http.tls.certificate: ${files.certificate} expired on ${first.validToDate.toISOString()}`,
    )
  try {
    createSecureContext({ cert, key })
  } catch (cause) {
    const mismatch = cause instanceof Error && 'code' in cause && cause.code === 'ERR_OSSL_X509_KEY_VALUES_MISMATCH'
    const text = mismatch
      ? `http.tls.key: ${files.key} is not the key of the certificate in ${files.certificate}`
      : `http.tls: ${files.certificate} and ${files.key} cannot be used together`
    throw new WritError('invalid_config', text, { cause })
  }
  return { cert, key }
}

function read(file: string, what: 'certificate' | 'key'): Buffer {
  try {
    return readFileSync(file)
  } catch (cause) {
    throw new WritError(
      'invalid_config',
      `http.tls.${what}: ${file} cannot be read (${systemCode(cause) ?? 'unknown'})`,
      { cause },
    )
  }
}

/**
 * Calls `changed` with a certificate that replaced the one in force, and `refused` with why a new one is not taken; the
 * old one stays then. Looks when the folders change and every half minute, for not every file system tells.
 */
export function watchCertificate(
  files: { readonly certificate: string; readonly key: string },
  known: Certificate,
  on: { changed(certificate: Certificate): void; refused(why: WritError): void },
): { look(): void; close(): void } {
  let last = Buffer.concat([known.cert, known.key])
  let timer: NodeJS.Timeout | undefined
  const look = (): void => {
    try {
      const now = Buffer.concat([read(files.certificate, 'certificate'), read(files.key, 'key')])
      if (now.equals(last)) return
      last = now
      on.changed(loadCertificate(files))
    } catch (failure) {
      if (!(failure instanceof WritError)) throw failure
      on.refused(failure)
    }
  }
  // Certificate and key are replaced one after the other: the first alone would not match.
  const soon = (): void => {
    clearTimeout(timer)
    timer = setTimeout(look, 300)
  }
  const watchers = [...new Set([dirname(files.certificate), dirname(files.key)])].map((folder) => watch(folder, soon))
  const every = setInterval(look, 30_000)
  every.unref()
  return {
    look,
    close() {
      clearTimeout(timer)
      clearInterval(every)
      for (const watcher of watchers) watcher.close()
    },
  }
}

/**
 * The name a client opened a TLS connection to is the one it asks there (RFC 9110 §7.4): what stands in front may have
 * routed by the one and trusted the other. A client that named none (an address) is free to.
 */
export function wasMeant(socket: Socket, host: string): boolean {
  if (!(socket instanceof TLSSocket)) return true
  const { servername } = socket as { readonly servername?: string | false }
  if (servername === undefined || servername === false || servername === '') return true
  return servername.toLowerCase() === host.replace(/:\d{1,5}$/, '')
}

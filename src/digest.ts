import { hash } from 'node:crypto'
import canonicalize from 'canonicalize'
import { WritError } from './error.ts'

declare const brand: unique symbol
/** `sha256:` and 64 lower-case hex digits. */
export type Digest = string & { readonly [brand]: 'digest' }

export type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json }
export type JsonObject = { readonly [key: string]: Json }

export function sha256(bytes: Uint8Array | string): Buffer {
  return hash('sha256', bytes, 'buffer')
}

export function digestOf(bytes: Uint8Array | string): Digest {
  return `sha256:${hash('sha256', bytes, 'hex')}` as Digest
}

export function parseDigest(text: string): Digest | null {
  return /^sha256:[0-9a-f]{64}$/.test(text) ? (text as Digest) : null
}

/** RFC 8785 (JCS) text of a value that is already I-JSON. */
export function canonical(value: unknown): string {
  const text = canonicalize(value)
  if (text === undefined) throw new WritError('internal', 'a value without a canonical form')
  return text
}

/** Digest over the RFC 8785 form: what plans, requirements and policy inputs are named by. */
export function digestJson(value: unknown): Digest {
  return digestOf(canonical(value))
}

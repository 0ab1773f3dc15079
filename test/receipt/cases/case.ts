import { sign } from 'node:crypto'
import type { SigningKey } from '../../../src/jws.ts'
import type { VerdictClass, VerdictCode } from '../../../src/receipt/verdict.ts'
import type { SampleLog } from '../sample.ts'

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

/** A case before the trust it shares with the others. */
export type Draft = Omit<Case, 'trust' | 'verdict'> & {
  readonly trust?: Case['trust']
  readonly verdict?: VerdictClass
}

export const b64 = (bytes: string | Uint8Array) => Buffer.from(bytes).toString('base64url')

export interface Parts {
  readonly header: string
  readonly payload: string
  readonly signature: string
}

export function partsOf(jws: string): Parts {
  const [header = '', payload = '', signature = ''] = jws.split('.')
  return { header, payload, signature }
}

/** Signs header and payload as they are given, whatever they are. */
export function signRaw(header: string | object, payload: string | Uint8Array, key: SigningKey): string {
  const input = `${b64(typeof header === 'string' ? header : JSON.stringify(header))}.${b64(payload)}`
  return `${input}.${b64(sign(null, Buffer.from(input), key.privateKey))}`
}

export function whole(log: SampleLog): readonly (readonly [number, string])[] {
  return log.entries.map(({ index, jws }) => [index, jws] as const)
}

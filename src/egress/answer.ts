import type { IncomingMessage } from 'node:http'
import { promisify } from 'node:util'
import * as zlib from 'node:zlib'
import { systemCode } from '../error.ts'
import { Refusal } from './refusal.ts'

/** Of an answer that is held whole, as it came and decoded. */
export const mostResponseBytes = 8 * 1_048_576

/** An archive on its way: `pieces` throws a `Refusal` where it is too large or breaks off; `closed` resolves in any case. */
export interface Download {
  readonly pieces: AsyncIterable<Buffer>
  readonly closed: Promise<void>
}

/** Names as the service spelt them. */
export function headersOf({ rawHeaders: raw }: IncomingMessage): readonly (readonly [string, string])[] {
  return Array.from({ length: raw.length >> 1 }, (_, at) => [raw[2 * at] ?? '', raw[2 * at + 1] ?? ''] as const)
}

/** What is not held whole: media types of packed bytes, in which no token that a service issues can be read. */
const archive =
  /^(?:application|binary)\/(?:octet-stream|zip|wasm|(?:x-)?(?:gzip|tar|tgz|gtar|bzip2?|xz|zstd|zip-compressed|compressed-tar))\s*(?:;|$)/i

export function isArchive({ statusCode = 0, headers }: IncomingMessage): boolean {
  const { 'content-type': type = '', 'content-encoding': coding = 'identity' } = headers
  // Of an answer that says it has no body nobody would read one, and so never come to its end.
  return statusCode < 300 && statusCode !== 204 && coding === 'identity' && archive.test(type)
}

/** `broken` says why an answer broke off; `hold` is told whether it is the reader that is waited for. */
export async function* piecesOf(
  response: IncomingMessage,
  most: number,
  broken: () => Refusal,
  hold: (held: boolean) => void,
): AsyncGenerator<Buffer> {
  let size = 0
  try {
    for await (const piece of response as AsyncIterable<Buffer>) {
      size += piece.length
      if (size > most) throw new Refusal('response_too_large')
      hold(true)
      yield piece
      hold(false)
    }
  } catch (failure) {
    throw failure instanceof Refusal ? failure : broken()
  }
  if (!response.complete) throw new Refusal('upstream_closed')
}

type Decoder = (
  bytes: Buffer,
  options: { maxOutputLength: number },
  done: (failure: Error | null, bytes: Buffer) => void,
) => void

const decoders: ReadonlyMap<string, Decoder> = new Map<string, Decoder>([
  ['gzip', zlib.gunzip],
  ['x-gzip', zlib.gunzip],
  ['deflate', zlib.inflate],
  ['br', zlib.brotliDecompress],
  ['zstd', zlib.zstdDecompress],
])

/** Takes off one content coding, which the service was asked not to use. Null where that cannot be done. */
export async function decode(headers: readonly (readonly [string, string])[], encoded: Buffer): Promise<Buffer | null> {
  const codings = headers
    .filter(([name]) => name.toLowerCase() === 'content-encoding')
    .flatMap(([, value]) => value.toLowerCase().split(','))
    .map((coding) => coding.trim())
    .filter((coding) => coding !== '' && coding !== 'identity')
  const [coding, more] = codings
  if (coding === undefined || encoded.length === 0) return encoded
  const decoder = decoders.get(coding)
  if (decoder === undefined || more !== undefined) return null
  try {
    return await promisify(decoder)(encoded, { maxOutputLength: mostResponseBytes })
  } catch (failure) {
    if (systemCode(failure) === 'ERR_BUFFER_TOO_LARGE') throw new Refusal('response_too_large')
    return null
  }
}

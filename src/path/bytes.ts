import { createHash } from 'node:crypto'
import type { Digest } from '../digest.ts'
import { WritError } from '../error.ts'
import type { UploadTicket } from './ticket.ts'

/** The one place a body goes: its bytes, where they belong in the file, and how many its request announced. */
export interface Body {
  readonly pieces: AsyncIterable<Uint8Array>
  readonly length: number
  /** From Content-Range, or null for the whole file from its beginning. */
  readonly range: { readonly from: number; readonly to: number; readonly size: number } | null
}

/** A body that brings fewer bytes than this in one `paceMs` is too slow. */
const leastBytes = 32 * 1024

/** A body starts a file anew, or goes on exactly where the last one ended. */
export function checkRange(ticket: UploadTicket, { length, range }: Body): void {
  const { size, upload } = ticket
  if (range === null) {
    if (length !== size)
      throw new WritError('size_mismatch', `The body has ${length} bytes; this URL takes a file of ${size}.`)
    return
  }
  if (range.size !== size || length !== range.to - range.from + 1 || range.to >= size)
    throw new WritError('size_mismatch', `The Content-Range does not fit a file of ${size} bytes and this body.`)
  if (range.from !== upload.offset)
    throw new WritError('size_mismatch', `${upload.offset} bytes have arrived; go on from there.`)
}

/** Ends a body that comes too slowly, takes too long, or whose ticket ends. Its source is left alone: the answer needs it. */
export async function* paced(
  pieces: AsyncIterable<Uint8Array>,
  stop: AbortController,
  paceMs: number,
  bodyMs: number,
): AsyncGenerator<Uint8Array> {
  let halt: (why: WritError) => void = () => undefined
  let halted: WritError | null = null
  const end = (why: WritError): void => {
    halted ??= why
    halt(why)
  }
  const onAbort = (): void => end(stopped(stop.signal))
  stop.signal.addEventListener('abort', onAbort)
  if (stop.signal.aborted) onAbort()
  let came = 0
  const slow = setInterval(() => {
    if (came < leastBytes) end(new WritError('transfer_slow', 'The body came too slowly.'))
    came = 0
  }, paceMs)
  const late = setTimeout(() => end(new WritError('transfer_slow', 'The body took too long.')), bodyMs)
  const source = pieces[Symbol.asyncIterator]()
  try {
    for (;;) {
      const { done, value } = await new Promise<IteratorResult<Uint8Array>>((resolve, reject) => {
        halt = reject
        if (halted !== null) reject(halted)
        source.next().then(resolve, () => {
          reject(new WritError('transfer_cut', 'The connection ended before the body did.'))
        })
      })
      if (done === true) return
      came += value.length
      yield value
    }
  } finally {
    clearInterval(slow)
    clearTimeout(late)
    stop.signal.removeEventListener('abort', onAbort)
  }
}

/** Why what was under way is ended: what it was ended with, where that says it. */
export function stopped({ reason }: AbortSignal): WritError {
  return reason instanceof WritError ? reason : new WritError('transfer_expired', 'This URL was ended.')
}

/**
 * The bytes `from` to `to` of an artifact, both included. All of it is read and hashed, and the last piece that was asked
 * for is kept back until the whole was found to be what its digest says; else it rejects `ledger_corrupt`.
 */
export async function* verified(
  source: AsyncIterable<unknown>,
  { sha256 }: { readonly sha256: Digest },
  from: number,
  to: number,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array> {
  const hash = createHash('sha256')
  let at = 0
  let held: Uint8Array | null = null
  for await (const piece of source) {
    if (signal.aborted) throw stopped(signal)
    const bytes = piece as Uint8Array
    hash.update(bytes)
    const part = bytes.subarray(Math.max(0, from - at), Math.max(0, to + 1 - at))
    at += bytes.length
    if (part.length === 0) continue
    if (held !== null) yield held
    held = part
  }
  if (`sha256:${hash.digest('hex')}` !== sha256)
    throw new WritError('ledger_corrupt', 'an artifact is not what its digest says')
  if (held !== null) yield held
}

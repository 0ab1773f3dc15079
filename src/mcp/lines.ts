import { once } from 'node:events'
import type { Duplex, Readable, Writable } from 'node:stream'
import { type IdFinder, maxMessageBytes, openIdFinder, requestIdIn, type RequestId } from './request-id.ts'

/** Whole lines with their line breaks; one longer than a message may be is skipped and told, with its id, at its break. */
export async function* linesOf(
  stream: Readable,
  tooLong: ((id: RequestId | null) => void) | null,
): AsyncGenerator<Buffer> {
  let held: Buffer[] = []
  let size = 0
  let skipped: IdFinder | null = null
  for await (const piece of stream as AsyncIterable<Buffer | string>) {
    let rest = typeof piece === 'string' ? Buffer.from(piece) : piece
    for (let end = rest.indexOf(10); end >= 0; end = rest.indexOf(10)) {
      const last = rest.subarray(0, end + 1)
      rest = rest.subarray(end + 1)
      const line: Buffer = held.length === 0 ? last : Buffer.concat([...held, last])
      held = []
      size = 0
      skipped?.feed(last)
      if (skipped === null && (tooLong === null || line.length <= maxMessageBytes + 1)) yield line
      else tooLong?.(skipped === null ? requestIdIn(line) : skipped.found())
      skipped = null
    }
    if (rest.length === 0) continue
    skipped?.feed(rest)
    if (skipped !== null) continue
    held.push(rest)
    size += rest.length
    if (tooLong === null || size <= maxMessageBytes) continue
    skipped = openIdFinder()
    for (const part of held) skipped.feed(part)
    held = []
    size = 0
  }
  if (skipped !== null) tooLong?.(skipped.found())
  // A last line without a break is a message all the same when it comes from a client that ended.
  if (tooLong !== null && held.length > 0) yield Buffer.concat([...held, Buffer.from('\n')])
}

/** True once the whole line has left this process; false where it did not and will not. */
export function write(socket: Duplex, line: Buffer): Promise<boolean> {
  return new Promise((resolve) => {
    if (socket.destroyed) resolve(false)
    else socket.write(line, (error) => resolve(error === null || error === undefined))
  })
}

/** Until the stream takes more or is gone. */
export async function drained(stream: Writable): Promise<void> {
  if (stream.destroyed) return
  const stop = new AbortController()
  try {
    const signal = stop.signal
    await Promise.race([once(stream, 'drain', { signal }), once(stream, 'close', { signal })])
  } catch {
    // An error of the stream is followed by its end, which is where it is dealt with.
  } finally {
    stop.abort()
  }
}

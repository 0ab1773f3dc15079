/** Most that one part of an attached stream may hold; engines cut at 32 KiB. */
const mostBytes = 16 * 1024 * 1024

/**
 * Takes the parts of an engine's attached stream apart: eight bytes (which stream, three zeros, a length in big endian),
 * then the bytes. Throws where it is no such stream; whoever reads then stops believing it.
 */
export function splitStreams(take: (stream: 'stdout' | 'stderr', bytes: Buffer) => void): (chunk: Buffer) => void {
  const head = Buffer.alloc(8)
  let filled = 0
  let left = 0
  return (chunk) => {
    let at = 0
    while (at < chunk.length) {
      if (left === 0) {
        const copied = chunk.copy(head, filled, at, at + head.length - filled)
        filled += copied
        at += copied
        if (filled < head.length) return
        filled = 0
        left = head.readUInt32BE(4)
        const stream = head[0] ?? 0
        if ((stream !== 1 && stream !== 2) || head.readUIntBE(1, 3) !== 0 || left > mostBytes)
          throw new Error('not a stream of an engine')
        continue
      }
      const part = chunk.subarray(at, at + left)
      at += part.length
      left -= part.length
      take(head[0] === 1 ? 'stdout' : 'stderr', part)
    }
  }
}

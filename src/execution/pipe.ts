import type { Duplex } from 'node:stream'

/**
 * Frames over one duplex stream: `u32 size of what follows the two lengths`, `u32 size of the header`, the header as
 * JSON, then raw bytes. Both numbers are big endian. A frame that breaks a cap or whose header is not what the reader
 * expects ends the connection: there is no way to find the next frame, and no reason to trust it.
 */
export interface Pipe<Out> {
  /**
   * Resolves `true` once the operating system has taken the bytes (they then survive this process), `false` where the
   * pipe has ended. Never rejects. Awaiting it is the back-pressure.
   */
  send(header: Out, payload?: Uint8Array): Promise<boolean>
  /** Bytes accepted by `send` and not yet taken by the operating system. */
  readonly backlog: number
  /** Resolves when nothing more will be read, after every frame that arrived has been taken. Never rejects. */
  readonly closed: Promise<PipeEnd>
  close(): void
}

/** `ended`: the other side closed it, or we did. `malformed`: a frame that broke a rule. */
export type PipeEnd = 'ended' | 'malformed'

export interface PipeOptions<In> {
  /** The header if it is one this side takes, else null. */
  check(header: unknown): In | null
  /** Takes a frame. The next one is not read before a returned promise settles; a throw ends the pipe. */
  take(header: In, payload: Buffer): void | Promise<void>
  /** Bytes. */
  readonly maxHeader: number
  /** Bytes. */
  readonly maxPayload: number
}

const lengths = 8

export function openPipe<In, Out>(stream: Duplex, options: PipeOptions<In>): Pipe<Out> {
  let open = true
  stream.on('error', () => stream.destroy())
  const closed = read(stream, options)
    .catch((): PipeEnd => 'ended')
    .then((end) => {
      open = false
      stream.destroy()
      return end
    })
  return {
    send(header, payload) {
      return open && stream.writable ? write(stream, header, payload) : Promise.resolve(false)
    },
    get backlog() {
      return stream.writableLength
    },
    closed,
    close() {
      open = false
      stream.destroy()
    },
  }
}

function write(stream: Duplex, header: unknown, payload: Uint8Array | undefined): Promise<boolean> {
  const text = Buffer.from(JSON.stringify(header))
  const head = Buffer.allocUnsafe(lengths + text.length)
  head.writeUInt32BE(text.length + (payload?.length ?? 0), 0)
  head.writeUInt32BE(text.length, 4)
  text.copy(head, lengths)
  return new Promise((resolve) => {
    const done = (error?: Error | null): void => resolve(error === undefined || error === null)
    if (payload === undefined || payload.length === 0) {
      stream.write(head, done)
      return
    }
    stream.cork()
    stream.write(head)
    stream.write(payload, done)
    stream.uncork()
  })
}

async function read<In>(stream: Duplex, options: PipeOptions<In>): Promise<PipeEnd> {
  let chunks: Buffer[] = []
  let have = 0
  let frame: { readonly total: number; readonly header: number } | null = null
  const take = (size: number): Buffer => {
    const all = chunks.length === 1 && chunks[0] !== undefined ? chunks[0] : Buffer.concat(chunks, have)
    have -= size
    chunks = have === 0 ? [] : [all.subarray(size)]
    return all.subarray(0, size)
  }
  for await (const chunk of stream as AsyncIterable<Buffer>) {
    chunks.push(chunk)
    have += chunk.length
    while (have >= (frame?.total ?? lengths)) {
      if (frame === null) {
        const head = take(lengths)
        frame = { total: head.readUInt32BE(0), header: head.readUInt32BE(4) }
        if (frame.header > options.maxHeader || frame.header > frame.total) return 'malformed'
        if (frame.total - frame.header > options.maxPayload) return 'malformed'
        continue
      }
      const bytes = take(frame.total)
      const header = parse(bytes.subarray(0, frame.header), options)
      if (header === null) return 'malformed'
      const payload = bytes.subarray(frame.header)
      frame = null
      try {
        const taken = options.take(header, payload)
        if (taken !== undefined) await taken
      } catch {
        return 'malformed'
      }
    }
  }
  return have === 0 && frame === null ? 'ended' : 'malformed'
}

function parse<In>(text: Buffer, options: PipeOptions<In>): In | null {
  try {
    return options.check(JSON.parse(text.toString('utf8')) as unknown)
  } catch {
    return null
  }
}

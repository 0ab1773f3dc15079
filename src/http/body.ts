import type { IncomingMessage } from 'node:http'

export type Body =
  | { readonly ok: true; readonly bytes: Uint8Array }
  | { readonly ok: false; readonly status: 400 | 408 | 413 }

/**
 * The whole body of a request. 413 as soon as it is or will be longer than `maxBytes`, 408 when it took longer than
 * `withinMs`, 400 when the client ended it early.
 */
export async function readBody(
  incoming: IncomingMessage,
  limits: { readonly maxBytes: number; readonly withinMs: number },
): Promise<Body> {
  if (Number(incoming.headers['content-length'] ?? 0) > limits.maxBytes) return { ok: false, status: 413 }
  return await new Promise<Body>((resolve) => {
    const chunks: Buffer[] = []
    let length = 0
    const end = (body: Body): void => {
      clearTimeout(timer)
      incoming.off('data', take).off('end', whole).off('close', cut).off('error', cut)
      resolve(body)
    }
    const take = (chunk: Buffer): void => {
      length += chunk.length
      if (length > limits.maxBytes) end({ ok: false, status: 413 })
      else chunks.push(chunk)
    }
    const whole = (): void =>
      end({ ok: true, bytes: chunks.length === 1 ? (chunks[0] ?? Buffer.alloc(0)) : Buffer.concat(chunks) })
    const cut = (): void => end({ ok: false, status: 400 })
    const timer = setTimeout(() => end({ ok: false, status: 408 }), limits.withinMs)
    incoming.on('data', take).on('end', whole).on('close', cut).on('error', cut)
  })
}

/**
 * The body as a stream, one piece at a time and only when asked, so that back-pressure reaches the client. Ending it early
 * leaves the connection as it is, for there is an answer still to send.
 * @param begin called before the first piece is waited for: a client that asked whether to send is told so then
 */
export function streamBody(incoming: IncomingMessage, begin: () => void): ReadableStream<Uint8Array> {
  let source: AsyncIterator<Uint8Array> | null = null
  return new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        if (source === null) begin()
        source ??= incoming.iterator({ destroyOnReturn: false }) as AsyncIterator<Uint8Array>
        const { done, value } = await source.next()
        if (done === true) controller.close()
        else controller.enqueue(value)
      },
    },
    { highWaterMark: 0 },
  )
}

/**
 * Reads and forgets what is left of a body, so that closing does not cost the client the answer; gives up where there is
 * more than `maxBytes` or it takes longer than `withinMs`. True where the connection can be used again.
 */
export async function drainBody(
  incoming: IncomingMessage,
  limits: { readonly maxBytes: number; readonly withinMs: number },
): Promise<boolean> {
  if (incoming.complete || incoming.readableEnded) return true
  if (Number(incoming.headers['content-length'] ?? 0) > limits.maxBytes) return false
  return await new Promise<boolean>((resolve) => {
    let length = 0
    const end = (whole: boolean): void => {
      clearTimeout(timer)
      incoming.off('data', take).off('end', finish).off('close', cut).off('error', cut)
      resolve(whole)
    }
    const take = (chunk: Buffer): void => {
      length += chunk.length
      if (length > limits.maxBytes) end(false)
    }
    const finish = (): void => end(true)
    const cut = (): void => end(false)
    const timer = setTimeout(() => end(false), limits.withinMs)
    incoming.on('data', take).on('end', finish).on('close', cut).on('error', cut)
  })
}

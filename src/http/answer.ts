import { once } from 'node:events'
import type { ServerResponse } from 'node:http'

/** A response that is nothing but JSON: it is sent without being made a web object first. */
export interface Json {
  readonly status: number
  readonly json: string
}

/**
 * Sends a response. A body is read only as fast as the client takes it, and is cancelled when the client goes; a body that
 * fails ends the connection, so that half an answer never looks whole. Never rejects.
 */
export async function sendResponse(response: Response | Json, outgoing: ServerResponse): Promise<void> {
  if (!(response instanceof Response)) return sendJson(response, outgoing)
  const { body } = response
  try {
    if (outgoing.destroyed) {
      await body?.cancel()
      return
    }
    for (const [name, value] of response.headers) outgoing.setHeader(name, value)
    outgoing.statusCode = response.status
    if (body === null) {
      outgoing.end()
      return
    }
    const type = response.headers.get('content-type') ?? ''
    if (type.startsWith('application/json') && !response.headers.has('content-length')) {
      const bytes = Buffer.from(await response.arrayBuffer())
      outgoing.setHeader('content-length', bytes.length)
      outgoing.end(bytes)
      return
    }
    outgoing.flushHeaders()
    await pipe(body.getReader(), outgoing)
  } catch {
    // The client went, or the body failed: whoever made the body knows why and has said so in the log.
    await body?.cancel().catch(() => undefined)
    outgoing.destroy()
  }
}

function sendJson({ status, json }: Json, outgoing: ServerResponse): void {
  if (outgoing.destroyed) return
  outgoing.setHeader('content-type', 'application/json')
  outgoing.setHeader('content-length', Buffer.byteLength(json))
  outgoing.statusCode = status
  outgoing.end(json)
}

async function pipe(reader: ReadableStreamDefaultReader<Uint8Array>, outgoing: ServerResponse): Promise<void> {
  const gone = (): void => void reader.cancel().catch(() => undefined)
  outgoing.once('close', gone)
  try {
    for (;;) {
      const { done, value } = await reader.read()
      if (done) break
      if (outgoing.destroyed) return
      // A body may fail while its client does not read: then there is nothing to wait for.
      if (!outgoing.write(value)) await Promise.race([once(outgoing, 'drain'), once(outgoing, 'close'), reader.closed])
    }
    outgoing.end()
  } catch (failure) {
    await reader.cancel().catch(() => undefined)
    throw failure
  } finally {
    outgoing.off('close', gone)
  }
}

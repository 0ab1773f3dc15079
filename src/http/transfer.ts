import { type ErrorCode, WritError } from '../error.ts'
import type { Json, JsonObject } from '../digest.ts'
import { type Parts, reasonOf } from '../path/parts.ts'
import type { TransferDesk } from '../path/desk.ts'

/** One-time URLs over HTTP: the same answers on the loopback listener and under a public URL. */
export interface Transfers {
  /**
   * Answers what lies under `/transfer/`; null for any other path. The token in the path is all the identity there is.
   * Never rejects. A body that was not read to its end is left as it is: whoever has the connection closes it after the
   * answer.
   * @param path of the request's URL, without query
   */
  handle(request: Request, path: string): Promise<Response | null>
  /** Whether the path is that of a live URL. */
  knows(path: string): boolean
}

/** Milliseconds a client may leave a download unread. */
const unreadMs = 60_000

/** What every answer carries: nothing here is a page, and nothing here is kept by a cache. */
const always: Readonly<Record<string, string>> = {
  'cache-control': 'no-store',
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'no-referrer',
  'content-security-policy': "default-src 'none'; sandbox",
  'cross-origin-resource-policy': 'same-origin',
}

export function openTransferAnswers(desk: TransferDesk, parts: Pick<Parts, 'log'>): Transfers {
  async function answer(request: Request, token: string): Promise<Response> {
    const kind = desk.kindOf(token)
    const method = request.method
    if (kind === 'upload' && method === 'PUT') return await takeUpload(desk, request, token)
    if (kind === 'upload' && method === 'HEAD') return await progressOf(desk, token)
    if (kind === 'download' && (method === 'GET' || method === 'HEAD'))
      return await giveFile(desk, parts, request, token)
    const allowed = kind === 'upload' ? 'PUT, HEAD' : 'GET, HEAD'
    throw new WritError('method_not_allowed', `This URL does not take this method.`, {
      remedy: `Use one of: ${allowed}.`,
      cause: allowed,
    })
  }

  return {
    knows(path) {
      const token = tokenOf(path)
      try {
        return token !== undefined && desk.kindOf(token) !== null
      } catch (failure) {
        if (failure instanceof WritError) return false
        throw failure
      }
    },
    async handle(request, path) {
      if (path !== '/transfer' && !path.startsWith('/transfer/')) return null
      const token = tokenOf(path)
      try {
        if (token === undefined) throw new WritError('not_found', 'There is no such transfer.', { remedy: noUrl })
        return await answer(request, token)
      } catch (failure) {
        return refusal(request, failure, parts)
      }
    },
  }
}

function tokenOf(path: string): string | undefined {
  return /^\/transfer\/([A-Za-z0-9_-]{43})$/.exec(path)?.[1]
}

const noUrl = 'Ask for a URL with upload_artifact or get_result.'

async function takeUpload(desk: TransferDesk, request: Request, token: string): Promise<Response> {
  const { offset, size, result } = await desk.receive(token, {
    length: lengthOf(request.headers),
    range: rangeOfBody(request.headers.get('content-range')),
    pieces: piecesOf(request.body),
  })
  const headers = { 'upload-offset': String(offset), 'upload-length': String(size) }
  return result === null ? json(202, { offset, size }, headers) : json(201, result as unknown as JsonObject, headers)
}

async function progressOf(desk: TransferDesk, token: string): Promise<Response> {
  const { offset, size } = await desk.progress(token)
  const headers = { ...always, 'upload-offset': String(offset), 'upload-length': String(size) }
  return new Response(null, { status: 200, headers })
}

function lengthOf(headers: Headers): number {
  const text = headers.get('content-length')
  if (text === null) throw new WritError('length_required', 'The request does not say how long its body is.')
  if (!/^\d{1,15}$/.test(text)) throw new WritError('size_mismatch', 'The Content-Length is not a number of bytes.')
  return Number(text)
}

function rangeOfBody(
  text: string | null,
): { readonly from: number; readonly to: number; readonly size: number } | null {
  if (text === null) return null
  const parts = /^bytes (\d{1,15})-(\d{1,15})\/(\d{1,15})$/.exec(text)
  if (parts === null) throw new WritError('size_mismatch', 'The Content-Range must be "bytes FROM-TO/SIZE".')
  return { from: Number(parts[1]), to: Number(parts[2]), size: Number(parts[3]) }
}

/** A body that is given up is not cancelled: that would end the connection before the answer is sent. */
async function* piecesOf(body: ReadableStream<Uint8Array> | null): AsyncGenerator<Uint8Array> {
  const reader = body?.getReader()
  for (;;) {
    const read = await reader?.read()
    if (read?.value === undefined) return
    yield read.value
  }
}

async function giveFile(
  desk: TransferDesk,
  parts: Pick<Parts, 'log'>,
  request: Request,
  token: string,
): Promise<Response> {
  const file = await desk.describe(token)
  const etag = `"${file.sha256.slice('sha256:'.length)}"`
  const headers: Record<string, string> = {
    ...always,
    etag,
    'accept-ranges': 'bytes',
    'content-type': 'application/octet-stream',
    'content-disposition': `attachment; filename*=UTF-8''${encoded(file.path.slice(file.path.lastIndexOf('/') + 1))}`,
  }
  const range = wantedRange(request.headers, etag, file.size)
  if (range === 'none') {
    const error = {
      code: 'invalid_range',
      message: 'The file has no such bytes.',
      remedy: `It has ${file.size} bytes.`,
    }
    return json(416, { error }, { 'content-range': `bytes */${file.size}` })
  }
  const { from, to } = range ?? { from: 0, to: file.size - 1 }
  headers['content-length'] = String(to - from + 1)
  if (range !== null) headers['content-range'] = `bytes ${from}-${to}/${file.size}`
  const status = range === null ? 200 : 206
  if (request.method === 'HEAD') return new Response(null, { status, headers })
  const early = new AbortController()
  const source = desk.send(token, from, to, (why) => early.abort(why))
  // Asked for before the answer begins: what goes wrong at once can still be said.
  const first = await source.next()
  return new Response(
    stream(source, first, early.signal, (failure) => void reasonOf(parts, failure)),
    { status, headers },
  )
}

/** The one range a request asks for; null for the whole file, which also answers what is not understood (RFC 9110 §14.2). */
function wantedRange(
  headers: Headers,
  etag: string,
  size: number,
): { readonly from: number; readonly to: number } | 'none' | null {
  const text = headers.get('range')
  const known = headers.get('if-range')
  if (text === null || (known !== null && known !== etag)) return null
  const parts = /^bytes=(\d{0,15})-(\d{0,15})$/.exec(text.replaceAll(' ', ''))
  const [, first = '', last = ''] = parts ?? []
  if (first === '' && last === '') return null
  if (first === '') {
    const from = Math.max(0, size - Number(last))
    return from < size ? { from, to: size - 1 } : 'none'
  }
  const from = Number(first)
  const to = last === '' ? size - 1 : Math.min(Number(last), size - 1)
  if (last !== '' && Number(last) < from) return null
  return from < size ? { from, to } : 'none'
}

/** Gives pieces as they are asked for; a failure breaks the connection, so that half a file is never taken for one. */
function stream(
  source: AsyncGenerator<Uint8Array>,
  first: IteratorResult<Uint8Array, void>,
  ended: AbortSignal,
  failed: (failure: unknown) => void,
): ReadableStream<Uint8Array> {
  let next: IteratorResult<Uint8Array, void> | null = first
  let unread: NodeJS.Timeout | undefined
  return new ReadableStream<Uint8Array>(
    {
      start(controller) {
        const giveUp = (why: unknown): void => {
          clearTimeout(unread)
          controller.error(why)
          void source.return(undefined)
        }
        const slow = new WritError('transfer_slow', 'The download was not read.')
        unread = setTimeout(() => giveUp(slow), unreadMs)
        ended.addEventListener('abort', () => giveUp(ended.reason), { once: true })
      },
      async pull(controller) {
        unread?.refresh()
        try {
          const { done, value } = next ?? (await source.next())
          next = null
          if (done !== true) return controller.enqueue(value)
          clearTimeout(unread)
          controller.close()
        } catch (failure) {
          clearTimeout(unread)
          failed(failure)
          controller.error(failure)
        }
      },
      async cancel() {
        clearTimeout(unread)
        await source.return(undefined)
      },
    },
    { highWaterMark: 0 },
  )
}

const statuses: Partial<Record<ErrorCode, number>> = {
  not_found: 404,
  denied: 403,
  method_not_allowed: 405,
  length_required: 411,
  transfer_slow: 408,
  transfer_busy: 409,
  transfer_expired: 410,
  transfer_used: 410,
  transfer_cut: 400,
  size_mismatch: 400,
  too_large: 413,
  invalid_file: 422,
  invalid_archive: 422,
  digest_mismatch: 422,
  quota_exceeded: 429,
  conflict: 503,
  no_space: 507,
}

function refusal(request: Request, failure: unknown, parts: Pick<Parts, 'log'>): Response {
  const known = failure instanceof WritError ? failure : null
  const headers: Record<string, string> = {}
  if (known?.code === 'method_not_allowed' && typeof known.cause === 'string') headers['allow'] = known.cause
  if (known?.code === 'quota_exceeded') headers['retry-after'] = '5'
  const { code, message, remedy, ref } = reasonOf(parts, failure)
  const answer = json(
    known === null ? 500 : (statuses[known.code] ?? 500),
    { error: { code, message, remedy, ref } },
    headers,
  )
  return request.method === 'HEAD' ? new Response(null, answer) : answer
}

function json(
  status: number,
  body: { readonly [key: string]: Json },
  headers: Readonly<Record<string, string>>,
): Response {
  return new Response(JSON.stringify(body), {
    status,
    headers: { ...always, ...headers, 'content-type': 'application/json' },
  })
}

/** RFC 8187: what `encodeURIComponent` leaves and a header parameter does not take is encoded as well. */
function encoded(name: string): string {
  return encodeURIComponent(name.toWellFormed()).replaceAll(
    /['()*]/g,
    (mark) => `%${mark.charCodeAt(0).toString(16).toUpperCase()}`,
  )
}

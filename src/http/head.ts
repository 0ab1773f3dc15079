import { isLoopback } from './settings.ts'

/** What the strict reading of a request's head came to. */
export type Head =
  | { readonly ok: true; readonly path: string; readonly headers: ReadonlyMap<string, string>; readonly host: string }
  | { readonly ok: false; readonly status: number; readonly text: string }

/** Joined with a comma by whoever splits them; of everything else a second one means that two readers could differ. */
const lists = new Set([
  'accept',
  'accept-encoding',
  'accept-language',
  'cache-control',
  'connection',
  'forwarded',
  'pragma',
  'te',
  'vary',
  'via',
  'x-forwarded-for',
  'cookie',
  'priority',
  'keep-alive',
  'baggage',
  'tracestate',
  'if-match',
  'if-none-match',
  'sec-ch-ua',
])

const methods = new Set(['GET', 'HEAD', 'POST', 'PUT', 'DELETE', 'OPTIONS'])
const headBytesMax = 16 * 1024
const headersMax = 100
const targetMax = 2048

/**
 * Reads the head of a request so that it has one meaning: no header twice that is not a list, one framing of the body,
 * a target in origin form (or absolute form that says what Host says), a path without anything that another reader could
 * resolve. `raw` is the list of names and values as they came.
 */
export function readHead(request: {
  readonly method: string
  readonly target: string
  readonly version: string
  readonly raw: readonly string[]
}): Head {
  const { raw } = request
  if (!methods.has(request.method)) return refuse(405, 'this method is not served')
  if (request.version !== '1.1' && request.version !== '1.0') return refuse(505, 'HTTP/1.1 is spoken here')
  if (raw.length > 2 * headersMax) return refuse(431, `a request has at most ${headersMax} headers`)
  const headers = new Map<string, string>()
  let bytes = request.target.length
  for (let at = 0; at < raw.length; at += 2) {
    const name = (raw[at] ?? '').toLowerCase()
    const value = raw[at + 1] ?? ''
    bytes += name.length + value.length
    const before = headers.get(name)
    if (before === undefined) headers.set(name, value)
    else if (lists.has(name)) headers.set(name, `${before}, ${value}`)
    else return refuse(400, 'a header came twice')
    // Header values are bytes; beyond printable ASCII readers differ, and no header of ours has use for it.
    if (!/^[\t\u0020-\u007e]*$/.test(value)) {
      if (name === 'user-agent' || name === 'referer') headers.delete(name)
      else return refuse(400, 'a header has characters outside ASCII')
    }
  }
  if (bytes > headBytesMax) return refuse(431, `the headers are longer than ${headBytesMax} bytes`)
  if (headers.has('transfer-encoding')) {
    if (headers.has('content-length')) return refuse(400, 'a body has one length')
    if (headers.get('transfer-encoding')?.toLowerCase() !== 'chunked' || request.version === '1.0')
      return refuse(501, 'the only transfer coding is chunked')
  }
  const length = headers.get('content-length')
  if (length !== undefined && !/^(?:0|[1-9]\d{0,15})$/.test(length))
    return refuse(400, 'Content-Length is not a number')
  const coding = headers.get('content-encoding')
  if (coding !== undefined && coding.toLowerCase() !== 'identity')
    return refuse(415, 'send the body without a content coding')
  const host = headers.get('host')
  if (host === undefined || !isHost(host)) return refuse(400, 'Host is missing or malformed')
  const path = readTarget(request.target, host)
  if (path === null) return refuse(400, 'the path is not one in its plainest form')
  if (headers.has('expect') && !mayAsk(request.method, path, headers.get('expect')))
    return refuse(417, 'send the body without asking first')
  return { ok: true, path, headers, host: host.toLowerCase() }
}

/** Only before a large file is asking worth a round trip (RFC 9110 §10.1.1). */
function mayAsk(method: string, path: string, expect: string | undefined): boolean {
  return method === 'PUT' && path.startsWith('/transfer/') && expect?.toLowerCase() === '100-continue'
}

/** The path, without the query: nothing here is asked by query, and a token in one must not be looked at. */
function readTarget(target: string, host: string): string | null {
  if (target.length > targetMax) return null
  let rest = target
  if (!rest.startsWith('/')) {
    const absolute = /^https?:\/\/([^/?#]*)(.*)$/i.exec(rest)
    if (absolute === null || absolute[1]?.toLowerCase() !== host.toLowerCase()) return null
    rest = absolute[2] === '' ? '/' : (absolute[2] ?? '')
    if (!rest.startsWith('/')) return null
  }
  const path = rest.split('?', 1)[0] ?? ''
  if (!/^[\w\-./~]+$/.test(path) || path.includes('//')) return null
  if (path.split('/').some((part) => part === '.' || part === '..')) return null
  return path
}

function isHost(text: string): boolean {
  return /^(?:\[[0-9a-f:.]{2,45}\]|[a-z0-9](?:[a-z0-9.-]{0,252}))(?::\d{1,5})?$/i.test(text)
}

function refuse(status: number, text: string): Head {
  return { ok: false, status, text }
}

/** Which hosts and pages may speak to this server: what stands between a page in a browser and a broker on its machine. */
export interface Sources {
  host(host: string): boolean
  /** Whether a page of this origin may call; its own pages may, and those that are listed. */
  origin(origin: string, host: string): boolean
  /** Whether a page of another origin may read answers (CORS). */
  listed(origin: string): boolean
}

export function openSources(options: {
  /** Host names, without ports. */
  readonly hosts: readonly string[]
  readonly origins: readonly string[]
  /** Whether the loopback names are this server's too. */
  readonly loopback: boolean
  /** The scheme pages of this server have. */
  readonly scheme: 'http' | 'https'
}): Sources {
  const hosts = new Set(options.hosts.map((host) => host.toLowerCase()))
  const origins = new Set(options.origins)
  return {
    host: (host) => {
      const name = host.replace(/:\d{1,5}$/, '')
      return hosts.has(name) || (options.loopback && isLoopback(name))
    },
    origin: (origin, host) => origins.has(origin) || origin.toLowerCase() === `${options.scheme}://${host}`,
    listed: (origin) => origins.has(origin),
  }
}

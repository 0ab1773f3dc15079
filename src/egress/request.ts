import type { EgressRequest } from './egress.ts'
import { Refusal } from './refusal.ts'

/** Where the gateway is, as every sandbox sees it. */
export const gatewayOrigin = 'http://127.0.0.1:3128'

const mostHeaderBytes = 16_384
const mostHeaders = 128
const mostBodyBytes = 1_048_576
const mostUrlBytes = 8192

/** A request as the gateway understood it: only in this form does anything else look at it. */
export interface ParsedRequest {
  readonly service: string
  readonly method: string
  /** Begins with `/`; byte for byte as the sandbox wrote it, and with one reading only. */
  readonly path: string
  /** With its `?`, or empty. */
  readonly query: string
  /** Names in lower case, values as latin-1 text; nothing that belongs to the connection or speaks for the gateway. */
  readonly headers: readonly (readonly [string, string])[]
  readonly body: Uint8Array
}

/** Names the service of a URL for the count of refusals, whatever else is wrong with the request. */
export function serviceNamed(url: string): string | null {
  return /^http:\/\/127\.0\.0\.1:3128\/([A-Za-z0-9][\w.-]{0,63})(?:[/?]|$)/.exec(url)?.[1] ?? null
}

/** Throws a `Refusal` for anything that is not exactly one request to one service. */
export function parseRequest(request: EgressRequest): ParsedRequest {
  const { method, url } = request
  if (!/^[A-Z]{1,20}$/.test(method)) throw new Refusal('bad_request')
  if (method === 'TRACE' || method === 'TRACK' || method === 'CONNECT') throw new Refusal('method_not_allowed')
  if (url.length > mostUrlBytes) throw new Refusal('bad_url')
  const service = serviceNamed(url)
  if (service === null) throw new Refusal('bad_url')
  const target = url.slice(gatewayOrigin.length + 1 + service.length)
  // RFC 3986 characters only; `|`, `[`, `]`, `^`, `{`, `}` as well in a query, where people write them.
  const match = /^((?:\/[\w\-.~!$&'()*+,;=:@%/\\]*)?)((?:\?[\w\-.~!$&'()*+,;=:@%/?[\]|{}^]*)?)$/.exec(target)
  if (match === null) throw new Refusal('bad_url')
  const path = match[1] === '' ? '/' : (match[1] ?? '/')
  const query = match[2] ?? ''
  if (isAmbiguous(path)) throw new Refusal('ambiguous_path')
  if (/%(?![0-9A-Fa-f]{2})/.test(query)) throw new Refusal('bad_url')
  const headers = parseHeaders(request.headers)
  if (request.body.length > mostBodyBytes) throw new Refusal('body_too_large')
  return { service, method, path, query, headers, body: request.body }
}

/**
 * A path that a policy and a server could read differently: dot segments, empty segments, back slashes, parameters of
 * segments, and the same in escapes, in escapes of escapes, or in characters that normalise to them.
 */
function isAmbiguous(path: string): boolean {
  if (/%(?![0-9A-Fa-f]{2})/.test(path)) return true
  if (/%(?:2f|5c)/i.test(path)) return true
  let text = path
  for (let round = 0; round < 4; round += 1) {
    const shape = text.normalize('NFKC')
    if (/[\\;\p{Cc}]|\/\//u.test(shape) || shape.split('/').some((segment) => segment === '.' || segment === '..'))
      return true
    if (round > 0 && count(shape, '/') !== count(path, '/')) return true
    if (!text.includes('%')) return false
    try {
      text = decodeURIComponent(text)
    } catch {
      // A lone `%` after the first round is a literal one; before that it is not UTF-8.
      return round === 0
    }
  }
  return true
}

function count(text: string, character: string): number {
  return text.split(character).length - 1
}

/** Belong to a connection, are the gateway's to say, or tell a server to read another method, path or sender than policy judged. */
const dropped: ReadonlySet<string> = new Set([
  'a-im',
  'accept-encoding',
  'cf-connecting-ip',
  'connection',
  'content-length',
  'cookie',
  'cookie2',
  'expect',
  'forwarded',
  'front-end-https',
  'host',
  'http2-settings',
  'keep-alive',
  'te',
  'trailer',
  'transfer-encoding',
  'true-client-ip',
  'upgrade',
  'via',
  'x-client-ip',
  'x-cluster-client-ip',
  'x-envoy-original-path',
  'x-host',
  'x-http-method',
  'x-http-method-override',
  'x-method-override',
  'x-original-host',
  'x-original-method',
  'x-original-uri',
  'x-original-url',
  'x-real-ip',
  'x-rewrite-url',
])

function isDropped(name: string): boolean {
  return dropped.has(name) || name.startsWith('proxy-') || /^x-forwarded(?:-|$)/.test(name)
}

function parseHeaders(headers: EgressRequest['headers']): readonly (readonly [string, string])[] {
  if (headers.length > mostHeaders) throw new Refusal('headers_too_large')
  let size = 0
  const named = new Set<string>()
  const parsed: (readonly [string, string])[] = []
  for (const [given, value] of headers) {
    size += given.length + value.length + 4
    if (size > mostHeaderBytes) throw new Refusal('headers_too_large')
    // RFC 9110 §5.1 and §5.5.
    if (!/^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/.test(given)) throw new Refusal('bad_header')
    if (
      !/^(?:[\u0021-\u007e\u0080-\u00ff](?:[\t \u0021-\u007e\u0080-\u00ff]*[\u0021-\u007e\u0080-\u00ff])?)?$/.test(
        value,
      )
    )
      throw new Refusal('bad_header')
    // Some servers read `_` as `-`, and a second spelling of a dropped or injected header would get past.
    if (given.includes('_')) throw new Refusal('bad_header')
    const name = given.toLowerCase()
    if (name === 'connection') for (const one of value.toLowerCase().split(',')) named.add(one.trim())
    if (!isDropped(name)) parsed.push([name, value])
  }
  return parsed.filter(([name]) => !named.has(name))
}

/** Response headers that the sandbox is not given: of the connection, cookies, and hints at other ways to the service. */
export function isDroppedOfResponse(name: string): boolean {
  return (
    isDropped(name) ||
    name === 'set-cookie' ||
    name === 'set-cookie2' ||
    name === 'alt-svc' ||
    name === 'content-encoding' ||
    name === 'writ-egress'
  )
}

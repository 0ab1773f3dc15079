import { isIP } from 'node:net'
import { z } from 'zod'
import { oauthSchema } from './identity/settings.ts'

export interface Listen {
  readonly host: string
  readonly port: number
}

/** The `http:` section of writ.yaml, checked; every path absolute. */
export interface HttpSettings {
  readonly listen: Listen
  /** Origin under which clients reach this Writ (`https://writ.example`); null where that is the address it listens on. */
  readonly url: string | null
  readonly tls: { readonly certificate: string; readonly key: string } | null
  /** Whether plain HTTP beyond loopback is wanted, because a proxy in front speaks TLS. */
  readonly behindProxy: boolean
  /** Names a Host header may carry beside those of `listen` and `url`. */
  readonly hosts: readonly string[]
  /** Origins of web pages that may call; none unless listed. */
  readonly origins: readonly string[]
  /** Whether `/metrics` is for everybody and not for loopback alone. */
  readonly metrics: boolean
  readonly limits: HttpLimits
}

export interface HttpLimits {
  /** Open connections in all, of one caller, and from one address as long as nobody showed on them who they are. */
  readonly connections: number
  readonly connections_per_caller: number
  readonly connections_per_address: number
  /** Requests being served, waiting ones included: in all, and of one caller. */
  readonly requests: number
  readonly requests_per_caller: number
  /** Sessions of the 2025 revisions: in all, and of one caller. */
  readonly sessions: number
  readonly sessions_per_caller: number
}

const standardLimits: HttpLimits = {
  connections: 4096,
  connections_per_caller: 512,
  connections_per_address: 512,
  requests: 4096,
  requests_per_caller: 512,
  sessions: 4096,
  sessions_per_caller: 128,
}

export const standardListen: Listen = { host: '127.0.0.1', port: 8720 }

const path = z
  .string()
  .min(1, 'must not be empty')
  .max(4096)
  .regex(/^[^\0]*$/, 'no NUL')
const count = z.int().min(1).max(100_000)
const hostName = z.string().refine((text) => isHostName(text), 'has to be a host name or an IP address, without a port')
const origin = z.string().refine(isOrigin, 'has to be an origin: http or https, a host, no path')

export const httpSchema = z.strictObject({
  listen: z
    .string()
    .refine((text) => parseListen(text) !== null, 'has to be HOST:PORT, with an IP address or "localhost" as HOST')
    .optional()
    .describe('Address to listen on, HOST:PORT; loopback unless TLS or a proxy is set up'),
  url: origin.optional().describe('Origin under which clients reach this Writ, such as https://writ.example'),
  tls: z.strictObject({ certificate: path, key: path }).optional().describe('PEM files; read again when they change'),
  unsafe_plain_http_behind_proxy: z
    .boolean()
    .optional()
    .describe('Plain HTTP beyond loopback: only where a proxy in front speaks TLS'),
  hosts: z.array(hostName).max(64).optional().describe('Further names a Host header may carry'),
  origins: z.array(origin).max(64).optional().describe('Origins of web pages that may call'),
  metrics: z.boolean().optional().describe('Serve /metrics to everybody, not to loopback alone'),
  limits: z
    .strictObject({
      connections: count.optional(),
      connections_per_caller: count.optional(),
      connections_per_address: count.optional(),
      requests: count.optional(),
      requests_per_caller: count.optional(),
      sessions: count.optional(),
      sessions_per_caller: count.optional(),
    })
    .optional()
    .describe('How much at once, in all and for one caller'),
  oauth: oauthSchema.optional(),
})

/**
 * Settings of the edge from the section of the file; `listen` of the command line goes before the file's.
 * `resolve` makes a path absolute. Throws what `fail` makes of a setting that would listen beyond loopback unprotected.
 */
export function httpSettings(
  given: Omit<z.output<typeof httpSchema>, 'oauth'>,
  listen: Listen | null,
  options: { readonly resolve: (path: string) => string; readonly fail: (key: string, message: string) => Error },
): HttpSettings {
  const where = listen ?? (given.listen === undefined ? null : parseListen(given.listen)) ?? standardListen
  const tls =
    given.tls === undefined
      ? null
      : { certificate: options.resolve(given.tls.certificate), key: options.resolve(given.tls.key) }
  const behindProxy = given.unsafe_plain_http_behind_proxy ?? false
  if (!isLoopback(where.host)) {
    if (tls === null && !behindProxy)
      throw options.fail(
        'listen',
        'listening beyond loopback needs "tls", or "unsafe_plain_http_behind_proxy: true" behind a proxy that speaks TLS',
      )
    if (given.url === undefined)
      throw options.fail(
        'listen',
        'listening beyond loopback needs "url", the origin under which clients reach this Writ',
      )
  }
  if (given.url !== undefined && !isLoopback(new URL(given.url).hostname) && !given.url.startsWith('https:'))
    throw options.fail('url', 'has to be https, for tokens travel there')
  return {
    listen: where,
    url: given.url === undefined ? null : new URL(given.url).origin,
    tls,
    behindProxy,
    hosts: (given.hosts ?? []).map((host) => host.toLowerCase()),
    origins: (given.origins ?? []).map((one) => new URL(one).origin),
    metrics: given.metrics ?? false,
    limits: { ...standardLimits, ...withoutUndefined(given.limits ?? {}) },
  }
}

/** `HOST:PORT` with an IPv4 address, a bracketed IPv6 address or `localhost`; null for anything else. */
export function parseListen(text: string): Listen | null {
  const match = /^(?:\[([0-9a-f:.]+)\]|([0-9.]+|localhost)):(\d{1,5})$/i.exec(text)
  const host = match?.[1] ?? match?.[2]
  const port = Number(match?.[3])
  if (host === undefined || port > 65_535) return null
  if (match?.[1] !== undefined) return isIP(host) === 6 ? { host, port } : null
  return host.toLowerCase() === 'localhost' ? { host: '127.0.0.1', port } : isIP(host) === 4 ? { host, port } : null
}

/** Whether only this machine reaches an address, as a Host header or `listen` spells it. */
export function isLoopback(host: string): boolean {
  const bare = host.toLowerCase().replace(/^\[(.*)\]$/, '$1')
  return bare === 'localhost' || bare === '::1' || (isIP(bare) === 4 && bare.startsWith('127.'))
}

/** The origin clients use where no `url` is given: that of the address itself. */
export function originOf(settings: HttpSettings, port: number): string {
  const { host } = settings.listen
  return (
    settings.url ?? `${settings.tls === null ? 'http' : 'https'}://${isIP(host) === 6 ? `[${host}]` : host}:${port}`
  )
}

function isHostName(text: string): boolean {
  if (isIP(text.replace(/^\[(.*)\]$/, '$1')) !== 0) return true
  return text.length <= 253 && /^[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*$/i.test(text)
}

function isOrigin(text: string): boolean {
  if (text.length > 255 || !/^https?:\/\/[^/?#@\\]+\/?$/i.test(text) || !URL.canParse(text)) return false
  return true
}

function withoutUndefined<T extends object>(value: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(value).filter(([, one]) => one !== undefined)) as {
    [K in keyof T]?: Exclude<T[K], undefined>
  }
}

import { statSync } from 'node:fs'
import { resolve } from 'node:path'
import { setDefaultCACertificates } from 'node:tls'
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/client'
import { visibleLine } from '../approval/visible.ts'
import { systemCode, WritError } from '../error.ts'
import { type Context, fileOf } from './context.ts'

export interface RemoteOptions {
  readonly url?: string | undefined
  readonly tokenFile?: string | undefined
  readonly ca?: string | undefined
}

/** The way to a Writ elsewhere. */
export interface Remote {
  readonly transport: StreamableHTTPClientTransport
  /** What the person should be told where the connection failed; null where `failure` is about something else. */
  explain(failure: unknown): WritError | null
}

/**
 * Opens MCP over Streamable HTTP; null where no `--url` is given. The token comes from a file and from nowhere else: the
 * command line of a process is anybody's to read. It travels over TLS or to this machine, and is carried to no other place.
 */
export function remoteOf(context: Context, options: RemoteOptions): Remote | null {
  if (options.url === undefined) {
    if (options.tokenFile !== undefined || options.ca !== undefined)
      throw new WritError('usage', '--token-file and --ca go with --url.')
    return null
  }
  if (options.tokenFile === undefined)
    throw new WritError('usage', '--url needs --token-file, a file with a token in it.', {
      remedy: 'The operator makes one with "writ token create"; a token itself is never an argument.',
    })
  const url = endpointOf(options.url)
  const token = tokenIn(context, options.tokenFile)
  if (options.ca !== undefined) trust(context, options.ca)
  const place = url.origin
  let told: WritError | null = null
  const ask = async (input: string | URL, init?: RequestInit): Promise<Response> => {
    // Only what became of the latest request explains a failure.
    told = null
    let response: Response
    try {
      response = await fetch(input, { ...init, redirect: 'error' })
    } catch (failure) {
      if (init?.signal?.aborted !== true) told = unreachable(place, failure, options.ca !== undefined)
      throw failure
    }
    if (response.status === 401 || response.status === 403)
      told = await refusedBy(place, response.clone(), options.tokenFile ?? '')
    if (response.status === 404)
      told = new WritError('broker_unreachable', `There is no Writ at ${url.href} (404).`, { remedy: 'Check --url.' })
    return response
  }
  return {
    transport: new StreamableHTTPClientTransport(url, {
      requestInit: { headers: { authorization: `Bearer ${token}` } },
      fetch: ask,
      reconnectionOptions: {
        initialReconnectionDelay: 500,
        maxReconnectionDelay: 5000,
        reconnectionDelayGrowFactor: 2,
        maxRetries: 2,
      },
    }),
    explain: (failure) =>
      told ??
      (failure instanceof WritError
        ? null
        : new WritError('broker_unreachable', `${place} ended the conversation: ${oneLine(failure)}.`, {
            remedy: 'What was started runs on; look at it with the same token, or ask the operator.',
            cause: failure,
          })),
  }
}

function endpointOf(text: string): URL {
  const url = URL.canParse(text) ? new URL(text) : null
  if (
    url === null ||
    !/^https?:$/.test(url.protocol) ||
    url.username !== '' ||
    url.password !== '' ||
    url.search !== ''
  )
    throw new WritError('usage', '--url takes the URL of a Writ, such as https://writ.example.')
  const near = url.hostname === 'localhost' || url.hostname === '[::1]' || /^127(?:\.\d+){3}$/.test(url.hostname)
  if (url.protocol === 'http:' && !near)
    throw new WritError('usage', '--url has to begin with https://, for the token travels there.')
  url.hash = ''
  if (url.pathname === '/') url.pathname = '/mcp'
  return url
}

function tokenIn(context: Context, file: string): string {
  const token = fileOf(context, file).toString('latin1').trim()
  // RFC 6750 §2.1; anything else would not be one header.
  if (token.length > 16_384 || !/^[A-Za-z0-9._~+/-]+=*$/.test(token))
    throw new WritError('usage', `${file} does not hold a token and nothing else.`, {
      remedy: 'Write what "writ token create" prints on standard output to the file.',
    })
  if ((statSync(resolve(context.cwd, file)).mode & 0o077) !== 0)
    context.note(`${file} can be read by others on this machine; run: chmod 600 ${file}`)
  return token
}

/** With `--ca`, what the file holds is trusted and nothing else is. */
function trust(context: Context, file: string): void {
  const text = fileOf(context, file).toString('latin1')
  try {
    setDefaultCACertificates(text.match(/-----BEGIN CERTIFICATE-----[\s\S]*?-----END CERTIFICATE-----/g) ?? [''])
  } catch (cause) {
    throw new WritError('usage', `${file} holds no certificate in PEM.`, { cause })
  }
}

async function refusedBy(place: string, response: Response, file: string): Promise<WritError> {
  const said: unknown = await response.json().catch(() => null)
  const { error, error_description } = (said ?? {}) as { error?: unknown; error_description?: unknown }
  const why = [error, error_description]
    .filter((part) => typeof part === 'string')
    .map((part) => visibleLine(part).slice(0, 300))
    .join(': ')
  const detail = why === '' ? '' : ` (${why})`
  return response.status === 401
    ? new WritError('denied', `${place} does not take the token in ${file}${detail}.`, {
        remedy: 'It is wrong, expired or revoked: ask the operator of that Writ for a new one.',
      })
    : new WritError('denied', `${place} refuses the request${detail}.`, {
        remedy: 'Ask the operator of that Writ what the token has to hold, and whether the host of --url is right.',
      })
}

/** Codes of TLS for a certificate that was refused, as Node names them. */
const certificate = /^(?:CERT_|UNABLE_TO_|DEPTH_ZERO_|SELF_SIGNED_|ERR_TLS_CERT|HOSTNAME_)/

function unreachable(place: string, failure: unknown, ownCa: boolean): WritError {
  const cause = failure instanceof Error ? (failure.cause ?? failure) : failure
  const code = systemCode(cause) ?? ''
  if (certificate.test(code)) {
    const remedy =
      code === 'ERR_TLS_CERT_ALTNAME_INVALID'
        ? 'Use the host name the certificate is for.'
        : code === 'CERT_HAS_EXPIRED'
          ? 'Ask the operator of that Writ for a new certificate.'
          : ownCa
            ? 'It does not come from the authority in the file of --ca.'
            : 'Where it comes from an authority of your own, name that one with --ca FILE.'
    return new WritError('broker_unreachable', `The certificate of ${place} is not to be trusted (${code}).`, {
      remedy,
      cause,
    })
  }
  if (code === 'UND_ERR_SOCKET' || code === 'ECONNRESET')
    return new WritError('broker_unreachable', `${place} ended the connection.`, {
      remedy: 'That Writ was stopped, or the token was revoked or ran out. What runs there is not lost by it.',
      cause,
    })
  const why = code === '' ? oneLine(cause) : code
  return new WritError('broker_unreachable', `${place} cannot be reached (${why}).`, {
    remedy: 'Check --url, and that "writ serve" runs there.',
    cause,
  })
}

function oneLine(failure: unknown): string {
  return visibleLine(failure instanceof Error ? failure.message : 'unknown').slice(0, 200)
}

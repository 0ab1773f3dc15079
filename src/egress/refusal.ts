import type { EgressResponse } from './egress.ts'

/**
 * Every way the gateway itself answers, and its status. The code names a class and the message says no more: text
 * about what was reached would be an oracle for addresses and names. `policy` stands for
 * the code of the policy's reason.
 */
const classes = {
  bad_request: [400, 'The request is not well-formed for this gateway.'],
  bad_url: [400, 'Use the base URL of a service of this run, as its environment gives it.'],
  ambiguous_path: [400, 'The path can be read in more than one way.'],
  bad_header: [400, 'A header is not well-formed.'],
  headers_too_large: [431, 'The headers are larger than 16 KiB.'],
  body_too_large: [413, 'The body is larger than 1 MiB.'],
  method_not_allowed: [405, 'This method is not passed on.'],
  unknown_service: [403, 'This run has no service of this name.'],
  policy: [403, 'Policy does not allow this request.'],
  policy_unavailable: [403, 'Policy could not be asked.'],
  placeholder_refused: [403, 'The request carries a placeholder that does not belong to this service.'],
  credential_not_leased: [403, 'The credential of this service is not leased to this run.'],
  cleartext_refused: [403, 'A credential is not sent without TLS.'],
  address_refused: [403, 'The service cannot be reached at a permitted address.'],
  request_quota: [429, 'This run has made all the requests it may make.'],
  too_many_at_once: [429, 'Too many requests of this run are under way.'],
  response_too_large: [502, 'The response is larger than this run may take from the service.'],
  response_encoded: [502, 'The response is encoded in a way that cannot be checked for secrets.'],
  response_token: [502, 'The response carries a token that cannot be replaced.'],
  upstream_unresolved: [502, 'The service could not be found.'],
  upstream_unreachable: [502, 'The service could not be reached.'],
  upstream_tls: [502, 'The service could not prove who it is.'],
  upstream_protocol: [502, 'The service did not answer in proper HTTP.'],
  upstream_closed: [502, 'The service closed the connection before its answer was complete.'],
  connect_timeout: [504, 'The service could not be reached in time.'],
  upstream_timeout: [504, 'The service did not answer in time.'],
  cancelled: [499, 'The request was cancelled.'],
  internal: [500, 'The gateway could not pass the request on.'],
} as const

export type RefusalCode = keyof typeof classes

/** What the gateway says instead of an answer. Thrown inside of the gateway only; `fetch` turns it into a response. */
export class Refusal extends Error {
  readonly code: RefusalCode
  /** The code a caller and the report are told: the policy's own for `policy`. */
  readonly shown: string

  constructor(code: RefusalCode, shown: string = code) {
    super(code)
    this.code = code
    this.shown = shown
  }

  /** True where Writ stopped it; false where the service failed or the run gave up. */
  get blocked(): boolean {
    return !/^(upstream_|connect_timeout$|cancelled$|internal$)/.test(this.code)
  }

  response(): EgressResponse {
    const [status, message] = classes[this.code]
    return {
      status,
      headers: [
        ['content-type', 'application/json'],
        ['writ-egress', this.shown],
      ],
      body: Buffer.from(JSON.stringify({ error: { code: this.shown, message } })),
    }
  }
}

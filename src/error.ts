/** Whose fault a failure is. Decides who is told what: a caller never hears of an operator's paths, hosts or settings. */
export type Fault = 'caller' | 'operator' | 'writ'

/**
 * Every way something could not be done. A denial is not here: it is a value and gets a receipt.
 * The table is the only place a code, its fault and its remedy are written.
 */
const catalogue = {
  // caller
  malformed_message: [
    'caller',
    'Send one well-formed JSON-RPC 2.0 message: no duplicate keys, no lone surrogates, depth at most 64, size at most 4 MiB.',
  ],
  method_not_allowed: ['caller', 'Use one of the methods this server lists.'],
  unknown_tool: ['caller', 'Call tools/list and use one of the tools it names.'],
  invalid_arguments: ['caller', 'Correct the field the message names and call again.'],
  not_found: ['caller', 'Check the id; get_status {} lists your latest executions.'],
  idempotency_conflict: ['caller', 'Use a new idempotency_key, or the same arguments as the first time.'],
  invalid_file: ['caller', 'Correct the file the message names and upload it again.'],
  invalid_archive: ['caller', 'Pack regular files only, with relative paths inside the project.'],
  too_large: ['caller', 'Send less, or split it over several calls.'],
  quota_exceeded: ['caller', 'Remove files you no longer need, or ask the operator for a larger quota.'],
  transfer_expired: ['caller', 'Ask for a new URL with the same call as before.'],
  transfer_used: ['caller', 'Ask for a new URL with the same call as before, if there is more to send.'],
  transfer_busy: ['caller', 'Wait until the other request on this URL has ended.'],
  transfer_cut: [
    'caller',
    'Ask by HEAD how much arrived and send the rest with Content-Range, or send all of it again.',
  ],
  transfer_slow: [
    'caller',
    'Ask by HEAD how much arrived and send the rest with Content-Range, or send all of it again.',
  ],
  length_required: ['caller', 'Send a Content-Length; chunked transfer is not taken.'],
  size_mismatch: ['caller', 'Send exactly the bytes the URL was asked for, or ask for a URL with the right size.'],
  digest_mismatch: ['caller', 'Ask for a new URL with the SHA-256 of the very bytes you send.'],
  unknown_target: ['caller', 'Call list_targets and use a target_ref it shows.'],
  unknown_intent: ['caller', 'Call list_targets with this target_ref and use one of its intents.'],
  task_incomplete: ['caller', 'Supply what "missing" names, then start again.'],
  plan_changed: ['caller', 'Read the approval again: the plan it was shown for is no longer the one that waits.'],
  rate_limited: ['caller', 'Wait a minute before the next request of this kind.'],
  denied: ['caller', 'Quote the ref to the operator of this Writ.'],
  // operator
  invalid_config: ['operator', 'Correct writ.yaml at the place the message names.'],
  invalid_catalog: ['operator', 'Correct catalog.yaml at the place the message names.'],
  invalid_policy: [
    'operator',
    'Correct the policy at the place the message names; "writ policy check" shows all findings.',
  ],
  policy_unavailable: ['operator', 'Run "writ status" and "writ policy check".'],
  no_config: ['operator', 'Run "writ init", or name a configuration with --config or WRIT_CONFIG.'],
  broker_running: [
    'operator',
    '"writ status" shows it; "writ stop" ends it, also where a client started it in the background.',
  ],
  broker_unreachable: [
    'operator',
    'Run "writ doctor"; the broker writes why it stopped to broker.log in the data folder.',
  ],
  target_unavailable: ['operator', 'Run "writ doctor" on the machine of the broker.'],
  credential_unavailable: ['operator', 'Run "writ credentials list"; set the value with "writ credentials set NAME".'],
  invalid_secret: ['operator', 'Give a value of at least 8 printable bytes without line breaks.'],
  key_unavailable: ['operator', 'Run "writ init", or restore the keys folder from your backup.'],
  no_space: ['operator', 'Free space on the disk that holds the data folder.'],
  ledger_unavailable: [
    'operator',
    'Check the disk and the permissions of the data folder; another program may hold the database.',
  ],
  ledger_corrupt: [
    'operator',
    'Stop the broker and restore the data folder from a backup; "writ verify" shows the first bad entry.',
  ],
  invalid_key: ['operator', 'Give an Ed25519 key made by "writ init" or "writ approvals enroll".'],
  approval_refused: ['operator', 'Read the reason in the message.'],
  usage: ['operator', 'See --help.'],
  // writ
  internal: ['writ', 'Quote the ref to the operator, who finds the cause in the log of the broker.'],
  conflict: ['writ', 'Read the state again and repeat the call.'],
  run_host_lost: ['writ', 'The run ended "unknown"; look at the target before you start it again.'],
} as const satisfies Record<string, readonly [Fault, string]>

export type ErrorCode = keyof typeof catalogue

/** The one error of Writ. `message` is safe for the party at fault; `cause` is for the operator's log only. */
export class WritError extends Error {
  readonly code: ErrorCode
  readonly fault: Fault
  /** What to do about it, in one sentence. */
  readonly remedy: string

  constructor(code: ErrorCode, message: string, options: { readonly remedy?: string; readonly cause?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause })
    this.name = 'WritError'
    this.code = code
    this.fault = catalogue[code][0]
    this.remedy = options.remedy ?? catalogue[code][1]
  }
}

export const errorCodes = Object.keys(catalogue) as readonly ErrorCode[]

/** The `code` of a Node system error (`ENOENT` …), or null for anything else. */
export function systemCode(error: unknown): string | null {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : null
}

import { findConfig, loadConfig, type Config } from '../config.ts'
import { WritError } from '../error.ts'
import { folderOf } from '../folder.ts'
import { JwsError } from '../jws.ts'
import { openKeys } from '../receipt/keys.ts'
import { openTrust, type Trust } from '../receipt/trust.ts'
import { isValid, type Report } from '../receipt/verdict.ts'
import { type LogEvidence, verifyLog } from '../receipt/verify-log.ts'
import { verifyReceipt } from '../receipt/verify.ts'
import { formatReport } from '../receipt/words.ts'
import { liveStates } from '../execution/execution.ts'
import { type Context, fileOf, no, readAll, withViews, yes } from './context.ts'
import { show } from './print.ts'

export interface VerifyOptions {
  readonly root?: string | undefined
  readonly jwks?: string | undefined
  readonly log?: boolean | undefined
  readonly approver: readonly string[]
}

const maxLogBytes = 1024 * 1024 * 1024

/** Offline. What is believed comes from `--root` and `--jwks`, else from this machine's own configuration and is then called self-pinned. */
export async function verify(context: Context, file: string | undefined, options: VerifyOptions): Promise<number> {
  // Who was given keys to trust needs no configuration, and a broken one nearby is none of their business.
  const config = file !== undefined && options.jwks !== undefined ? null : ownConfig(context)
  let report: Report
  try {
    const trust = trustOf(context, config, options)
    if (file === undefined) report = ownLog(config, trust)
    else {
      const bytes = file === '-' ? await readAll(context.stdin, maxLogBytes) : fileOf(context, file)
      // One trailing line end is how files and pipes end; anything else is part of what is verified.
      const text = bytes.toString('latin1').replace(/\r?\n$/, '')
      report =
        options.log === true
          ? verifyLog(linesOf(text), trust, { approvers: options.approver })
          : verifyReceipt(text, trust, { approvers: options.approver })
    }
  } catch (failure) {
    if (failure instanceof JwsError)
      throw new WritError('invalid_key', `The keys to trust are not sound: ${failure.message} (${failure.code}).`)
    throw failure
  }
  show(context, report, () => formatReport(report).trimEnd())
  return isValid(report) ? yes : no
}

function ownConfig(context: Context): Config | null {
  const file = findConfig({ flag: context.configFlag, env: context.env, cwd: context.cwd })
  return file === null ? null : loadConfig(file)
}

function trustOf(context: Context, config: Config | null, options: VerifyOptions): Trust {
  const own = config === null ? undefined : ownKeySet(config)
  return openTrust({
    root: options.root,
    file: options.jwks === undefined ? undefined : fileOf(context, options.jwks),
    own,
    issuer: options.jwks === undefined ? (config?.issuer ?? undefined) : undefined,
  })
}

function ownKeySet(config: Config): string | undefined {
  try {
    return openKeys(config.keys).jwt
  } catch (failure) {
    // Without keys of its own this machine is one that only verifies.
    if (failure instanceof WritError && failure.code === 'key_unavailable') return undefined
    throw failure
  }
}

function* linesOf(text: string): Generator<{ index: number; jws: string }> {
  let index = 0
  for (const jws of text.split('\n')) yield { index: index++, jws: jws.replace(/\r$/, '') }
}

/** The whole log of this machine's own ledger, with the statements it keeps and the executions that are still open. */
function ownLog(config: Config | null, trust: Trust): Report {
  if (config === null)
    throw new WritError('no_config', 'There is no writ.yaml here, so there is no log to verify; name a file.')
  return (
    withViews(folderOf(config.data), null, (views) => {
      const open = new Set<string>(
        views.executions({ state: [...liveStates] }, 1_000_000).map((execution) => execution.id),
      )
      const statements = views
        .approvals({}, 1_000_000)
        .flatMap((approval) => approval.verdicts.flatMap((verdict) => (verdict.jws === null ? [] : [verdict.jws])))
      const evidence: LogEvidence = { open, statements, approvers: config.approvers.map((approver) => approver.key) }
      const { size } = views.logHead()
      function* entries(): Generator<{ index: number; jws: string }> {
        for (let from = 0; from < size; from += 1000) yield* views.receipts(from, Math.min(1000, size - from))
      }
      return verifyLog(entries(), trust, evidence)
    }) ?? nothingRecorded()
  )
}

function nothingRecorded(): never {
  throw new WritError('not_found', 'Nothing was recorded here yet; run something first, or name a file.')
}

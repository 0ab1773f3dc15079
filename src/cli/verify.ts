import { findConfig, loadConfig, type Config } from '../config.ts'
import { digestJson } from '../digest.ts'
import { WritError } from '../error.ts'
import { folderOf } from '../folder.ts'
import { JwsError, parseCompact, publicKey } from '../jws.ts'
import type { OpenViews } from '../ledger/sqlite/views.ts'
import { readKeySet } from '../receipt/keys.ts'
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
  readonly with: readonly string[]
  readonly held: readonly string[]
}

const maxLogBytes = 1024 * 1024 * 1024

/** Offline. What is believed comes from `--root` and `--jwks`, else from this machine's own configuration and is then called self-pinned. */
export async function verify(context: Context, file: string | undefined, options: VerifyOptions): Promise<number> {
  const whole = file === undefined || options.log === true
  if (options.held.length > 0 && !whole)
    throw new WritError('usage', '--held is for a whole log: receipts kept elsewhere that have to be in it.', {
      remedy: 'Give what one receipt refers to in --with, or a log and --log.',
    })
  // Who was given keys to trust needs no configuration, and a broken one nearby is none of their business.
  const config = file !== undefined && options.jwks !== undefined ? null : ownConfig(context)
  let report: Report
  try {
    const trust = trustOf(context, config, options)
    const { approver: approvers } = options
    const { related, statements, held } = besideOf(context, options)
    if (whole && related.length > 0)
      throw new WritError('usage', 'Receipts beside a whole log are held against it: give them in --held.')
    if (file === undefined) report = ownLog(config, trust, { approvers, statements, held })
    else {
      const bytes = file === '-' ? await readAll(context.stdin, maxLogBytes) : fileOf(context, file)
      // One trailing line end is how files and pipes end; anything else is part of what is verified.
      const text = bytes.toString('latin1').replace(/\r?\n$/, '')
      if (!whole && text.includes('\n')) context.note('This has several lines; did you mean --log?')
      report = whole
        ? verifyLog(linesOf(text), trust, { approvers, statements, held })
        : verifyReceipt(text, trust, { approvers, statements, related })
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
  return openTrust({
    root: options.root,
    file: options.jwks === undefined ? undefined : fileOf(context, options.jwks),
    // Without keys of its own this machine is one that only verifies.
    own: config === null ? undefined : (readKeySet(config.keys) ?? undefined),
    issuer: options.jwks === undefined ? (config?.issuer ?? undefined) : undefined,
  })
}

/** What was given beside the receipt or the log, told apart by what it says it is; one compact JWS a line. */
function besideOf(
  context: Context,
  options: VerifyOptions,
): { readonly related: string[]; readonly statements: string[]; readonly held: string[] | undefined } {
  const linesIn = (names: readonly string[]): readonly string[] =>
    names.flatMap((name) => fileOf(context, name).toString('latin1').split(/\r?\n/)).filter((line) => line !== '')
  const given = linesIn(options.with)
  return {
    related: given.filter((jws) => !isStatement(jws)),
    statements: given.filter(isStatement),
    held: options.held.length === 0 ? undefined : [...linesIn(options.held)],
  }
}

function* linesOf(text: string): Generator<{ index: number; jws: string }> {
  let index = 0
  for (const jws of text.split('\n')) yield { index: index++, jws: jws.replace(/\r$/, '') }
}

/**
 * The whole log of this machine's own ledger as it is at one moment, with the statements it keeps, the keys of everybody
 * who ever could approve, and the executions that are still open.
 */
function ownLog(config: Config | null, trust: Trust, given: LogEvidence): Report {
  if (config === null)
    throw new WritError('no_config', 'There is no writ.yaml here, so there is no log to verify; name a file.')
  return (
    withViews(folderOf(config.data), null, (views) =>
      views.atOnce(() => {
        const open = new Set<string>(
          views.executions({ state: [...liveStates] }, 1_000_000).map((execution) => execution.id),
        )
        const statements = views
          .approvals({}, 1_000_000)
          .flatMap((approval) => approval.verdicts.flatMap((verdict) => (verdict.jws === null ? [] : [verdict.jws])))
        const approvers = [...approverKeys(config, views), ...(given.approvers ?? [])]
        const { size } = views.logHead()
        function* entries(): Generator<{ index: number; jws: string }> {
          for (let from = 0; from < size; from += 1000) yield* views.receipts(from, Math.min(1000, size - from))
        }
        return verifyLog(entries(), trust, {
          open,
          approvers,
          statements: [...statements, ...(given.statements ?? [])],
          held: given.held,
        })
      }),
    ) ?? nothingRecorded()
  )
}

/** Who approved once may be gone, or have another key by now: what was signed then was signed then. */
function approverKeys(config: Config, views: OpenViews): readonly string[] {
  const recorded = views
    .approverSets()
    // What the receipt of the change has the digest of, and nothing else.
    .filter(({ approvers, digest }) => digestJson(approvers) === digest)
    .flatMap(({ approvers }) => approvers.map((approver) => approver['key']))
  const keys = new Set([...recorded, ...config.approvers.map((approver) => approver.key)])
  return [...keys].filter((key): key is string => typeof key === 'string' && isSound(key))
}

function isStatement(jws: string): boolean {
  try {
    parseCompact(jws, 'writ-approval+jwt')
    return true
  } catch (failure) {
    if (failure instanceof JwsError) return false
    throw failure
  }
}

/** A key that is none, or weak, was never taken for anybody's. */
function isSound(key: string): boolean {
  try {
    publicKey(key)
    return true
  } catch (failure) {
    if (failure instanceof JwsError) return false
    throw failure
  }
}

function nothingRecorded(): never {
  throw new WritError('not_found', 'Nothing was recorded here yet; run something first, or name a file.')
}

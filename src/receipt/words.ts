import { countsText } from '../execution/report/report.ts'
import type { Checked } from './check.ts'
import type { DecisionPredicate, OutcomePredicate, PolicyPredicate } from './schema.ts'
import type { Report, Words } from './verdict.ts'

/** What a receipt says, for people. Everything that came out of a receipt passes `inert` on its way to a terminal. */
export function wordsOf(receipt: Checked): Words {
  const { claims } = receipt
  const { predicate } = claims
  const who =
    claims.sub === undefined ? null : `${inert(claims.sub)}, through agent ${inert(claims.act?.sub ?? 'not said')}`
  const nothing = { who, allowedBy: null, ranIn: null, end: null }
  switch (predicate.kind) {
    case 'decision':
      return {
        who,
        what: `${text(predicate.intent)} on ${text(predicate.target_ref)} (${inert(predicate.invocationId)}, task ${inert(claims.txn ?? '')})`,
        allowedBy: decidedBy(predicate),
        ranIn: `isolation planned: ${predicate.isolation}; credentials: ${listed(predicate.lanes, 'none')}`,
        end: null,
      }
    case 'approval':
      return {
        ...nothing,
        what: `a person's answer for ${inert(predicate.invocationId)}, stage ${text(predicate.stage)}: ${predicate.verdict}`,
        allowedBy: `evidence: ${predicate.evidence}, statement ${predicate.statement}`,
      }
    case 'outcome':
      return {
        who,
        what: `the end of ${inert(predicate.invocationId)}, task ${inert(claims.txn ?? '')}`,
        allowedBy: `the decision at index ${predicate.decisionRef.index} (${predicate.decisionRef.digest})`,
        ranIn: ranInWords(predicate),
        end: endWords(predicate),
      }
    case 'denials':
      return {
        ...nothing,
        what: `${predicate.inputs.count} refused requests from ${time(predicate.from)} to ${time(predicate.until)}`,
      }
    case 'policy':
      return { ...nothing, what: policyWords(predicate) }
    case 'key':
      return { ...nothing, what: `the receipt key changed from ${predicate.outgoing} to ${predicate.incoming}` }
    case 'genesis':
      return { ...nothing, what: `the receipt log of root ${predicate.root} begins` }
  }
}

function policyWords(predicate: PolicyPredicate): string {
  switch (predicate.what) {
    case 'generation':
      return `policy generation ${predicate.generation ?? '?'} came into force`
    case 'approvers':
      return 'the set of approvers changed'
    case 'token':
      return `a token of a caller was ${inert(predicate.reason)}`
  }
}

function decidedBy(predicate: DecisionPredicate): string {
  const policy = `policy generation ${predicate.generation} (${predicate.policy})`
  switch (predicate.result) {
    case 'allow':
      return `${policy}${approvedBy(predicate.approvals)}`
    case 'deny':
      return `nobody: denied by ${policy}`
    case 'pending':
      return `nobody yet: ${policy} asks people`
    case 'error':
      return `nobody: ${policy} gave no answer, which counts as no`
  }
}

function approvedBy(approvals: readonly { readonly index: number }[] | { readonly count: number }): string {
  if ('count' in approvals) return `, with ${approvals.count} approvals`
  if (approvals.length === 0) return ''
  return `, with the approvals at index ${approvals.map((approval) => approval.index).join(', ')}`
}

const effectWords = {
  observed: 'its end was observed',
  dispatched: 'it was started and its end is not known',
  none: 'nothing ran',
} as const

function ranInWords({ effect, isolation }: OutcomePredicate): string {
  if (effect === 'none') return 'nothing was started'
  return isolation === null ? 'isolation not seen: the run was lost' : `isolation ${isolation}`
}

function endWords(predicate: OutcomePredicate): string {
  const { counts, exits } = predicate
  const parts = [
    `${predicate.status}: ${effectWords[predicate.effect]}`,
    `exits ${Array.isArray(exits) ? listed(exits.map(String), 'none') : `of ${exits.count} steps`}`,
    `${counts.output_bytes} bytes of output, ${counts.files} files, ${counts.redactions} redactions`,
    `network: ${counts.egress_allowed} calls allowed, ${counts.egress_blocked} blocked`,
    `credentials: revocation ${predicate.revocation}`,
    ...claimedWords(predicate.asserted),
  ]
  return parts.join('; ')
}

/** What a workload says of its own tests is told as that. */
function claimedWords(asserted: OutcomePredicate['asserted']): readonly string[] {
  const [passed, failed, skipped] = ['tests_passed', 'tests_failed', 'tests_skipped'].map((name) => asserted?.[name])
  if (typeof passed !== 'number' || typeof failed !== 'number' || typeof skipped !== 'number') return []
  return [`tests, only as the workload reported them: ${countsText({ passed, failed, skipped })}`]
}

function text(value: string | { readonly digest: string }): string {
  return typeof value === 'string' ? inert(value) : value.digest
}

function listed(items: readonly string[] | { readonly count: number }, empty: string): string {
  if ('count' in items) return `${items.count} kinds`
  return items.length === 0 ? empty : items.map(inert).join(', ')
}

function time(seconds: number): string {
  return seconds < 8.64e12 ? new Date(seconds * 1000).toISOString() : String(seconds)
}

/** Controls, bidi marks, zero-width and unassigned characters are shown escaped: a receipt cannot repaint a terminal. */
export function inert(text: string): string {
  return text.replace(/[\p{C}\p{Zl}\p{Zp}]/gu, (character) => `\\u{${(character.codePointAt(0) ?? 0).toString(16)}}`)
}

/** What a receipt refers to by digest; `given` are the digests of what was checked together with it. */
export function referencesOf(receipt: Checked, given: ReadonlySet<string>): readonly string[] {
  const { predicate, subject } = receipt.claims
  const named: (readonly [string, string])[] = []
  switch (predicate.kind) {
    case 'decision':
      named.push(
        ['the plan', `sha256:${subject[0]?.digest.sha256 ?? ''}`],
        ['the policy', predicate.policy],
        ["the policy input, under the plan's nonce", predicate.input],
      )
      if (Array.isArray(predicate.approvals))
        for (const { digest, index } of predicate.approvals) named.push([`the approval at index ${index}`, digest])
      else named.push([`its ${predicate.approvals.count} approvals, all together`, predicate.approvals.digest])
      break
    case 'approval':
      named.push(
        ['the plan', `sha256:${subject[0]?.digest.sha256 ?? ''}`],
        ['the signed statement of the approver', predicate.statement],
      )
      break
    case 'outcome':
      named.push([`the decision at index ${predicate.decisionRef.index}`, predicate.decisionRef.digest])
      for (const { name, digest } of subject) named.push([inert(name), `sha256:${digest.sha256}`])
      break
    case 'denials':
    case 'policy':
    case 'key':
    case 'genesis':
      for (const { name, digest } of subject) named.push([inert(name), `sha256:${digest.sha256}`])
      break
  }
  return named.filter(([, digest]) => !given.has(digest)).map(([name, digest]) => `${name} (${digest})`)
}

/** The report as `writ verify` prints it, one line a fact, ending in a line break. */
export function formatReport(report: Report): string {
  const lines = [report.code === null ? report.verdict : `${report.verdict} ${report.code}`]
  if (report.why !== null) lines.push(`  why        ${report.why}`)
  if (report.at !== null) lines.push(`  index      ${report.at}`)
  if (report.key !== null) lines.push(`  key        ${report.key.kid} (${report.key.role}), ${pinWords[report.pinned]}`)
  else lines.push(`  trust      ${pinWords[report.pinned]}`)
  const { words, log } = report
  if (words !== null) {
    if (words.who !== null) lines.push(`  who        ${words.who}`)
    lines.push(`  what       ${words.what}`)
    if (words.allowedBy !== null) lines.push(`  allowed by ${words.allowedBy}`)
    if (words.ranIn !== null) lines.push(`  ran in     ${words.ranIn}`)
    if (words.end !== null) lines.push(`  end        ${words.end}`)
  }
  if (log !== null) {
    lines.push(`  log        ${log.size} entries, root ${log.root}`)
    lines.push(
      `  holds      ${Object.entries(log.kinds)
        .map(([kind, count]) => `${count} ${kind}`)
        .join(', ')}`,
    )
  }
  if (report.checked.length > 0) lines.push(`  checked    ${report.checked.join(', ')}`)
  for (const reference of report.refersTo) lines.push(`  not given  ${reference}`)
  for (const gap of report.notShown) lines.push(`  not shown  ${gap}`)
  return `${lines.join('\n')}\n`
}

const pinWords = {
  root: 'pinned by its root',
  jwks: 'from the key file',
  self: 'self-pinned: this machine vouches for itself',
  none: 'nothing was given to trust',
} as const satisfies Record<Report['pinned'], string>

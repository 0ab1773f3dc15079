import { egressModes, isolationLevels } from '../plan/plan.ts'
import type { EgressMode, Isolation, Limits } from '../plan/plan.ts'
import { hostSentence } from './decision.ts'
import type { HostCode, Merged, Sentence } from './decision.ts'
import { distinct, finding, findingsOf, hostFinding, sorted } from './findings.ts'
import type { Answer } from './findings.ts'
import { supportedObligations } from './input.ts'
import { exposures, lanes, limitNames, parseOutput } from './output.ts'
import { defaultCodes } from './pack.ts'
import type { Decision, DecisionErrorCode, Finding, PackOutput, PolicyInput, Requirement, RuleRef } from './policy.ts'
import { byText, mergeRequirement, satisfied } from './requirement.ts'

/** A pack as far as the merge needs it, and what it answered. */
export interface PackAnswer {
  readonly attachment: Answer['attachment']
  readonly result: { readonly ok: PackOutput } | { readonly error: DecisionErrorCode }
}

type Set = keyof PackOutput

const layers = ['org', 'team'] as const
const sets: readonly Set[] = [
  'deny',
  'require_approval',
  'sandbox',
  'obligation',
  'limit',
  'credential',
  'grant',
  'warn',
]

function check({ attachment, result }: PackAnswer): Answer | DecisionErrorCode {
  if ('error' in result) return result.error
  const output = parseOutput(result.ok)
  if (output === null) return 'output_schema'
  if (attachment.kind === 'guard' && output.grant.length + output.credential.length > 0) return 'output_schema'
  const rules = sets.flatMap((set) => output[set].map((element) => element.rule.id))
  // A rule that the compiler did not list cannot be traced to its line.
  return rules.every((id) => Object.hasOwn(attachment.rules, id)) ? { attachment, output } : 'output_schema'
}

/** What a rule says to a caller: its own code, title and remedy, written by the operator, and nothing it computed. */
function ruleSentence(rule: RuleRef, fallback: string): Sentence {
  return {
    code: rule.code === '' ? fallback : rule.code,
    message: rule.title === '' ? 'Policy refuses this.' : sentence(rule.title),
    remedy: rule.remedy === '' ? 'Quote the ref to the operator of this Writ.' : sentence(rule.remedy),
  }
}

/** Titles are often written without a full stop, and a remedy follows. */
function sentence(text: string): string {
  return /[.!?…]$/.test(text) ? text : `${text}.`
}

function lowest(answers: readonly Answer[], plan: Limits | null): Decision['limits'] {
  const limits: { -readonly [L in keyof Limits]?: number } = {}
  for (const name of limitNames) {
    const asked = answers.flatMap(({ output }) => output.limit.flatMap((limit) => limit[name] ?? []))
    if (asked.length === 0) continue
    const least = Math.min(...asked)
    if (plan === null || least < plan[name]) limits[name] = least
  }
  return limits
}

/** A rule that names no lane or exposure means the safest one; one that names a wider one covers the narrower too. */
function covers(named: PackOutput['credential'][number], lane: string, exposure: string): boolean {
  const askedLane = (lanes as readonly string[]).indexOf(lane)
  const askedExposure = (exposures as readonly string[]).indexOf(exposure)
  return (
    askedLane >= 0 &&
    askedExposure >= 0 &&
    askedLane <= (lanes as readonly string[]).indexOf(named.lane ?? 'placeholder') &&
    askedExposure <= (exposures as readonly string[]).indexOf(named.exposure ?? 'none')
  )
}

function byLayer(answers: readonly Answer[]): readonly (readonly Answer[])[] {
  return layers
    .map((layer) => answers.filter(({ attachment }) => attachment.layer === layer && attachment.kind === 'grant'))
    .filter((packs) => packs.length > 0)
}

function leasable(answers: readonly Answer[], input: PolicyInput): readonly string[] {
  const granting = byLayer(answers)
  if (granting.length === 0) return []
  const names = (input.context.plan?.credentials ?? []).filter(({ name, lane, exposure }) =>
    granting.every((packs) =>
      packs.some(({ output }) =>
        output.credential.some((named) => named.name === name && covers(named, lane, exposure)),
      ),
    ),
  )
  return [...new Set(names.map(({ name }) => name))].toSorted(byText)
}

interface Refusal {
  readonly finding: Finding
  readonly sentence: Sentence
}

function hostRefusal(code: HostCode, message: string, layer = 'writ'): Refusal {
  return { finding: hostFinding(code, layer, 'deny', message), sentence: hostSentence(code) }
}

/** The run's sandbox against each demand. Phase `request` has no run; in the others an unknown sandbox is the weakest. */
function sandboxRefusals(answers: readonly Answer[], input: PolicyInput): readonly Refusal[] {
  if (input.phase === 'request') return []
  const isolation: Isolation = input.context.plan?.isolation ?? 'host'
  const egress: EgressMode = input.context.plan?.egress ?? 'open'
  return answers
    .flatMap(({ output }) => output.sandbox)
    .flatMap((demand) => {
      const weak =
        demand.isolation !== null && isolationLevels.indexOf(isolation) < isolationLevels.indexOf(demand.isolation)
      const open = demand.egress !== null && egressModes.indexOf(egress) > egressModes.indexOf(demand.egress)
      return [
        ...(weak ? [sandboxRefusal('isolation_too_weak', `the target has ${isolation}`, demand.rule)] : []),
        ...(open ? [sandboxRefusal('egress_too_open', `the target has ${egress}`, demand.rule)] : []),
      ]
    })
}

/** A rule's own words, and the host's for what it leaves out. */
function sandboxRefusal(code: HostCode, message: string, rule: RuleRef): Refusal {
  const own = hostSentence(code)
  const said = ruleSentence(rule, code)
  return {
    finding: hostFinding(code, 'writ', 'deny', message),
    sentence: {
      code: rule.code === defaultCodes.sandbox ? code : said.code,
      message: rule.title === '' ? own.message : said.message,
      remedy: rule.remedy === '' ? own.remedy : said.remedy,
    },
  }
}

function refusals(answers: readonly Answer[], input: PolicyInput): readonly Refusal[] {
  const denied = answers.flatMap((answer) =>
    answer.output.deny.map(({ rule, message }) => ({
      finding: finding(answer, 'deny', rule, message ?? ''),
      sentence: ruleSentence(rule, 'denied'),
    })),
  )
  // Nobody can be asked about anything but a run.
  const unaskable =
    input.phase === 'execution'
      ? []
      : answers.flatMap((answer) =>
          answer.output.require_approval.map(({ rule, message }) => ({
            finding: finding(answer, 'require_approval', rule, message ?? ''),
            sentence: ruleSentence(rule, 'approval_required'),
          })),
        )
  const unsupported = answers
    .flatMap(({ output }) => output.obligation)
    .filter(({ type }) => !supportedObligations.includes(type))
    .map(({ type }) => hostRefusal('unsupported_obligation', type))
  const rejected = input.context.approvals.some(({ verdict }) => verdict === 'reject')
  const granting = byLayer(answers)
  const ungranted = granting.filter((packs) => packs.every(({ output }) => output.grant.length === 0))
  return [
    ...denied,
    ...unaskable,
    ...(rejected ? [hostRefusal('rejected', '')] : []),
    ...sandboxRefusals(answers, input),
    ...unsupported,
    ...ungranted.map((packs) => hostRefusal('not_granted', '', packs[0]?.attachment.layer ?? 'writ')),
    ...(granting.length === 0 ? [hostRefusal('not_granted', 'no pack that may grant is attached')] : []),
  ]
}

/**
 * One decision out of what each pack answered (docs/policy.md "Merge"): allow = no error, no deny, a grant in every
 * layer that has grant packs (and at least one has), and approvals satisfied. A lower layer and every guard can only narrow.
 * Pure, total, and independent of the order of `answers`.
 */
export function merge(answers: readonly PackAnswer[], input: PolicyInput): Merged {
  const ordered = answers.toSorted(
    (a, b) =>
      layers.indexOf(a.attachment.layer) - layers.indexOf(b.attachment.layer) ||
      byText(a.attachment.pack, b.attachment.pack),
  )
  const usable: Answer[] = []
  const errors: Finding[] = []
  let error: DecisionErrorCode | null = null
  for (const answer of ordered) {
    const checked = check(answer)
    if (typeof checked === 'string') {
      error ??= checked
      const { pack, layer } = answer.attachment
      errors.push({ ...hostFinding(checked, layer, 'error', ''), id: `${pack}/${checked}` })
    } else {
      usable.push(checked)
    }
  }
  const findings = usable.flatMap(findingsOf)
  const nothing = { grants: [], requirement: null, limits: {}, credentials: [] } as const
  if (error !== null) {
    return {
      ...nothing,
      effect: 'error',
      error,
      findings: sorted([...errors, ...findings]),
      sentences: [hostSentence(error)],
    }
  }

  const refused: Refusal[] = [...refusals(usable, input)]
  const [first, ...rest] = usable.flatMap(({ output }) => output.require_approval)
  let requirement: Requirement | null = null
  if (first !== undefined) {
    requirement = mergeRequirement([first, ...rest])
    if (requirement === null) refused.push(hostRefusal('approval_impossible', ''))
  }
  if (refused.length > 0) {
    return {
      ...nothing,
      effect: 'deny',
      error: null,
      findings: sorted([...findings, ...refused.map((refusal) => refusal.finding)]),
      sentences: distinct(
        refused.map((refusal) => refusal.sentence),
        ({ code, message, remedy }) => JSON.stringify([code, message, remedy]),
      ),
    }
  }

  const pending = requirement !== null && !satisfied(requirement, input)
  const asking = usable.flatMap(({ output }) => output.require_approval)
  return {
    effect: pending ? 'pending' : 'allow',
    error: null,
    findings: sorted(findings),
    grants: findings
      .filter(({ kind }) => kind === 'grant')
      .map(({ id }) => id)
      .toSorted(byText),
    requirement,
    limits: lowest(usable, input.context.plan?.limits ?? null),
    credentials: leasable(usable, input),
    sentences: pending
      ? distinct(
          asking.map(({ rule }) => ruleSentence(rule, 'approval_required')),
          ({ code, message, remedy }) => JSON.stringify([code, message, remedy]),
        )
      : [],
  }
}

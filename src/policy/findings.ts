import { hostSentence } from './decision.ts'
import type { HostCode } from './decision.ts'
import { limitNames } from './output.ts'
import type { CompiledPack, Finding, PackOutput, RuleRef } from './policy.ts'
import { byText } from './requirement.ts'

/** An answer that may be used: right in shape, attributable, and within what its kind may say. */
export interface Answer {
  /** The pack as far as the merge needs it. */
  readonly attachment: Pick<CompiledPack, 'pack' | 'layer' | 'kind' | 'rules'>
  readonly output: PackOutput
}

export function finding({ attachment }: Answer, kind: Finding['kind'], rule: RuleRef, message: string): Finding {
  return {
    id: `${attachment.pack}/${rule.id}`,
    layer: attachment.layer,
    kind,
    code: rule.code,
    title: rule.title,
    at: attachment.rules[rule.id]?.at ?? '',
    message,
  }
}

export function hostFinding(code: HostCode, layer: string, kind: 'deny' | 'error', message: string): Finding {
  return { id: `writ/${code}`, layer, kind, code, title: hostSentence(code).message, at: '', message }
}

/** What a pack said, for the operator: every element of every set. */
export function findingsOf(answer: Answer): readonly Finding[] {
  const { output } = answer
  const amounts = (limit: PackOutput['limit'][number]): string =>
    limitNames.flatMap((name) => (limit[name] === undefined ? [] : [`${name} <= ${limit[name]}`])).join(', ')
  return [
    ...output.grant.map(({ rule }) => finding(answer, 'grant', rule, '')),
    ...output.deny.map(({ rule, message }) => finding(answer, 'deny', rule, message ?? '')),
    ...output.require_approval.map(({ rule, message }) => finding(answer, 'require_approval', rule, message ?? '')),
    ...output.limit.map((limit) => finding(answer, 'limit', limit.rule, amounts(limit))),
    ...output.credential.map(({ rule, name, lane, exposure }) =>
      finding(answer, 'credential', rule, `${name} (${lane ?? 'placeholder'}, ${exposure ?? 'none'})`),
    ),
    ...output.sandbox.map(({ rule, isolation, egress }) =>
      finding(answer, 'sandbox', rule, `isolation >= ${isolation ?? 'any'}, egress <= ${egress ?? 'any'}`),
    ),
    ...output.obligation.map(({ rule, type }) => finding(answer, 'obligation', rule, type)),
    ...output.warn.map(({ rule, message }) => finding(answer, 'warn', rule, message)),
  ]
}

/** Once each, in an order that does not depend on the order of packs. */
export function distinct<T>(elements: readonly T[], key: (element: T) => string): readonly T[] {
  return [...new Map(elements.map((element) => [key(element), element])).values()]
}

export function sorted(findings: readonly Finding[]): readonly Finding[] {
  const byKey = new Map(
    findings.map((one) => [JSON.stringify([one.layer, one.kind, one.id, one.message]), one] as const),
  )
  return [...byKey].toSorted(([a], [b]) => byText(a, b)).map(([, one]) => one)
}

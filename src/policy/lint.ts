import type { Facts, Place, Problem, Rule } from './facts.ts'
import { defaultCodes, elementKeys, realPath, setNames } from './pack.ts'
import type { PolicyFinding, SetName } from './pack.ts'
import type { Attachment, CompiledPack } from './policy.ts'

type Report = (at: Place, code: string, message: string, level?: 'error' | 'warning') => void

export interface Linted {
  readonly findings: readonly PolicyFinding[]
  readonly rules: CompiledPack['rules']
}

const byName: ReadonlyMap<string, SetName> = new Map(setNames.map((name) => [name, name]))

/** Judges a pack by the facts and problems the Rego tools reported, as docs/policy.md says what a pack may be. */
export function lint(attachment: Attachment, facts: Facts | null, problems: readonly Problem[]): Linted {
  const findings: PolicyFinding[] = []
  const report: Report = (at, code, message, level = 'error') => {
    findings.push({
      file: realPath(attachment, at.file),
      line: at.row,
      column: at.col,
      level,
      code,
      message: clean(message),
    })
  }
  const [own, generated] = partition(gathered(problems))
  for (const problem of own) problemFinding(problem, report)
  const rules = Object.create(null) as Record<string, CompiledPack['rules'][string]>
  if (facts !== null) {
    checkFiles(attachment.pack, facts, report)
    for (const one of facts.rules) {
      const set = byName.get(one.name)
      checkPhases(one, report)
      if (set === undefined) checkName(one, report)
      else checkSetRule(attachment, set, one, rules, report)
    }
    checkUnused(facts, report)
    checkSuspects(facts, report)
  }
  // What the generated module trips over is the echo of an error in the pack; alone, it has to be said all the same.
  if (!findings.some((finding) => finding.level === 'error'))
    for (const problem of generated) problemFinding(problem, report)
  findings.sort((a, b) => compare(a.file, b.file) || a.line - b.line || a.column - b.column || compare(a.code, b.code))
  return { findings, rules }
}

function compare(a: string, b: string): number {
  if (a === b) return 0
  return a < b ? -1 : 1
}

/** Names in a pack end in terminals and logs: control and bidirectional characters are shown escaped. */
export function clean(text: string): string {
  return text
    .slice(0, 2000)
    .replaceAll(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, (c) =>
      c === '\n' || c === '\t' ? c : `\\u{${c.codePointAt(0)?.toString(16)}}`,
    )
}

const substitutes: ReadonlyMap<string, string> = new Map([
  ['sprintf', 'use a string template: $"{value} is too much"'],
  ['time.now_ns', 'use input.context.time, which is frozen per decision'],
  ['regex.split', 'use split, or regex.find_all_string_submatch_n'],
  ['http.send', 'a policy has no network: what it needs has to be in its input'],
])

function partition(problems: readonly Problem[]): readonly [readonly Problem[], readonly Problem[]] {
  const isGenerated = (problem: Problem): boolean => problem.file.startsWith('writ/')
  return [problems.filter((problem) => !isGenerated(problem)), problems.filter(isGenerated)]
}

/** One problem per place: a rule that says for no phase reads a missing field in several, and is reported once. */
function gathered(problems: readonly Problem[]): readonly Problem[] {
  const byPlace = new Map<string, Problem>()
  for (const problem of problems) {
    const key = `${problem.file}\n${problem.row}:${problem.col}\n${problem.message.split('\n')[0] ?? ''}`
    const same = byPlace.get(key)
    if (same === undefined) byPlace.set(key, problem)
    else if (same.code !== problem.code)
      byPlace.set(key, { ...same, code: `${same.code}, ${problem.code.replace(/^phase:/, '')}` })
  }
  return [...byPlace.values()]
}

function problemFinding(problem: Problem, report: Report): void {
  const phase = /^phase:(.+)$/.exec(problem.code)?.[1]
  if (phase !== undefined) {
    const path = /^undefined ref: ([^\n]*)/.exec(problem.message)?.[1]
    if (path === undefined) return report(problem, 'phase_type', `in phase ${phase}: ${problem.message}`)
    const choice = /want \(one of\): (.*)/.exec(problem.message)?.[1]
    const known =
      choice === undefined ? '' : `; known there: ${choice.replaceAll(/^\[|\]$|"/g, '').replaceAll(' ', ', ')}`
    return report(
      problem,
      'phase_field',
      `${path} is not there in phase ${phase}${known}; correct the name, or say for which phase the rule is: input.phase == "…"`,
    )
  }
  const unknown = /^undefined function ([A-Za-z0-9_.]+)/.exec(problem.message)?.[1]
  if (unknown !== undefined) {
    const instead = substitutes.get(unknown) ?? 'policies/capabilities.json lists what there is'
    return report(
      problem,
      'builtin_not_allowed',
      `${unknown} is not defined here and no built-in that policies may use; ${instead}`,
    )
  }
  report(problem, problem.code, problem.message)
}

function checkFiles(pack: string, facts: Facts, report: Report): void {
  const own = `writ.pack.${pack}`
  const inside = (ref: string, root: string): boolean => ref.startsWith(`${root}.`)
  for (const file of facts.files) {
    const packages = file.test ? [own, `${own}_test`] : [own]
    if (!packages.includes(file.package.name)) {
      report(file.package, 'package_name', `the package is ${file.package.name} and has to be ${packages.join(' or ')}`)
    }
    const roots = packages.map((name) => `data.${name}`)
    for (const used of file.imports) {
      const input = used.name === 'input' || inside(used.name, 'input')
      const data = roots.some((root) => inside(used.name, root) || (file.test && used.name === root))
      if (!input && !data && used.name !== 'rego.v1') {
        report(used, 'foreign_import', `${used.name} may not be imported: a pack sees its own rules and its input only`)
      }
    }
    for (const ref of file.data_refs) {
      const allowed =
        roots.some((root) => inside(ref.name, root)) || (file.test && /^data\.writ\.main\b/.test(ref.name))
      if (!allowed) {
        report(ref, 'foreign_data', `${ref.name} may not be read: a pack sees its own rules and its input only`)
      }
    }
    if (!file.test)
      for (const at of file.withs) report(at, 'with_outside_test', '"with" is for tests, in files named *_test.rego')
    for (const at of file.schemas)
      report(at, 'schema_annotation', 'schemas are set by Writ, one for each phase; remove "schemas" from the METADATA')
  }
}

function checkPhases(one: Rule, report: Report): void {
  for (const value of one.unknown_phases) {
    report(value, 'unknown_phase', `there is no phase "${value.name}"; they are request, execution, approval, egress`)
  }
  if (one.unknown_phases.length === 0 && one.phases.length === 0) {
    report(one, 'no_phase', `${one.name} demands phases that exclude each other and can never hold`)
  }
}

/** A rule outside the sets whose name is close to one: a misspelt `deny` would deny nothing. */
function checkName(one: Rule, report: Report): void {
  if (one.name === 'rego')
    report(one, 'reserved_name', '"rego" is the name of what rules are named by; call the rule otherwise')
  const near = nearest(one.name)
  if (one.form === 'set' && near !== undefined)
    report(one, 'misspelt_set', `"${one.name}" is no set of a pack; did you mean "${near}"?`)
}

function nearest(name: string): SetName | undefined {
  return setNames.find((known) => distance(known, name.toLowerCase()) <= (known.length > 5 ? 2 : 1))
}

function checkUnused(facts: Facts, report: Report): void {
  const forms = new Map(facts.rules.map((one) => [one.name, one.form]))
  for (const one of facts.unused) {
    if (byName.has(one.name)) continue
    if (forms.get(one.name) === 'set') {
      if (nearest(one.name) !== undefined) continue
      report(one, 'unknown_set', `"${one.name}" is no set of a pack (${setNames.join(', ')}) and nothing refers to it`)
    } else {
      report(one, 'unused_rule', `nothing refers to "${one.name}"`, 'warning')
    }
  }
}

/** What the type checker does not look into, so that it may be meant otherwise: warnings. */
function checkSuspects(facts: Facts, report: Report): void {
  for (const one of facts.suspects) {
    const where = `in phase ${one.phases.join(', ')}`
    if (one.kind === 'field') {
      report(one, 'phase_field', `${one.path} is not there ${where}; correct the name`, 'warning')
    } else {
      const known = one.words.map((word) => JSON.stringify(word)).join(', ')
      report(
        one,
        'unknown_word',
        `${one.path} is never ${JSON.stringify(one.word)} ${where}; it is ${known}`,
        'warning',
      )
    }
  }
}

function checkSetRule(
  attachment: Attachment,
  set: SetName,
  one: Rule,
  rules: Record<string, CompiledPack['rules'][string]>,
  report: Report,
): void {
  if (attachment.kind === 'guard' && (set === 'grant' || set === 'credential')) {
    report(one, 'guard_grants', `a guard may not define "${set}"; attach the pack as kind: grant, or move the rule`)
  }
  if (one.form !== 'set' || one.ref !== set || one.else) {
    return report(
      one,
      'output_form',
      `"${set}" is a set: write ${set} contains {"rule": rego.metadata.rule(), …} if { … }`,
    )
  }
  checkEffect(set, one, report)
  checkElement(set, one, report)
  checkMetadata(set, one, rules, report)
}

/** What a run is leased and limited to is settled before it begins. */
function checkEffect(set: SetName, one: Rule, report: Report): void {
  if ((set === 'credential' || set === 'limit') && one.phases.length > 0 && !one.phases.includes('execution'))
    report(one, 'no_effect', `"${set}" has an effect in phase execution only`, 'warning')
}

function checkElement(set: SetName, one: Rule, report: Report): void {
  const { required, optional } = elementKeys[set]
  if (one.keys === null || !one.named) {
    return report(
      one,
      'output_element',
      `an element of "${set}" is written out as an object with "rule": rego.metadata.rule()`,
    )
  }
  const known = ['rule', ...required, ...optional]
  for (const key of one.keys) {
    if (!known.includes(key.name))
      report(key, 'unknown_key', `"${set}" has no "${key.name}"; it has ${known.join(', ')}`)
  }
  for (const bare of one.bare_input.filter(({ name }) => name === 'message')) {
    report(
      bare,
      'bare_message',
      'where this is undefined the whole rule is: write the message as a string template, $"{input. …}"',
    )
  }
  for (const name of required) {
    if (!one.keys.some((key) => key.name === name)) report(one, 'missing_key', `an element of "${set}" needs "${name}"`)
  }
  if (required.length === 0 && (set === 'limit' || set === 'sandbox') && one.keys.length < 2) {
    report(one, 'missing_key', `an element of "${set}" needs one of ${optional.join(', ')}`)
  }
}

const maxTitle = 200
const maxRemedy = 300

function checkMetadata(
  set: SetName,
  one: Rule,
  rules: Record<string, CompiledPack['rules'][string]>,
  report: Report,
): void {
  const [annotation, second] = one.annotations
  if (annotation === undefined || second !== undefined) {
    return report(
      one,
      'metadata',
      `each rule of "${set}" has one METADATA block of its own right above it, with title and custom: {id: …}`,
    )
  }
  const custom = new Map(Object.entries(annotation.custom ?? {}))
  const text = (key: string): string | null => {
    const value = custom.get(key) ?? ''
    return typeof value === 'string' ? value : null
  }
  const id = text('id')
  if (id === null || !/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/.test(id)) {
    return report(annotation, 'metadata_id', 'custom.id names the rule: letters, digits, ".", "_" and "-", at most 64')
  }
  const earlier = rules[id]
  if (earlier !== undefined)
    return report(annotation, 'duplicate_id', `custom.id ${id} is taken by the rule at ${earlier.at}`)
  const code = text('code')
  if (code === null || !/^([a-z][a-z0-9_]{0,63})?$/.test(code)) {
    report(annotation, 'metadata_code', 'custom.code is lower-case letters, digits and _')
  }
  const remedy = text('remedy')
  if (remedy === null || !plain(remedy, maxRemedy)) {
    report(annotation, 'metadata_remedy', `custom.remedy is one sentence of at most ${maxRemedy} printable characters`)
  } else if (remedy === '' && (set === 'deny' || set === 'require_approval')) {
    report(annotation, 'metadata_remedy', `a rule of "${set}" says in custom.remedy what to do about it`)
  }
  if (annotation.title === '' || !plain(annotation.title, maxTitle)) {
    report(annotation, 'metadata_title', `the METADATA has a title of at most ${maxTitle} printable characters`)
  }
  rules[id] = {
    at: `${one.file}:${one.row}`,
    title: annotation.title,
    code: code === null || code === '' ? defaultCodes[set] : code,
    remedy: remedy ?? '',
  }
}

function plain(text: string, most: number): boolean {
  return text.length <= most && text.isWellFormed() && !/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u.test(text)
}

/** Levenshtein's. */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index)
  for (const [i, left] of a.split('').entries()) {
    const next = [i + 1]
    for (const [j, right] of b.split('').entries()) {
      next.push(Math.min((next[j] ?? 0) + 1, (row[j + 1] ?? 0) + 1, (row[j] ?? 0) + (left === right ? 0 : 1)))
    }
    row = next
  }
  return row[b.length] ?? 0
}

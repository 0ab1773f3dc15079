import { canonical, digestJson } from '../digest.ts'
import type { Plan } from '../plan/plan.ts'
import type { Approval } from './approval.ts'
import { quoted, showFiles } from './files.ts'
import type { BytesOf } from './files.ts'
import { visibleLine } from './visible.ts'
import { inOrder, marked, wrapped } from './wrap.ts'

/**
 * What an approver is shown, as text: everything that would run. The digest of this very text stands in the signed
 * statement, so it is made from the approval and its plan alone and comes out the same each time. Every file is shown
 * whole, with the difference to the last approved plan before it; bytes that are not shown are named, once more at the
 * end. No line a caller wrote can pass for one of Writ's: theirs begin with `  | ` or stand quoted in a line that begins
 * with a label of ours, and none is so long that a terminal would wrap it: what goes on begins with `  |>`. Names services
 * and credentials, never where they are.
 */
export async function payloadOf(options: {
  readonly approval: Approval
  readonly plan: Plan
  /** The last plan of this task that was approved, for the difference; null where there is none. */
  readonly before: Plan | null
  readonly bytesOf: BytesOf
}): Promise<string> {
  const { approval, plan } = options
  // A plan asked about again was approved under another requirement: there is nothing it differs from, and all to show.
  const before = options.before !== null && digestJson(options.before) === approval.plan ? null : options.before
  const shown = await showFiles(plan, before, options.bytesOf)
  const lines = [
    `Approval ${approval.id} of execution ${approval.execution}`,
    'Words of others stand in quotes or behind "|"; "|>" goes on with a line.',
    '',
    ...facts(plan).flatMap(([label, said]) =>
      typeof said === 'string' ? [`${label.padEnd(13)} ${said}`] : [label, ...said],
    ),
    '',
    ...(before === null ? [] : [...changes(plan, before), '']),
    ...shown.lines,
    '',
    ...requirementLines(approval),
    ...hiddenLines(approval, shown.hidden),
    '',
  ]
  const once = lines.flatMap(wrapped)
  const text = inOrder(once)
  return (text.length === once.length ? once : text.toSpliced(2, 0, orderNote)).join('\n')
}

const orderNote = 'Lines with "|=" are the one above in its order, right to left as \\u{…}.'

/** What a plan says beside its files: a label of ours, and what stands behind it or in the lines below it. */
function facts(plan: Plan): readonly (readonly [label: string, said: string | readonly string[]])[] {
  const { task, target, statement } = plan
  const limits = Object.entries(plan.limits).map(([name, value]) => `${name} ${String(value)}`)
  const half = Math.ceil(limits.length / 2)
  const steps = plan.steps.map(
    (step, at) =>
      `  ${String(at + 1)}. ${quoted(step.title)}: ${step.argv.map(quoted).join(' ')}${successWords(step.success)}`,
  )
  return [
    ['Asked for by', visibleLine(`${task.owner} through agent ${task.agent}, tenant ${plan.tenant}`)],
    ['Project', quoted(task.project_name)],
    ['Goal', quoted(task.goal)],
    ...(task.context === '' ? [] : [["Context, in the caller's words", marked(task.context)] as const]),
    ['Target', `${visibleLine(target.ref)}${labels(plan)}`],
    ['Intent', `${visibleLine(plan.intent)}; the code is the ${plan.code_origin}'s`],
    [
      'Sandbox',
      visibleLine(
        `${plan.executor}, isolation ${statement.isolation}, runtime ${plan.runtime}, kill ${statement.kill}`,
      ),
    ],
    ['Egress', egress(plan)],
    ['Credentials', credentials(plan)],
    ...(statement.delivery.length === 0 ? [] : [['Delivery', visibleLine(statement.delivery.join(', '))] as const]),
    ['Limits', [`  ${limits.slice(0, half).join(', ')}`, `  ${limits.slice(half).join(', ')}`]],
    ['Steps', steps],
    ...(Object.keys(task.inputs).length === 0 ? [] : [['Inputs', marked(canonical(task.inputs))] as const]),
    ...(plan.stdin === null ? [] : [['Standard input', marked(plan.stdin)] as const]),
    ...(plan.environment.length === 0 ? [] : [['Environment', plan.environment.map(environmentLine)] as const]),
  ]
}

/** Said where it is not what everybody expects. */
function successWords(success: readonly number[]): string {
  return success.length === 1 && success[0] === 0 ? '' : ` (succeeds with exit ${success.join(', ') || 'nothing'})`
}

function labels(plan: Plan): string {
  const entries = Object.entries(plan.target.labels)
  return entries.length === 0 ? '' : ` (${entries.map(([key, value]) => visibleLine(`${key}: ${value}`)).join(', ')})`
}

function egress(plan: Plan): string {
  const names = plan.services.map((service) =>
    visibleLine(`${service.name}${service.credential === null ? '' : ` with ${service.credential}`}`),
  )
  const hosts = plan.hosts.length === 0 ? [] : [`${String(plan.hosts.length)} other hosts`]
  return [plan.statement.egress, [...names, ...hosts].join(', ')].filter((part) => part !== '').join(': ')
}

function credentials(plan: Plan): string {
  if (plan.credentials.length === 0) return 'none'
  return plan.credentials
    .map((credential) => visibleLine(`${credential.name} (lane ${credential.lane}, exposure ${credential.exposure})`))
    .join(', ')
}

function environmentLine(entry: Plan['environment'][number]): string {
  const name = visibleLine(entry.name)
  switch (entry.value.kind) {
    case 'literal':
      return `  ${name} = ${quoted(entry.value.value)}`
    case 'service':
      return `  ${name} = address of service ${visibleLine(entry.value.service)}${entry.value.path === undefined ? '' : `, /${visibleLine(entry.value.path)}`}`
    case 'placeholder':
      return `  ${name} = placeholder of ${visibleLine(entry.value.credential)}`
  }
}

/** What differs from the last approved plan beside the files: what was there, line by line, and what of the catalog changed. */
function changes(plan: Plan, before: Plan): string[] {
  const now = new Map(facts(plan))
  const was = new Map(facts(before))
  const lines: string[] = []
  for (const label of new Set([...was.keys(), ...now.keys()])) {
    const old = was.get(label)
    if (JSON.stringify(old) === JSON.stringify(now.get(label))) continue
    if (old === undefined) lines.push(`  ${label} was not there`)
    else if (typeof old === 'string') lines.push(`  ${label} was ${old}`)
    else lines.push(`  ${label} was`, ...old.map((line) => `  ${line}`))
  }
  for (const [what, value, old] of behind(plan, before))
    if (canonical(value) !== canonical(old)) lines.push(`  ${what} is another now`)
  const known = new Map(before.entries.map(({ entry, digest }) => [entry, digest]))
  for (const { entry, digest } of plan.entries)
    if (known.get(entry) !== digest)
      lines.push(`  The operator's ${visibleLine(entry)} is ${known.has(entry) ? 'another now' : 'new'}`)
  if (lines.length === 0 && canonical(core(plan)) !== canonical(core(before)))
    lines.push('  Something that is not shown here is another now')
  return [
    'Changed since the last approved plan',
    `  ${digestJson(before)}`,
    ...(lines.length === 0 ? ['  nothing but what the files below say'] : lines),
  ]
}

/** What stands behind the names an approver is shown: that it differs is said, and not how, for it names infrastructure. */
function behind(plan: Plan, before: Plan): readonly (readonly [what: string, now: unknown, was: unknown])[] {
  return [
    ['The image it runs in', plan.image, before.image],
    ['What its sandbox is made with', plan.engine, before.engine],
    ['What stands behind its services', plan.services, before.services],
    ['What else it can reach', plan.hosts, before.hosts],
    ['How its credentials are held or used', plan.credentials, before.credentials],
  ]
}

/** A plan without what the files below say and what is another each time. */
function core(plan: Plan): unknown {
  return { ...plan, nonce: '', files: [], entries: [], task: { ...plan.task, id: '', revision: 0 } }
}

function requirementLines(approval: Approval): string[] {
  const { requirement } = approval
  return [
    ...requirement.stages.map(
      (stage) =>
        `Needs         ${String(stage.min)} of ${visibleLine(stage.roles.join('|'))} (stage ${visibleLine(stage.id)})`,
    ),
    `Evidence      ${requirement.evidence.join(' or ')}; not from ${[...approval.excluded.subjects, ...approval.excluded.agents].map(visibleLine).join(', ') || 'nobody in particular'}`,
    `Answer by     ${new Date(approval.expires_at_ms).toISOString()}; it then has to start within ${String(requirement.execute_within_s)} s`,
    'Plan',
    `  ${approval.plan}`,
    'Requirement',
    `  ${approval.requirement_digest}`,
  ]
}

/** Names that stand in a line of what is not shown; the rest is counted. */
const maxNamed = 8

/** The last word before the question: who scrolled past a file that is not shown is told of it again. */
function hiddenLines(approval: Approval, hidden: readonly string[]): readonly string[] {
  if (hidden.length === 0) return []
  const names = hidden.slice(0, maxNamed).map(quoted)
  const more = hidden.length > maxNamed ? ` and ${String(hidden.length - maxNamed)} more` : ''
  return [
    `NOT SHOWN     ${String(hidden.length)} ${hidden.length === 1 ? 'file' : 'files'}: ${names.join(', ')}${more}`,
    `  writ approvals show ${approval.id} --file PATH`,
  ]
}

import { createRequire } from 'node:module'
import type * as Diff from 'diff'
import type { Digest } from '../digest.ts'
import { canonical, digestJson, digestOf } from '../digest.ts'
import { WritError } from '../error.ts'
import type { Plan } from '../plan/plan.ts'
import type { TaskFile } from '../request/task.ts'
import type { Approval } from './approval.ts'
import { unseenCount, visible, visibleLine } from './visible.ts'

/** Bytes of the largest file that is shown, and of all that is shown of files together. */
const maxFileBytes = 65_536
const maxShownBytes = 262_144
/** Lines a difference may have, and bytes that are compared: beyond them finding one costs the broker too much, and the file is shown whole. */
const maxEdits = 400
const maxComparedBytes = 262_144

type BytesOf = (digest: Digest) => Promise<Uint8Array>

/**
 * What an approver is shown, as text: everything that would run. The digest of this very text stands in the signed
 * statement, so it is made from the approval and its plan alone and comes out the same each time. Every file is shown
 * whole, with the difference to the last approved plan before it; bytes that are not shown are named. No line a caller wrote
 * can pass for one of Writ's: theirs begin with `  | ` or stand quoted in a line that begins with a label of ours. Names
 * services and credentials, never where they are. `bytesOf` gives what a digest stands for; what it gives is hashed again.
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
  const lines = [
    `Approval ${approval.id} of execution ${approval.execution}`,
    '',
    ...facts(plan).flatMap(([label, said]) =>
      typeof said === 'string' ? [`${label.padEnd(13)} ${said}`] : [label, ...said],
    ),
    '',
    ...(before === null ? [] : [...changes(plan, before), '']),
    ...(await files(plan, before, options.bytesOf)),
    '',
    ...requirementLines(approval),
    '',
  ]
  return lines.join('\n')
}

/** What a plan says beside its files: a label of ours, and what stands behind it or in the lines below it. */
function facts(plan: Plan): readonly (readonly [label: string, said: string | readonly string[]])[] {
  const { task, target, statement } = plan
  const limits = Object.entries(plan.limits).map(([name, value]) => `${name} ${String(value)}`)
  const steps = plan.steps.map(
    (step, at) => `  ${String(at + 1)}. ${quoted(step.title)}: ${step.argv.map(quoted).join(' ')}`,
  )
  return [
    ['Asked for by', visibleLine(`${task.owner} through agent ${task.agent}, tenant ${plan.tenant}`)],
    ['Project', quoted(task.project_name)],
    ['Goal', quoted(task.goal)],
    ...(task.context === '' ? [] : [["Context, in the caller's words", indented(task.context)] as const]),
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
    ['Limits', limits.join(', ')],
    ['Steps', steps],
    ...(Object.keys(task.inputs).length === 0 ? [] : [['Inputs', indented(canonical(task.inputs))] as const]),
    ...(plan.stdin === null ? [] : [['Standard input', indented(plan.stdin)] as const]),
    ...(plan.environment.length === 0 ? [] : [['Environment', plan.environment.map(environmentLine)] as const]),
  ]
}

function quoted(text: string): string {
  return visibleLine(JSON.stringify(text))
}

function indented(text: string): string[] {
  return visible(text)
    .split('\n')
    .map((line) => `  | ${line}`)
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
  const known = new Map(before.entries.map(({ entry, digest }) => [entry, digest]))
  for (const { entry, digest } of plan.entries)
    if (known.get(entry) !== digest)
      lines.push(`  The operator's ${visibleLine(entry)} is ${known.has(entry) ? 'another now' : 'new'}`)
  return [
    `Changed since the last approved plan, ${digestJson(before)}`,
    ...(lines.length === 0 ? ['  nothing but what the files below say'] : lines),
  ]
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
    `Plan          ${approval.plan}`,
    `Requirement   ${approval.requirement_digest}`,
  ]
}

async function files(plan: Plan, before: Plan | null, bytesOf: BytesOf): Promise<string[]> {
  const earlier = new Map((before?.files ?? []).map((file) => [file.path, file]))
  const total = plan.files.reduce((sum, file) => sum + file.size, 0)
  const lines = [
    `Files         ${plan.files.length === 0 ? 'none' : `${String(plan.files.length)}, ${String(total)} bytes`}`,
  ]
  const left = { shown: maxShownBytes, compared: maxComparedBytes }
  for (const file of plan.files) {
    const was = earlier.get(file.path) ?? null
    earlier.delete(file.path)
    const change =
      before === null ? '' : was === null ? ', NEW' : was.sha256 === file.sha256 ? ', unchanged' : ', CHANGED'
    const mode =
      was !== null && was.executable !== file.executable
        ? file.executable
          ? ', executable NOW'
          : ', executable NO MORE'
        : file.executable
          ? ', executable'
          : ''
    lines.push(`  ${quoted(file.path)}: ${String(file.size)} bytes, ${file.sha256}${mode}${change}`)
    const shown = await content(file, was, bytesOf, left)
    if (typeof shown === 'string') {
      lines.push(`  ! NOT SHOWN: ${shown}; the digest above is what is approved`)
      continue
    }
    left.shown -= sizeOf(shown)
    lines.push(...shown)
  }
  for (const gone of earlier.values()) lines.push(`  ${quoted(gone.path)}: REMOVED, was ${gone.sha256}`)
  return lines
}

/** The lines that show a file, or why it is not shown. */
async function content(
  file: TaskFile,
  was: TaskFile | null,
  bytesOf: BytesOf,
  left: { readonly shown: number; compared: number },
): Promise<string | readonly string[]> {
  if (left.shown <= 0) return `more than ${String(maxShownBytes)} bytes of other files are shown already`
  const now = await text(file, bytesOf)
  if ('missing' in now) return now.missing
  const changed = was !== null && was.sha256 !== file.sha256
  const old = changed && left.compared > 0 ? await text(was, bytesOf) : null
  if (changed) left.compared -= was.size + file.size
  const unseen = unseenCount(now.text)
  const lines = [
    ...(now.crlf ? ['  ! line ends are those of Windows'] : []),
    ...(unseen === 0 ? [] : [`  ! holds ${String(unseen)} characters that cannot be seen, shown as \\u{…}`]),
    ...(changed ? (old === null || 'missing' in old ? [notCompared] : difference(old.text, now.text)) : []),
    ...indented(now.text),
  ]
  return sizeOf(lines) > left.shown ? 'too large to show beside the others' : lines
}

function sizeOf(lines: readonly string[]): number {
  return lines.reduce((sum, line) => sum + Buffer.byteLength(line), 0)
}

const notCompared = '  ! differs from the approved one in more than is shown here; all of it now:'

function difference(old: string, now: string): string[] {
  const { createTwoFilesPatch } = createRequire(import.meta.url)('diff') as typeof Diff
  const patch = createTwoFilesPatch('approved', 'now', old, now, undefined, undefined, {
    context: 3,
    maxEditLength: maxEdits,
  })
  if (patch === undefined) return [notCompared]
  if (!patch.includes('\n@@')) return ['  ! differs from the approved one in line ends only; all of it now:']
  return ['  ! differs from the approved one in:', ...indented(patch.trimEnd()), '  ! all of it now:']
}

async function text(
  file: TaskFile,
  bytesOf: BytesOf,
): Promise<{ readonly text: string; readonly crlf: boolean } | { readonly missing: string }> {
  if (file.size > maxFileBytes) return { missing: `larger than ${String(maxFileBytes)} bytes` }
  const bytes = Buffer.from(await bytesOf(file.sha256))
  // The store is asked for a digest and believed in nothing: what is shown is what is approved.
  if (digestOf(bytes) !== file.sha256)
    throw new WritError('ledger_corrupt', 'a file of the plan is not what its digest says')
  const decoded = bytes.toString('utf8')
  if (!Buffer.from(decoded, 'utf8').equals(bytes) || decoded.includes('\u0000')) return { missing: 'not UTF-8 text' }
  const crlf = /\r\n/.test(decoded) && !/(?<!\r)\n/.test(decoded)
  return { text: crlf ? decoded.replaceAll('\r\n', '\n') : decoded, crlf }
}

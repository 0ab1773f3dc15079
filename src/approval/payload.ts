import { createTwoFilesPatch } from 'diff'
import type { Digest } from '../digest.ts'
import { canonical } from '../digest.ts'
import type { Plan } from '../plan/plan.ts'
import type { TaskFile } from '../request/task.ts'
import type { Approval } from './approval.ts'
import { visible, visibleLine } from './visible.ts'

const maxFileBytes = 65_536
const maxShownBytes = 262_144

/**
 * What an approver is shown, as text: everything that would run. The digest of this very text stands in the signed
 * statement, so it is made from the plan alone and comes out the same each time. Bytes that are not shown are named.
 */
export async function payloadOf(options: {
  readonly approval: Approval
  readonly plan: Plan
  /** The last plan of this task that was approved, for the difference; null where there is none. */
  readonly before: Plan | null
  bytesOf(digest: Digest): Promise<Uint8Array>
}): Promise<string> {
  const { approval, plan, before } = options
  const lines: string[] = [
    `Approval ${approval.id} of execution ${approval.execution}`,
    '',
    `Asked for by  ${visibleLine(plan.task.owner)} through agent ${visibleLine(plan.task.agent)}`,
    `Project       ${visibleLine(plan.task.project_name)}`,
    `Goal          ${visibleLine(plan.task.goal)}`,
    ...(plan.task.context === '' ? [] : ['Context (the caller’s words):', ...indented(plan.task.context)]),
    '',
    `Target        ${visibleLine(plan.target.ref)}${labels(plan)}`,
    `Intent        ${visibleLine(plan.intent)}; the code is the ${plan.code_origin}'s`,
    `Sandbox       ${plan.executor}, isolation ${plan.statement.isolation}, runtime ${plan.runtime}, kill ${plan.statement.kill}`,
    `Egress        ${egress(plan)}`,
    `Credentials   ${credentials(plan)}`,
    `Limits        ${Object.entries(plan.limits).map(([name, value]) => `${name} ${String(value)}`).join(', ')}`,
    '',
    'Steps',
    ...plan.steps.map((step, at) => `  ${String(at + 1)}. ${visibleLine(step.title)}: ${step.argv.map((word) => JSON.stringify(visible(word))).join(' ')}`),
    ...(Object.keys(plan.task.inputs).length === 0 ? [] : ['Inputs', `  ${visibleLine(canonical(plan.task.inputs))}`]),
    ...(plan.stdin === null ? [] : ['Standard input', ...indented(plan.stdin)]),
    ...(plan.environment.length === 0 ? [] : ['Environment', ...plan.environment.map(environmentLine)]),
    '',
    ...(await files(plan, before, options.bytesOf)),
    '',
    `Requirement   ${approval.requirement.stages.map((stage) => `${String(stage.min)} of ${stage.roles.join('|')} (stage ${stage.id})`).join(', ')}; evidence ${approval.requirement.evidence.join(' or ')}`,
    `Plan          ${approval.plan}`,
    `Requirement   ${approval.requirement_digest}`,
    '',
  ]
  return lines.join('\n')
}

function labels(plan: Plan): string {
  const entries = Object.entries(plan.target.labels)
  return entries.length === 0 ? '' : ` (${entries.map(([key, value]) => visibleLine(`${key}: ${value}`)).join(', ')})`
}

function egress(plan: Plan): string {
  if (plan.statement.egress === 'closed') return 'closed'
  const names = plan.services.map((service) => `${service.name}${service.credential === null ? '' : ` with ${service.credential}`}`)
  return `${plan.statement.egress}: ${names.join(', ')}`
}

function credentials(plan: Plan): string {
  if (plan.credentials.length === 0) return 'none'
  return plan.credentials.map((credential) => `${credential.name} (lane ${credential.lane}, exposure ${credential.exposure})`).join(', ')
}

function environmentLine(entry: Plan['environment'][number]): string {
  switch (entry.value.kind) {
    case 'literal':
      return `  ${entry.name} = ${JSON.stringify(visible(entry.value.value))}`
    case 'service':
      return `  ${entry.name} = address of service ${entry.value.service}`
    case 'placeholder':
      return `  ${entry.name} = placeholder of ${entry.value.credential}`
  }
}

function indented(text: string): string[] {
  return visible(text).split('\n').map((line) => `  | ${line}`)
}

async function files(plan: Plan, before: Plan | null, bytesOf: (digest: Digest) => Promise<Uint8Array>): Promise<string[]> {
  if (plan.files.length === 0) return ['Files         none']
  const earlier = new Map((before?.files ?? []).map((file) => [file.path, file]))
  const lines = [before === null ? 'Files' : 'Files, against the last approved plan']
  let left = maxShownBytes
  for (const file of plan.files) {
    const was = earlier.get(file.path) ?? null
    earlier.delete(file.path)
    const change = before === null ? '' : was === null ? ' NEW' : was.sha256 === file.sha256 ? ' unchanged' : ' CHANGED'
    lines.push(`  ${visibleLine(file.path)}  ${String(file.size)} bytes  ${file.sha256}${file.executable ? ' executable' : ''}${change}`)
    if (was?.sha256 === file.sha256) continue
    const shown = left > 0 ? await content(file, was, bytesOf) : null
    if (shown === null || shown.length > left) {
      lines.push('  | NOT SHOWN: too large or not text; the digest above is what is approved')
      continue
    }
    left -= shown.length
    lines.push(...indented(shown))
  }
  for (const gone of earlier.values()) lines.push(`  ${visibleLine(gone.path)}  REMOVED`)
  return lines
}

async function content(file: TaskFile, was: TaskFile | null, bytesOf: (digest: Digest) => Promise<Uint8Array>): Promise<string | null> {
  const now = await text(file, bytesOf)
  if (now === null) return null
  const old = was === null ? null : await text(was, bytesOf)
  return old === null ? now : createTwoFilesPatch('approved', 'now', old, now, undefined, undefined, { context: 3 })
}

async function text(file: TaskFile, bytesOf: (digest: Digest) => Promise<Uint8Array>): Promise<string | null> {
  if (file.size > maxFileBytes) return null
  const bytes = Buffer.from(await bytesOf(file.sha256))
  const decoded = bytes.toString('utf8')
  return Buffer.from(decoded, 'utf8').equals(bytes) && !decoded.includes('\u0000') ? decoded : null
}

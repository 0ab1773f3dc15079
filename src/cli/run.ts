import { basename } from 'node:path'
import { visible, visibleLine } from '../approval/visible.ts'
import type { Json, JsonObject } from '../digest.ts'
import { WritError } from '../error.ts'
import type { ExecutionView, Results } from '../execution/result.ts'
import { parseIJson } from '../json.ts'
import type { Reason } from '../policy/policy.ts'
import { openClient, type ToolClient } from './client.ts'
import { type Context, exitOf, no, yes } from './context.ts'
import { fetchFiles, outFolder } from './fetch.ts'
import { follow } from './follow.ts'
import { forPeople } from './people.ts'
import { show, testLines, told } from './print.ts'
import type { RemoteOptions } from './remote.ts'
import { filesOf, submit } from './send.ts'

export interface RunOptions extends RemoteOptions {
  readonly intent: string
  readonly wait: boolean
  readonly project?: string | undefined
  readonly goal?: string | undefined
  readonly input: readonly string[]
  readonly again?: boolean | undefined
  readonly out?: string | undefined
  readonly dryRun?: boolean | undefined
}

/** Submits, starts, follows and shows, over MCP. What is wrong with the command itself is said before anything is sent. */
export async function run(
  context: Context,
  target: string,
  names: readonly string[],
  options: RunOptions,
): Promise<number> {
  const files = await filesOf(context, names)
  const task = taskOf(
    context,
    target,
    files.map(({ path }) => path),
    options,
  )
  const folder = options.out === undefined ? null : outFolder(context, options.out)
  await using client = await openClient(context, options)
  const submitted = await submit(context, client, task, files)
  if (submitted.error !== undefined || submitted.task_id === undefined) return refused(context, submitted)
  if (submitted.state === 'incomplete') {
    const lines = (submitted.missing ?? []).map(
      ({ what, fix }) => `missing: ${visibleLine(forPeople(what))}\n  ${visibleLine(forPeople(fix))}`,
    )
    show(context, submitted, () => lines.join('\n'))
    return no
  }
  const started = await client.call('start_execution', {
    task_id: submitted.task_id,
    ...(options.dryRun === true ? { dry_run: true } : {}),
    ...(options.again === true ? { again: true, idempotency_key: `run-${crypto.randomUUID()}` } : {}),
  })
  if (started.error !== undefined) return refused(context, started)
  if (options.dryRun === true) return foreseen(context, started)
  if (started.existing === true)
    context.note(
      `${started.execution_id ?? ''} is the run there is of this task, these files and this plan; --again runs them once more.`,
    )
  if (!options.wait) return ids(context, started)
  const ended = await follow(context, client, started)
  if (ended.error !== undefined) return refused(context, ended)
  return await shown(context, client, started, folder, options)
}

function taskOf(context: Context, target: string, paths: readonly string[], options: RunOptions): JsonObject {
  const [first] = paths
  return {
    project_name: options.project ?? (basename(context.cwd) || 'root'),
    goal: options.goal ?? [options.intent, ...(first === undefined ? [] : [first]), 'on', target].join(' '),
    target_ref: target,
    execution_intent: options.intent,
    inputs: inputsOf(options, paths),
  }
}

function foreseen(context: Context, started: Results['start_execution']): number {
  show(context, started, () =>
    [`policy would answer: ${started.effect ?? 'error'}`, ...reasonLines(started.reasons, false)].join('\n'),
  )
  return started.effect === 'allow' ? yes : no
}

/** What there is to know of an execution that nobody waits for. */
function ids(context: Context, started: Results['start_execution']): number {
  const { approval } = started
  show(context, started, () =>
    [
      `task       ${started.task_id ?? ''}`,
      `execution  ${started.execution_id ?? ''}`,
      `state      ${String(started.state)}`,
      ...(approval === undefined ? [] : [`approval   ${approval.approval_id}`, `  ${visibleLine(approval.how)}`]),
      ...reasonLines(started.reasons, true),
    ].join('\n'),
  )
  // What did not even begin is a no already; a script that goes on would wait for nothing.
  return started.final === true && started.state !== 'succeeded' ? no : yes
}

async function shown(
  context: Context,
  client: ToolClient,
  { execution_id, existing }: Partial<ExecutionView>,
  folder: string | null,
  options: RunOptions,
): Promise<number> {
  const result = await client.call('get_result', { execution_id: execution_id ?? '' })
  if (result.error !== undefined) return refused(context, result)
  if (folder !== null) await fetchFiles(context, client, result, folder, options.out ?? '')
  show(context, existing === true ? { ...result, existing } : result, () => report(result, options.url !== undefined))
  return result.state === 'succeeded' ? yes : no
}

function report(result: Results['get_result'], remote: boolean): string {
  const lines = [`${result.execution_id ?? ''}  ${result.state ?? ''}`, ...reasonLines(result.reasons, true)]
  for (const step of result.steps ?? [])
    lines.push(`  step  ${visibleLine(step.title)}: exit ${String(step.exit)} in ${String(step.ms)} ms`)
  if (result.tests !== undefined) lines.push(...testLines(result.tests, '  tests ', '        '))
  for (const file of result.files ?? []) {
    lines.push(`  file  ${visibleLine(file.path)}  ${String(file.size)} bytes`)
    if (file.text !== undefined)
      lines.push(
        ...visible(file.text)
          .trimEnd()
          .split('\n')
          .map((line) => `        ${line}`),
      )
  }
  if (result.withheld !== undefined && result.withheld.redacted + result.withheld.blocked > 0)
    lines.push(`  withheld  ${String(result.withheld.redacted)} redacted, ${String(result.withheld.blocked)} blocked`)
  if (result.receipt !== undefined)
    lines.push(
      `  receipt  ${result.receipt.receipt_id}${remote ? '' : `   (check it: writ receipts show --jws ${result.receipt.receipt_id} | writ verify -)`}`,
    )
  return lines.join('\n')
}

function reasonLines(reasons: readonly Reason[] | undefined, withRef: boolean): readonly string[] {
  return (reasons ?? []).map((reason) => visibleLine(`  ${told(reason)}${withRef ? ` (ref ${reason.ref})` : ''}`))
}

/** Says why a tool refused; what is the operator's to put right is no answer, but a fault. */
function refused(context: Context, result: { readonly error?: Reason }): number {
  const { error } = result
  const { code = 'refused', message = '', remedy = '', ref = '' } = error ?? {}
  show(context, result, () => visible(`${code}: ${forPeople(message)}\n  ${forPeople(remedy)} (ref ${ref})`))
  return exitOf(code)
}

/** `K=V`: V is JSON where it parses as such, else text. The first file is the script unless `--input script=` says otherwise. */
function inputsOf(options: RunOptions, paths: readonly string[]): JsonObject {
  const inputs = new Map<string, Json>()
  const [script] = paths
  if (options.intent === 'run_script' && script !== undefined) inputs.set('script', script)
  for (const pair of options.input) {
    const at = pair.indexOf('=')
    if (at < 1) throw new WritError('usage', `--input takes K=V, not "${pair}".`)
    inputs.set(pair.slice(0, at), jsonOrText(pair.slice(0, at), pair.slice(at + 1)))
  }
  return Object.fromEntries(inputs)
}

function jsonOrText(name: string, text: string): Json {
  try {
    JSON.parse(text)
  } catch {
    return text
  }
  try {
    // What no message can hold, such as a number that would be rounded, is refused in words about the message there.
    return parseIJson(text)
  } catch (cause) {
    if (!(cause instanceof WritError)) throw cause
    throw new WritError('usage', `--input ${name} cannot be sent as the JSON it is: ${cause.message}.`, {
      remedy: `Quote it to give it as text: --input '${name}="…"'.`,
      cause,
    })
  }
}

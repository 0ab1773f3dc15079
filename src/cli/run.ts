import { lstatSync, mkdirSync, readFileSync, realpathSync, writeFileSync } from 'node:fs'
import { basename, dirname, join, relative, resolve, sep } from 'node:path'
import { Client, ProtocolError } from '@modelcontextprotocol/client'
import { StdioClientTransport } from '@modelcontextprotocol/client/stdio'
import { visible, visibleLine } from '../approval/visible.ts'
import { findConfig, loadConfig } from '../config.ts'
import type { Json, JsonObject } from '../digest.ts'
import { WritError } from '../error.ts'
import type { Results } from '../execution/result.ts'
import type { ToolName } from '../request/call.ts'
import { siblingModule } from '../module.ts'
import { type Context, no, yes } from './context.ts'
import { testLines, told } from './print.ts'
import { type RemoteOptions, remoteOf } from './remote.ts'

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

/** A client like any other: it speaks MCP to `writ mcp`, or over HTTP to a Writ elsewhere, and may do nothing that an agent may not. */
export async function run(
  context: Context,
  target: string,
  files: readonly string[],
  options: RunOptions,
): Promise<number> {
  const remote = remoteOf(context, options)
  const client = new Client({ name: 'writ-run', version: context.version }, { versionNegotiation: { mode: 'auto' } })
  try {
    await client.connect(remote?.transport ?? nearby(context))
    return await drive(context, client, target, files, options)
  } catch (failure) {
    // A message refused outside of a tool's result: its text is Writ's own and made for callers.
    if (!(failure instanceof ProtocolError)) throw remote?.explain(failure) ?? failure
    if (context.json) context.data({ error: { code: 'denied', message: failure.message, remedy: '' } })
    else context.say(failure.message)
    return no
  } finally {
    await client.close()
  }
}

function nearby(context: Context): StdioClientTransport {
  const config = findConfig({ flag: context.configFlag, env: context.env, cwd: context.cwd })
  if (config === null) throw new WritError('no_config', 'There is no writ.yaml here or in a folder above.')
  // Said here: a client of a process that could not start hears only that it ended.
  loadConfig(config)
  const env = Object.fromEntries(
    Object.entries(context.env).filter((entry): entry is [string, string] => entry[1] !== undefined),
  )
  const main = siblingModule(import.meta.url, '../main')
  return new StdioClientTransport({
    command: process.execPath,
    args: [main, 'mcp', '--config', config],
    env,
    cwd: context.cwd,
    stderr: 'inherit',
  })
}

async function call<T extends ToolName>(client: Client, tool: T, args: JsonObject): Promise<Results[T]> {
  const result = await client.callTool({ name: tool, arguments: args }, { timeout: 120_000 })
  const structured: unknown = result.structuredContent ?? {}
  return structured as Results[T]
}

async function drive(
  context: Context,
  client: Client,
  target: string,
  files: readonly string[],
  options: RunOptions,
): Promise<number> {
  const uploads = files.map((file) => upload(context, file))
  const inputs = inputsOf(
    options,
    uploads.map((file) => String(file['path'])),
  )
  const first = uploads[0]
  const submitted = await call(client, 'submit_task', {
    project_name: options.project ?? basename(context.cwd),
    goal:
      options.goal ??
      `${options.intent} ${first === undefined ? '' : String(first['path'])} on ${target}`.replace('  ', ' '),
    target_ref: target,
    execution_intent: options.intent,
    inputs,
    files: uploads,
  })
  if (submitted.error !== undefined || submitted.task_id === undefined) return refused(context, submitted)
  if (submitted.state === 'incomplete') {
    if (context.json) context.data(submitted)
    else
      for (const missing of submitted.missing ?? [])
        context.say(`missing: ${visibleLine(missing.what)}\n  ${visibleLine(missing.fix)}`)
    return no
  }
  const key = options.again === true ? `run-${crypto.randomUUID()}` : null
  const started = await call(client, 'start_execution', {
    task_id: submitted.task_id,
    ...(options.dryRun === true ? { dry_run: true } : {}),
    ...(key === null ? {} : { again: true, idempotency_key: key }),
  })
  if (started.error !== undefined) return refused(context, started)
  if (options.dryRun === true) {
    if (context.json) context.data(started)
    else
      context.say(
        [
          `policy would answer: ${started.effect ?? 'error'}`,
          ...(started.reasons ?? []).map((reason) => visibleLine(`  ${told(reason)}`)),
        ].join('\n'),
      )
    return started.effect === 'allow' ? yes : no
  }
  const id = started.execution_id
  if (id === undefined) return refused(context, started)
  if (!options.wait) {
    if (context.json) context.data(started)
    else
      context.say(
        [
          `task       ${submitted.task_id}`,
          `execution  ${id}`,
          `state      ${String(started.state)}`,
          ...(started.reasons ?? []).map((reason) => visibleLine(`  ${told(reason)} (ref ${reason.ref})`)),
        ].join('\n'),
      )
    // What did not even begin is a no already; a script that goes on would wait for nothing.
    return started.final === true && started.state !== 'succeeded' ? no : yes
  }
  return await follow(context, client, id, options)
}

async function follow(context: Context, client: Client, id: string, options: RunOptions): Promise<number> {
  let cursor = 'start'
  let told = ''
  for (;;) {
    const status = await call(client, 'get_status', { execution_id: id, cursor, wait_ms: 20_000 })
    if (status.error !== undefined) return refused(context, status)
    if (status.state !== told) {
      told = status.state ?? ''
      context.note(`${id}: ${told}${status.approval === undefined ? '' : `\n  ${status.approval.how}`}`)
    }
    if (status.log !== undefined) {
      if (status.log.text !== '' && !context.json) context.note(status.log.text.replace(/\n$/, ''))
      cursor = status.log.cursor
      if (status.log.more) continue
    }
    if (status.final === true) break
  }
  const result = await call(client, 'get_result', { execution_id: id })
  if (options.out !== undefined) await fetchFiles(context, client, id, result, options.out)
  if (context.json) context.data(result)
  else context.say(report(result, options.url !== undefined))
  return result.state === 'succeeded' ? yes : no
}

function report(result: Results['get_result'], remote: boolean): string {
  const lines = [`${result.execution_id ?? ''}  ${result.state ?? ''}`]
  for (const reason of result.reasons ?? []) lines.push(visibleLine(`  ${told(reason)} (ref ${reason.ref})`))
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

function refused(
  context: Context,
  result: {
    readonly error?: { readonly code: string; readonly message: string; readonly remedy: string; readonly ref: string }
  },
): number {
  if (context.json) context.data(result)
  else
    context.say(
      `${result.error?.code ?? 'refused'}: ${result.error?.message ?? ''}\n  ${result.error?.remedy ?? ''} (ref ${result.error?.ref ?? ''})`,
    )
  return no
}

function upload(context: Context, file: string): JsonObject {
  const full = resolve(context.cwd, file)
  let bytes: Buffer
  try {
    bytes = readFileSync(full)
  } catch {
    throw new WritError('usage', `${file} cannot be read.`)
  }
  const within = relative(context.cwd, full)
  const path = within.startsWith('..') ? basename(full) : within.replaceAll('\\', '/')
  const text = bytes.toString('utf8')
  return Buffer.from(text, 'utf8').equals(bytes)
    ? { path, content: text }
    : { path, content_base64: bytes.toString('base64') }
}

/** `K=V`: V is JSON where it parses as such, else text. The first file is the script unless `--input script=` says otherwise. */
function inputsOf(options: RunOptions, paths: readonly string[]): JsonObject {
  const inputs = new Map<string, Json>()
  const [script] = paths
  if (options.intent === 'run_script' && script !== undefined) inputs.set('script', script)
  for (const pair of options.input) {
    const at = pair.indexOf('=')
    if (at < 1) throw new WritError('usage', `--input takes K=V, not "${pair}".`)
    inputs.set(pair.slice(0, at), jsonOrText(pair.slice(at + 1)))
  }
  return Object.fromEntries(inputs)
}

function jsonOrText(text: string): Json {
  try {
    return JSON.parse(text) as Json
  } catch {
    return text
  }
}

/** Paths were checked by the broker; checked again here, for what is written is the caller's disk. */
async function fetchFiles(
  context: Context,
  client: Client,
  id: string,
  result: Results['get_result'],
  out: string,
): Promise<void> {
  const folder = resolve(context.cwd, out)
  mkdirSync(folder, { recursive: true })
  for (const file of result.files ?? []) {
    const path = placeIn(realpathSync(folder), file.path, out)
    writeFileSync(path, await bytesOf(client, id, file.path))
    context.note(`wrote ${visibleLine(join(out, file.path))}`)
  }
}

/** Where a file of a result belongs under `folder`, which has its real path. No link leads out of it. */
function placeIn(folder: string, name: string, out: string): string {
  const outside = (): never => {
    throw new WritError('invalid_file', `The result names a file outside of ${out}.`)
  }
  const within = (path: string): boolean => path === folder || path.startsWith(`${folder}${sep}`)
  const path = resolve(folder, name)
  if (!within(path) || path === folder) return outside()
  const parent = dirname(path)
  for (let above = parent; above !== folder; above = dirname(above))
    if (lstatSync(above, { throwIfNoEntry: false })?.isSymbolicLink() === true) return outside()
  if (lstatSync(path, { throwIfNoEntry: false })?.isSymbolicLink() === true) return outside()
  mkdirSync(parent, { recursive: true })
  return path
}

/** The exact bytes of a file of the result: text that had to be made harmless comes in base64 as well. */
async function bytesOf(client: Client, id: string, path: string): Promise<Buffer> {
  const pieces: Buffer[] = []
  for (let offset = 0; ;) {
    const { file, error } = await call(client, 'get_result', {
      execution_id: id,
      file: path,
      offset,
      max_bytes: 1_048_576,
    })
    if (file === undefined)
      throw new WritError('not_found', error?.message ?? `The result has no file ${visibleLine(path)}.`)
    const bytes = file.base64 === undefined ? Buffer.from(file.text ?? '', 'utf8') : Buffer.from(file.base64, 'base64')
    pieces.push(bytes)
    offset += bytes.length
    if (!file.more || bytes.length === 0) return Buffer.concat(pieces)
  }
}

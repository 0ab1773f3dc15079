import { createHash } from 'node:crypto'
import { createReadStream, openAsBlob, readFileSync, statSync } from 'node:fs'
import { basename, relative, resolve } from 'node:path'
import { visibleLine } from '../approval/visible.ts'
import { digestJson, digestOf, type JsonObject } from '../digest.ts'
import { systemCode, WritError } from '../error.ts'
import type { Results } from '../execution/result.ts'
import { isIJsonString } from '../json.ts'
import type { Reason } from '../policy/policy.ts'
import type { ToolClient } from './client.ts'
import { type Context, faultOf } from './context.ts'

/** What one call carries of files, as they are spelt in its JSON (docs/mcp.md). */
const mostPerCall = 3 * 1024 * 1024
const mostFilesPerCall = 256
/** A file that is larger is sent in such pieces, so that what arrived can be told. */
const pieceBytes = 16 * 1024 * 1024
const mib = 1024 * 1024

/** A file of this machine under the name it has in the task. */
interface LocalFile {
  readonly path: string
  readonly full: string
  readonly size: number
  readonly sha256: string
  /** As a call carries it; null for one that goes by a one-time URL. */
  readonly inline: JsonObject | null
  readonly inlineBytes: number
}

type Described = Results['submit_task'] | Results['upload_artifact']

/** Reads what a person named. Rejects `usage` for what cannot be read, and for two files of one name. */
export async function filesOf(context: Context, names: readonly string[]): Promise<readonly LocalFile[]> {
  const files: LocalFile[] = []
  for (const name of names) {
    const file = await localFile(context, name)
    if (files.some((other) => other.path === file.path))
      throw new WritError('usage', `Two of the files would be named ${visibleLine(file.path)}.`, {
        remedy: 'Run it from the folder that both are in, or rename one.',
      })
    files.push(file)
  }
  return files
}

async function localFile(context: Context, name: string): Promise<LocalFile> {
  const full = resolve(context.cwd, name)
  const within = relative(context.cwd, full)
  const path = /^\.\.(?:\/|$)/.test(within) ? basename(full) : within.replaceAll('\\', '/')
  try {
    const { size } = statSync(full)
    if (size > mostPerCall) return { path, full, size, sha256: await digestOfFile(full), inline: null, inlineBytes: 0 }
    const bytes = readFileSync(full)
    const text = bytes.toString('utf8')
    const spelt =
      Buffer.from(text, 'utf8').equals(bytes) && isIJsonString(text)
        ? { content: text }
        : { content_base64: bytes.toString('base64') }
    const inlineBytes = Buffer.byteLength(JSON.stringify(spelt))
    return {
      path,
      full,
      size: bytes.length,
      sha256: digestOf(bytes),
      inline: inlineBytes > mostPerCall ? null : { path, ...spelt },
      inlineBytes,
    }
  } catch (failure) {
    const code = systemCode(failure)
    if (code === null) throw failure
    throw new WritError('usage', `${name} cannot be read (${code}).`)
  }
}

async function digestOfFile(path: string): Promise<string> {
  const hash = createHash('sha256')
  for await (const piece of createReadStream(path)) hash.update(piece as Buffer)
  return `sha256:${hash.digest('hex')}`
}

/**
 * Submits a task with its files and gives what became of it: in calls of at most 3 MiB, and what is larger by a one-time
 * URL each. The same task asked for again is the task there is; where somebody changed its files since, they are put back.
 */
export async function submit(
  context: Context,
  client: ToolClient,
  task: JsonObject,
  files: readonly LocalFile[],
): Promise<Described> {
  const [first = [], ...more] = callsOf(files)
  const call = { ...task, files: first.map((file) => file.inline) }
  // The whole call and all that follows it: the same key never stands for something else.
  const named = files.map(({ path, sha256 }) => [path, sha256])
  const submitted = await client.call('submit_task', {
    ...call,
    idempotency_key: `run-${digestJson({ call, named }).slice('sha256:'.length)}`,
  })
  const { task_id } = submitted
  if (submitted.error !== undefined || task_id === undefined) return submitted
  const there = new Map((submitted.task_files ?? []).map(({ path, sha256 }) => [path, sha256]))
  const old = submitted.existing === true
  const wanted = new Set(files.map(({ path }) => path))
  const remove = [...there.keys()].filter((path) => !wanted.has(path))
  const lacks = (file: LocalFile): boolean => there.get(file.path) !== file.sha256
  let last: Described = submitted
  for (const part of old ? callsOf(files.filter(lacks)) : more) {
    if (last.error !== undefined) return last
    last = await client.call('upload_artifact', { task_id, files: part.map((file) => file.inline) })
  }
  for (let at = 0; at < remove.length && last.error === undefined; at += mostFilesPerCall)
    last = await client.call('upload_artifact', { task_id, remove: remove.slice(at, at + mostFilesPerCall) })
  for (const file of files.filter((one) => one.inline === null && (!old || lacks(one)))) {
    if (last.error !== undefined) return last
    last = await sendByUrl(context, client, task_id, file)
  }
  return { ...last, task_id }
}

/** The files that calls carry, as many in each as it takes; there is always a first call. */
function callsOf(files: readonly LocalFile[]): readonly (readonly LocalFile[])[] {
  const calls: LocalFile[][] = [[]]
  let bytes = 0
  for (const file of files) {
    if (file.inline === null) continue
    const full = bytes + file.inlineBytes > mostPerCall || calls.at(-1)?.length === mostFilesPerCall
    if (full) calls.push([])
    bytes = (full ? 0 : bytes) + file.inlineBytes
    calls.at(-1)?.push(file)
  }
  return calls
}

async function sendByUrl(context: Context, client: ToolClient, task_id: string, file: LocalFile): Promise<Described> {
  const { path, size, sha256 } = file
  const asked = await client.call('upload_artifact', { task_id, upload: { path, size, sha256 } })
  if (asked.error !== undefined || asked.upload_url === undefined) return asked
  const blob = await openAsBlob(file.full)
  for (let from = 0; ;) {
    const to = Math.min(from + pieceBytes, size)
    const answer = await put(asked.upload_url, blob.slice(from, to), `bytes ${from}-${to - 1}/${size}`)
    context.note(`${visibleLine(path)}: ${(to / mib).toFixed(1)} of ${(size / mib).toFixed(1)} MiB sent`)
    if (to === size) return answer
    from = to
  }
}

async function put(url: string, body: Blob, range: string): Promise<Results['upload_artifact']> {
  let response: Response
  try {
    response = await fetch(url, { method: 'PUT', body, headers: { 'content-range': range }, redirect: 'error' })
  } catch (cause) {
    const why = systemCode(cause instanceof Error ? (cause.cause ?? cause) : cause) ?? 'the connection broke'
    throw new WritError('transfer_cut', `The file could not be sent (${why}).`, { remedy: 'Run it again.', cause })
  }
  const said: unknown = await response.json().catch(() => ({}))
  if (response.ok) return said as Results['upload_artifact']
  const { error } = said as { readonly error?: Reason }
  if (error !== undefined) throw faultOf(error)
  throw new WritError('transfer_cut', `The file was not taken (${String(response.status)}).`, {
    remedy: 'Run it again.',
  })
}

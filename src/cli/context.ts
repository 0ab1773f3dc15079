import { existsSync, readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import type { Readable } from 'node:stream'
import { type Config, findConfig, loadConfig } from '../config.ts'
import { type ErrorCode, errorCodes, systemCode, WritError } from '../error.ts'
import { type Folder, folderOf } from '../folder.ts'
import { openViews, type OpenViews } from '../ledger/sqlite/views.ts'
import type { Reason } from '../policy/policy.ts'

/** What a command is given instead of reaching for the process. */
export interface Context {
  readonly env: Readonly<Record<string, string | undefined>>
  readonly cwd: string
  readonly version: string
  readonly stdin: Readable
  /** Of `--config`. */
  readonly configFlag: string | undefined
  readonly json: boolean
  readonly tty: boolean
  /** Columns of the terminal that notes go to; null where they go elsewhere, or nobody knows. */
  readonly columns: number | null
  /** Lines on standard output; what a terminal would obey or hide is written out. */
  say(text: string): void
  /** Lines on standard error: progress and warnings, never data. */
  note(text: string): void
  /** JSON on standard output. */
  data(data: unknown): void
}

/** Ends a command with exit status 1: it worked, and the answer is no. */
export const no = 1
export const yes = 0
/** Usage or configuration is wrong. */
export const wrong = 2

/** Codes that are no answer but a fault of usage, though the caller's and not the operator's. */
const misuses: ReadonlySet<string> = new Set<ErrorCode>([
  'invalid_arguments',
  'malformed_message',
  'method_not_allowed',
  'unknown_tool',
])

/** The exit status of a refusal: what is the operator's to put right is no answer; an approval that was refused is one. */
export function exitOf(code: string): number {
  const known = errorCodes.find((one): one is ErrorCode => one === code)
  if (known === undefined || known === 'approval_refused') return no
  return misuses.has(known) || new WritError(known, '').fault === 'operator' ? wrong : no
}

/** A refusal by a tool, as an error of the command. */
export function faultOf({ code, message, remedy }: Pick<Reason, 'code' | 'message' | 'remedy'>): WritError {
  const known = errorCodes.find((one): one is ErrorCode => one === code)
  return new WritError(known ?? 'denied', known === undefined ? `${code}: ${message}` : message, { remedy })
}

export function configOf(context: Context): Config {
  const file = findConfig({ flag: context.configFlag, env: context.env, cwd: context.cwd })
  if (file === null) throw new WritError('no_config', 'There is no writ.yaml here or in a folder above.')
  return loadConfig(file)
}

export function folderFor(context: Context): { readonly config: Config; readonly folder: Folder } {
  const config = configOf(context)
  return { config, folder: folderOf(config.data) }
}

/** The ledger's views, read without a broker; null where there is no ledger yet. */
export function viewsFor(folder: Folder): OpenViews | null {
  return existsSync(folder.ledger) ? openViews(folder.ledger) : null
}

/** Runs `use` on the views and closes them, or gives `otherwise` where nothing was ever recorded. */
export function withViews<T>(folder: Folder, otherwise: T, use: (views: OpenViews) => T): T {
  const views = viewsFor(folder)
  if (views === null) return otherwise
  try {
    return use(views)
  } finally {
    views.close()
  }
}

export async function readAll(stream: Readable, limit: number): Promise<Buffer> {
  const pieces: Buffer[] = []
  let size = 0
  for await (const piece of stream) {
    const bytes = Buffer.from(piece as Uint8Array)
    size += bytes.length
    if (size > limit) throw new WritError('too_large', `more than ${String(limit)} bytes on standard input`)
    pieces.push(bytes)
  }
  return Buffer.concat(pieces)
}

/** The bytes of a file the caller of a command named. Rejects `usage` where it cannot be read. */
export function fileOf(context: Context, name: string): Buffer {
  try {
    return readFileSync(resolve(context.cwd, name))
  } catch (failure) {
    const code = systemCode(failure)
    if (code === null) throw failure
    throw new WritError('usage', `${name} cannot be read (${code}).`)
  }
}

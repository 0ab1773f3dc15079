import { createRequire } from 'node:module'
import type * as Diff from 'diff'
import type { Digest } from '../digest.ts'
import { digestOf } from '../digest.ts'
import { WritError } from '../error.ts'
import type { Plan } from '../plan/plan.ts'
import type { TaskFile } from '../request/task.ts'
import { unseenCount, visibleLine } from './visible.ts'
import { marked } from './wrap.ts'

/** Bytes of the largest file that is shown, and of all that is shown of files together. */
const maxFileBytes = 65_536
const maxShownBytes = 262_144
/** Lines a difference may have, and bytes that are compared: beyond them finding one costs the broker too much, and the file is shown whole. */
const maxEdits = 400
const maxComparedBytes = 262_144

/** Gives what a digest stands for; what it gives is hashed again. */
export type BytesOf = (digest: Digest) => Promise<Uint8Array>

export interface FilesShown {
  readonly lines: readonly string[]
  /** Paths of files of which the bytes are not shown. */
  readonly hidden: readonly string[]
}

export function quoted(text: string): string {
  return visibleLine(JSON.stringify(text))
}

/**
 * The files of a plan, those that its steps name first: whole, with the difference to the last approved plan before it;
 * where the bytes are not shown, with why.
 */
export async function showFiles(plan: Plan, before: Plan | null, bytesOf: BytesOf): Promise<FilesShown> {
  const earlier = new Map((before?.files ?? []).map((file) => [file.path, file]))
  const total = plan.files.reduce((sum, file) => sum + file.size, 0)
  const lines = [
    `Files         ${plan.files.length === 0 ? 'none' : `${String(plan.files.length)}, ${String(total)} bytes`}`,
  ]
  const hidden: string[] = []
  const left = { shown: maxShownBytes, compared: maxComparedBytes }
  for (const file of namedFirst(plan)) {
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
    lines.push(`  ${quoted(file.path)}: ${String(file.size)} bytes${mode}${change}`, `    ${file.sha256}`)
    const shown = await content(file, was, bytesOf, left)
    if (typeof shown === 'string') {
      lines.push(`  ! NOT SHOWN: ${shown}; its digest is approved`)
      hidden.push(file.path)
      continue
    }
    left.shown -= sizeOf(shown)
    lines.push(...shown)
  }
  for (const gone of earlier.values()) lines.push(`  ${quoted(gone.path)}: REMOVED, was`, `    ${gone.sha256}`)
  return { lines, hidden }
}

/** What is to run stands before what it is to run on: room for showing files ends, and the code is what matters. */
function namedFirst({ files, steps }: Plan): readonly TaskFile[] {
  const named = new Set(steps.flatMap(({ argv }) => argv.map((word) => word.replace(/^(?:\.\/)+/, ''))))
  return [...files.filter(({ path }) => named.has(path)), ...files.filter(({ path }) => !named.has(path))]
}

/** The lines that show a file, or why it is not shown. */
async function content(
  file: TaskFile,
  was: TaskFile | null,
  bytesOf: BytesOf,
  left: { readonly shown: number; compared: number },
): Promise<string | readonly string[]> {
  if (left.shown <= 0) return `${String(maxShownBytes)} bytes of others are`
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
    ...marked(now.text),
  ]
  return sizeOf(lines) > left.shown ? 'too large to show beside the others' : lines
}

function sizeOf(lines: readonly string[]): number {
  return lines.reduce((sum, line) => sum + Buffer.byteLength(line), 0)
}

const notCompared = '  ! differs from the approved one in more than can be shown; all of it now:'

function difference(old: string, now: string): string[] {
  const { createTwoFilesPatch } = createRequire(import.meta.url)('diff') as typeof Diff
  const patch = createTwoFilesPatch('approved', 'now', old, now, undefined, undefined, {
    context: 3,
    maxEditLength: maxEdits,
  })
  if (patch === undefined) return [notCompared]
  if (!patch.includes('\n@@')) return ['  ! differs from the approved one in line ends only; all of it now:']
  return ['  ! differs from the approved one in:', ...marked(patch.trimEnd()), '  ! all of it now:']
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

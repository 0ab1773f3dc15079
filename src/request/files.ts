import { isUtf8 } from 'node:buffer'
import { setImmediate } from 'node:timers/promises'
import type { Digest } from '../digest.ts'
import { digestOf } from '../digest.ts'
import { WritError } from '../error.ts'
import type { FileIn } from './call.ts'
import { placesOf } from './places.ts'
import type { TaskFile } from './task.ts'

export const maxFiles = 1000
/** Bytes of what one call brings, unpacked, and of any file that is edited. */
export const maxCallBytes = 64 * 1024 * 1024
/** Bytes of one file, sent to a one-time URL. */
export const maxUploadBytes = 1024 * 1024 * 1024
/** Bytes of all files of a task together. How much of them a run can take is its executor's to say. */
const maxTaskBytes = 2 * maxUploadBytes
/** Characters the edits of one call may search through, all together; and how many before other work gets its turn. */
const maxSearched = 512 * 1024 * 1024
const searchedAtOnce = 1024 * 1024
/** Folders inside one another. */
const maxParts = 64

/** One file that came out of an archive. */
interface UnpackedFile {
  readonly path: string
  readonly bytes: Uint8Array
  readonly executable: boolean
}

export interface FileChanges {
  readonly files?: readonly FileIn[] | undefined
  readonly remove?: readonly string[] | undefined
  /** Already unpacked without trust; the path rules are applied again all the same. */
  readonly unpacked?: readonly UnpackedFile[] | undefined
  /** The folder `unpacked` goes to; the project's root where absent. */
  readonly under?: string | undefined
  /** Files whose bytes are in the store already, sent to a one-time URL. One that is replaced keeps its executable bit. */
  readonly stored?: readonly { readonly path: string; readonly sha256: Digest; readonly size: number }[] | undefined
}

interface ChangedFile {
  readonly path: string
  readonly sha256: string
  readonly size: number
  readonly change: 'added' | 'replaced' | 'edited' | 'removed' | 'unchanged'
}

export interface AppliedFiles {
  /** Sorted by path (UTF-16 code units). */
  readonly files: readonly TaskFile[]
  readonly changed: readonly ChangedFile[]
}

interface Write {
  readonly file: TaskFile
  /** Null where the store has them. */
  readonly bytes: Uint8Array | null
  readonly edited: boolean
}

/**
 * Adds, replaces, edits and removes files of a task: all of it or nothing. Removals come first. Bytes are stored only
 * after everything was checked, so a refused call leaves nothing behind.
 *
 * @param bytesOf the bytes of a file as it stands, for edits
 * @throws WritError `invalid_file` naming the file and, for an edit, how often `old` matched; `too_large`
 */
export async function applyFiles(
  files: readonly TaskFile[],
  changes: FileChanges,
  bytesOf: (digest: Digest) => Promise<Uint8Array>,
  put: (bytes: Uint8Array) => Promise<{ readonly sha256: Digest; readonly size: number }>,
): Promise<AppliedFiles> {
  const before = new Map(files.map((file) => [file.path, file]))
  const after = new Map<string, TaskFile>(before)
  const changed: ChangedFile[] = []
  for (const path of new Set(changes.remove ?? [])) {
    const file = after.get(path)
    if (file === undefined) throw invalid(path, 'cannot be removed: there is no such file')
    after.delete(path)
    changed.push({ path, sha256: file.sha256, size: file.size, change: 'removed' })
  }
  const writes = new Map<string, Write>()
  let brought = 0
  const add = (write: Write): void => {
    const { path } = write.file
    const problem = pathProblem(path)
    if (problem !== null) throw invalid(path, problem)
    if (writes.has(path)) throw invalid(path, 'is given twice in one call')
    if (before.has(path) && !after.has(path)) throw invalid(path, 'is both given and removed in one call')
    writes.set(path, write)
    if (after.size + writes.size > maxFiles * 2) throw tooMany()
    brought += write.bytes?.length ?? 0
    if (brought > maxCallBytes) throw new WritError('too_large', 'the files of this call are more than 64 MiB together')
  }
  for (const { path, bytes, executable } of changes.unpacked ?? [])
    add(written(join(changes.under, path), bytes, executable, false))
  const search: Search = { left: maxSearched, since: 0 }
  for (const file of changes.files ?? []) add(await read(file, after.get(file.path), bytesOf, search))
  for (const { path, sha256, size } of changes.stored ?? [])
    add({
      file: { path, sha256, size, executable: before.get(path)?.executable ?? false },
      bytes: null,
      edited: false,
    })

  for (const { file, edited } of writes.values()) {
    const old = before.get(file.path)
    const same = old !== undefined && old.sha256 === file.sha256 && old.executable === file.executable
    const change = old === undefined ? 'added' : same ? 'unchanged' : edited ? 'edited' : 'replaced'
    after.set(file.path, file)
    changed.push({ path: file.path, sha256: file.sha256, size: file.size, change })
  }
  const result = [...after.values()].sort(byPath)
  checkTree(result)
  for (const { file, bytes } of writes.values()) {
    if (bytes === null) continue
    const stored = await put(bytes)
    if (stored.sha256 !== file.sha256) throw new WritError('internal', 'stored bytes have another digest')
  }
  return { files: result, changed }
}

/**
 * What is wrong with a path inside a project, or null. Relative, `/`-separated, NFC, no empty, `.` or `..` part, no
 * control, invisible or bidi character (an approver would read another name), no backslash, no drive letter.
 */
export function pathProblem(path: string): string | null {
  if (path === '') return 'a path must not be empty'
  if (!path.isWellFormed() || path.includes('\ufffd')) return 'the path is not well-formed Unicode'
  if (/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cn}\p{Co}]/u.test(path)) return 'the path holds a control or invisible character'
  if (path.includes('\\')) return 'the path holds a backslash; separate folders by "/"'
  if (path.startsWith('/') || /^[A-Za-z]:/.test(path)) return 'the path has to be relative to the project'
  if (path !== path.normalize('NFC')) return 'the path is not in Unicode NFC'
  if (Buffer.byteLength(path) > 1024) return 'the path is longer than 1024 bytes'
  const parts = path.split('/')
  if (parts.length > maxParts) return `the path has more than ${maxParts} parts`
  for (const part of parts) {
    if (part === '' || part === '.' || part === '..') return 'the path holds an empty, "." or ".." part'
    if (Buffer.byteLength(part) > 255) return 'a part of the path is longer than 255 bytes'
  }
  return null
}

/**
 * The first pair of paths that could not both exist in some file system, or null: names that differ only in case or
 * Unicode form (folders too), and a file where another path needs a folder.
 */
export function pathClash(paths: readonly string[]): readonly [string, string] | null {
  const seen = new Map<string, { readonly written: string; readonly path: string; readonly file: boolean }>()
  for (const path of paths) {
    for (let end = path.indexOf('/'); ; end = path.indexOf('/', end + 1)) {
      const file = end < 0
      const written = file ? path : path.slice(0, end)
      const key = fold(written)
      const other = seen.get(key)
      if (other === undefined) seen.set(key, { written, path, file })
      else if (other.written !== written || other.file || file) return [other.path, path]
      if (file) break
    }
  }
  return null
}

/** A name as it may be quoted to anybody: one line, ASCII, at most 120 characters before escaping. */
export function showPath(path: string): string {
  const short = path.length > 120 ? `${path.slice(0, 120)}…` : path
  return `"${short.replaceAll(/[^\u0020-\u007e…]|["\\]/gu, (c) => (c === '"' || c === '\\' ? `\\${c}` : `\\u{${(c.codePointAt(0) ?? 0).toString(16)}}`))}"`
}

function checkTree(files: readonly TaskFile[]): void {
  if (files.length > maxFiles) throw tooMany()
  let total = 0
  for (const file of files) total += file.size
  if (total > maxTaskBytes) throw new WritError('too_large', 'the files of the task are more than 2 GiB together')
  const clash = pathClash(files.map((file) => file.path))
  if (clash !== null)
    throw invalid(
      clash[1],
      `cannot stand beside ${showPath(clash[0])}: the names differ only in case or Unicode form, or one is a folder of the other`,
    )
}

async function read(
  file: FileIn,
  current: TaskFile | undefined,
  bytesOf: (digest: Digest) => Promise<Uint8Array>,
  search: Search,
): Promise<Write> {
  const problem = pathProblem(file.path)
  if (problem !== null) throw invalid(file.path, problem)
  const given = [file.content, file.content_base64, file.edits].filter((part) => part !== undefined)
  if (given.length !== 1) throw invalid(file.path, 'give exactly one of content, content_base64 and edits')
  const bytes =
    file.content !== undefined
      ? fromText(file.path, file.content)
      : file.content_base64 !== undefined
        ? fromBase64(file.path, file.content_base64)
        : await edit(file.path, file.edits ?? [], current, bytesOf, search)
  if (bytes.length > maxCallBytes)
    throw new WritError('too_large', `the file ${showPath(file.path)} is larger than 64 MiB`)
  if (file.sha256 !== undefined && `sha256:${file.sha256.replace(/^sha256:/, '')}` !== digestOf(bytes))
    throw invalid(file.path, 'its bytes do not have the given sha256')
  return written(file.path, bytes, file.executable ?? current?.executable ?? false, file.edits !== undefined)
}

function written(path: string, bytes: Uint8Array, executable: boolean, edited: boolean): Write {
  return { file: { path, sha256: digestOf(bytes), size: bytes.length, executable }, bytes, edited }
}

function fromText(path: string, content: string): Buffer {
  if (!content.isWellFormed()) throw invalid(path, 'its content holds a lone surrogate; send content_base64')
  return Buffer.from(content, 'utf8')
}

function fromBase64(path: string, content: string): Buffer {
  const bytes = Buffer.from(content, 'base64')
  // Node skips what is not base64, so only the same text back proves that all of it was read.
  if (bytes.toString('base64') !== content) throw invalid(path, 'content_base64 is not padded standard base64')
  return bytes
}

async function edit(
  path: string,
  edits: NonNullable<FileIn['edits']>,
  current: TaskFile | undefined,
  bytesOf: (digest: Digest) => Promise<Uint8Array>,
  search: Search,
): Promise<Buffer> {
  if (current === undefined) throw invalid(path, 'cannot be edited: there is no such file; send content')
  if (edits.length === 0) throw invalid(path, 'edits is empty')
  if (edits.length > 1000) throw invalid(path, 'more than 1000 edits in one call; send content')
  const bytes = await bytesOf(current.sha256)
  if (!isUtf8(bytes)) throw invalid(path, 'cannot be edited: it is not UTF-8 text; send content_base64')
  let text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('utf8')
  for (const [index, { old, new: replacement }] of edits.entries()) {
    const which = edits.length === 1 ? 'the edit' : `edit ${index + 1} of ${edits.length}`
    if (old === '') throw invalid(path, `${which} has an empty "old"`)
    if (!old.isWellFormed() || !replacement.isWellFormed()) throw invalid(path, `${which} holds a lone surrogate`)
    await pay(search, text.length)
    const { first: at, count: matches } = placesOf(text, old, 100)
    if (matches !== 1)
      throw invalid(
        path,
        `"old" of ${which} matches ${matches === 100 ? '100 or more' : matches} times; it has to match exactly once`,
      )
    text = text.slice(0, at) + replacement + text.slice(at + old.length)
    if (text.length > maxCallBytes) throw new WritError('too_large', `the file ${showPath(path)} is larger than 64 MiB`)
  }
  return Buffer.from(text, 'utf8')
}

/** What the edits of one call have still to spend, and have spent since other work had its turn: the broker has one thread. */
interface Search {
  left: number
  since: number
}

async function pay(search: Search, characters: number): Promise<void> {
  search.left -= characters
  if (search.left < 0)
    throw new WritError('too_large', 'the edits of this call search through more than 512 MiB together', {
      remedy: 'Send the content of large files instead of edits, or split the call.',
    })
  search.since += characters
  if (search.since < searchedAtOnce) return
  search.since = 0
  await setImmediate()
}

/** Joins names that any common file system would take for one (case folding, compatibility forms). */
function fold(path: string): string {
  return path.normalize('NFKC').toUpperCase().toLowerCase().normalize('NFKC')
}

function join(under: string | undefined, path: string): string {
  return under === undefined || under === '' || under === '.' ? path : `${under.replace(/\/$/, '')}/${path}`
}

function byPath(a: TaskFile, b: TaskFile): number {
  return a.path < b.path ? -1 : a.path > b.path ? 1 : 0
}

function invalid(path: string, problem: string): WritError {
  return new WritError('invalid_file', `file ${showPath(path)}: ${problem}`)
}

function tooMany(): WritError {
  return new WritError('too_large', `a task holds at most ${maxFiles} files`)
}

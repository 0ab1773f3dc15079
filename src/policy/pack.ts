import type { Dirent } from 'node:fs'
import { lstat, readdir, readFile, stat } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { systemCode } from '../error.ts'
import type { Attachment } from './policy.ts'

/**
 * Something wrong with a pack, for its author. `file` is absolute; `line` and `column` count from 1, or are 0 where the
 * finding concerns the whole file or folder.
 */
export interface PolicyFinding {
  readonly file: string
  readonly line: number
  readonly column: number
  readonly level: 'error' | 'warning'
  readonly code: string
  readonly message: string
}

/** `path` is virtual: `<pack>/<path in the pack's folder>`, so that no place of this machine enters a module. */
export interface PackFile {
  readonly path: string
  readonly text: string
}

export interface PackSource {
  readonly attachment: Attachment
  /** Sorted by path. */
  readonly files: readonly PackFile[]
  readonly warnings: readonly PolicyFinding[]
}

/** The entry point every pack's module has, and the only one. */
export const entrypoint = 'writ/main'

/** The sets a pack may define (docs/policy.md "A rule"). */
export const setNames = [
  'grant',
  'deny',
  'require_approval',
  'limit',
  'credential',
  'sandbox',
  'obligation',
  'warn',
] as const
export type SetName = (typeof setNames)[number]

/** The code of a rule whose metadata names none. */
export const defaultCodes: Readonly<Record<SetName, string>> = {
  grant: 'granted',
  deny: 'denied',
  require_approval: 'approval_required',
  limit: 'limited',
  credential: 'credential',
  sandbox: 'sandbox',
  obligation: 'obligation',
  warn: 'warning',
}

const limitKeys = ['wall_s', 'cpu_s', 'memory_mb', 'output_kb', 'artifact_kb', 'egress_requests']

/** Keys of an element beside `rule`: those it must have, those it may have, and what a missing one is sent as. */
export const elementKeys: Readonly<
  Record<SetName, { readonly required: readonly string[]; readonly optional: readonly string[] }>
> = {
  grant: { required: [], optional: [] },
  deny: { required: [], optional: ['message'] },
  require_approval: {
    required: ['stages', 'exclude', 'evidence', 'request_ttl_s', 'execute_within_s'],
    optional: ['message'],
  },
  limit: { required: [], optional: limitKeys },
  credential: { required: ['name'], optional: ['lane', 'exposure'] },
  sandbox: { required: [], optional: ['isolation', 'egress'] },
  obligation: { required: ['type'], optional: ['properties'] },
  warn: { required: ['message'], optional: [] },
}

export const maxFileBytes = 256 * 1024
export const maxPackBytes = 1024 * 1024
export const maxPackFiles = 200
const maxFolders = 8

/** Words of Rego, which a package path would have to quote. */
const keywords: ReadonlySet<string> = new Set(
  'and as contains data default else every false if import in input not null or package some true with'.split(' '),
)

/** Also the last part of the Rego package; `_test` at the end is kept for the package of tests. */
export function isPackName(name: string): boolean {
  return /^[a-z][a-z0-9_]{0,31}$/.test(name) && !name.endsWith('_test') && !keywords.has(name)
}

export function isTestFile(path: string): boolean {
  return path.endsWith('_test.rego')
}

type Read =
  | { readonly ok: true; readonly source: PackSource }
  | { readonly ok: false; readonly findings: PolicyFinding[] }

/**
 * Reads the `.rego` files under a pack's folder. Symbolic links, devices, files that are not UTF-8 and whatever passes
 * the size limits are findings: a rule that is silently not read is a guard that silently does not guard.
 */
export async function readPack(attachment: Attachment): Promise<Read> {
  const findings: PolicyFinding[] = []
  const refuse = (file: string, code: string, message: string): void => {
    findings.push({ file, line: 0, column: 0, level: 'error', code, message })
  }
  if (!isPackName(attachment.pack)) {
    refuse(
      attachment.path,
      'pack_name',
      `${JSON.stringify(attachment.pack.slice(0, 40))} is no name of a pack: a lower-case letter, then letters, digits and _, at most 32, no word of Rego and not ending in _test`,
    )
    return { ok: false, findings }
  }
  const files: PackFile[] = []
  let total = 0

  const readOne = async (path: string, virtual: string): Promise<void> => {
    const { size } = await stat(path)
    total += size
    if (size > maxFileBytes)
      return refuse(path, 'too_large', `the file has ${size} bytes; at most ${maxFileBytes} are read`)
    if (total > maxPackBytes) return refuse(path, 'too_large', `the pack has more than ${maxPackBytes} bytes`)
    if (files.length >= maxPackFiles) return refuse(path, 'too_large', `the pack has more than ${maxPackFiles} files`)
    const text = textOf(await readFile(path))
    if (text === null) return refuse(path, 'not_text', notText)
    if (isTestFile(virtual)) {
      for (const { line, set } of setsIn(text)) {
        const message = `a rule of "${set}" in a test file is never in force; move it to a file not named *_test.rego`
        findings.push({ file: path, line, column: 1, level: 'error', code: 'rule_in_test', message })
      }
    }
    files.push({ path: virtual, text })
  }

  const walk = async (folder: string, virtual: string, depth: number): Promise<void> => {
    if (depth > maxFolders) return refuse(folder, 'too_large', `folders are nested deeper than ${maxFolders}`)
    for (const entry of (await readdir(folder, { withFileTypes: true })).sort((a, b) => (a.name < b.name ? -1 : 1))) {
      if (findings.length > 20) return
      const path = join(folder, entry.name)
      const hidden = entry.name.startsWith('.')
      if (hidden) {
        if (await holdsPolicies(entry, path)) {
          const message = entry.isDirectory() ? 'the folder is hidden and not read' : 'the file is hidden and not read'
          findings.push({ file: path, line: 0, column: 0, level: 'warning', code: 'hidden_file', message })
        }
      } else if (entry.isDirectory()) {
        await walk(path, `${virtual}/${entry.name}`, depth + 1)
      } else if (await isLinkedFolder(entry, path)) {
        refuse(path, 'not_a_file', 'a link to a folder is not followed; put the folder itself here')
      } else if (isPolicyName(entry.name)) {
        if (!entry.isFile()) {
          refuse(path, 'not_a_file', 'only regular files are read, no links')
        } else if (!entry.name.endsWith('.rego')) {
          refuse(path, 'file_name', 'the name has to end in ".rego", in lower case')
        } else if (!/^[A-Za-z0-9][A-Za-z0-9._-]*$/.test(entry.name)) {
          refuse(path, 'file_name', 'the name has other characters than letters, digits, ".", "_" and "-"')
        } else {
          await readOne(path, `${virtual}/${entry.name}`)
        }
      }
    }
  }

  try {
    await walk(attachment.path, attachment.pack, 0)
  } catch (error) {
    const code = systemCode(error)
    if (code === null) throw error
    refuse(attachment.path, 'unreadable', `the folder cannot be read (${code})`)
  }
  if (!findings.some(({ level }) => level === 'error') && files.every((file) => isTestFile(file.path))) {
    refuse(attachment.path, 'empty_pack', 'the folder holds no .rego file with rules')
  }
  if (findings.some((finding) => finding.level === 'error')) return { ok: false, findings }
  return { ok: true, source: { attachment, files, warnings: findings } }
}

/** Whatever somebody may take for a file of policies, readable or not. */
function isPolicyName(name: string): boolean {
  return /\.rego$/i.test(name)
}

async function isLinkedFolder(entry: Dirent, path: string): Promise<boolean> {
  if (!entry.isSymbolicLink()) return false
  try {
    return (await stat(path)).isDirectory()
  } catch (error) {
    // It leads nowhere, so there is nothing in it to be missed.
    if (systemCode(error) === null) throw error
    return false
  }
}

async function holdsPolicies(entry: Dirent, path: string): Promise<boolean> {
  if (!entry.isDirectory()) return isPolicyName(entry.name)
  return (await readdir(path, { recursive: true })).some(isPolicyName)
}

/**
 * Names, kinds, sizes and times of what `readPack` looks at below a folder: another text where it may find something else.
 * The cause where the folder cannot be read, so that its return is a change.
 */
export async function packSignature(folder: string): Promise<string> {
  try {
    const lines: string[] = []
    for (const entry of await readdir(folder, { recursive: true, withFileTypes: true })) {
      if (!entry.isSymbolicLink() && !isPolicyName(entry.name)) continue
      const path = join(entry.parentPath, entry.name)
      const { mode, size, mtimeMs, ctimeMs, ino } = await lstat(path)
      lines.push([path, mode, size, mtimeMs, ctimeMs, ino].join(' '))
    }
    return lines.sort().join('\n')
  } catch (error) {
    return systemCode(error) ?? 'unreadable'
  }
}

/** Lines that begin a rule of an output set. By text: test files are no part of what is compiled. */
function setsIn(text: string): readonly { readonly line: number; readonly set: string }[] {
  const begins = new RegExp(`^\\s*(${setNames.join('|')})\\s+contains\\b`)
  return text.split('\n').flatMap((line, index) => {
    const set = begins.exec(line)?.[1]
    return set === undefined ? [] : [{ line: index + 1, set }]
  })
}

export const notText = 'the file is not UTF-8 text'

/** The text of a file of policies, or null where it is none. */
export function textOf(bytes: Uint8Array): string | null {
  try {
    const text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
    return text.includes('\0') ? null : text
  } catch {
    // A TypeError is how the decoder says that the bytes are not UTF-8.
    return null
  }
}

/** Where a virtual path lies on disk. */
export function realPath(attachment: Attachment, virtual: string): string {
  const prefix = `${attachment.pack}/`
  return virtual.startsWith(prefix) ? join(attachment.path, virtual.slice(prefix.length)) : attachment.path
}

/**
 * An attachment for a folder that no `writ.yaml` names: the pack's name is what its files say in `package writ.pack.…`,
 * else the folder's; its kind is taken for `grant`, since nothing says otherwise.
 */
export async function attachFolder(folder: string): Promise<Attachment> {
  let pack = basename(folder)
  try {
    const entries = await readdir(folder, { withFileTypes: true })
    // Nothing else is read of a pack: what is a pipe would be waited for.
    const names = entries.flatMap((entry) => (entry.isFile() ? [entry.name] : [])).sort()
    for (const name of names) {
      if (!name.endsWith('.rego') || isTestFile(name)) continue
      const found = /^package\s+writ\.pack\.([a-z][a-z0-9_]*)\s*$/m.exec(await readFile(join(folder, name), 'utf8'))
      if (found?.[1] !== undefined) pack = found[1]
      break
    }
  } catch (error) {
    // A folder that cannot be read is reported by readPack, with the reason.
    if (systemCode(error) === null) throw error
  }
  return { pack, layer: 'team', kind: 'grant', path: folder }
}

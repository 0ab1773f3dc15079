import { createHash } from 'node:crypto'
import {
  closeSync,
  copyFileSync,
  fstatSync,
  fsyncSync,
  ftruncateSync,
  lstatSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  type Stats,
  statSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { systemCode, WritError } from './error.ts'

/** Where a broker keeps its things. All of it is one user's: folders 0700, files 0600. */
export interface Folder {
  readonly root: string
  readonly ledger: string
  readonly artifacts: string
  readonly outputs: string
  /** Compiled packs, and every module that ever decided, for replay. */
  readonly policy: string
  readonly log: string
  /** What each tenant stores, as of some step: saves reading the steps before it. */
  readonly holdings: string
  readonly mcpSocket: string
  readonly controlSocket: string
}

/** `sun_path` holds 104 bytes on macOS and 108 on Linux, the final NUL included. */
const longestSocketPath = 100

/** The layout of a data folder. Makes nothing. */
export function folderOf(data: string, uid: number = process.getuid?.() ?? 0): Folder {
  const here = join(data, 'run')
  const short = join(tmpdir(), `writ-${String(uid)}-${createHash('sha256').update(data).digest('hex').slice(0, 16)}`)
  const sockets = Buffer.byteLength(join(here, 'control.sock')) <= longestSocketPath ? here : short
  return {
    root: data,
    ledger: join(data, 'ledger.db'),
    artifacts: join(data, 'artifacts'),
    outputs: join(data, 'output'),
    policy: join(data, 'policy'),
    log: join(data, 'broker.log'),
    holdings: join(data, 'holdings.txt'),
    mcpSocket: join(sockets, 'mcp.sock'),
    controlSocket: join(sockets, 'control.sock'),
  }
}

/**
 * Makes a folder and what is missing above it. Node's own way of doing that never ends where the system takes no new
 * folder and says that there is none, as under /proc.
 */
export function makeFolders(path: string, mode: number): void {
  const missing: string[] = []
  for (let at = path; statSync(at, { throwIfNoEntry: false }) === undefined && at !== dirname(at); at = dirname(at))
    missing.push(at)
  for (const one of missing.toReversed()) {
    try {
      mkdirSync(one, { mode })
    } catch (failure) {
      // Another process may have made it meanwhile.
      if (systemCode(failure) !== 'EEXIST') throw failure
    }
  }
  // Says what stands there instead.
  if (!statSync(path).isDirectory()) mkdirSync(path)
}

/** Makes the folders, and refuses one that others could have put there before us. */
export function makeFolder(folder: Folder): void {
  for (const path of [folder.root, folder.artifacts, folder.outputs, folder.policy, join(folder.mcpSocket, '..')]) {
    makeFolders(path, 0o700)
  }
  const sockets = lstatSync(join(folder.mcpSocket, '..'))
  if (!isPrivate(sockets) || !isOwn(sockets)) throw notPrivate()
}

/**
 * Refuses to look for a broker where another user could have put a socket: in a folder that is open to others, or that
 * somebody made where everybody may, as in the temporary folder. Whoever owns the place of a data folder is trusted with it.
 */
export function checkSocket(socket: string): void {
  let folder: Stats
  let place: Stats
  try {
    folder = lstatSync(dirname(socket))
    place = statSync(dirname(dirname(socket)))
  } catch (failure) {
    // Where nobody may look nobody answers.
    if (systemCode(failure) === null) throw failure
    return
  }
  const known = isOwn(folder) || folder.uid === place.uid || (place.mode & 0o022) === 0
  if (!isPrivate(folder) || !known) throw notPrivate()
}

/** Makes a folder that is this user's alone, and refuses one that another user could have put there before. */
export function makePrivate(path: string): void {
  makeFolders(path, 0o700)
  const found = lstatSync(path)
  if (isPrivate(found) && isOwn(found)) return
  throw new WritError('usage', `${path} is not a private folder of this user.`, {
    remedy: 'Remove it, or name another temporary folder in TMPDIR.',
  })
}

function isPrivate(found: Stats): boolean {
  return found.isDirectory() && (found.mode & 0o077) === 0
}

function isOwn(found: Stats): boolean {
  return found.uid === (process.getuid?.() ?? found.uid)
}

function notPrivate(): WritError {
  return new WritError('invalid_config', 'the folder for the sockets is not a private folder of this user', {
    remedy: 'Give the data folder mode 0700 and this user, or choose another with "data:" in writ.yaml.',
  })
}

/** A text that can be made again, or null where there is none or it cannot be read. */
export function readKept(path: string): string | null {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    // It only saves work.
    return null
  }
}

/** Puts a text in the place of an earlier one, whole or not at all. */
export function keep(path: string, text: string): void {
  const next = `${path}.next`
  const file = openSync(next, 'w', 0o600)
  try {
    writeFileSync(file, text)
    fsyncSync(file)
  } finally {
    closeSync(file)
  }
  renameSync(next, path)
}

/** Bytes after which a log is put aside, and how many of those are kept: `broker.log.1` is the newest. */
const longestLog = 8 * 1024 * 1024
const logsKept = 3

/**
 * Puts a log aside that has grown too long, where `written` is the descriptor it is written through, opened to append; a
 * broker in the foreground writes elsewhere. It is copied and cut short, for whoever writes to it goes on through the same
 * descriptor. True where it did so.
 */
export function turnLog(path: string, written: number, longest: number = longestLog): boolean {
  const log = fstatSync(written)
  const there = statSync(path, { throwIfNoEntry: false })
  if (there?.ino !== log.ino || there.dev !== log.dev || log.size < longest) return false
  for (let at = logsKept - 1; at > 0; at--)
    if (statSync(`${path}.${String(at)}`, { throwIfNoEntry: false }) !== undefined)
      renameSync(`${path}.${String(at)}`, `${path}.${String(at + 1)}`)
  copyFileSync(path, `${path}.1`)
  ftruncateSync(written, 0)
  return true
}

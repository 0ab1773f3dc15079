import {
  closeSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  rmdirSync,
  statSync,
  writeSync,
} from 'node:fs'
import { randomBytes } from 'node:crypto'
import { basename, dirname, join } from 'node:path'
import type { JsonObject } from '../digest.ts'
import { WritError, systemCode } from '../error.ts'
import { JwsError, generateKey, readPrivateKey } from '../jws.ts'
import type { SigningKey } from '../jws.ts'
import { openKeySet, signKeySet, toJwk } from './keyset.ts'
import type { KeyEntry, KeyRole, KeySet } from './keyset.ts'

/** The keys of a broker as its `keys` folder holds them. */
export interface Keys {
  /** Verified against its own root. */
  readonly set: KeySet
  /** The key set as signed by the root: what an auditor gets beside the root's thumbprint. */
  readonly jwt: string
  /** The receipt key in force at an index of the log. Rejects `key_unavailable` where its file is missing. */
  receiptKey(index: number): SigningKey
  /** The root's private key, needed for the genesis receipt only. Rejects `key_unavailable` once it is offline. */
  rootKey(): SigningKey
  /** The root's signed word on the receipt key that takes over after `index`, or null where none does. */
  changeAfter(index: number): string | null
  /** The root's RFC 7638 thumbprint: what an auditor pins, and what no rotation changes. */
  fingerprint(): string
  /** RFC 7517 key set, all roles. */
  jwks(): JsonObject
}

const rootFile = 'root.pem'
const setFile = 'keys.jwt'

/**
 * Makes root, receipt and log key and the key set in `dir`, all files 0600. The folder appears whole or not at all; where
 * keys are already there they are opened and nothing is written. Rejects `key_unavailable` where some are there and
 * others are missing: making new ones beside them would orphan every receipt the old ones signed.
 */
export function initKeys(dir: string, nowMs: number): Keys {
  const present = list(dir)
  if (present.length > 0) return openKeys(dir)
  const fresh = `${dir}.new-${randomBytes(6).toString('hex')}`
  mkdirSync(dirname(dir), { recursive: true })
  mkdirSync(fresh, { mode: 0o700 })
  const root = generateKey()
  const receipt = generateKey()
  const log = generateKey()
  const entries = [entry(root, 'root', 0), entry(receipt, 'receipt', 0), entry(log, 'log', 0)]
  writePrivate(fresh, rootFile, root)
  writePrivate(fresh, 'receipt.pem', receipt)
  writePrivate(fresh, 'log.pem', log)
  write(join(fresh, setFile), signKeySet(root, entries, Math.floor(nowMs / 1000)))
  syncFolder(fresh)
  try {
    // An empty folder gives way; one that another process filled meanwhile does not.
    removeEmpty(dir)
    renameSync(fresh, dir)
  } catch (failure) {
    // A root key of nothing is no file to leave about.
    rmSync(fresh, { recursive: true, force: true })
    throw failure
  }
  syncFolder(dirname(dir))
  return openKeys(dir)
}

/**
 * Reads the keys. The root's private key may be absent; where one is there, it is no more open to others than the rest.
 * Rejects `key_unavailable` (missing, unreadable, open to other users, or a key set its root did not sign) and
 * `invalid_key`; messages name files, never folders.
 */
export function openKeys(dir: string): Keys {
  const names = list(dir)
  for (const name of names.filter((name) => /\.(?:pem|age)(?:$|\.)/.test(name))) checkPrivate(dir, name)
  const jwt = read(dir, setFile).toString('latin1').trimEnd()
  const set = openSet(jwt)
  const byKid = new Map<string, SigningKey>()
  for (const name of names.filter((name) => /^receipt(-\d+)?\.pem$/.test(name))) {
    const key = readKey(dir, name)
    byKid.set(key.kid, key)
  }
  if (!names.includes('log.pem')) throw new WritError('key_unavailable', 'the keys folder holds no log.pem')
  if (readKey(dir, 'log.pem').kid !== set.keys.findLast((key) => key.role === 'log')?.kid)
    throw new WritError('key_unavailable', 'log.pem is not the log key of the key set')
  const receiptKey = (index: number): SigningKey => {
    const kid = set.keys.find(
      (key) => key.role === 'receipt' && key.from <= index && (key.until === null || index < key.until),
    )?.kid
    const key = kid === undefined ? undefined : byKid.get(kid)
    if (key === undefined) throw new WritError('key_unavailable', 'the receipt key in force is not in the keys folder')
    return key
  }
  // Whoever starts a broker learns now, not at the first receipt, that it could sign none.
  receiptKey(Number.MAX_SAFE_INTEGER - 1)
  return {
    set,
    jwt,
    receiptKey,
    rootKey() {
      const root = readKey(dir, rootFile)
      if (root.kid !== set.root.kid) throw new WritError('key_unavailable', 'root.pem is not the root of the key set')
      return root
    },
    changeAfter(index) {
      const next = set.keys.find((key) => key.role === 'receipt' && key.from === index + 1 && key.from > 0)
      return next === undefined ? null : read(dir, changeFile(next.from)).toString('latin1').trimEnd()
    },
    fingerprint: () => set.root.kid,
    jwks: () => ({ keys: set.keys.map(toJwk) }),
  }
}

/** The key set alone, for who only verifies, or null where there is none. Rejects `key_unavailable` where it cannot be read. */
export function readKeySet(dir: string): string | null {
  return list(dir).includes(setFile) ? read(dir, setFile).toString('latin1').trimEnd() : null
}

/**
 * Replaces the receipt key: from the receipt after `index` on a new one signs. `index` is the size of the log now, so the
 * receipt at `index` is the `key` receipt the outgoing key signs; the signer refuses any other there. Needs the root, and
 * a broker that is not running. Takes effect whole or not at all: the renamed key set is the commit.
 */
export function rotate(dir: string, index: number, nowMs: number): Keys {
  const keys = openKeys(dir)
  const root = keys.rootKey()
  const outgoing = keys.set.keys.find((key) => key.role === 'receipt' && key.until === null)
  if (outgoing === undefined || index < outgoing.from || index < 1)
    throw new WritError('conflict', 'the receipt key changes at a later index already')
  const next = generateKey()
  const closed: KeyEntry = { ...outgoing, until: index + 1 }
  const opened = entry(next, 'receipt', index + 1)
  const issuedAt = Math.floor(nowMs / 1000)
  const rootEntry = keys.set.keys.filter((key) => key.kid === root.kid)
  writePrivate(dir, `receipt-${opened.from}.pem`, next, 'w')
  replace(dir, changeFile(opened.from), signKeySet(root, [...rootEntry, closed, opened], issuedAt))
  const entries = [...keys.set.keys.map((key) => (key.kid === outgoing.kid ? closed : key)), opened]
  replace(dir, setFile, signKeySet(root, entries, issuedAt))
  return openKeys(dir)
}

function changeFile(from: number): string {
  return `change-${from}.jwt`
}

function entry(key: SigningKey, role: KeyRole, from: number): KeyEntry {
  return { x: key.x, kid: key.kid, role, from, until: null }
}

function openSet(jwt: string): KeySet {
  try {
    return openKeySet(jwt, null)
  } catch (error) {
    if (error instanceof JwsError)
      throw new WritError('key_unavailable', 'keys.jwt is not a key set signed by its root', { cause: error })
    throw error
  }
}

function list(dir: string): readonly string[] {
  try {
    return readdirSync(dir)
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return []
    throw new WritError('key_unavailable', 'the keys folder cannot be read', { cause: error })
  }
}

function read(dir: string, name: string): Buffer {
  try {
    return readFileSync(join(dir, name))
  } catch (error) {
    throw new WritError('key_unavailable', `the keys folder holds no readable ${name}`, { cause: error })
  }
}

function readKey(dir: string, name: string): SigningKey {
  const pem = read(dir, name)
  checkPrivate(dir, name)
  return readPrivateKey(pem)
}

/** Of a link what it leads to counts, and one that leads nowhere is no key. */
function checkPrivate(dir: string, name: string): void {
  const found = statSync(join(dir, name), { throwIfNoEntry: false })
  if (found !== undefined && (found.mode & 0o077) !== 0)
    throw new WritError('key_unavailable', `${name} is open to other users`, {
      remedy: `Run "chmod 600 ${basename(name)}" in the keys folder.`,
    })
}

function writePrivate(dir: string, name: string, key: SigningKey, flag: 'wx' | 'w' = 'wx'): void {
  write(join(dir, name), key.privateKey.export({ format: 'pem', type: 'pkcs8' }).toString(), flag)
}

function replace(dir: string, name: string, text: string): void {
  write(join(dir, `${name}.new`), text, 'w')
  renameSync(join(dir, `${name}.new`), join(dir, name))
  syncFolder(dir)
}

function write(path: string, text: string, flag: 'wx' | 'w' = 'wx'): void {
  const file = openSync(path, flag, 0o600)
  try {
    writeSync(file, text)
    fsyncSync(file)
  } finally {
    closeSync(file)
  }
}

function syncFolder(dir: string): void {
  const folder = openSync(dir, 'r')
  try {
    fsyncSync(folder)
  } finally {
    closeSync(folder)
  }
}

function removeEmpty(dir: string): void {
  try {
    rmdirSync(dir)
  } catch (error) {
    if (systemCode(error) !== 'ENOENT')
      throw new WritError('key_unavailable', 'the keys folder is not empty', { cause: error })
  }
}

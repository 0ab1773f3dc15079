import { existsSync } from 'node:fs'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { Decrypter, Encrypter } from 'age-encryption'
import { sha256 } from '../digest.ts'
import { systemCode, WritError } from '../error.ts'
import { generateKey, readPrivateKey, type SigningKey } from '../jws.ts'

/** The shortest passphrase taken, and how many different characters it has at least; age's scrypt makes each guess cost about a second. */
const minPassphrase = 12
const minDifferent = 5

/** Rejects `invalid_key` for a passphrase that a list of guesses begins with. */
export function checkPassphrase(passphrase: string): void {
  if (passphrase.length < minPassphrase)
    throw new WritError('invalid_key', `The passphrase is shorter than ${String(minPassphrase)} characters.`, {
      remedy: 'Take four words or more.',
    })
  if (new Set(passphrase).size < minDifferent)
    throw new WritError('invalid_key', `The passphrase has fewer than ${String(minDifferent)} different characters.`, {
      remedy: 'Take four words or more.',
    })
}

/** The file an approver's own key lies in, under a passphrase. */
export function keyFilePath(dir: string, subject: string): string {
  const name = encodeURIComponent(subject)
  // File systems take 255 bytes; a longer name is told from others by its digest.
  return join(
    dir,
    `${name.length <= 128 ? name : `${name.slice(0, 64)}-${sha256(subject).toString('hex').slice(0, 32)}`}.age`,
  )
}

/**
 * Makes an approver's key and stores it encrypted by the passphrase (age, scrypt recipient). Overwrites nothing.
 * Returns the public `x` for `writ.yaml`.
 */
export async function makeKeyFile(path: string, passphrase: string): Promise<{ readonly x: string }> {
  checkPassphrase(passphrase)
  if (existsSync(path)) throw taken()
  const key = generateKey()
  const encrypter = new Encrypter()
  encrypter.setPassphrase(passphrase)
  const bytes = await encrypter.encrypt(key.privateKey.export({ type: 'pkcs8', format: 'pem' }))
  await mkdir(dirname(path), { recursive: true, mode: 0o700 })
  try {
    await writeFile(path, bytes, { mode: 0o600, flag: 'wx' })
  } catch (error) {
    if (systemCode(error) === 'EEXIST') throw taken()
    throw error
  }
  return { x: key.x }
}

function taken(): WritError {
  return new WritError('usage', 'This approver has a key file already.', {
    remedy: 'Enrol under another name, or move the old key file away first.',
  })
}

/** Opens an approver's key. A wrong passphrase and a damaged file are told apart from a missing one, nothing more. */
export async function openKeyFile(path: string, passphrase: string): Promise<SigningKey> {
  let bytes: Uint8Array
  try {
    bytes = await readFile(path)
  } catch (error) {
    if (systemCode(error) === 'ENOENT')
      throw new WritError('key_unavailable', 'There is no key file for this approver here.', {
        remedy: 'Run "writ approvals enroll NAME" first, or name the file with --key.',
      })
    throw error
  }
  const decrypter = new Decrypter()
  decrypter.addPassphrase(passphrase)
  let pem: string
  try {
    pem = await decrypter.decrypt(bytes, 'text')
  } catch {
    throw new WritError('key_unavailable', 'The passphrase does not open this key file.', {
      remedy: 'Try again with the passphrase given at enrolment.',
    })
  }
  return readPrivateKey(pem)
}

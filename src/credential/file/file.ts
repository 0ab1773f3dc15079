import { randomBytes } from 'node:crypto'
import { chmod, mkdir, open, readdir, readFile, rename, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { WritError, systemCode } from '../../error.ts'
import type { CheckFinding, CredentialSource } from '../credential.ts'
import { Secret } from '../secret.ts'

/** A name of a stored credential: also the name of its file, so nothing a file system could read otherwise. */
const namePattern = /^[a-z0-9][a-z0-9._-]{0,63}$/
const ending = '.age'
/** A value of 64 KiB, its header and what age adds. */
const mostBytes = 80_000

export interface FileSource extends CredentialSource {
  /** Stores a value under a name, in place of an earlier one. Durable when it resolves. */
  set(name: string, value: Secret): Promise<void>
  /** False where there was none. */
  remove(name: string): Promise<boolean>
  /** Names only, sorted. */
  list(): Promise<readonly string[]>
}

/** Writes a new X25519 identity, readable by its owner alone. Rejects `key_unavailable` rather than replace one. */
export async function createIdentityFile(path: string): Promise<void> {
  try {
    await using file = await open(path, 'wx', 0o600)
    const { generateX25519Identity } = await import('age-encryption')
    await file.writeFile(`${await generateX25519Identity()}\n`)
    await file.sync()
  } catch (failure) {
    if (systemCode(failure) === 'EEXIST')
      throw new WritError('key_unavailable', 'there is an identity for credentials already', { cause: failure })
    throw new WritError('key_unavailable', 'the identity for credentials cannot be written', { cause: failure })
  }
}

/**
 * Values in a folder, each encrypted with age for the identity in `identityFile`. The name is encrypted with the
 * value, so that who can only rename files cannot pass one credential off as another.
 */
export function openFileSource(options: { readonly dir: string; readonly identityFile: string }): FileSource {
  const { dir, identityFile } = options
  const pathOf = (name: string): string => join(dir, name + ending)

  const identity = async (): Promise<string> => {
    try {
      const { mode, uid } = await stat(identityFile)
      if ((mode & 0o077) !== 0)
        throw new WritError('key_unavailable', 'the identity for credentials is readable by others', {
          remedy: 'Make it readable by its owner alone (mode 0600).',
        })
      if (process.getuid !== undefined && uid !== process.getuid())
        throw new WritError('key_unavailable', 'the identity for credentials belongs to another user')
      return (await readFile(identityFile, 'utf8')).trim()
    } catch (failure) {
      if (failure instanceof WritError) throw failure
      throw new WritError('key_unavailable', 'the identity for credentials cannot be read', { cause: failure })
    }
  }

  return {
    kind: 'file',

    async check() {
      const findings: CheckFinding[] = []
      try {
        await identity()
        findings.push({ level: 'ok', what: 'the identity for file credentials can be read', fix: null })
      } catch (failure) {
        const { message, remedy } =
          failure instanceof WritError ? failure : new WritError('internal', 'the check failed')
        findings.push({ level: 'problem', what: message, fix: remedy })
      }
      return findings
    },

    async lease(name, ref, _execution, signal) {
      const unavailable = (cause?: unknown): WritError =>
        new WritError(
          'credential_unavailable',
          `credential "${name}" cannot be had`,
          cause === undefined ? {} : { cause },
        )
      if (!namePattern.test(ref) || signal.aborted) throw unavailable()
      try {
        // Loaded when a value is asked for: every broker has this source, and few start with a lease.
        const { Decrypter } = await import('age-encryption')
        const decrypter = new Decrypter()
        decrypter.addIdentity(await identity())
        const plain = Buffer.from(await decrypter.decrypt(await readCapped(pathOf(ref))))
        const header = headerOf(ref)
        if (signal.aborted || !plain.subarray(0, header.length).equals(header)) throw unavailable()
        return {
          name,
          value: Secret.ingest(name, plain.subarray(header.length)),
          expires_at_ms: null,
          revoke: () => Promise.resolve(),
        }
      } catch (failure) {
        throw failure instanceof WritError && failure.code === 'credential_unavailable' ? failure : unavailable(failure)
      }
    },

    async set(name, value) {
      checkName(name)
      const { Encrypter, identityToRecipient } = await import('age-encryption')
      const encrypter = new Encrypter()
      encrypter.addRecipient(await identityToRecipient(await identity()))
      const sealed = await encrypter.encrypt(Buffer.concat([headerOf(name), value.reveal()]))
      const temporary = join(dir, `.${randomBytes(8).toString('hex')}`)
      try {
        await mkdir(dir, { recursive: true, mode: 0o700 })
        await chmod(dir, 0o700)
        {
          await using file = await open(temporary, 'wx', 0o600)
          await file.writeFile(sealed)
          await file.sync()
        }
        await rename(temporary, pathOf(name))
        await using folder = await open(dir, 'r')
        await folder.sync()
      } catch (failure) {
        await rm(temporary, { force: true })
        const full = systemCode(failure) === 'ENOSPC'
        throw new WritError(full ? 'no_space' : 'credential_unavailable', `credential "${name}" cannot be stored`, {
          cause: failure,
        })
      }
    },

    async remove(name) {
      checkName(name)
      try {
        await rm(pathOf(name))
        return true
      } catch (failure) {
        if (systemCode(failure) === 'ENOENT') return false
        throw new WritError('credential_unavailable', `credential "${name}" cannot be removed`, { cause: failure })
      }
    },

    async list() {
      try {
        const names = (await readdir(dir))
          .filter((file) => file.endsWith(ending))
          .map((file) => file.slice(0, -ending.length))
        return names.filter((name) => namePattern.test(name)).sort()
      } catch (failure) {
        if (systemCode(failure) === 'ENOENT') return []
        throw new WritError('credential_unavailable', 'the folder of credentials cannot be read', { cause: failure })
      }
    },
  }
}

function headerOf(name: string): Buffer {
  return Buffer.from(`writ.credential/v1 ${name}\n`)
}

function checkName(name: string): void {
  if (!namePattern.test(name))
    throw new WritError(
      'usage',
      'a credential name is 1 to 64 of a-z, 0-9, ".", "_" and "-", and begins with a letter or digit',
    )
}

async function readCapped(path: string): Promise<Buffer> {
  await using file = await open(path, 'r')
  const { size } = await file.stat()
  if (size > mostBytes) throw new WritError('credential_unavailable', 'a stored credential is too large')
  return await file.readFile()
}

import { chmod, mkdtemp, readdir, readFile, rename, rm, stat, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { createIdentityFile, openFileSource } from '../../src/credential/file/file.ts'
import { encodingsOf } from '../../src/credential/redact.ts'
import { Secret } from '../../src/credential/secret.ts'
import { newId } from '../../src/id.ts'

const value = 'file-source-canary-0123456789'
const signal = new AbortController().signal
let folder = ''
let dir = ''
let identityFile = ''

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'writ-file-'))
  dir = join(folder, 'values')
  identityFile = join(folder, 'identity')
  await createIdentityFile(identityFile)
})
afterEach(async () => await rm(folder, { recursive: true, force: true }))

const lease = async (ref: string): Promise<string> =>
  (await openFileSource({ dir, identityFile }).lease(ref, ref, newId('exec'), signal)).value.reveal().toString()

describe('the file source', () => {
  it('[G-file-encrypted] keeps values encrypted, readable by their owner alone, in a folder of its own', async () => {
    const source = openFileSource({ dir, identityFile })
    await source.set('token', Secret.ingest('token', value))
    expect(await readdir(dir)).toEqual(['token.age'])
    const bytes = await readFile(join(dir, 'token.age'))
    expect(bytes.subarray(0, 21).toString()).toBe('age-encryption.org/v1')
    for (const form of encodingsOf(Buffer.from(value))) expect(bytes.includes(form)).toBe(false)
    expect((await stat(join(dir, 'token.age'))).mode & 0o777).toBe(0o600)
    expect((await stat(dir)).mode & 0o777).toBe(0o700)
    expect((await stat(identityFile)).mode & 0o777).toBe(0o600)
    expect(await lease('token')).toBe(value)
  })

  it('replaces, lists and removes by name', async () => {
    const source = openFileSource({ dir, identityFile })
    expect(await source.list()).toEqual([])
    await source.set('b-token', Secret.ingest('b', 'first-value-1'))
    await source.set('b-token', Secret.ingest('b', 'second-value-2'))
    await source.set('a-token', Secret.ingest('a', value))
    await writeFile(join(dir, 'notes.txt'), 'not a credential')
    await writeFile(join(dir, '.half.age'), 'left by a crash')
    expect(await source.list()).toEqual(['a-token', 'b-token'])
    expect(await lease('b-token')).toBe('second-value-2')
    expect(await source.remove('b-token')).toBe(true)
    expect(await source.remove('b-token')).toBe(false)
    await expect(lease('b-token')).rejects.toMatchObject({ code: 'credential_unavailable' })
  })

  it('does not pass one credential off as another when files are renamed', async () => {
    const source = openFileSource({ dir, identityFile })
    await source.set('staging-1', Secret.ingest('a', 'staging-value'))
    await source.set('release-1', Secret.ingest('b', 'release-value'))
    await rename(join(dir, 'release-1.age'), join(dir, 'staging-1.age'))
    await expect(lease('staging-1')).rejects.toMatchObject({ code: 'credential_unavailable' })
  })

  it('gives nothing from a file that is cut, changed, too large or encrypted for someone else', async () => {
    const source = openFileSource({ dir, identityFile })
    const path = join(dir, 'token.age')
    await source.set('token', Secret.ingest('token', value))
    const good = await readFile(path)
    await truncate(path, good.length - 1)
    await expect(lease('token')).rejects.toMatchObject({ code: 'credential_unavailable' })
    const flipped = Buffer.from(good)
    flipped[good.length - 1] = (flipped[good.length - 1] ?? 0) ^ 1
    await writeFile(path, flipped)
    await expect(lease('token')).rejects.toMatchObject({ code: 'credential_unavailable' })
    await writeFile(path, Buffer.concat([good, Buffer.alloc(100_000)]))
    await expect(lease('token')).rejects.toMatchObject({ code: 'credential_unavailable' })
    const other = join(folder, 'other')
    await createIdentityFile(other)
    await openFileSource({ dir, identityFile: other }).set('token', Secret.ingest('token', value))
    await expect(lease('token')).rejects.toMatchObject({ code: 'credential_unavailable' })
    await writeFile(path, good)
    expect(await lease('token')).toBe(value)
  })

  it('does not use an identity that others can read, and says so when checked', async () => {
    const source = openFileSource({ dir, identityFile })
    await source.set('token', Secret.ingest('token', value))
    await chmod(identityFile, 0o640)
    await expect(lease('token')).rejects.toMatchObject({ code: 'credential_unavailable' })
    expect(await source.check()).toMatchObject([
      { level: 'problem', what: 'the identity for credentials is readable by others' },
    ])
    await rm(identityFile)
    expect(await source.check()).toMatchObject([
      { level: 'problem', what: 'the identity for credentials cannot be read' },
    ])
    await expect(source.set('token', Secret.ingest('token', value))).rejects.toMatchObject({ code: 'key_unavailable' })
  })

  it('never replaces an identity', async () => {
    const before = await readFile(identityFile, 'utf8')
    await expect(createIdentityFile(identityFile)).rejects.toMatchObject({ code: 'key_unavailable' })
    expect(await readFile(identityFile, 'utf8')).toBe(before)
    expect(before).toMatch(/^AGE-SECRET-KEY-1[0-9A-Z]+\n$/)
  })

  it.each(['', '.', '..', '../x', 'a/b', 'A', '-x', '.hidden', 'a\n', 'x'.repeat(65)])(
    'takes no value under the name %j',
    async (name) => {
      const source = openFileSource({ dir, identityFile })
      await expect(source.set(name, Secret.ingest('n', value))).rejects.toMatchObject({ code: 'usage' })
      await expect(source.remove(name)).rejects.toMatchObject({ code: 'usage' })
    },
  )
})

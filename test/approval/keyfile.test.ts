import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it, vi } from 'vitest'
import { checkPassphrase, keyFilePath, makeKeyFile, openKeyFile } from '../../src/approval/keyfile.ts'

// A key opens in a second of a whole core, as it is meant to; a busy machine takes longer.
vi.setConfig({ testTimeout: 120_000 })

const folder = mkdtempSync(join(tmpdir(), 'writ-keyfile-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const passphrase = 'four words or some more'

describe('the key file of an approver', () => {
  const path = join(folder, 'approvers', 'ada.age')

  it('is made encrypted, private, and opens with the passphrase alone', async () => {
    const { x } = await makeKeyFile(path, passphrase)
    const bytes = readFileSync(path)
    expect(bytes.toString('latin1')).toMatch(/^age-encryption\.org\/v1\n-> scrypt /)
    expect(bytes.toString('latin1')).not.toContain('PRIVATE KEY')
    expect(statSync(path).mode & 0o777).toBe(0o600)
    expect(statSync(join(path, '..')).mode & 0o777).toBe(0o700)
    expect((await openKeyFile(path, passphrase)).x).toBe(x)
    await expect(openKeyFile(path, `${passphrase}.`)).rejects.toMatchObject({
      code: 'key_unavailable',
      message: 'The passphrase does not open this key file.',
    })
  })

  it('is never overwritten', async () => {
    const before = readFileSync(path)
    await expect(makeKeyFile(path, passphrase)).rejects.toMatchObject({
      code: 'usage',
      message: 'This approver has a key file already.',
    })
    expect(readFileSync(path)).toEqual(before)
  })

  it('is refused when it is damaged, missing, or holds something else', async () => {
    const damaged = join(folder, 'damaged.age')
    const bytes = readFileSync(path)
    bytes[bytes.length - 3] = (bytes[bytes.length - 3] ?? 0) ^ 1
    writeFileSync(damaged, bytes)
    await expect(openKeyFile(damaged, passphrase)).rejects.toMatchObject({ code: 'key_unavailable' })
    writeFileSync(damaged, 'not age')
    await expect(openKeyFile(damaged, passphrase)).rejects.toMatchObject({ code: 'key_unavailable' })
    await expect(openKeyFile(join(folder, 'missing.age'), passphrase)).rejects.toMatchObject({
      code: 'key_unavailable',
      message: 'There is no key file for this approver here.',
    })
  })
})

it('a passphrase that guesses begin with is not taken', () => {
  for (const weak of ['', 'short', '12345678901', 'aaaaaaaaaaaaaaaa', 'abababababababab'])
    expect(() => checkPassphrase(weak)).toThrow(expect.objectContaining({ code: 'invalid_key' }))
  expect(() => checkPassphrase('correct horse')).not.toThrow()
})

it('a name of an approver never leads out of the folder, and every name has a file of its own', () => {
  for (const name of ['../../etc/passwd', '..', '.', 'a/b', 'ada@example.com', 'É'])
    expect(join(keyFilePath('/keys', name), '..')).toBe('/keys')
  const long = 'É'.repeat(200)
  expect(keyFilePath('/keys', long).length).toBeLessThan(200)
  expect(keyFilePath('/keys', long)).not.toBe(keyFilePath('/keys', `${long.slice(1)}e`))
})

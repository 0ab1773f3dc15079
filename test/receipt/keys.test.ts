import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeEach, describe, expect, it } from 'vitest'
import { generateKey } from '../../src/jws.ts'
import { policyAccount } from '../../src/receipt/account.ts'
import { initKeys, openKeys, readKeySet, rotate } from '../../src/receipt/keys.ts'
import { openSigner } from '../../src/receipt/sign.ts'
import { createFrontier } from '../../src/receipt/tree.ts'
import { openTrust } from '../../src/receipt/trust.ts'
import { verifyLog } from '../../src/receipt/verify-log.ts'
import { SampleLog, generation, removeFolders, startMs } from './sample.ts'

afterAll(removeFolders)

describe('the keys folder', () => {
  let dir = ''
  beforeEach(() => {
    dir = join(mkdtempSync(join(tmpdir(), 'writ-receipt-test-')), 'keys')
  })
  afterEach(() => rmSync(join(dir, '..'), { recursive: true, force: true }))

  it('holds three keys and their set, readable by nobody else [G-key-files-private]', () => {
    const keys = initKeys(dir, startMs)
    expect(readdirSync(dir).sort()).toEqual(['keys.jwt', 'log.pem', 'receipt.pem', 'root.pem'])
    expect(readdirSync(dir).map((name) => statSync(join(dir, name)).mode & 0o777)).toEqual([0o600, 0o600, 0o600, 0o600])
    expect(statSync(dir).mode & 0o777).toBe(0o700)
    expect(keys.set.keys.map((key) => key.role)).toEqual(['root', 'receipt', 'log'])
    expect(new Set(keys.set.keys.map((key) => key.kid)).size).toBe(3)
    expect(keys.fingerprint()).toBe(keys.rootKey().kid)
    expect(JSON.stringify(keys.jwks())).not.toContain('"d"')
  })

  it('is never overwritten, and an empty one is filled', () => {
    mkdirSync(dir, { recursive: true })
    const first = initKeys(dir, startMs)
    const before = readdirSync(dir).map((name) => readFileSync(join(dir, name), 'utf8'))
    expect(initKeys(dir, startMs + 1).fingerprint()).toBe(first.fingerprint())
    expect(readdirSync(dir).map((name) => readFileSync(join(dir, name), 'utf8'))).toEqual(before)
  })

  it('is the one that was filled first, and no key of the other is left, where two fill it at once', () => {
    let first = ''
    const meanwhile = {
      valueOf() {
        first = initKeys(dir, startMs).fingerprint()
        return startMs
      },
    }
    expect(() => initKeys(dir, meanwhile as unknown as number)).toThrow('not empty')
    expect(readdirSync(join(dir, '..'))).toEqual(['keys'])
    expect(openKeys(dir).fingerprint()).toBe(first)
  })

  it.each(['keys.jwt', 'log.pem', 'receipt.pem'])('is refused, and not completed, when %s is missing', (name) => {
    initKeys(dir, startMs)
    rmSync(join(dir, name))
    const left = readdirSync(dir)
    expect(() => initKeys(dir, startMs)).toThrow(expect.objectContaining({ code: 'key_unavailable' }) as Error)
    expect(() => openKeys(dir)).toThrow(expect.objectContaining({ code: 'key_unavailable' }) as Error)
    expect(readdirSync(dir)).toEqual(left)
  })

  it('opens and signs with the root offline, but for the genesis [G-root-offline]', () => {
    initKeys(dir, startMs)
    rmSync(join(dir, 'root.pem'))
    const keys = openKeys(dir)
    const signer = openSigner(keys, { issuer: null })
    const root = createFrontier().root().toString('base64')
    const account = policyAccount(generation, startMs)
    expect(signer.sign(account, { origin: signer.origin, size: 1, root }, startMs).index).toBe(1)
    expect(() =>
      signer.sign({ ...account, kind: 'genesis' }, { origin: signer.origin, size: 0, root }, startMs),
    ).toThrow(expect.objectContaining({ code: 'key_unavailable' }) as Error)
    expect(() => rotate(dir, 5, startMs)).toThrow(expect.objectContaining({ code: 'key_unavailable' }) as Error)
  })

  it.each(['root.pem', 'receipt.pem', 'log.pem', 'credentials.age', 'root.pem.bak'])(
    'is refused when %s is open to other users, needed now or not [G-key-files-private]',
    (name) => {
      initKeys(dir, startMs)
      if (!existsSync(join(dir, name))) copyFileSync(join(dir, 'root.pem'), join(dir, name))
      openKeys(dir)
      chmodSync(join(dir, name), 0o640)
      expect(() => openKeys(dir)).toThrow(`${name} is open to other users`)
      expect(readKeySet(dir)).toMatch(/^eyJ/)
      rmSync(join(dir, name))
      if (name === 'root.pem') {
        symlinkSync('/nonexistent/root.pem', join(dir, name))
        openKeys(dir)
      }
    },
  )

  it('is refused when its set was signed by another root, changed, or is of other keys', () => {
    initKeys(dir, startMs)
    const other = join(dir, '..', 'other')
    initKeys(other, startMs)
    const own = readFileSync(join(dir, 'keys.jwt'), 'utf8')
    copyFileSync(join(other, 'keys.jwt'), join(dir, 'keys.jwt'))
    expect(() => openKeys(dir)).toThrow(expect.objectContaining({ code: 'key_unavailable' }) as Error)
    writeFileSync(
      join(dir, 'keys.jwt'),
      own.replace(/.$/, (last) => (last === 'A' ? 'Q' : 'A')),
    )
    expect(() => openKeys(dir)).toThrow('keys.jwt is not a key set signed by its root')
    writeFileSync(join(dir, 'keys.jwt'), own)
    copyFileSync(join(other, 'receipt.pem'), join(dir, 'receipt.pem'))
    expect(() => openKeys(dir)).toThrow('the receipt key in force is not in the keys folder')
  })

  it('names no folder and quotes no key in what it says', () => {
    initKeys(dir, startMs)
    const messages: string[] = []
    const open = () => {
      try {
        openKeys(dir)
      } catch (error) {
        messages.push(String(error))
      }
    }
    writeFileSync(join(dir, 'log.pem'), 'hunter2')
    open()
    rmSync(join(dir, 'log.pem'))
    open()
    expect(messages).toHaveLength(2)
    expect(messages.join('\n')).not.toContain('hunter2')
    expect(messages.join('\n')).not.toContain(tmpdir())
  })

  it('changes the receipt key and keeps the fingerprint; nothing but the key receipt may stand at the change [G-key-epochs]', () => {
    const log = new SampleLog()
    log.add(policyAccount(generation, log.nowMs))
    const before = log.keys
    log.keys = rotate(log.dir, log.head().size, log.nowMs)
    expect(log.keys.fingerprint()).toBe(before.fingerprint())
    expect(() => log.add(policyAccount({ ...generation, number: 2 }, log.nowMs))).toThrow(
      expect.objectContaining({ code: 'conflict' }) as Error,
    )
    log.due()
    log.add(policyAccount({ ...generation, number: 2 }, log.nowMs))
    for (let n = 3; n < 6; n++) {
      log.rotate()
      log.add(policyAccount({ ...generation, number: n }, log.nowMs))
    }
    expect(log.entries.map((entry) => entry.kind).join(' ')).toBe(
      'genesis policy key policy key policy key policy key policy',
    )
    const root = before.fingerprint()
    expect(verifyLog(log.list, openTrust({ root, own: log.keys.jwt })).verdict).toBe('VALID:LOGGED')
    expect(verifyLog(log.list, openTrust({ root, own: before.jwt })).verdict).toBe('VALID:LOGGED')
    expect(verifyLog(log.list, openTrust({ root: generateKey().kid, own: log.keys.jwt })).code).toBe('KEYS')
    expect(new Set(log.entries.map((entry) => entry.jws.split('.')[0])).size).toBe(6)
    expect(() => rotate(log.dir, 3, log.nowMs)).toThrow(expect.objectContaining({ code: 'conflict' }) as Error)
  })
})

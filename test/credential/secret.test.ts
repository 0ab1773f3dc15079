import { inspect } from 'node:util'
import { describe, expect, it } from 'vitest'
import { newPlaceholder, placeholderPattern } from '../../src/credential/placeholder.ts'
import { Secret } from '../../src/credential/secret.ts'
import { WritError } from '../../src/error.ts'

const value = 'correct-horse-battery'

describe('a secret', () => {
  it('[G-secret-prints-name] prints its name, whatever prints it', () => {
    const secret = Secret.ingest('vault-token', value)
    const holder = { secret, list: [secret], map: new Map([['s', secret]]) }
    const prints = [
      String(secret),
      JSON.stringify(holder),
      inspect(holder, { depth: 9, showHidden: true, getters: true }),
      inspect(new Error('x', { cause: secret })),
      Object.keys(secret).join(','),
      JSON.stringify(Object.getOwnPropertyDescriptors(secret)),
      JSON.stringify(Object.assign({}, secret)),
    ]
    for (const print of prints) {
      expect(print).not.toContain(value)
      expect(print).not.toContain(Buffer.from(value).toString('hex'))
      expect(print).not.toContain(
        Buffer.from(value)
          .toString('hex')
          .replaceAll(/..(?!$)/g, '$& '),
      )
    }
    expect(String(secret)).toBe('[secret:vault-token]')
  })

  it('is gone after a structured clone: it cannot be passed between threads by accident', () => {
    expect(inspect(structuredClone({ secret: Secret.ingest('a', value) }))).not.toContain(value)
  })

  it('reveals a copy, which can be wiped without harm', () => {
    const secret = Secret.ingest('a', value)
    secret.reveal().fill(0)
    expect(secret.reveal().toString()).toBe(value)
  })

  it('loses one line end at the end, as files and pipes add it', () => {
    expect(Secret.ingest('a', `${value}\n`).reveal().toString()).toBe(value)
    expect(Secret.ingest('a', `${value}\r\n`).reveal().toString()).toBe(value)
  })

  it.each([
    ['seven bytes', 'seven77'],
    ['a line end inside', 'first line\nsecond line'],
    ['two line ends', `${value}\n\n`],
    ['NUL', 'before\u0000after'],
    ['an escape', 'before\u001b[0mafter'],
    ['more than 64 KiB', 'x'.repeat(65_537)],
    ['no UTF-8', Buffer.from([0xff, 0xfe, 0x41, 0x41, 0x41, 0x41, 0x41, 0x41, 0x41, 0x41])],
    ['nothing', ''],
  ])('is not taken with %s, and the error does not quote it', (_what, bad) => {
    let failure: unknown
    try {
      Secret.ingest('a', bad)
    } catch (error) {
      failure = error
    }
    expect(failure).toBeInstanceOf(WritError)
    expect(failure).toMatchObject({ code: 'invalid_secret' })
    for (const word of ['seven77', 'first line', 'correct', 'before', 'after', 'xxxx', 'AAAA'])
      expect(inspect(failure, { depth: 9 })).not.toContain(word)
  })
})

describe('a placeholder', () => {
  it('is of one length and one look, so none is part of another', () => {
    const many = Array.from({ length: 500 }, newPlaceholder)
    expect(new Set(many).size).toBe(500)
    for (const one of many) {
      expect(one).toMatch(/^writ_ph_[0-9a-f]{32}$/)
      expect([...one.matchAll(placeholderPattern)].map(([all]) => all)).toEqual([one])
    }
  })
})

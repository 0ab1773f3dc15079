import { describe, expect, it } from 'vitest'
import type { ArtifactStore } from '../../src/artifact/artifact.ts'
import { digestOf } from '../../src/digest.ts'
import type { Digest } from '../../src/digest.ts'
import { WritError } from '../../src/error.ts'

/** The pieces, one after another, as they might come off a socket. */
export async function* pieces(...parts: readonly (string | Uint8Array)[]): AsyncGenerator<Uint8Array> {
  for (const part of parts) {
    await Promise.resolve()
    yield Buffer.from(part)
  }
}

export async function codeOf(work: Promise<unknown>): Promise<string> {
  try {
    await work
    return 'done'
  } catch (error) {
    return error instanceof WritError ? error.code : String(error)
  }
}

async function all(stream: AsyncIterable<Uint8Array>): Promise<string> {
  const parts: Uint8Array[] = []
  for await (const part of stream) parts.push(part)
  return Buffer.concat(parts).toString()
}

export interface OpenedStore {
  readonly store: ArtifactStore
  readonly reopen: () => ArtifactStore
}

/** What every artifact store keeps, whatever it stands on. */
export function artifactStoreContract(name: string, open: () => OpenedStore): void {
  describe(`the artifact store contract over ${name}`, () => {
    it('names bytes by their digest, however they were cut, and keeps them when opened again', async () => {
      const { store, reopen } = open()
      expect(await store.put(pieces('a', '', 'bc'), 3)).toEqual({ sha256: digestOf('abc'), size: 3 })
      const again = reopen()
      expect((await again.read(digestOf('abc'), 3)).toString()).toBe('abc')
      expect(await again.size(digestOf('abc'))).toBe(3)
    })

    it('keeps the empty artifact like any other', async () => {
      const { store } = open()
      expect(await store.put(pieces(), 0)).toEqual({ sha256: digestOf(''), size: 0 })
      expect(await store.size(digestOf(''))).toBe(0)
      expect(await all(await store.open(digestOf('')))).toBe('')
    })

    it('stores the same bytes once, whoever stores them at the same moment', async () => {
      const { store } = open()
      const stored = await Promise.all(Array.from({ length: 8 }, async () => await store.put(pieces('same'), 10)))
      expect(new Set(stored.map(({ sha256 }) => sha256))).toEqual(new Set([digestOf('same')]))
      expect((await store.read(digestOf('same'), 10)).toString()).toBe('same')
    })

    it('takes exactly the limit and not a byte more', async () => {
      const { store } = open()
      expect(await codeOf(store.put(pieces('ab', 'c'), 3))).toBe('done')
      expect(await codeOf(store.put(pieces('ab', 'cd'), 3))).toBe('too_large')
      expect(await store.size(digestOf('abcd'))).toBeNull()
    })

    it('stops taking from a source that is over the limit', async () => {
      const { store } = open()
      let asked = 0
      async function* endless(): AsyncGenerator<Uint8Array> {
        for (;;) {
          asked++
          await Promise.resolve()
          yield Buffer.alloc(1000)
        }
      }
      expect(await codeOf(store.put(endless(), 5000))).toBe('too_large')
      expect(asked).toBe(6)
    })

    it('leaves nothing of a source that breaks off, and passes its error on', async () => {
      const { store, reopen } = open()
      async function* broken(): AsyncGenerator<Uint8Array> {
        yield* pieces('half')
        throw new Error('the connection was lost')
      }
      expect(await codeOf(store.put(broken(), 100))).toBe('Error: the connection was lost')
      expect(await reopen().size(digestOf('half'))).toBeNull()
    })

    it('reads from an offset, and nothing from beyond the end', async () => {
      const { store } = open()
      await store.put(pieces('0123456789'), 10)
      const digest = digestOf('0123456789')
      expect(await all(await store.open(digest))).toBe('0123456789')
      expect(await all(await store.open(digest, 7))).toBe('789')
      expect(await all(await store.open(digest, 10))).toBe('')
      expect(await all(await store.open(digest, 99))).toBe('')
    })

    it('gives a whole artifact only within the limit', async () => {
      const { store } = open()
      await store.put(pieces('0123456789'), 10)
      expect(await codeOf(store.read(digestOf('0123456789'), 9))).toBe('too_large')
    })

    it('knows no digest that was not stored, nor one that is none', async () => {
      const { store } = open()
      await store.put(pieces('x'), 1)
      const others = [
        digestOf('y'),
        'sha256:../../../../etc/passwd',
        digestOf('x').toUpperCase(),
        `${digestOf('x')}/..`,
        digestOf('x').slice(7),
        '',
      ] as Digest[]
      for (const digest of others) {
        expect(await store.size(digest)).toBeNull()
        expect(await codeOf(store.open(digest))).toBe('not_found')
        expect(await codeOf(store.read(digest, 10))).toBe('not_found')
      }
    })

    it('makes an artifact of an upload only when it is kept, over as many connections as it takes', async () => {
      const { store, reopen } = open()
      const upload = store.receive()
      await upload.append(pieces('ab', '', 'c'), 3)
      expect(upload.offset).toBe(3)
      expect(await codeOf(upload.append(failing('de'), 9))).toContain('cut off')
      expect(upload.offset).toBe(5)
      await upload.append(pieces('f'), 1)
      expect(await upload.finish()).toBe(digestOf('abcdef'))
      expect(await store.size(digestOf('abcdef'))).toBeNull()
      expect((await upload.read()).toString()).toBe('abcdef')
      await upload.keep()
      await upload.discard()
      expect(await all(await reopen().open(digestOf('abcdef')))).toBe('abcdef')
    })

    it('begins an upload anew after it was given up, and leaves nothing of one that was', async () => {
      const { store } = open()
      const upload = store.receive()
      await upload.append(pieces('wrong'), 5)
      await upload.discard()
      expect(upload.offset).toBe(0)
      expect(await codeOf(upload.append(pieces('right', '!'), 5))).toBe('too_large')
      expect(upload.offset).toBe(5)
      expect(await upload.finish()).toBe(digestOf('right'))
      await upload.discard()
      expect(await listed(store)).toEqual([])
      const empty = store.receive()
      expect(await empty.finish()).toBe(digestOf(''))
      await empty.keep()
      expect(await store.size(digestOf(''))).toBe(0)
    })

    it('takes pieces of any size in their order', async () => {
      const { store } = open()
      const text = 'x'.repeat(300_000)
      const many = Array.from({ length: 3000 }, (_, at) => (at % 500 === 0 ? text : String(at)))
      const upload = store.receive()
      await upload.append(pieces(...many), 10_000_000)
      expect(await upload.finish()).toBe(digestOf(many.join('')))
      expect((await upload.read()).toString()).toBe(many.join(''))
      await upload.discard()
    })

    it('lists what it has, and removes what was not stored or held since a moment', async () => {
      const { store } = open()
      await store.put(pieces('a'), 1)
      await store.put(pieces('b'), 1)
      expect(await listed(store)).toEqual([digestOf('a'), digestOf('b')].toSorted())
      expect(store.removeStoredBefore(digestOf('a'), Date.now() - 60_000)).toBe(false)
      expect(store.hold(digestOf('a'))).toBe(1)
      expect(store.removeStoredBefore(digestOf('a'), Date.now() + 60_000)).toBe(true)
      expect(store.removeStoredBefore(digestOf('a'), Date.now() + 60_000)).toBe(false)
      expect(store.hold(digestOf('a'))).toBeNull()
      expect(store.removeStoredBefore('sha256:../x' as Digest, Date.now() + 60_000)).toBe(false)
      expect(await listed(store)).toEqual([digestOf('b')])
      expect(await store.room()).toBeGreaterThan(0)
    })
  })
}

async function listed(store: ArtifactStore): Promise<readonly Digest[]> {
  const found: Digest[] = []
  for await (const digest of store.list()) found.push(digest)
  return found.toSorted()
}

async function* failing(text: string): AsyncGenerator<Uint8Array> {
  await Promise.resolve()
  yield Buffer.from(text)
  throw new Error('cut off')
}

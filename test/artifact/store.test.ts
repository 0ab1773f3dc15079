import { mkdirSync, readdirSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { openFileStore } from '../../src/artifact/store.ts'
import { digestOf } from '../../src/digest.ts'
import { codeOf, pieces } from '../contract/artifact-store.ts'
import { folder } from '../ledger/folder.ts'
import { smallDisk, whyNoDisk } from '../ledger/small-disk.ts'

function place(dir: string, text: string): string {
  const hex = digestOf(text).slice('sha256:'.length)
  return join(dir, hex.slice(0, 2), hex)
}

function files(dir: string): readonly string[] {
  return readdirSync(dir, { recursive: true, withFileTypes: true })
    .filter((entry) => !entry.isDirectory())
    .map((entry) => entry.name)
}

it('keeps its files for their owner alone', async () => {
  const dir = join(folder(), 'artifacts')
  await openFileStore(dir).put(pieces('abc'), 3)
  const modes = [dir, join(place(dir, 'abc'), '..'), place(dir, 'abc')].map((path) =>
    (statSync(path).mode & 0o777).toString(8),
  )
  expect(modes).toEqual(['700', '700', '600'])
})

it('removes what a crash left half written, and nothing else', async () => {
  const dir = folder()
  await openFileStore(dir).put(pieces('kept'), 4)
  writeFileSync(join(dir, '.incoming-0123'), 'half')
  const store = openFileStore(dir)
  expect(files(dir)).toEqual([digestOf('kept').slice('sha256:'.length)])
  expect(await store.size(digestOf('kept'))).toBe(4)
})

it('leaves no file behind where storing failed', async () => {
  const dir = folder()
  const store = openFileStore(dir)
  expect(await codeOf(store.put(pieces('abcd'), 3))).toBe('too_large')
  expect(files(dir)).toEqual([])
})

it('[G-artifact-bytes] never hands over bytes that are not the digest’s, and is mended by storing them again', async () => {
  const dir = folder()
  const store = openFileStore(dir)
  await store.put(pieces('true'), 4)
  writeFileSync(place(dir, 'true'), 'fake')
  expect(await codeOf(store.read(digestOf('true'), 4))).toBe('ledger_corrupt')
  await store.put(pieces('true'), 4)
  expect((await store.read(digestOf('true'), 4)).toString()).toBe('true')
})

it('follows no link and reads no folder in the place of an artifact', async () => {
  const dir = folder()
  const store = openFileStore(dir)
  await store.put(pieces('link'), 4)
  rmSync(place(dir, 'link'))
  writeFileSync(join(dir, 'outside'), 'link')
  symlinkSync(join(dir, 'outside'), place(dir, 'link'))
  expect(await codeOf(store.read(digestOf('link'), 4))).not.toBe('done')
  await store.put(pieces('dir'), 4)
  rmSync(place(dir, 'dir'))
  mkdirSync(place(dir, 'dir'))
  expect(await codeOf(store.read(digestOf('dir'), 4))).toBe('not_found')
})

it('rejects no_space on a full disk, leaves nothing there, and stores again when there is room', async (ctx) => {
  const disk = smallDisk(256)
  if (disk === null) return ctx.skip(whyNoDisk)
  const store = openFileStore(join(disk.path, 'artifacts'))
  const big = Buffer.alloc(200 << 10, 1)
  await store.put(pieces('before'), 10)
  await store.put(pieces(big), 1 << 20)
  expect(await codeOf(store.put(pieces(big, 'more'), 1 << 20))).toBe('no_space')
  expect(files(join(disk.path, 'artifacts'))).toHaveLength(2)
  rmSync(place(join(disk.path, 'artifacts'), big.toString()))
  expect(await codeOf(store.put(pieces(big, 'more'), 1 << 20))).toBe('done')
  expect((await store.read(digestOf('before'), 10)).toString()).toBe('before')
})

it('names no path in what it throws', async () => {
  const dir = folder()
  const store = openFileStore(dir)
  rmSync(dir, { recursive: true })
  const error: unknown = await store.put(pieces('x'), 1).catch((reason: unknown) => reason)
  expect(String(error)).not.toContain(dir)
  expect(await codeOf(store.put(pieces('x'), 1))).toBe('ledger_unavailable')
})

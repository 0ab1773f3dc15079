import * as fc from 'fast-check'
import { pack } from 'tar-stream'
import type { Header } from 'tar-stream'
import { describe, expect, test } from 'vitest'
import { gather, packFiles } from '../../../src/executor/docker/outputs.ts'
import type { Output } from '../../../src/executor/docker/outputs.ts'
import { splitStreams } from '../../../src/executor/docker/streams.ts'
import { digestOf } from '../../../src/digest.ts'

const limits = { bytes: 1000, files: 3 }

async function tar(
  ...entries: readonly (readonly [Partial<Header> & { readonly name: string }, string])[]
): Promise<Buffer> {
  const made = pack()
  for (const [header, text] of entries) made.entry(header, text)
  made.finalize()
  const chunks: Buffer[] = []
  for await (const chunk of made) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks)
}

async function unpack(archive: Buffer, of = limits): Promise<readonly Output[] | null> {
  const outputs = gather(of)
  return outputs.add(archive) ? await outputs.unpack() : null
}

describe('the archive of the outputs', () => {
  test('gives its files', async () => {
    const found = await unpack(await tar([{ name: 'a.txt' }, 'one'], [{ name: 'deep/b' }, '']))
    expect(found?.map(({ path, bytes }) => [path, String(bytes)])).toEqual([
      ['a.txt', 'one'],
      ['deep/b', ''],
    ])
  })

  test.each<readonly [string, Partial<Header> & { readonly name: string }]>([
    ['a link', { name: 'a', type: 'symlink', linkname: '/etc/passwd' }],
    ['a hard link', { name: 'a', type: 'link', linkname: 'b' }],
    ['a device', { name: 'a', type: 'character-device' }],
    ['a block device', { name: 'a', type: 'block-device' }],
    ['a pipe', { name: 'a', type: 'fifo' }],
    ['a folder', { name: 'a', type: 'directory' }],
    ['a file that names a link', { name: 'a', type: 'file', linkname: 'b' }],
    ['a name given twice in different ways', { name: 'a', pax: { linkpath: 'b' } }],
    ['a sparse file', { name: 'a', pax: { 'GNU.sparse.major': '1' } }],
  ])(
    'is taken for none at all where it holds %s, which no agent sends [G-outputs-untrusted]',
    async (_what, header) => {
      expect(await unpack(await tar([{ name: 'good' }, 'x'], [header, '']))).toBeNull()
    },
  )

  test('hands names on as they are: the sink judges them', async () => {
    const found = await unpack(await tar([{ name: '../up' }, 'x'], [{ name: '/abs' }, 'y']))
    expect(found?.map(({ path }) => path)).toEqual(['../up', '/abs'])
  })

  test('is held to the limits of the run, in bytes and in files', async () => {
    expect(await unpack(await tar([{ name: 'a' }, 'x'.repeat(1000)]))).toHaveLength(1)
    expect(await unpack(await tar([{ name: 'a' }, 'x'.repeat(1001)]))).toBeNull()
    expect(await unpack(await tar(...[1, 2, 3, 4].map((n) => [{ name: `f${n}` }, 'x'] as const)))).toBeNull()
  })

  test('that goes on is refused while it comes', () => {
    const outputs = gather(limits)
    let taken = 0
    while (outputs.add(Buffer.alloc(65_536)) && taken < 10) taken++
    expect(taken).toBe(0)
  })

  test('of any bytes gives files within the limits, or none [G-outputs-untrusted]', async () => {
    const good = await tar([{ name: 'a' }, 'one'], [{ name: 'b', pax: { path: 'c' } }, 'two'])
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(fc.nat({ max: good.length - 1 }), fc.nat({ max: 255 })), { maxLength: 8 }),
        fc.nat({ max: good.length }),
        async (changes, length) => {
          const archive = Buffer.from(good.subarray(0, length))
          for (const [at, value] of changes) if (at < archive.length) archive[at] = value
          const found = await unpack(archive)
          if (found === null) return
          expect(found.length).toBeLessThanOrEqual(limits.files)
          expect(found.reduce((sum, { bytes }) => sum + bytes.length, 0)).toBeLessThanOrEqual(limits.bytes)
        },
      ),
      { numRuns: 300 },
    )
  })
})

test('a project is packed as it is, whatever its names', async () => {
  const names = ['run.py', `deep/${'long'.repeat(40)}/x`, 'ümlaut/名前', 'with space']
  const files = names.map((path, at) => ({ path, sha256: digestOf(path), size: 3, executable: at === 0 }))
  const chunks: Buffer[] = []
  for await (const chunk of packFiles(
    files,
    names.map(() => Buffer.from('abc')),
  ))
    chunks.push(chunk)
  const found = await unpack(Buffer.concat(chunks), { bytes: 100, files: 10 })
  expect(found?.map(({ path, bytes }) => [path, String(bytes)])).toEqual(names.map((name) => [name, 'abc']))
})

describe('the stream of an attached container', () => {
  const part = (stream: number, text: string): Buffer => {
    const head = Buffer.from([stream, 0, 0, 0, 0, 0, 0, 0])
    head.writeUInt32BE(text.length, 4)
    return Buffer.concat([head, Buffer.from(text)])
  }
  const whole = Buffer.concat([part(1, 'one'), part(2, 'err'), part(1, ''), part(1, 'two')])

  test('is taken apart the same, cut anywhere', () => {
    fc.assert(
      fc.property(fc.array(fc.nat({ max: whole.length })), (cuts) => {
        const got = { stdout: '', stderr: '' }
        const split = splitStreams((stream, bytes) => (got[stream] += String(bytes)))
        const at = [0, ...cuts.toSorted((a, b) => a - b), whole.length]
        for (const [n, end] of at.slice(1).entries()) split(whole.subarray(at[n], end))
        expect(got).toEqual({ stdout: 'onetwo', stderr: 'err' })
      }),
    )
  })

  test.each([
    ['a stream there is not', [3, 0, 0, 0, 0, 0, 0, 1]],
    ['standard input', [0, 0, 0, 0, 0, 0, 0, 1]],
    ['no zeros', [1, 0, 1, 0, 0, 0, 0, 1]],
    ['gigabytes', [1, 0, 0, 0, 255, 255, 255, 255]],
    ['text', [...Buffer.from('HTTP/1.1')]],
  ])('that begins a part with %s is read no further', (_what, head) => {
    const split = splitStreams(() => undefined)
    expect(() => split(Buffer.from(head))).toThrow('not a stream')
  })
})

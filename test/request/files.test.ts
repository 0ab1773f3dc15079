import { describe, expect, test } from 'vitest'
import type { Digest } from '../../src/digest.ts'
import { digestOf } from '../../src/digest.ts'
import { WritError } from '../../src/error.ts'
import type { FileIn } from '../../src/request/call.ts'
import { applyFiles, pathClash, pathProblem, showPath } from '../../src/request/files.ts'
import type { FileChanges } from '../../src/request/files.ts'
import type { TaskFile } from '../../src/request/task.ts'

/** Bytes kept by digest, as the artifact store does, counting what was stored. */
function memory() {
  const kept = new Map<Digest, Uint8Array>()
  return {
    kept,
    bytesOf: (digest: Digest): Promise<Uint8Array> => {
      const bytes = kept.get(digest)
      return bytes === undefined
        ? Promise.reject(new WritError('not_found', 'no such artifact'))
        : Promise.resolve(bytes)
    },
    put: (bytes: Uint8Array) => {
      const sha256 = digestOf(bytes)
      kept.set(sha256, bytes)
      return Promise.resolve({ sha256, size: bytes.length })
    },
  }
}

async function project(content: Readonly<Record<string, string>>) {
  const store = memory()
  const files = Object.entries(content).map(([path, text]) => ({ path, content: text }))
  const { files: start } = await applyFiles([], { files }, store.bytesOf, store.put)
  return {
    start,
    apply: async (changes: FileChanges, from: readonly TaskFile[] = start) =>
      await applyFiles(from, changes, store.bytesOf, store.put),
    text: (files: readonly TaskFile[], path: string) =>
      Buffer.from(store.kept.get(files.find((file) => file.path === path)?.sha256 ?? ('' as Digest)) ?? []).toString(),
    store,
  }
}

async function refusal(work: Promise<unknown>): Promise<WritError> {
  try {
    await work
  } catch (error) {
    if (error instanceof WritError) return error
    throw error
  }
  throw new Error('it was taken')
}

describe('files of a task', () => {
  test('are added, replaced, edited, removed and left alone in one call', async () => {
    const { apply, text } = await project({ 'a.js': 'let a = 1', 'b.js': 'b', 'c.js': 'c', 'd.js': 'd' })
    const { files, changed } = await apply({
      files: [
        { path: 'new/e.js', content: 'é' },
        { path: 'b.js', content_base64: Buffer.from([0, 255]).toString('base64') },
        {
          path: 'a.js',
          edits: [
            { old: '1', new: '$& $1 2' },
            { old: '$1 2', new: '3' },
          ],
        },
        { path: 'd.js', content: 'd' },
      ],
      remove: ['c.js'],
    })
    expect(files.map((file) => file.path)).toEqual(['a.js', 'b.js', 'd.js', 'new/e.js'])
    expect(text(files, 'a.js')).toBe('let a = $& 3')
    expect(changed.map(({ path, change }) => [path, change])).toEqual([
      ['c.js', 'removed'],
      ['new/e.js', 'added'],
      ['b.js', 'replaced'],
      ['a.js', 'edited'],
      ['d.js', 'unchanged'],
    ])
    expect(files.find((file) => file.path === 'new/e.js')).toMatchObject({
      size: 2,
      executable: false,
      sha256: digestOf('é'),
    })
  })

  test('keep or change their executable bit', async () => {
    const { apply } = await project({ run: 'x' })
    const one = await apply({ files: [{ path: 'run', content: 'x', executable: true }] })
    expect(one.changed[0]?.change).toBe('replaced')
    const two = await apply({ files: [{ path: 'run', edits: [{ old: 'x', new: 'y' }] }] }, one.files)
    expect(two.files[0]?.executable).toBe(true)
    const three = await apply({ files: [{ path: 'run', content: 'y', executable: false }] }, two.files)
    expect(three.files[0]?.executable).toBe(false)
  })

  test('may be renamed in case only, in one call', async () => {
    const { apply } = await project({ 'Readme.md': 'x' })
    expect(
      (await apply({ remove: ['Readme.md'], files: [{ path: 'README.md', content: 'x' }] })).files.map(
        (file) => file.path,
      ),
    ).toEqual(['README.md'])
  })

  test('out of an archive go where they are told, and count as files of the call', async () => {
    const { apply } = await project({ 'a.js': 'x' })
    const unpacked = [{ path: 'b/c.js', bytes: Buffer.from('c'), executable: true }]
    expect((await apply({ unpacked, under: 'lib/' })).files.map((file) => [file.path, file.executable])).toEqual([
      ['a.js', false],
      ['lib/b/c.js', true],
    ])
    expect((await refusal(apply({ unpacked, under: '../out' }))).message).toContain('".." part')
    expect((await refusal(apply({ unpacked, files: [{ path: 'b/c.js', content: 'x' }] }))).message).toContain(
      'given twice',
    )
    expect(
      (await refusal(apply({ unpacked: [{ path: '../x', bytes: Buffer.alloc(0), executable: false }] }))).code,
    ).toBe('invalid_file')
  })

  const wrong: readonly (readonly [string, FileIn, string])[] = [
    ['no content', { path: 'x' }, 'give exactly one of content'],
    ['two contents', { path: 'x', content: '', content_base64: '' }, 'give exactly one of content'],
    ['edits of nothing', { path: 'x', edits: [{ old: 'a', new: 'b' }] }, 'there is no such file'],
    ['no edits', { path: 'a.js', edits: [] }, 'edits is empty'],
    ['an empty old', { path: 'a.js', edits: [{ old: '', new: 'b' }] }, 'the edit has an empty "old"'],
    [
      'an old that is not there',
      { path: 'a.js', edits: [{ old: 'zzz', new: 'b' }] },
      '"old" of the edit matches 0 times',
    ],
    ['an old that is there twice', { path: 'a.js', edits: [{ old: 'one', new: 'b' }] }, 'matches 2 times'],
    ['overlapping places', { path: 'a.js', edits: [{ old: 'xx', new: 'b' }] }, 'matches 2 times'],
    [
      'the second of two edits',
      {
        path: 'a.js',
        edits: [
          { old: 'xxx', new: 'y' },
          { old: 'xxx', new: 'b' },
        ],
      },
      '"old" of edit 2 of 2 matches 0 times',
    ],
    ['a great many places', { path: 'many', edits: [{ old: 'm', new: 'b' }] }, 'matches 100 or more times'],
    ['an edit of bytes', { path: 'bytes', edits: [{ old: 'a', new: 'b' }] }, 'it is not UTF-8 text'],
    ['a lone surrogate', { path: 'x', content: '\ud800' }, 'lone surrogate'],
    ['a lone surrogate in an edit', { path: 'a.js', edits: [{ old: 'xxx', new: '\udfff' }] }, 'lone surrogate'],
    ['base64 with a line end', { path: 'x', content_base64: 'aGk=\n' }, 'padded standard base64'],
    ['base64 without padding', { path: 'x', content_base64: 'aGk' }, 'padded standard base64'],
    ['base64url', { path: 'x', content_base64: '-_-_' }, 'padded standard base64'],
    ['base64 with slack bits', { path: 'x', content_base64: 'aGl=' }, 'padded standard base64'],
    ['something else behind base64', { path: 'x', content_base64: 'aGk=aGk=' }, 'padded standard base64'],
    ['another digest', { path: 'x', content: 'a', sha256: 'sha256:00' }, 'do not have the given sha256'],
  ]
  test.each(wrong)('refuses %s, naming the file, and stores nothing', async (_what, file, message) => {
    const { start, apply, store } = await project({ 'a.js': 'one one xxx', many: 'm'.repeat(500) })
    const { files } = await apply({
      files: [{ path: 'bytes', content_base64: Buffer.from([255, 254]).toString('base64') }],
    })
    const before = store.kept.size
    const error = await refusal(apply({ files: [{ path: 'fine.js', content: 'fine' }, file] }, files))
    expect(error.code).toBe('invalid_file')
    expect(error.message).toContain(message)
    expect(error.message).toContain(`file "${file.path}"`)
    expect(store.kept.size).toBe(before)
    expect(start.length).toBe(2)
  })

  test('a digest is checked in either spelling, on the bytes that result', async () => {
    const { apply } = await project({ 'a.js': 'one' })
    const hex = digestOf('two').slice(7)
    expect(
      (await apply({ files: [{ path: 'a.js', edits: [{ old: 'one', new: 'two' }], sha256: hex }] })).changed[0]?.sha256,
    ).toBe(`sha256:${hex}`)
    await apply({ files: [{ path: 'x', content: 'two', sha256: `sha256:${hex}` }] })
  })

  test('removing what is not there, or giving and removing at once, is refused', async () => {
    const { apply } = await project({ 'a.js': 'x' })
    expect((await refusal(apply({ remove: ['b.js'] }))).message).toContain('file "b.js": cannot be removed')
    expect((await refusal(apply({ remove: ['__proto__'] }))).code).toBe('invalid_file')
    expect((await refusal(apply({ remove: ['a.js'], files: [{ path: 'a.js', content: 'y' }] }))).message).toContain(
      'both given and removed',
    )
    expect(
      (
        await refusal(
          apply({
            files: [
              { path: 'x', content: '' },
              { path: 'x', content: '' },
            ],
          }),
        )
      ).message,
    ).toContain('given twice')
    expect((await apply({ remove: ['a.js', 'a.js'] })).files).toEqual([])
  })

  test('names such as __proto__ and constructor are files like any other', async () => {
    const { apply } = await project({})
    const { files } = await apply({
      files: [
        { path: '__proto__', content: 'a' },
        { path: 'constructor', content: 'b' },
        { path: 'toString/x', content: 'c' },
      ],
    })
    expect(files.map((file) => file.path)).toEqual(['__proto__', 'constructor', 'toString/x'])
  })

  test('at most 1000 files and 64 MiB', async () => {
    const { apply } = await project({ a: '' })
    const many = Array.from({ length: 1000 }, (_, i) => ({ path: `f${i}`, content: '' }))
    expect((await refusal(apply({ files: many }))).code).toBe('too_large')
    expect((await apply({ files: many, remove: ['a'] })).files.length).toBe(1000)
    const big = Buffer.alloc(33 * 1024 * 1024)
    const unpacked = ['x', 'y'].map((path) => ({ path, bytes: big, executable: false }))
    expect((await refusal(apply({ unpacked }))).message).toContain('more than 64 MiB together')
  })

  test('a store that names other bytes is a fault of ours', async () => {
    const store = memory()
    const put = async (bytes: Uint8Array) => ({ ...(await store.put(bytes)), sha256: digestOf('other') })
    expect((await refusal(applyFiles([], { files: [{ path: 'a', content: 'x' }] }, store.bytesOf, put))).code).toBe(
      'internal',
    )
  })
})

describe('paths', () => {
  test.each([
    'a',
    'a/b.c',
    '.env',
    '..a',
    'a..',
    'con',
    'NUL.txt',
    'ünï/\u{1f600}',
    'a b',
    '-rf',
    '~',
    '$(x)',
    'x'.repeat(255),
    `${'y'.repeat(255)}/${'z'.repeat(255)}`,
  ])('%s is taken', (path) => {
    expect(pathProblem(path)).toBeNull()
  })

  test.each([
    '',
    '.',
    '..',
    '/a',
    '/',
    'a/',
    'a//b',
    './a',
    'a/./b',
    'a/..',
    '../a',
    'a/../b',
    'a\\b',
    '\\\\host\\x',
    'C:/x',
    'c:x',
    'a\0b',
    'a\nb',
    'a\u007fb',
    'a\u0085b',
    'a\u202eb',
    'a\u200bb',
    'a\ufeffb',
    'a\u2028b',
    'a\ud800',
    'a\ufffd',
    'e\u0301',
    '\u212b',
    'x'.repeat(256),
    'é'.repeat(128),
    Array.from({ length: 300 }, () => 'abc').join('/'),
    Array.from({ length: 65 }, () => 'a').join('/'),
  ])('%j is refused', (path) => {
    expect(pathProblem(path)).not.toBeNull()
  })

  test.each([
    [['a', 'A']],
    [['a/b', 'A/c']],
    [['a', 'a/b']],
    [['A', 'a/b']],
    [['a/b', 'a']],
    [['straße', 'STRASSE']],
    [['ſ', 's']],
    [['K', 'k']],
    [['\u212a', 'k']],
    [['ﬁ', 'fi']],
    [['İ', 'i̇']],
    [['Σ', 'ς']],
    [['a', 'a']],
  ])('%j cannot stand side by side', (paths) => {
    expect(pathClash(paths)).not.toBeNull()
    expect(pathClash([...paths].reverse())).not.toBeNull()
  })

  test.each([[['a', 'b']], [['a/b', 'a/c']], [['a/b', 'b/a']], [['a', 'a.b']], [['ab/c', 'a/bc']], [[]]])(
    '%j can',
    (paths) => {
      expect(pathClash(paths)).toBeNull()
    },
  )

  test('are shown in one line of ASCII', () => {
    expect(showPath('a"\\\n\u202e\u{1f600}')).toBe('"a\\"\\\\\\u{a}\\u{202e}\\u{1f600}"')
    expect(showPath('x'.repeat(500)).length).toBeLessThan(130)
  })
})

import { crc32, deflateRawSync, gunzipSync, gzipSync, inflateRawSync } from 'node:zlib'
import { pack } from 'tar-stream'
import type { Header } from 'tar-stream'
import { describe, expect, test } from 'vitest'
import { unpackArchive } from '../../src/artifact/archive.ts'
import { WritError } from '../../src/error.ts'
import { effort } from '../cost.ts'

type TarEntry = Partial<Header> & { readonly name: string; readonly text?: string | Buffer }

async function tar(...entries: readonly TarEntry[]): Promise<Buffer> {
  const packer = pack()
  for (const { text, ...header } of entries) packer.entry(header, text ?? '')
  packer.finalize()
  const chunks: Buffer[] = []
  for await (const chunk of packer) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks)
}

/** One 512-byte tar header as written, with a right checksum: what packers refuse to make. */
function rawHeader(
  name: string,
  size: number,
  type: string,
  more: { readonly link?: string; readonly sizeField?: Buffer } = {},
): Buffer {
  const block = Buffer.alloc(512)
  block.write(name, 0, 100, 'latin1')
  block.write('0000644\0', 100)
  block.write('0000000\0', 108)
  block.write('0000000\0', 116)
  if (more.sizeField === undefined) block.write(`${size.toString(8).padStart(11, '0')}\0`, 124)
  else more.sizeField.copy(block, 124)
  block.write('00000000000\0', 136)
  block.write(type, 156)
  block.write(more.link ?? '', 157, 100, 'latin1')
  block.write('ustar\x0000', 257, 'latin1')
  block.write('        ', 148)
  let sum = 0
  for (const byte of block) sum += byte
  block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148)
  return block
}

function rawTar(...parts: readonly Buffer[]): Buffer {
  return Buffer.concat([
    ...parts.map((part) => Buffer.concat([part, Buffer.alloc((512 - (part.length % 512)) % 512)])),
    Buffer.alloc(1024),
  ])
}

function paxHeader(records: Readonly<Record<string, string>>, type = 'x'): Buffer[] {
  const text = Object.entries(records)
    .map(([key, value]) => {
      const body = ` ${key}=${value}\n`
      let length = body.length + 1
      while (`${length}${body}`.length !== length) length++
      return `${length}${body}`
    })
    .join('')
  return [rawHeader('pax', Buffer.byteLength(text), type), Buffer.from(text)]
}

interface ZipEntry {
  readonly name: string | Buffer
  readonly text?: Buffer | string
  readonly method?: number
  readonly flags?: number
  readonly mode?: number
  readonly host?: number
  readonly size?: number
  readonly packed?: number
  readonly crc?: number
  readonly offset?: number
  readonly localName?: string
}

/** A zip exactly as told, lies included. */
function zip(...entries: readonly ZipEntry[]): Buffer {
  const locals: Buffer[] = []
  const central: Buffer[] = []
  let offset = 0
  for (const entry of entries) {
    const bytes = Buffer.from(entry.text ?? '')
    const method = entry.method ?? 0
    const data = method === 8 ? deflateRawSync(bytes) : bytes
    const name = Buffer.from(entry.name)
    const localName = Buffer.from(entry.localName ?? name)
    const common = Buffer.alloc(26)
    common.writeUInt16LE(20, 0)
    common.writeUInt16LE(entry.flags ?? 0x800, 2)
    common.writeUInt16LE(method, 4)
    common.writeUInt32LE((entry.crc ?? crc32(bytes)) >>> 0, 10)
    common.writeUInt32LE(entry.packed ?? data.length, 14)
    common.writeUInt32LE(entry.size ?? bytes.length, 18)
    common.writeUInt16LE(localName.length, 22)
    const local = Buffer.concat([Buffer.from('PK\u0003\u0004'), common, localName, data])
    const centralCommon = Buffer.from(common)
    centralCommon.writeUInt16LE(name.length, 22)
    const head = Buffer.alloc(14)
    head.writeUInt32LE(((entry.mode ?? 0o100644) << 16) >>> 0, 6)
    head.writeUInt32LE(entry.offset ?? offset, 10)
    const made = Buffer.from([20, entry.host ?? 3])
    central.push(Buffer.concat([Buffer.from('PK\u0001\u0002'), made, centralCommon, head, name]))
    locals.push(local)
    offset += local.length
  }
  const directory = Buffer.concat(central)
  const end = Buffer.alloc(22)
  end.write('PK\u0005\u0006')
  end.writeUInt16LE(entries.length, 8)
  end.writeUInt16LE(entries.length, 10)
  end.writeUInt32LE(directory.length, 12)
  end.writeUInt32LE(offset, 16)
  return Buffer.concat([...locals, directory, end])
}

async function refusal(bytes: Buffer): Promise<WritError> {
  try {
    await unpackArchive(bytes)
  } catch (error) {
    if (error instanceof WritError) return error
    throw error
  }
  throw new Error('the archive was taken')
}

const readable = async (bytes: Buffer) =>
  (await unpackArchive(bytes)).map((file) => [file.path, file.bytes.toString(), file.executable])

describe('honest archives', () => {
  const expected = [
    ['a.txt', 'hello', false],
    ['src/run.sh', '#!/bin/sh', true],
    ['src/ünï.js', 'x', false],
  ]
  const entries: readonly TarEntry[] = [
    { name: './', type: 'directory' },
    { name: './src/', type: 'directory' },
    { name: './src/run.sh', mode: 0o755, text: '#!/bin/sh' },
    { name: './a.txt', mode: 0o644, text: 'hello' },
    { name: 'src/ünï.js', text: 'x' },
  ]

  test('tar, tar.gz and zip give the same files, sorted, with their executable bit', async () => {
    const plain = await tar(...entries)
    expect(await readable(plain)).toEqual(expected)
    expect(await readable(gzipSync(plain))).toEqual(expected)
    expect(
      await readable(
        zip(
          { name: 'src/', mode: 0o040755 },
          { name: 'src/run.sh', text: '#!/bin/sh', mode: 0o100755, method: 8 },
          { name: 'src/ünï.js', text: 'x' },
          { name: 'a.txt', text: 'hello', mode: 0, host: 0 },
        ),
      ),
    ).toEqual(expected)
  })

  test('long names by pax and by GNU are honoured', async () => {
    const long = `${'d'.repeat(120)}/${'f'.repeat(120)}.js`
    expect((await unpackArchive(await tar({ name: long, text: 'x' })))[0]?.path).toBe(long)
    const gnu = rawTar(
      rawHeader('././@LongLink', Buffer.byteLength(long) + 1, 'L'),
      Buffer.from(`${long}\0`),
      rawHeader('short', 1, '0'),
      Buffer.from('x'),
    )
    expect((await unpackArchive(gnu))[0]?.path).toBe(long)
  })

  test('an archive inside stays a file, and so does an empty one', async () => {
    const inner = gzipSync(await tar({ name: '../evil', text: 'x' }))
    const files = await unpackArchive(await tar({ name: 'inner.tar.gz', text: inner }, { name: 'empty', text: '' }))
    expect(files.map((file) => [file.path, file.bytes.length])).toEqual([
      ['empty', 0],
      ['inner.tar.gz', inner.length],
    ])
    expect(files[1]?.bytes.equals(inner)).toBe(true)
  })

  test('a comment of git in a global header is no harm', async () => {
    const archive = rawTar(...paxHeader({ comment: 'a'.repeat(40) }, 'g'), rawHeader('a', 1, '0'), Buffer.from('x'))
    expect(await readable(archive)).toEqual([['a', 'x', false]])
  })

  test('a run of zeros that unpacks to less than 1 MiB passes', async () => {
    const zeros = Buffer.alloc(500_000)
    expect((await unpackArchive(gzipSync(await tar({ name: 'z', text: zeros }))))[0]?.bytes.length).toBe(500_000)
    expect((await unpackArchive(zip({ name: 'z', text: zeros, method: 8 })))[0]?.bytes.length).toBe(500_000)
  })
})

const hostileNames = [
  '../evil',
  'a/../../evil',
  '/etc/passwd',
  '..',
  'a\\..\\b',
  'C:/x',
  'C:\\x',
  'a//b',
  'a/./b',
  'a\u202eb',
  'a\nb',
  'e\u0301',
  'a\u200b',
  './/../x',
  'x'.repeat(300),
]

describe('[G-archive] hostile tars', () => {
  test.each(hostileNames)('the name %j is refused, escaped', async (name) => {
    const error = await refusal(await tar({ name: 'fine', text: 'x' }, { name, text: 'x' }))
    expect(error.code).toBe('invalid_archive')
    expect(error.message).toMatch(/^[\u0020-\u007e…]+$/)
    expect(
      (await refusal(gzipSync(rawTar(...paxHeader({ path: name }), rawHeader('innocent', 1, '0'), Buffer.from('x')))))
        .code,
    ).toBe('invalid_archive')
    expect((await refusal(await tar({ name: `${name}/`, type: 'directory' }, { name: 'fine', text: 'x' }))).code).toBe(
      'invalid_archive',
    )
  })

  test.each([
    ['a symbolic link', { name: 'l', type: 'symlink', linkname: '/etc/passwd' }],
    ['a hard link', { name: 'l', type: 'link', linkname: 'fine' }],
    ['a character device', { name: 'l', type: 'character-device' }],
    ['a block device', { name: 'l', type: 'block-device' }],
    ['a pipe', { name: 'l', type: 'fifo' }],
  ] as const)('%s is refused', async (_what, entry) => {
    const error = await refusal(await tar({ name: 'fine', text: 'x' }, entry))
    expect(error.code).toBe('invalid_archive')
    expect(error.message).toContain('entry "l": only regular files and folders are taken')
  })

  test('a link and a file through it is refused before the file', async () => {
    expect(
      (await refusal(await tar({ name: 'd', type: 'symlink', linkname: '/tmp' }, { name: 'd/evil', text: 'x' })))
        .message,
    ).toContain('entry "d"')
    expect(
      (await refusal(await tar({ name: 'd/', type: 'symlink', linkname: '..' }, { name: 'd/evil', text: 'x' })))
        .message,
    ).toContain('this is a symlink')
  })

  test('a file that names a link is refused', async () => {
    expect(
      (await refusal(rawTar(rawHeader('a', 1, '0', { link: '/etc/passwd' }), Buffer.from('x')))).message,
    ).toContain('carries the name of a link')
    expect(
      (await refusal(rawTar(...paxHeader({ linkpath: '/etc/passwd' }), rawHeader('a', 1, '0'), Buffer.from('x'))))
        .message,
    ).toContain('carries the name of a link')
  })

  test('sparse files and unknown kinds are refused', async () => {
    expect(
      (
        await refusal(
          rawTar(
            ...paxHeader({ 'GNU.sparse.major': '1', 'GNU.sparse.realsize': '99999999999' }),
            rawHeader('s', 1, '0'),
            Buffer.from('x'),
          ),
        )
      ).message,
    ).toContain('sparse')
    for (const type of ['S', 'V', 'M', 'D', 'A', 'Z'])
      expect((await refusal(rawTar(rawHeader('s', 0, type)))).message).toContain('of an unknown kind')
  })

  test.each([
    ['the same', 'a', 'a'],
    ['case', 'src/A.js', 'src/a.js'],
    ['case of a folder', 'Src/a.js', 'src/b.js'],
    ['Unicode', 'K', '\u212a'.normalize('NFKC').toLowerCase()],
    ['sharp s', 'straße', 'STRASSE'],
    ['a file and its folder', 'a', 'a/b'],
    ['a folder and its file', 'a/b', 'a'],
  ])('names that clash by %s are refused', async (_what, one, two) => {
    for (const archive of [
      await tar({ name: one, text: 'x' }, { name: two, text: 'y' }),
      zip({ name: one, text: 'x' }, { name: two, text: 'y' }),
    ]) {
      const error = await refusal(archive)
      expect(error.code).toBe('invalid_archive')
      expect(error.message).toContain('cannot stand side by side')
    }
  })

  test('an empty folder where a file stands is refused, a folder named twice is not', async () => {
    expect((await refusal(await tar({ name: 'a', text: 'x' }, { name: 'A/', type: 'directory' }))).message).toContain(
      'cannot stand side by side',
    )
    expect(
      await readable(
        await tar({ name: 'd/', type: 'directory' }, { name: 'd/', type: 'directory' }, { name: 'd/a', text: 'x' }),
      ),
    ).toEqual([['d/a', 'x', false]])
  })

  test('a path hidden by pax, GNU and global headers is judged by what it becomes', async () => {
    const global = rawTar(
      ...paxHeader({ path: '../evil' }, 'g'),
      ...paxHeader({ mtime: '1' }),
      rawHeader('innocent', 1, '0'),
      Buffer.from('x'),
    )
    expect((await refusal(global)).code).toBe('invalid_archive')
    const gnu = rawTar(
      rawHeader('././@LongLink', 8, 'L'),
      Buffer.from('../evil\0'),
      rawHeader('innocent', 1, '0'),
      Buffer.from('x'),
    )
    expect((await refusal(gnu)).message).toContain('"../evil"')
    expect(
      (await refusal(rawTar(...paxHeader({ path: 'a\0b' }), rawHeader('innocent', 1, '0'), Buffer.from('x')))).code,
    ).toBe('invalid_archive')
    expect((await refusal(rawTar(rawHeader('a\u00ff', 1, '0'), Buffer.from('x')))).message).toContain(
      'not well-formed Unicode',
    )
  })

  test.each([
    ['a size that is negative', Buffer.from([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe])],
    ['a size beyond the archive', Buffer.from('00000777777\0')],
    ['an enormous size', Buffer.from([0x80, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff])],
    ['a size that is no number', Buffer.from('zzzzzzzzzzz\0')],
    [
      'a size in neither form, which tar-stream would wait on for ever',
      Buffer.from([0xa6, ...Buffer.from('0000000005\0')]),
    ],
  ])('%s is refused', async (_what, sizeField) => {
    expect(['invalid_archive', 'too_large']).toContain(
      (await refusal(rawTar(rawHeader('a', 1, '0', { sizeField }), Buffer.from('x')))).code,
    )
  })

  test('a pax size that differs from the header is not believed into other entries', async () => {
    for (const size of ['-1', '99999999999999999999', 'x', '1e9', '']) {
      const archive = rawTar(...paxHeader({ size }), rawHeader('a', 1, '0'), Buffer.from('x'))
      const outcome = await readable(archive).catch((error: unknown) =>
        error instanceof WritError ? 'refused' : error,
      )
      expect([[['a', 'x', false]], 'refused']).toContainEqual(outcome)
    }
  })

  test('cut off anywhere, it is refused or complete, and always answers', async () => {
    const whole = await tar({ name: 'a', text: 'x'.repeat(700) }, { name: 'b', text: 'y' })
    for (const length of [512, 600, 1024, 1535, 1536, 1600, 2048, 2500]) {
      const outcome = await unpackArchive(whole.subarray(0, length)).then(
        (files) => files.map((file) => [file.path, file.bytes.length]),
        (error: unknown) => (error instanceof WritError ? error.code : error),
      )
      expect([
        [['a', 700]],
        [
          ['a', 700],
          ['b', 1],
        ],
        'invalid_archive',
      ]).toContainEqual(outcome)
    }
  })

  test('a wrong checksum and rubbish behind the first entry are refused', async () => {
    const archive = await tar({ name: 'a', text: 'x' })
    archive[0] = 0x62
    expect((await refusal(archive)).message).toContain('damaged')
    expect(
      (await refusal(Buffer.concat([(await tar({ name: 'a', text: 'x' })).subarray(0, 1024), Buffer.alloc(512, 0x41)])))
        .message,
    ).toContain('damaged')
  })

  test('a gzip bomb stops at the ratio', async () => {
    const bomb = gzipSync(Buffer.alloc(60 * 1024 * 1024), { level: 9 })
    const refusing = await effort(async () => expect((await refusal(bomb)).code).toBe('too_large'))
    expect(refusing).toBeLessThan((await effort(() => gunzipSync(bomb))) / 2)
    expect((await refusal(Buffer.concat([gzipSync('x'), Buffer.from('rubbish')]))).code).toBe('invalid_archive')
    expect((await refusal(gzipSync('x'.repeat(600)).subarray(0, 25))).message).toContain('gzip data is damaged')
  })

  test('more than 1000 files, or entries without end, are refused', async () => {
    const files = Array.from({ length: 1001 }, (_, i) => ({ name: `f${i}`, text: '' }))
    expect((await refusal(await tar(...files))).code).toBe('too_large')
    expect((await refusal(zip(...files))).code).toBe('too_large')
    const folders = Array.from({ length: 4001 }, (_, i) => rawHeader(`d${i}/`, 0, '5'))
    expect((await refusal(rawTar(...folders))).message).toContain('more than 4000 entries')
  })
})

describe('[G-archive] hostile zips', () => {
  test.each(hostileNames)('the name %j is refused, escaped', async (name) => {
    const error = await refusal(zip({ name: 'fine', text: 'x' }, { name, text: 'x' }))
    expect(error.code).toBe('invalid_archive')
    expect(error.message).toMatch(/^[\u0020-\u007e…]+$/)
  })

  test.each([
    ['a symbolic link', { name: 'l', text: '/etc/passwd', mode: 0o120777 }],
    ['a symbolic link said to be from DOS', { name: 'l', text: '/etc/passwd', mode: 0o120777, host: 0 }],
    ['a folder that says it is a link', { name: 'l/', mode: 0o120777 }],
    ['a file that says it is a folder', { name: 'l', mode: 0o040755 }],
    ['a device', { name: 'l', mode: 0o020666 }],
    ['a pipe', { name: 'l', mode: 0o010666 }],
    ['an encrypted entry', { name: 'l', text: 'x', flags: 0x801, packed: 13 }],
    ['an unknown method', { name: 'l', text: 'x', method: 12 }],
    ['a folder with content', { name: 'l/', text: 'x', mode: 0o040755 }],
    ['NUL in a name', { name: 'a\0.js', text: 'x' }],
    ['a name that is not UTF-8', { name: Buffer.from([0x61, 0xff]), text: 'x' }],
    ['a wrong checksum', { name: 'l', text: 'x', crc: 1 }],
    ['a wrong checksum, deflated', { name: 'l', text: 'xxxx', method: 8, crc: 1 }],
    ['a size too small', { name: 'l', text: 'x'.repeat(5000), method: 8, size: 1 }],
    ['a size too large', { name: 'l', text: 'x'.repeat(5000), method: 8, size: 6000 }],
    ['a stored size that is not true', { name: 'l', text: 'x', size: 5 }],
    ['a size no deflate can reach', { name: 'l', text: 'x', method: 8, size: 60_000_000 }],
    ['data beyond the file', { name: 'l', text: 'x', method: 8, packed: 100_000 }],
    ['an offset beyond the file', { name: 'l', text: 'x', offset: 1_000_000 }],
    ['an offset to no entry', { name: 'l', text: 'x', offset: 3 }],
  ] as const)('%s is refused', async (_what, entry) => {
    const error = await refusal(zip({ name: 'fine', text: 'fine' }, entry))
    expect(['invalid_archive', 'too_large']).toContain(error.code)
    expect(error.message).toMatch(/^[\u0020-\u007e…]+$/)
  })

  test('a bomb of zeros stops at the ratio, before anything is inflated', async () => {
    const zeros = Buffer.alloc(30 * 1024 * 1024)
    const bomb = zip({ name: 'z', text: zeros, method: 8 })
    const refusing = await effort(async () => expect((await refusal(bomb)).code).toBe('too_large'))
    const packed = deflateRawSync(zeros)
    expect(refusing).toBeLessThan((await effort(() => inflateRawSync(packed))) / 2)
  })

  test('a bomb with a lying size is stopped at what it declares', async () => {
    expect(
      (await refusal(zip({ name: 'z', text: Buffer.alloc(30 * 1024 * 1024), method: 8, size: 1000 }))).message,
    ).toContain('entry "z"')
  })

  test('entries that share their bytes are refused', async () => {
    const random = Buffer.from(Array.from({ length: 4000 }, (_, i) => (i * 7919) % 251))
    const first = { name: 'a', text: random, offset: 0 }
    const error = await refusal(
      zip(
        first,
        { name: 'b', text: '', offset: 0, size: 4000, packed: 4000 },
        { name: 'c', text: '', offset: 0, size: 4000, packed: 4000 },
      ),
    )
    expect(error.message).toContain('overlaps another entry')
  })

  test('a name in the file differing from the directory changes nothing: the directory is what counts', async () => {
    expect(await readable(zip({ name: 'a', localName: '../evil', text: 'x' }))).toEqual([['a', 'x', false]])
  })

  test('a directory that is cut off, or counts wrong, is refused', async () => {
    const whole = zip({ name: 'a', text: 'x' }, { name: 'b', text: 'y' })
    expect((await refusal(whole.subarray(0, -10))).code).toBe('invalid_archive')
    const more = Buffer.from(whole)
    more.writeUInt16LE(9, more.length - 12)
    expect((await refusal(more)).code).toBe('invalid_archive')
  })
})

describe('what is no archive', () => {
  test.each([
    ['nothing', Buffer.alloc(0)],
    ['text', Buffer.from('hello'.repeat(200))],
    ['zeros', Buffer.alloc(2048)],
    ['a zip signature alone', Buffer.from('PK\u0003\u0004')],
    ['7z', Buffer.concat([Buffer.from([0x37, 0x7a, 0xbc, 0xaf, 0x27, 0x1c]), Buffer.alloc(600)])],
    ['gzip of text', gzipSync('hello')],
    ['an empty zip', zip()],
    ['an empty tar.gz', gzipSync(Buffer.alloc(1024))],
  ])('%s is refused', async (_what, bytes) => {
    expect((await refusal(bytes)).code).toBe('invalid_archive')
  })

  test('more than 64 MiB is refused unread', async () => {
    expect((await refusal(Buffer.alloc(64 * 1024 * 1024 + 1))).code).toBe('too_large')
  })
})

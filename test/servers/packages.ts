import { createHash, randomBytes } from 'node:crypto'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { crc32, gzipSync } from 'node:zlib'
import { pack } from 'tar-stream'

/** A mirror of packages on loopback: one package for each of pip, npm and Go, under a path as mirrors have it. */
export interface PackageMirror {
  /** Without a path: pip's is `/pypi`, npm's `/npm`, Go's `/go`. */
  readonly url: string
  /** Paths that were asked for. */
  readonly asked: readonly string[]
  close(): Promise<void>
}

/** An archive without compression, which is all that wheels and modules need. */
function zip(files: Readonly<Record<string, string>>): Buffer {
  const local: Buffer[] = []
  const central: Buffer[] = []
  let at = 0
  for (const [name, text] of Object.entries(files)) {
    const bytes = Buffer.from(text)
    const path = Buffer.from(name)
    const common = Buffer.alloc(26)
    common.writeUInt16LE(20, 0)
    common.writeUInt32LE(0x21_00_00, 4)
    common.writeUInt16LE(0x21, 8)
    common.writeUInt32LE(crc32(bytes), 10)
    common.writeUInt32LE(bytes.length, 14)
    common.writeUInt32LE(bytes.length, 18)
    common.writeUInt16LE(path.length, 22)
    const head = Buffer.concat([Buffer.from('PK\u0003\u0004'), common, path, bytes])
    const entry = Buffer.alloc(14)
    entry.writeUInt32LE(at, 10)
    central.push(Buffer.concat([Buffer.from('PK\u0001\u0002\u0014\u0000'), common, entry, path]))
    local.push(head)
    at += head.length
  }
  const directory = Buffer.concat(central)
  const end = Buffer.alloc(18)
  end.writeUInt16LE(central.length, 4)
  end.writeUInt16LE(central.length, 6)
  end.writeUInt32LE(directory.length, 8)
  end.writeUInt32LE(at, 12)
  return Buffer.concat([...local, directory, Buffer.from('PK\u0005\u0006'), end])
}

async function tarball(files: Readonly<Record<string, string>>): Promise<Buffer> {
  const tar = pack()
  for (const [name, text] of Object.entries(files)) tar.entry({ name: `package/${name}` }, text)
  tar.finalize()
  const parts: Buffer[] = []
  for await (const part of tar) parts.push(part as Buffer)
  return gzipSync(Buffer.concat(parts))
}

/** A wheel of one module whose `WORD` is that word, with so many bytes of data beside it. */
export function wheel(name: string, version: string, word: string, bytes = 0): Buffer {
  const info = `${name}-${version}.dist-info`
  return zip({
    [`${name}/__init__.py`]: `WORD = ${JSON.stringify(word)}\n`,
    ...(bytes === 0 ? {} : { [`${name}/data.bin`]: randomBytes(bytes / 2).toString('hex') }),
    [`${info}/METADATA`]: `Metadata-Version: 2.1\nName: ${name}\nVersion: ${version}\n`,
    [`${info}/WHEEL`]: 'Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n',
    [`${info}/RECORD`]: '',
  })
}

/**
 * Serves `mirrored` 1.2.3 for pip and npm and the module `mirror.example/mirrored` v1.2.3; the word of each is `from-mirror`.
 * For pip also `large` 1.0.0, of 20 MB.
 */
export async function startPackageMirror(): Promise<PackageMirror> {
  const word = 'from-mirror'
  const asked: string[] = []
  const module = 'mirror.example/mirrored'
  const tgz = await tarball({
    'package.json': JSON.stringify({ name: 'mirrored', version: '1.2.3', main: 'index.js' }),
    'index.js': `module.exports = ${JSON.stringify(word)}\n`,
  })
  const integrity = `sha512-${createHash('sha512').update(tgz).digest('base64')}`
  const goMod = `module ${module}\n\ngo 1.19\n`
  const at = `/go/${module}/@v`
  let url = ''
  const files = new Map<string, () => string | Buffer>([
    ['/pypi/simple/mirrored/', () => '<a href="../../files/mirrored-1.2.3-py3-none-any.whl">mirrored</a>'],
    ['/pypi/files/mirrored-1.2.3-py3-none-any.whl', () => wheel('mirrored', '1.2.3', word)],
    ['/pypi/simple/large/', () => '<a href="../../files/large-1.0.0-py3-none-any.whl">large</a>'],
    ['/pypi/files/large-1.0.0-py3-none-any.whl', () => wheel('large', '1.0.0', word, 20_000_000)],
    [
      '/npm/mirrored',
      () =>
        JSON.stringify({
          name: 'mirrored',
          'dist-tags': { latest: '1.2.3' },
          versions: {
            '1.2.3': {
              name: 'mirrored',
              version: '1.2.3',
              dist: { tarball: `${url}/npm/mirrored/-/mirrored-1.2.3.tgz`, integrity },
            },
          },
        }),
    ],
    ['/npm/mirrored/-/mirrored-1.2.3.tgz', () => tgz],
    [`${at}/list`, () => 'v1.2.3\n'],
    [`${at}/v1.2.3.info`, () => JSON.stringify({ Version: 'v1.2.3', Time: '2026-01-01T00:00:00Z' })],
    [`${at}/v1.2.3.mod`, () => goMod],
    [
      `${at}/v1.2.3.zip`,
      () =>
        zip({
          [`${module}@v1.2.3/go.mod`]: goMod,
          [`${module}@v1.2.3/mirrored.go`]: `package mirrored\n\nconst Word = "${word}"\n`,
        }),
    ],
  ])
  const server = createServer((request, response) => {
    const path = (request.url ?? '').replace(/\?.*$/, '')
    asked.push(path)
    const file = files.get(path) ?? files.get(`${path}/`)
    if (file === undefined) {
      response.writeHead(404).end()
      return
    }
    const type = path.includes('/simple/')
      ? 'text/html'
      : path === '/npm/mirrored'
        ? 'application/json'
        : 'application/octet-stream'
    response.writeHead(200, { 'content-type': type }).end(file())
  })
  await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', resolve))
  url = `http://127.0.0.1:${String((server.address() as AddressInfo).port)}`
  return {
    url,
    asked,
    close: async () => {
      server.closeAllConnections()
      await new Promise<void>((resolve) => void server.close(() => resolve()))
    },
  }
}

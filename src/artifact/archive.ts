import { promisify } from 'node:util'
import { crc32, gunzip } from 'node:zlib'
import { extract } from 'tar-stream'
import type { Header } from 'tar-stream'
import { fromBufferPromise } from 'yauzl'
import type { Entry, ZipFile } from 'yauzl'
import { systemCode, WritError } from '../error.ts'
import { maxCallBytes, maxFiles, pathClash, pathProblem, showPath } from '../request/files.ts'

/** A file that came out of an archive; nothing was written anywhere. */
export interface ArchivedFile {
  readonly path: string
  readonly bytes: Buffer
  readonly executable: boolean
}

/** Folders count as entries, not as files. */
const maxEntries = 4000
const maxRatio = 100
/** Small archives of zeros pass the ratio honestly; what they unpack to is small as well. */
const ratioFree = 1024 * 1024
/** Header, padding and long names of a tar beside its files. */
const tarOverhead = 8 * 1024 * 1024

/**
 * Unpacks a tar, tar.gz or zip in memory without trusting anything in it; told apart by their first bytes. Only regular
 * files come out: an archive with a link, device, sparse or encrypted entry, a path that `pathProblem` refuses, two
 * names that clash, a size that is not true, more than 1000 files, 64 MiB or a ratio of 100 is refused as a whole.
 * Archives inside stay files. Runs in the run host, never in the broker.
 *
 * @returns the files sorted by path
 * @throws WritError `invalid_archive` naming the entry with escapes, `too_large` for the limits
 */
export async function unpackArchive(bytes: Uint8Array): Promise<readonly ArchivedFile[]> {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  if (buffer.length > maxCallBytes) throw new WritError('too_large', 'the archive is larger than 64 MiB')
  const files = await unpack(buffer)
  if (files.length === 0) throw invalid('it holds no files')
  return files.sort((a, b) => (a.path < b.path ? -1 : a.path > b.path ? 1 : 0))
}

async function unpack(buffer: Buffer): Promise<ArchivedFile[]> {
  if (buffer[0] === 0x1f && buffer[1] === 0x8b) return await unpackTar(await inflate(buffer))
  if (buffer.length >= 22 && buffer[0] === 0x50 && buffer[1] === 0x4b) return await unpackZip(buffer)
  if (buffer.length >= 512 && buffer.toString('latin1', 257, 262) === 'ustar') return await unpackTar(buffer)
  throw invalid('it is none of tar, tar.gz and zip')
}

/** What was taken so far; every entry passes through here before a byte of it is kept. */
function collect(packed: number) {
  const files: ArchivedFile[] = []
  const paths: string[] = []
  const folders = new Set<string>()
  const limit = Math.min(maxCallBytes, Math.max(ratioFree, packed * maxRatio))
  let entries = 0
  let total = 0
  return {
    /** The path an entry may have, or null for a folder, which is only checked. */
    admit(name: string, folder: boolean, size: number): string | null {
      if (++entries > maxEntries) throw new WritError('too_large', `the archive has more than ${maxEntries} entries`)
      const stripped = name.replace(/^(?:\.\/)+/, '')
      const path = folder ? stripped.replace(/\/$/, '') : stripped
      if (!Number.isSafeInteger(size) || size < 0) throw invalid(`entry ${showPath(name)}: its size is not a number`)
      if (folder && (path === '' || path === '.')) return null
      const problem = pathProblem(path)
      if (problem !== null) throw invalid(`entry ${showPath(name)}: ${problem}`)
      if (folder) {
        if (size !== 0) throw invalid(`entry ${showPath(name)}: a folder with content`)
        folders.add(path)
        return null
      }
      if (paths.length >= maxFiles) throw new WritError('too_large', `the archive has more than ${maxFiles} files`)
      total += size
      if (total > limit)
        throw new WritError(
          'too_large',
          limit < maxCallBytes
            ? `the archive unpacks to more than ${maxRatio} times its size`
            : 'the archive unpacks to more than 64 MiB',
        )
      paths.push(path)
      return path
    },
    keep(file: ArchivedFile): void {
      files.push(file)
    },
    finish(): ArchivedFile[] {
      // A folder entry takes part as the folder of a file that no archive can hold.
      const clash = pathClash([...[...folders].map((folder) => `${folder}/\0`), ...paths])
      if (clash !== null) {
        const [a, b] = clash.map((path) => showPath(path.replace(/\/\0$/, '/')))
        throw invalid(`entries ${a} and ${b} cannot stand side by side`)
      }
      return files
    },
  }
}

async function inflate(buffer: Buffer): Promise<Buffer> {
  const limit = Math.min(maxCallBytes + tarOverhead, Math.max(ratioFree * 2, buffer.length * maxRatio))
  try {
    return await promisify(gunzip)(buffer, { maxOutputLength: limit })
  } catch (error) {
    if (systemCode(error) === 'ERR_BUFFER_TOO_LARGE')
      throw new WritError('too_large', `the archive unpacks to more than 64 MiB or ${maxRatio} times its size`)
    throw invalid('its gzip data is damaged')
  }
}

async function unpackTar(buffer: Buffer): Promise<ArchivedFile[]> {
  const taken = collect(Number.POSITIVE_INFINITY)
  const parser = extract()
  parser.end(buffer)
  try {
    for await (const entry of parser) {
      const path = tarEntry(entry.header, taken)
      const chunks: Uint8Array[] = []
      for await (const chunk of entry) chunks.push(chunk as Uint8Array)
      const bytes = Buffer.concat(chunks)
      if (path === null) continue
      if (bytes.length !== entry.header.size) throw invalid(`entry ${showPath(path)}: its size is not true`)
      taken.keep({ path, bytes, executable: ((entry.header.mode ?? 0) & 0o100) !== 0 })
    }
  } catch (error) {
    if (error instanceof WritError) throw error
    throw invalid('its tar structure is damaged or cut off')
  }
  return taken.finish()
}

function tarEntry(header: Header, taken: ReturnType<typeof collect>): string | null {
  const { name, type } = header
  const pax: object = header.pax ?? {}
  if (Object.keys(pax).some((key) => key.startsWith('GNU.sparse')))
    throw invalid(`entry ${showPath(name)}: sparse files are not taken`)
  if (type !== 'file' && type !== 'directory' && type !== 'contiguous-file')
    throw invalid(`entry ${showPath(name)}: only regular files and folders are taken, this is ${kindOf(type)}`)
  // A file that names a link is a file to some unpackers and a link to others.
  if (header.linkname) throw invalid(`entry ${showPath(name)}: it carries the name of a link`)
  // The parser makes null of a size field it cannot read, and would wait for ever for such an entry to end.
  return taken.admit(name, type === 'directory', header.size ?? Number.NaN)
}

function kindOf(type: Header['type']): string {
  return typeof type === 'string' ? `a ${type.replace('-', ' ')}` : 'of an unknown kind'
}

async function unpackZip(buffer: Buffer): Promise<ArchivedFile[]> {
  const taken = collect(buffer.length)
  let zip: ZipFile
  try {
    zip = await fromBufferPromise(buffer, { decodeStrings: true, strictFileNames: true, validateEntrySizes: true })
  } catch (error) {
    throw damaged(error)
  }
  const entries: { readonly entry: Entry; readonly path: string }[] = []
  let packed = 0
  try {
    for await (const entry of zip.eachEntry()) {
      const path = zipEntry(entry, taken)
      if (path === null) continue
      packed += entry.compressedSize
      // Entries that share bytes are how a small zip unpacks to a large one.
      if (packed > buffer.length) throw invalid(`entry ${showPath(entry.fileName)}: it overlaps another entry`)
      entries.push({ entry, path })
    }
  } catch (error) {
    throw error instanceof WritError ? error : damaged(error)
  }
  // Names are judged before anything is inflated.
  taken.finish()
  for (const { entry, path } of entries)
    taken.keep({ path, bytes: await zipBytes(zip, entry), executable: isExecutable(entry) })
  return taken.finish()
}

const unixHosts = new Set([3, 19])

function zipEntry(entry: Entry, taken: ReturnType<typeof collect>): string | null {
  const name = entry.fileName
  if (entry.isEncrypted()) throw invalid(`entry ${showPath(name)}: it is encrypted`)
  if (entry.compressionMethod !== 0 && entry.compressionMethod !== 8)
    throw invalid(`entry ${showPath(name)}: only the methods store and deflate are taken`)
  const kind = (entry.externalFileAttributes >>> 16) & 0o170_000
  const folder = name.endsWith('/')
  // The kind counts whatever system the entry says it is from: unpackers differ in whether they look.
  if (kind !== 0 && kind !== (folder ? 0o040_000 : 0o100_000))
    throw invalid(`entry ${showPath(name)}: only regular files and folders are taken`)
  if (entry.uncompressedSize > Math.max(ratioFree, entry.compressedSize * 1100))
    throw invalid(`entry ${showPath(name)}: its size is not true`)
  return taken.admit(name, folder, entry.uncompressedSize)
}

async function zipBytes(zip: ZipFile, entry: Entry): Promise<Buffer> {
  const chunks: Buffer[] = []
  try {
    // Ends with an error as soon as there are more bytes than the entry declares, or fewer.
    for await (const chunk of await zip.openReadStreamPromise(entry)) chunks.push(chunk as Buffer)
  } catch {
    throw invalid(`entry ${showPath(entry.fileName)}: its data is damaged or its size is not true`)
  }
  const bytes = Buffer.concat(chunks)
  if (crc32(bytes) !== entry.crc32) throw invalid(`entry ${showPath(entry.fileName)}: its checksum is wrong`)
  return bytes
}

function isExecutable(entry: Entry): boolean {
  return unixHosts.has(entry.versionMadeBy >>> 8) && ((entry.externalFileAttributes >>> 16) & 0o100) !== 0
}

/** yauzl quotes names in its messages, so they are not passed on as they are. */
function damaged(error: unknown): WritError {
  const message = error instanceof Error ? error.message : ''
  const named = /^(invalid characters in fileName|absolute path|invalid relative path): ([^]*)$/.exec(message)
  if (named !== null)
    return invalid(
      `entry ${showPath(named[2] ?? '')}: the path has to be relative to the project, without ".." and backslashes`,
    )
  return invalid('its zip structure is damaged')
}

function invalid(what: string): WritError {
  return new WritError('invalid_archive', `the archive is refused: ${what}`)
}

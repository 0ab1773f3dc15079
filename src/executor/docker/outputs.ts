import { extract, pack } from 'tar-stream'
import type { TaskFile } from '../../request/task.ts'

/** Beside the files of an archive: a header each, with room for long names, and the end. */
const overhead = 4096

export interface Output {
  readonly path: string
  readonly bytes: Buffer
}

/** Gathers the archive of a run's outputs; false once it is larger than these limits let it be. */
export function gather(limits: { readonly bytes: number; readonly files: number }) {
  const most = limits.bytes + (limits.files + 1) * overhead
  const chunks: Buffer[] = []
  let size = 0
  return {
    add(bytes: Uint8Array): boolean {
      size += bytes.length
      if (size > most) return false
      chunks.push(Buffer.from(bytes))
      return true
    },
    unpack: async () => await unpack(Buffer.concat(chunks), limits),
  }
}

/**
 * Reads an archive that the agent of a container made, without believing that it did: regular files only, whose names
 * the caller has still to judge. Anything else in it is nothing an agent sends, and then none of it is taken.
 */
async function unpack(
  archive: Buffer,
  limits: { readonly bytes: number; readonly files: number },
): Promise<readonly Output[] | null> {
  const parser = extract()
  parser.end(archive)
  const outputs: Output[] = []
  let size = 0
  try {
    for await (const entry of parser) {
      const { name, type, linkname, size: declared } = entry.header
      const pax: object = entry.header.pax ?? {}
      if (type !== 'file' || linkname || Object.keys(pax).some((key) => key !== 'path' && key !== 'size')) return null
      // The parser makes null of a size that it cannot read, and would wait for ever for such an entry to end.
      if (!Number.isSafeInteger(declared) || declared < 0) return null
      size += declared
      if (outputs.length >= limits.files || size > limits.bytes) return null
      const chunks: Buffer[] = []
      for await (const chunk of entry) chunks.push(chunk as Buffer)
      const bytes = Buffer.concat(chunks)
      if (bytes.length !== declared) return null
      outputs.push({ path: name, bytes })
    }
    return outputs
  } catch {
    return null
  }
}

/** The tar of a project's files as the agent unpacks it, piece by piece. */
export async function* packFiles(
  files: readonly TaskFile[],
  contents: readonly Uint8Array[],
): AsyncGenerator<Buffer, void, undefined> {
  const tar = pack()
  for (const [at, file] of files.entries())
    tar.entry(
      { name: file.path, type: 'file', mode: file.executable ? 0o700 : 0o600, uid: 0, gid: 0, mtime: new Date(0) },
      Buffer.from(contents[at] ?? Buffer.alloc(0)),
    )
  tar.finalize()
  for await (const chunk of tar) yield chunk as Buffer
}

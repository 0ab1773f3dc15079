import { lstatSync, readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { join } from 'node:path'
import { encodingsOf } from '../../../src/credential/encoding.ts'
import { processOf } from '../crash/processes.ts'

/** The forms of the canaries, longest first so that what is found is named well. */
export interface Needles {
  /** What of the canaries stands in the bytes: names, never values. */
  in(bytes: Buffer): readonly string[]
}

export function needlesOf(canaries: Readonly<Record<string, string>>): Needles {
  const forms = Object.entries(canaries).flatMap(([name, value]) => [
    ...encodingsOf(Buffer.from(value)).map((bytes) => ({ name, bytes })),
    // Made here once more, so that a form the product forgets is not forgotten by its test too.
    ...['utf8', 'utf16le'].map((encoding) => ({ name, bytes: Buffer.from(value, encoding as BufferEncoding) })),
    ...[value, `:${value}`, `x:${value}`].map((text) => ({
      name,
      bytes: Buffer.from(Buffer.from(text).toString('base64').replaceAll('=', '').slice(4, -4)),
    })),
    { name, bytes: Buffer.from(Buffer.from(value).toString('hex')) },
    // A value cut in two is still half a secret.
    { name: `half of ${name}`, bytes: Buffer.from(value.slice(0, Math.ceil(value.length / 2))) },
    { name: `half of ${name}`, bytes: Buffer.from(value.slice(Math.floor(value.length / 2))) },
  ])
  return {
    in: (bytes) => [...new Set(forms.filter((form) => bytes.includes(form.bytes)).map((form) => form.name))],
  }
}

/** Every file below a folder, whatever it is called, with what of the canaries it holds. */
export function sweepFolder(folder: string, needles: Needles, files: string[] = []): readonly string[] {
  const found: string[] = []
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name)
    for (const name of needles.in(Buffer.from(entry.name))) found.push(`${name} in the name ${path}`)
    if (entry.isDirectory()) found.push(...sweepFolder(path, needles, files))
    else if (entry.isSymbolicLink())
      for (const name of needles.in(Buffer.from(readlinkSync(path)))) found.push(`${name} in the link ${path}`)
    else if (entry.isFile() && lstatSync(path).size < 256 << 20) {
      files.push(path)
      for (const name of needles.in(readFileSync(path))) found.push(`${name} in ${path}`)
    }
  }
  return found
}

/** Collects command lines and environments of a process and all below it, as long as it is open. */
export interface Watch {
  readonly seen: ReadonlyMap<string, Buffer>
  close(): void
}

export function watchProcesses(root: () => number | null): Watch {
  const seen = new Map<string, Buffer>()
  const look = (): void => {
    const top = root()
    if (top === null) return
    const below = new Set([top])
    const everyone = readdirSync('/proc')
      .filter((name) => /^\d+$/.test(name))
      .map((name) => processOf(Number(name)))
      .filter((process) => process !== null)
    for (let size = 0; size < below.size;) {
      size = below.size
      for (const { pid, parent } of everyone) if (below.has(parent)) below.add(pid)
    }
    for (const pid of below) {
      for (const file of ['cmdline', 'environ']) {
        try {
          const bytes = readFileSync(`/proc/${String(pid)}/${file}`)
          // A worker is a shell until it becomes Node, so one process has several command lines.
          seen.set(`${String(pid)} ${file} ${bytes.toString('latin1')}`, bytes)
        } catch {
          // It ended meanwhile.
        }
      }
    }
  }
  let timer: NodeJS.Timeout | undefined
  // A look costs more the more processes there are; the services under test share this event loop and need most of it.
  const again = (): void => {
    const from = performance.now()
    look()
    timer = setTimeout(again, Math.max(40, 5 * (performance.now() - from)))
  }
  again()
  return { seen, close: () => clearTimeout(timer) }
}

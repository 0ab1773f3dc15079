import { mkdir, readdir, readFile, rename, rm, stat, utimes, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { sha256 } from '../digest.ts'
import { systemCode } from '../error.ts'

/** Entries kept; the ones not used for longest go first. */
const most = 128

/**
 * Output of the Rego tools on disk, named by the digest of the tools and the request. An entry begins with the digest of
 * what follows, so that a torn or damaged one is not used. It lies in the broker's own folder and is trusted as far as
 * that folder is.
 */
export class ToolsCache {
  private readonly folder: string
  private readonly tools: string

  constructor(folder: string, tools: string) {
    this.folder = folder
    this.tools = tools
  }

  private path(request: string): string {
    return join(this.folder, `${sha256(`${this.tools}\n${request}`).toString('hex')}.json`)
  }

  /** The stored value, or null where there is none that is whole. */
  async read(request: string): Promise<unknown> {
    const path = this.path(request)
    try {
      const text = await readFile(path, 'utf8')
      const body = text.slice(65)
      if (text.slice(0, 65) !== `${sha256(body).toString('hex')}\n`) return null
      const now = new Date()
      await utimes(path, now, now)
      return JSON.parse(body)
    } catch (error) {
      if (error instanceof SyntaxError || systemCode(error) !== null) return null
      throw error
    }
  }

  /** Keeps a value; a full or read-only disk costs the next start a second and nothing else. */
  async write(request: string, value: unknown): Promise<void> {
    const path = this.path(request)
    const body = JSON.stringify(value)
    const draft = `${path}.${process.pid}.tmp`
    try {
      await mkdir(this.folder, { recursive: true, mode: 0o700 })
      await writeFile(draft, `${sha256(body).toString('hex')}\n${body}`, { mode: 0o600 })
      await rename(draft, path)
      await this.prune()
    } catch (error) {
      if (systemCode(error) === null) throw error
      await rm(draft, { force: true })
    }
  }

  private async prune(): Promise<void> {
    const names = (await readdir(this.folder)).filter((name) => /^[0-9a-f]{64}\.json$/.test(name))
    if (names.length <= most) return
    const aged = await Promise.all(
      names.map(async (name) => ({ name, used: (await stat(join(this.folder, name))).mtimeMs })),
    )
    aged.sort((a, b) => a.used - b.used)
    for (const { name } of aged.slice(0, names.length - most)) await rm(join(this.folder, name), { force: true })
  }
}

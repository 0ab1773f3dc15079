import { stripTypeScriptTypes } from 'node:module'
import { posix } from 'node:path'

/** A guest's mistake in words of its own project; becomes what the step prints before it fails. */
export class ProjectError extends Error {}

export type Files = ReadonlyMap<string, Uint8Array>

const typescript = /\.[mc]?ts$/
const tried = ['', '.ts', '.js', '.mts', '.mjs', '.json', '/index.ts', '/index.js'] as const

const instead: ReadonlyMap<string, string> = new Map([
  ['fs', 'use writ.readText(path), writ.readBytes(path), writ.files() and writ.writeFile("/out/name", data)'],
  ['fs/promises', 'use writ.readText(path), writ.readBytes(path), writ.files() and writ.writeFile("/out/name", data)'],
  ['process', 'use writ.env, writ.args, writ.stdin and writ.exit(code)'],
  ['http', 'use fetch(url) with a service URL from writ.env'],
  ['https', 'use fetch(url) with a service URL from writ.env'],
  ['net', 'use fetch(url) with a service URL from writ.env'],
  ['child_process', 'there are no processes here; ask for a target whose runtime has a shell'],
  ['crypto', 'use crypto.randomUUID(), crypto.getRandomValues(view) and crypto.subtle.digest(name, data)'],
  ['util', 'console.log shows nested values; structuredClone, TextEncoder and TextDecoder are globals'],
  ['url', 'URL and URLSearchParams are globals'],
  ['timers/promises', 'use await new Promise((done) => setTimeout(done, ms))'],
  ['path', 'project paths are plain text with "/" between the parts'],
  ['buffer', 'use Uint8Array, TextEncoder, TextDecoder, atob and btoa'],
])

/** The project path a relative import of `from` means, or null. */
export function resolvePath(files: Files, from: string, specifier: string): string | null {
  if (!/^\.{0,2}\//.test(specifier)) return null
  const path = specifier.startsWith('/')
    ? posix.normalize(specifier).slice(1)
    : posix.join(posix.dirname(from), specifier)
  if (/^\.\.(?:\/|$)/.test(path)) return null
  for (const ending of tried) if (files.has(path + ending)) return path + ending
  const source = path.replace(/\.([mc]?)js$/, '.$1ts')
  return files.has(source) ? source : null
}

/** Says why an import cannot be had, and what to use instead. */
export function refuseImport(from: string, specifier: string): ProjectError {
  const shown = specifier.slice(0, 200)
  const name = specifier.replace(/^node:/, '')
  const hint = instead.get(name)
  if (hint !== undefined) return new ProjectError(`${from}: "${shown}" does not exist in an isolate; ${hint}`)
  if (specifier.startsWith('node:'))
    return new ProjectError(
      `${from}: "${shown}" does not exist in an isolate; the globals and "writ" are what there is`,
    )
  if (/^\.{0,2}\//.test(specifier)) return new ProjectError(`${from}: there is no file "${shown}" in the project`)
  return new ProjectError(
    `${from}: the package "${shown}" is not part of the project; import files of the project or "writ"`,
  )
}

/** JavaScript of a project file: types are stripped (positions stay), JSON becomes its default export. */
export function sourceOf(files: Files, path: string): string {
  const bytes = files.get(path)
  if (bytes === undefined) throw new ProjectError(`there is no file "${path}" in the project`)
  const text = new TextDecoder().decode(bytes)
  if (path.endsWith('.json')) return `export default JSON.parse(${JSON.stringify(text)})`
  if (!typescript.test(path)) return text
  try {
    return stripTypeScriptTypes(text)
  } catch (error) {
    const message = error instanceof Error ? error.message : ''
    throw new ProjectError(
      `${path}: the TypeScript cannot be read: ${message.split('\n', 4).join('\n').slice(0, 1000)}`,
    )
  }
}

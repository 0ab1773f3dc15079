import { cpSync, existsSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { isMap, parseDocument } from 'yaml'
import { createIdentityFile } from '../credential/file/file.ts'
import { WritError } from '../error.ts'
import { makeFolders } from '../folder.ts'
import { catalogName, dockerTargets, initialFiles } from '../initial.ts'
import { loadCatalog } from '../plan/catalog.ts'
import { initKeys } from '../receipt/keys.ts'
import type { Context } from './context.ts'
import { forShell, show } from './print.ts'

/** The package's own folder, in a clone and installed alike. */
export const packageRoot = dirname(dirname(dirname(fileURLToPath(import.meta.url))))

export interface InitOptions {
  readonly with?: readonly string[]
}

/** Writes what is missing of a first configuration; a file that is there stays as it is, but for targets asked for. */
export async function init(context: Context, dir: string | undefined, options: InitOptions = {}): Promise<number> {
  const unknown = (options.with ?? []).find((name) => name !== 'docker')
  if (unknown !== undefined)
    throw new WritError('usage', `There is nothing named "${unknown}" to set up with; "docker" there is.`)
  const docker = options.with?.includes('docker') === true
  const root = resolve(context.cwd, dir ?? '.')
  makeFolders(root, 0o700)
  const written: string[] = []
  const kept: string[] = []
  const put = (name: string, write: (path: string) => void): void => {
    const path = join(root, name)
    if (existsSync(path)) return void kept.push(name)
    write(path)
    written.push(name)
  }
  const added = docker ? addTargets(join(root, catalogName)) : []
  for (const [name, text] of initialFiles(docker))
    put(name, (path) => writeFileSync(path, text, { mode: 0o600, flag: 'wx' }))
  for (const pack of ['org', 'starter'])
    put(join('policies', pack), (path) =>
      cpSync(join(packageRoot, 'policies', pack), path, { recursive: true, errorOnExist: true, force: false }),
    )
  const hadKeys = existsSync(join(root, 'keys', 'keys.jwt'))
  const keys = initKeys(join(root, 'keys'), Date.now())
  ;(hadKeys ? kept : written).push('keys')
  const identity = join(root, 'keys', 'credentials.age')
  if (!existsSync(identity)) await createIdentityFile(identity)
  show(context, { folder: root, written, kept, added, root_thumbprint: keys.fingerprint() }, () =>
    [
      `Writ is set up in ${root}`,
      ...(written.length > 0 ? [`  written: ${written.join(', ')}`] : []),
      ...(kept.length > 0 ? [`  kept as it was: ${kept.join(', ')}`] : []),
      ...(added.length > 0 ? [`  added to ${catalogName}: ${added.join(', ')}`] : []),
      `  root key thumbprint: ${keys.fingerprint()}`,
      '  Give it to your auditor by another channel than this machine, and keep keys/root.pem offline.',
      '',
      'Next:',
      ...(dir === undefined || root === context.cwd ? [] : [`  cd ${forShell(dir)}`]),
      `  writ run sandbox --intent run_script FILE.js     run something that policy allows at once`,
      ...(docker
        ? [`  writ images build                                make the images that the targets of Docker run in`]
        : []),
      `  writ doctor                                      what this machine has and lacks`,
      `  writ mcp                                         what an MCP client starts; see README.md`,
    ].join('\n'),
  )
  return 0
}

/** Adds the targets of Docker that a catalog lacks, every other byte as it was; none where there is no catalog yet. */
function addTargets(path: string): readonly string[] {
  if (!existsSync(path)) return []
  const text = readFileSync(path, 'utf8')
  const known = loadCatalog(path).targets
  const missing = [...dockerTargets].filter(([name]) => !known.has(name))
  if (missing.length === 0) return []
  const targets = parseDocument(text).get('targets', true)
  const last = isMap(targets) && targets.flow !== true ? targets.items.at(-1) : undefined
  const range = isMap(targets) ? targets.range : undefined
  const refused = new WritError('usage', `"targets" of ${catalogName} is written in a way that cannot be added to.`, {
    remedy: 'Write it as a block, one target under the other, or add targets by hand as docs/images.md shows.',
  })
  if (last === undefined || range === undefined || range === null) throw refused
  const end = text.lastIndexOf('\n', range[1]) < 0 ? text.length : range[1]
  const before = text.slice(0, end).trimEnd()
  const depth = range[0] - (text.lastIndexOf('\n', range[0]) + 1)
  const block = missing.map(([, one]) => one.replaceAll(/^ {2}/gm, ' '.repeat(depth))).join('')
  const after = text.slice(before.length).replace(/^\n/, '')
  writeFileSync(path, `${before}\n${block}${after}`)
  try {
    loadCatalog(path)
  } catch {
    writeFileSync(path, text)
    throw refused
  }
  return missing.map(([name]) => name)
}

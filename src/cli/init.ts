import { cpSync, existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { initialFiles } from '../config.ts'
import { createIdentityFile } from '../credential/file/file.ts'
import { initKeys } from '../receipt/keys.ts'
import type { Context } from './context.ts'
import { show } from './print.ts'

/** The package's own folder, in a clone and installed alike. */
export const packageRoot = dirname(dirname(dirname(fileURLToPath(import.meta.url))))

/** Writes what is missing of a first configuration; a file that is there stays as it is. */
export async function init(context: Context, dir: string | undefined): Promise<number> {
  const root = resolve(context.cwd, dir ?? '.')
  mkdirSync(root, { recursive: true, mode: 0o700 })
  const written: string[] = []
  const kept: string[] = []
  const put = (name: string, write: (path: string) => void): void => {
    const path = join(root, name)
    if (existsSync(path)) return void kept.push(name)
    write(path)
    written.push(name)
  }
  for (const [name, text] of initialFiles()) put(name, (path) => writeFileSync(path, text, { mode: 0o600, flag: 'wx' }))
  for (const pack of ['org', 'starter'])
    put(join('policies', pack), (path) =>
      cpSync(join(packageRoot, 'policies', pack), path, { recursive: true, errorOnExist: true, force: false }),
    )
  const hadKeys = existsSync(join(root, 'keys', 'keys.jwt'))
  const keys = initKeys(join(root, 'keys'), Date.now())
  ;(hadKeys ? kept : written).push('keys')
  const identity = join(root, 'keys', 'credentials.age')
  if (!existsSync(identity)) await createIdentityFile(identity)
  show(context, { folder: root, written, kept, root_thumbprint: keys.fingerprint() }, () =>
    [
      `Writ is set up in ${root}`,
      ...(written.length > 0 ? [`  written: ${written.join(', ')}`] : []),
      ...(kept.length > 0 ? [`  kept as it was: ${kept.join(', ')}`] : []),
      `  root key thumbprint: ${keys.fingerprint()}`,
      '  Give it to your auditor on another way than this machine, and keep keys/root.pem offline.',
      '',
      'Next:',
      ...(dir === undefined ? [] : [`  cd ${dir}`]),
      `  writ run sandbox --intent run_script FILE.js     run something that policy allows at once`,
      `  writ doctor                                      what this machine has and lacks`,
      `  writ mcp                                         what an MCP client starts; see README.md`,
    ].join('\n'),
  )
  return 0
}

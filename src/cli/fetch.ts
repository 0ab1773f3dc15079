import { accessSync, constants, lstatSync, mkdirSync, realpathSync, writeFileSync } from 'node:fs'
import { dirname, join, resolve, sep } from 'node:path'
import { visibleLine } from '../approval/visible.ts'
import { WritError } from '../error.ts'
import type { Results } from '../execution/result.ts'
import { makeFolders } from '../folder.ts'
import type { ToolClient } from './client.ts'
import { type Context, faultOf } from './context.ts'

/** The folder that results are written to, made where it is missing: asked for before anything runs whose results would be lost. */
export function outFolder(context: Context, out: string): string {
  const folder = resolve(context.cwd, out)
  makeFolders(folder, 0o777)
  accessSync(folder, constants.W_OK | constants.X_OK)
  return realpathSync(folder)
}

/** Paths were checked by the broker; checked again here, for what is written is the caller's disk. */
export async function fetchFiles(
  context: Context,
  client: ToolClient,
  result: Results['get_result'],
  folder: string,
  out: string,
): Promise<void> {
  for (const file of result.files ?? []) {
    const path = placeIn(folder, file.path, out)
    writeFileSync(path, await bytesOf(client, result.execution_id ?? '', file.path))
    context.note(`wrote ${visibleLine(join(out, file.path))}`)
  }
}

/** Where a file of a result belongs under `folder`, which has its real path. No link leads out of it. */
function placeIn(folder: string, name: string, out: string): string {
  const outside = (): never => {
    throw new WritError('invalid_file', `The result names a file outside of ${out}.`, {
      remedy: 'Take another folder for --out, one without links.',
    })
  }
  const within = (path: string): boolean => path === folder || path.startsWith(`${folder}${sep}`)
  const path = resolve(folder, name)
  if (!within(path) || path === folder) return outside()
  const parent = dirname(path)
  for (let above = parent; above !== folder; above = dirname(above))
    if (lstatSync(above, { throwIfNoEntry: false })?.isSymbolicLink() === true) return outside()
  if (lstatSync(path, { throwIfNoEntry: false })?.isSymbolicLink() === true) return outside()
  mkdirSync(parent, { recursive: true })
  return path
}

/** The exact bytes of a file of the result: text that had to be made harmless comes in base64 as well. */
async function bytesOf(client: ToolClient, id: string, path: string): Promise<Buffer> {
  const pieces: Buffer[] = []
  for (let offset = 0; ;) {
    const { file, error } = await client.call('get_result', {
      execution_id: id,
      file: path,
      offset,
      max_bytes: 1_048_576,
    })
    if (error !== undefined) throw faultOf(error)
    if (file === undefined) throw new WritError('not_found', `The result has no file ${visibleLine(path)}.`)
    const bytes = file.base64 === undefined ? Buffer.from(file.text ?? '', 'utf8') : Buffer.from(file.base64, 'base64')
    pieces.push(bytes)
    offset += bytes.length
    if (!file.more || bytes.length === 0) return Buffer.concat(pieces)
  }
}

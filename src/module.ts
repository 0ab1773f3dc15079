import { extname } from 'node:path'
import { fileURLToPath } from 'node:url'

/**
 * The file of a module started as a process or worker of its own. In a clone the sources run as TypeScript, installed
 * they are JavaScript; a sibling has whichever ending the asking module has.
 */
export function siblingModule(from: string, name: string): string {
  return fileURLToPath(new URL(`${name}${extname(new URL(from).pathname)}`, from))
}

import { existsSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'

/** What is built once for the tests lies outside the clone, by name and version, for the next run and the next clone. */
const cache = join(process.env['XDG_CACHE_HOME'] ?? join(homedir(), '.cache'), 'writ')

const runscVersion = '20260905'

/** gVisor's program, or null where `docker.sh` has not built it. */
export function runsc(): string | null {
  const file = join(cache, `runsc-${runscVersion}`, 'runsc')
  return existsSync(file) ? file : null
}

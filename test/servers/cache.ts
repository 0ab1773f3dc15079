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

/** The folder of a newer `dockerd` and the `runc` that goes with it, or null where `docker.sh` has not built them. */
export function newerEngine(): string | null {
  const folder = join(cache, 'dockerd-v2.0.0-beta.24-runc-v1.3.6')
  return ['dockerd', 'runc'].every((program) => existsSync(join(folder, program))) ? folder : null
}

/** A program by others that tells what a container lets through, or null where `docker.sh` has not built it. */
export function amicontained(): string | null {
  const file = join(cache, 'amicontained-v0.4.9', 'amicontained')
  return existsSync(file) ? file : null
}

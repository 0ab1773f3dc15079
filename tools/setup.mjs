// What "npm test" and "npm run demo" need before they start, on a machine with Node >= 20, npm and git alone.
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const stamp = join(root, 'node_modules', '.writ-setup')
const want = createHash('sha256').update(readFileSync(join(root, 'package-lock.json'))).digest('hex')
const have = existsSync(stamp) ? readFileSync(stamp, 'utf8') : null

if (have !== want) {
  process.stderr.write('Installing the dependencies named in package-lock.json (once; no install scripts run) …\n')
  const npm = spawnSync('npm', ['ci', '--ignore-scripts', '--no-fund', '--no-audit', '--loglevel=error'], {
    cwd: root,
    stdio: ['ignore', 'inherit', 'inherit'],
    shell: process.platform === 'win32',
  })
  if (npm.status !== 0) {
    process.stderr.write('npm ci failed; its message above says why. Nothing was changed but node_modules.\n')
    process.exit(1)
  }
  writeFileSync(stamp, want)
}

// What "npm test" and "npm run demo" need before they start, on a machine with Node >= 20, npm and git alone.
// With arguments, runs them with Node 24 afterwards: a shell would still remember where the older one lies.
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const stamp = join(root, 'node_modules', '.writ-setup')
const want = createHash('sha256')
  .update(readFileSync(join(root, 'package-lock.json')))
  .digest('hex')
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

const [script, ...args] = process.argv.slice(2)
if (script !== undefined) {
  const child = spawnSync(node24(), [join(root, script), ...args], {
    stdio: 'inherit',
    env: { ...process.env, PATH: `${join(root, 'node_modules', '.bin')}:${process.env.PATH ?? ''}` },
  })
  process.exit(child.status ?? 1)
}

function node24() {
  if (Number(process.versions.node.split('.')[0]) >= 24) return process.execPath
  try {
    const manifest = createRequire(join(root, 'package.json')).resolve(
      `node-${process.platform}-${process.arch}/package.json`,
    )
    return join(dirname(manifest), 'bin', 'node')
  } catch {
    process.stderr.write(
      `This is Node ${process.version} and no Node 24 comes as a package for ${process.platform}-${process.arch}: install Node 24 and try again.\n`,
    )
    process.exit(1)
  }
}

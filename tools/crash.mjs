// node tools/crash.mjs [--kills 1000] [--seed N]: kills parts of a Writ at random moments and looks whether anything was
// lost, run twice or left behind. The seed is printed, and walks the same campaign again.
import { existsSync } from 'node:fs'
import { spawnSync } from 'node:child_process'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'

const self = fileURLToPath(import.meta.url)
const root = dirname(dirname(self))
if (Number(process.versions.node.split('.')[0]) < 24) {
  const manifest = createRequire(join(root, 'package.json')).resolve(
    `node-${process.platform}-${process.arch}/package.json`,
  )
  const node = join(dirname(manifest), 'bin', 'node')
  process.exit(
    existsSync(node) ? (spawnSync(node, [self, ...process.argv.slice(2)], { stdio: 'inherit' }).status ?? 1) : 2,
  )
}

const { values } = parseArgs({
  options: {
    kills: { type: 'string', default: '200' },
    seed: { type: 'string' },
    quiet: { type: 'boolean', default: false },
  },
})
const seed = values.seed === undefined ? Math.floor(Math.random() * 2 ** 31) : Number(values.seed)
const kills = Number(values.kills)
if (!Number.isSafeInteger(seed) || !Number.isSafeInteger(kills) || kills < 1) {
  process.stderr.write('usage: node tools/crash.mjs [--kills N] [--seed N] [--quiet]\n')
  process.exit(2)
}
const { campaign } = await import('../test/e2e/crash/campaign.ts')
process.stdout.write(`seed ${seed}, ${kills} kills\n`)
const report = await campaign({
  seed,
  kills,
  say: values.quiet ? () => undefined : (text) => process.stdout.write(`  ${text}\n`),
})
process.stdout.write(`${JSON.stringify(report, null, 2)}\n`)
process.exit(report.breaches.length === 0 ? 0 : 1)

// node tools/fuzz.mjs [--messages 100000] [--seed N] [--seconds N]: sends generated messages to a broker over the socket and
// over HTTP, in both eras, and looks whether each is answered once and nothing else comes of it. The seed is printed.
import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
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
    messages: { type: 'string', default: '100000' },
    seed: { type: 'string' },
    seconds: { type: 'string', default: '3600' },
  },
})
const seed = values.seed === undefined ? Math.floor(Math.random() * 2 ** 31) : Number(values.seed)
const [messages, seconds] = [Number(values.messages), Number(values.seconds)]
if (![seed, messages, seconds].every(Number.isSafeInteger) || messages < 10 || seconds < 1) {
  process.stderr.write('usage: node tools/fuzz.mjs [--messages N] [--seed N] [--seconds N]\n')
  process.exit(2)
}
const { campaign } = await import('../test/e2e/fuzz/campaign.ts')
process.stdout.write(`seed ${seed}, ${messages} messages\n`)
const report = await campaign({ seed, messages, withinMs: seconds * 1000 })
process.stdout.write(`${JSON.stringify(report, null, 2)}\n`)
process.exit(report.breaches.length === 0 ? 0 : 1)

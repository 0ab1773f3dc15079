// The whole suite, then one line: "N passed, N failed, N skipped". WRIT_REQUIRE=all makes every skip a failure.
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const folder = mkdtempSync(join(tmpdir(), 'writ-test-'))
const tally = join(folder, 'tally.json')
const vitest = spawnSync(
  process.execPath,
  [join(root, 'node_modules', 'vitest', 'vitest.mjs'), 'run', ...process.argv.slice(2)],
  {
    cwd: root,
    stdio: ['ignore', 'inherit', 'inherit'],
    env: { ...process.env, WRIT_TALLY: tally },
  },
)
let result = null
try {
  result = JSON.parse(readFileSync(tally, 'utf8'))
} catch {
  process.stderr.write('The test runner ended before it could count.\n')
}
rmSync(folder, { recursive: true, force: true })

const { passed, failed, skipped, again } = result ?? { passed: 0, failed: 1, skipped: [], again: [] }
const required = process.env.WRIT_REQUIRE === 'all'
for (const { title, why } of skipped) process.stdout.write(`skipped: ${title}\n         ${why}\n`)
for (const { title, why } of again)
  process.stdout.write(`passed only when tried again: ${title}\n         ${why.replaceAll('\n', '\n         ')}\n`)
if (required && skipped.length > 0) process.stdout.write('Skips are forbidden here (WRIT_REQUIRE=all).\n')
process.stdout.write(`${passed} passed, ${failed} failed, ${skipped.length} skipped\n`)
process.exit(vitest.status !== 0 || failed > 0 || passed === 0 || (required && skipped.length > 0) ? 1 : 0)

import { spawn } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, it } from 'vitest'

const root = join(import.meta.dirname, '..', '..')
const temp = mkdtempSync(join(tmpdir(), 'writ-demo-test-'))
afterAll(() => rmSync(temp, { recursive: true, force: true }))

/** Processes that were told of a path in the folder. */
function processesOf(folder: string): readonly string[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => {
      try {
        return readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes(folder)
      } catch {
        return false
      }
    })
}

it('the demo leaves neither a folder nor a process behind when it is interrupted', async () => {
  const demo = spawn(process.execPath, [join(root, 'examples', 'demo.ts')], {
    cwd: root,
    env: { ...process.env, TMPDIR: temp },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const ended = new Promise<readonly [number | null, string | null]>((resolve) =>
    demo.once('exit', (code, signal) => resolve([code, signal])),
  )
  let out = ''
  demo.stdout.setEncoding('utf8').on('data', (text: string) => (out += text))
  await expect.poll(() => out, { timeout: 120_000 }).toContain('2. A production target')
  expect(readdirSync(temp).filter((name) => name.startsWith('writ-demo-'))).toHaveLength(1)
  expect(processesOf(temp).length).toBeGreaterThan(0)
  demo.kill('SIGINT')
  expect(await ended).toEqual([null, 'SIGINT'])
  expect(readdirSync(temp).filter((name) => name.startsWith('writ-demo-'))).toEqual([])
  await expect.poll(() => processesOf(temp), { timeout: 30_000 }).toEqual([])
}, 240_000)

import { spawnSync } from 'node:child_process'
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { until } from '../wait.ts'

const root = resolve(import.meta.dirname, '../..')
const folder = mkdtempSync(join(tmpdir(), 'writ-readme-'))
const tree = join(folder, 'writ')

const section = /^## Your own rule, live, in five commands\n\n```sh\n([\s\S]*?)^```$/m.exec(
  readFileSync(join(root, 'README.md'), 'utf8'),
)
const commands = (section?.[1] ?? '').trimEnd().split('\n')

interface Ran {
  readonly code: number | null
  readonly out: string
}

/** As a person types it, in the clone. What the test runner set for itself is not handed on. */
function sh(line: string): Ran {
  const { PATH = '', HOME = '' } = process.env
  const done = spawnSync('/bin/sh', ['-c', line], { cwd: tree, encoding: 'utf8', env: { PATH, HOME }, timeout: 60_000 })
  return { code: done.status, out: done.stdout + done.stderr }
}

/** A fresh copy of the tree, as a clone has it, with what npm would install already in its place. */
beforeAll(() => {
  mkdirSync(tree)
  const passed = new Set(['.git', 'node_modules', 'dist', 'test', 'bench', 'try'])
  for (const name of readdirSync(root))
    if (!passed.has(name) && !name.endsWith('.tgz')) cpSync(join(root, name), join(tree, name), { recursive: true })
  mkdirSync(join(tree, 'node_modules'))
  for (const name of readdirSync(join(root, 'node_modules')))
    symlinkSync(join(root, 'node_modules', name), join(tree, 'node_modules', name))
})

afterAll(() => {
  sh('bin/writ stop --config try')
  rmSync(folder, { recursive: true, force: true })
})

describe('five commands of the README', { timeout: 180_000 }, () => {
  it('are five, from the clone to the denial', () => {
    expect(commands).toHaveLength(5)
    expect(commands[0]).toMatch(/^git clone \S+ writ && cd writ$/)
  })

  it('end in a denial by the rule that was copied, with its code and its remedy, and a receipt that verifies', () => {
    const ran = commands.slice(1).map(sh)
    expect(ran.slice(0, -1).map(({ code, out }) => [code, code === 0 ? '' : out])).toEqual([
      [0, ''],
      [0, ''],
      [0, ''],
    ])
    const denied = ran.at(-1)
    expect(denied?.out).toContain('  denied\n')
    expect(denied?.out).toContain(
      'customer_data: Tables of customers stay out of the sandbox. Ask the data team for a target that is cleared for customer data.',
    )
    expect(denied?.code).toBe(1)
    const receipt = /rcpt_[a-z2-7]{10}/.exec(denied?.out ?? '')?.[0] ?? 'none'
    const verified = sh(
      `bin/writ receipts show --config try --jws ${receipt} | bin/writ verify --config try - --root "$(bin/writ keys --config try --fingerprint)"`,
    )
    expect(verified.out).toMatch(/^VALID:SIGNED\n/)
    expect(verified.out).toContain('nobody: denied by policy generation 1')
  })

  it('are undone while the broker runs: without the rule the same command prints the total', async () => {
    rmSync(join(tree, 'try/policies/org/no-customer-data.rego'))
    // In force within a second on an idle machine; a busy one is given time.
    const out = await until(
      'it is allowed',
      () => {
        const ran = sh(commands[4] ?? '')
        return ran.code === 0 && ran.out
      },
      { withinMs: 90_000, everyMs: 500 },
    )
    expect(out).toContain('"total": 255')
    expect(sh('bin/writ status --config try').out).toContain('generation 2 ')
  })
})

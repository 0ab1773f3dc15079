import { closeSync, openSync, readFileSync, statSync, truncateSync, writeFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it, vi } from 'vitest'
import { digestJson } from '../../src/digest.ts'
import { openSqliteLedger } from '../../src/ledger/sqlite/sqlite.ts'
import { openKeys } from '../../src/receipt/keys.ts'
import { openSigner } from '../../src/receipt/sign.ts'
import { useWorld } from '../e2e/world.ts'

vi.setConfig({ testTimeout: 240_000 })

const world = useWorld()

interface Area {
  readonly area: string
  readonly findings: readonly { readonly level: string; readonly what: string; readonly fix: string | null }[]
}

function ledgerArea(): { readonly code: number; readonly found: Area | undefined } {
  const { code, out } = world.writ(['doctor', '--json'])
  const { areas } = JSON.parse(out) as { readonly areas: readonly Area[] }
  return { code, found: areas.find(({ area }) => area === 'ledger') }
}

it('a ledger that is damaged is found by doctor, which says what to do', () => {
  expect(ledgerArea().found).toBeUndefined()
  writeFileSync(join(world.folder, 'a.js'), "console.log('recorded')")
  expect(world.writ(['run', 'sandbox', '--intent', 'run_script', 'a.js']).code).toBe(0)
  expect(ledgerArea()).toMatchObject({
    code: 0,
    found: {
      findings: [{ level: 'ok', what: expect.stringMatching(/^\d+ receipts, and the file is sound/) as string }],
    },
  })
  expect(world.writ(['stop']).code).toBe(0)
  const ledger = join(world.folder, '.writ', 'ledger.db')
  const sound = readFileSync(ledger)

  // A page in the middle, as a failing disk leaves it.
  const file = openSync(ledger, 'r+')
  writeSync(file, Buffer.alloc(4096, 0xaa), 0, 4096, 4096 * Math.floor(sound.length / 4096 / 2))
  closeSync(file)
  const damaged = {
    code: 1,
    found: { findings: [{ level: 'problem', fix: expect.stringContaining('restore the data folder') as string }] },
  }
  expect(ledgerArea()).toMatchObject(damaged)
  expect(world.writ(['doctor']).out).toMatch(
    /ledger\n {2}PROBLEM {2}ledger: the ledger file is damaged\n[^]*\n1 problem\n$/,
  )

  // The end of the file is gone.
  writeFileSync(ledger, sound)
  truncateSync(ledger, Math.floor(statSync(ledger).size / 2))
  expect(ledgerArea()).toMatchObject(damaged)
  writeFileSync(ledger, 'something else altogether')
  expect(ledgerArea()).toMatchObject(damaged)
  writeFileSync(ledger, sound)
  expect(ledgerArea().code).toBe(0)
})

it('a clock that was ahead for a moment is told of by doctor and status until it is reached', async () => {
  const keys = openKeys(join(world.folder, 'keys'))
  const ahead = openSqliteLedger({
    path: join(world.folder, '.writ', 'ledger.db'),
    signer: openSigner(keys, { issuer: null }),
    clock: { now: () => Date.now() + 3_600_000, monotonic: () => performance.now() },
  })
  await ahead.append({ kind: 'approver_set', digest: digestJson([]), approvers: [] })
  ahead.close()
  const told = expect.stringMatching(/^the newest record is (60|61) minutes ahead of this machine's clock/) as string
  expect(ledgerArea()).toMatchObject({
    code: 0,
    found: { findings: [{ level: 'ok' }, { level: 'warning', what: told }] },
  })
  expect(world.writ(['run', 'sandbox', '--intent', 'run_script', 'a.js']).code).toBe(0)
  expect(world.writ(['status']).out).toMatch(/ {2}CLOCK {8}the newest record is (60|61) minutes ahead/)
})

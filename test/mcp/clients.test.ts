import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { client2 } from '../e2e/clients/client2.ts'
import type { Driver } from '../e2e/clients/driver.ts'
import { python, pythonMissing } from '../e2e/clients/python.ts'
import { sdk1 } from '../e2e/clients/sdk1.ts'
import { later, until } from '../wait.ts'

// Each client, relay and broker is a process of its own.
vi.setConfig({ testTimeout: 90_000 })

const relayProgram = fileURLToPath(new URL('processes/relay.ts', import.meta.url))
const toolCount = 8

let folder = ''
let drivers: Driver[] = []

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'writ-mcp-'))
  drivers = []
})

afterEach(async () => {
  for (const driver of drivers) await driver.close().catch(() => undefined)
  for (const pid of brokers()) kill(pid)
  rmSync(folder, { recursive: true, force: true })
})

function brokers(): number[] {
  try {
    const pids = readFileSync(join(folder, 'pids'), 'utf8').trim().split('\n').map(Number)
    return pids.filter((pid) => pid > 0)
  } catch {
    return []
  }
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL')
  } catch {
    // It had ended already.
  }
}

async function open(driver: Driver): Promise<Driver> {
  drivers.push(driver)
  await driver.connect(process.execPath, [
    relayProgram,
    join(folder, 's', 'mcp.sock'),
    join(folder, 'ledger'),
    join(folder, 'pids'),
  ])
  return driver
}

const clients: readonly { readonly make: () => Driver; readonly revision: string; readonly missing: string | null }[] =
  [
    { make: () => client2('auto'), revision: '2026-07-28', missing: null },
    { make: () => client2('legacy'), revision: '2025-11-25', missing: null },
    { make: () => sdk1(), revision: '2025-11-25', missing: null },
    { make: () => python('auto'), revision: '2026-07-28', missing: pythonMissing() },
    { make: () => python('legacy'), revision: '2025-11-25', missing: pythonMissing() },
  ]

describe.each(clients)('$revision client $make', ({ make, revision, missing }) => {
  test(`${make().name} speaks ${revision} through the relay, calls tools, reads resources and sees refusals`, async (ctx) => {
    if (missing !== null) return ctx.skip(missing)
    const driver = await open(make())
    expect(driver.negotiatedVersion()).toBe(revision)
    expect(driver.instructions()).toContain('list_targets')

    const tools = await driver.listTools()
    expect(tools).toHaveLength(toolCount)
    expect(
      tools.every((tool) => tool.inputSchema['type'] === 'object' && tool.outputSchema?.['type'] === 'object'),
    ).toBe(true)

    const targets = await driver.call('list_targets', {})
    expect(targets).toMatchObject({
      isError: false,
      structured: { targets: [{ target_ref: 'sandbox' }], next: { tool: 'list_targets' } },
    })

    const result = await driver.call('get_result', { execution_id: 'exec_bbbbbbbbbb' })
    expect(result.meta['writ/receipt']).toMatch(/^eyJ/)
    expect(result.structured).toMatchObject({ state: 'failed', next: {} })

    const wrong = await driver.call('get_status', { execution: 'exec_bbbbbbbbbb' })
    expect(wrong).toMatchObject({ isError: true, structured: { error: { code: 'invalid_arguments' } } })
    expect(wrong.text).toContain('did you mean "execution_id"?')

    const missingOne = await driver.call('cancel_execution', { execution_id: 'exec_none' })
    expect(missingOne).toMatchObject({ isError: true, structured: { error: { code: 'not_found' } } })

    const receipt = await driver.readResource('writ://receipts/rcpt_ffffffffff')
    expect(receipt.text).toBe('eyJ.cA.cw')
    await expect(driver.readResource('writ://receipts/rcpt_unknown')).rejects.toThrow(/no such resource/i)
  })

  test(`${make().name} goes on with its next call after the broker was killed, and nothing runs twice [G-relay-never-repeats]`, async (ctx) => {
    if (missing !== null) return ctx.skip(missing)
    const driver = await open(make())
    expect((await driver.call('start_execution', { task_id: 'task_1' })).isError).toBe(false)

    const waiting = later(driver.call('start_execution', { task_id: 'task_2', wait_ms: 20_000 }))
    await until('it was started', () => readFileSync(join(folder, 'ledger'), 'utf8').includes('task_2'))
    const [broker] = brokers()
    if (broker === undefined) throw new Error('no broker was started')
    kill(broker)
    const lost = await waiting
    expect(lost).toMatchObject({
      isError: true,
      structured: { error: { code: 'broker_unreachable' }, next: { tool: 'get_status', arguments: {} } },
    })
    expect(lost.text).toContain('get_status')

    const after = await driver.call('get_status', {})
    expect(after.structured).toMatchObject({ recent: [{ execution_id: 'exec_bbbbbbbbbb' }] })
    expect(brokers()).toHaveLength(2)
    const started = readFileSync(join(folder, 'ledger'), 'utf8').trim().split('\n')
    expect(started.map((line) => line.split(' ').at(-1))).toEqual(['task_1', 'task_2'])
  })
})

import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import type { Context } from '../../src/cli/context.ts'
import { statementsExport, receiptsExport } from '../../src/cli/receipts.ts'
import { verify, type VerifyOptions } from '../../src/cli/verify.ts'
import { askBroker } from '../../src/control/control.ts'
import { generateKey } from '../../src/jws.ts'
import { openViews } from '../../src/ledger/sqlite/views.ts'
import { alice, edit, openWorld } from '../path/world.ts'

/** `writ verify` on the ledger of a broker in which a person approved a run. */

const world = await openWorld()
const { folder } = world.broker
const task = await world.task(alice, 'signed')
const asked = await world.ask(alice, 'start_execution', { task_id: task })
const yes = await world.yes(asked.approval?.approval_id ?? '')
await askBroker(world.broker.served.folder.controlSocket, 'answer', { jws: yes })
await world.ask(alice, 'get_status', { execution_id: asked.execution_id ?? '', wait_ms: 20_000 })
afterAll(async () => await world.broker.stop())

const none: VerifyOptions = { approver: [], with: [], held: [] }

function context(): { readonly context: Context; out(): string } {
  const lines: string[] = []
  const say = (text: string): void => void lines.push(text)
  return {
    out: () => lines.join('\n'),
    context: {
      env: {},
      cwd: folder,
      version: '0',
      stdin: process.stdin,
      configFlag: undefined,
      json: false,
      tty: false,
      columns: null,
      say,
      note: say,
      data: (data) => say(JSON.stringify(data)),
    },
  }
}

async function verified(file?: string, options: Partial<VerifyOptions> = {}): Promise<string> {
  const { context: given, out } = context()
  const code = await verify(given, file, { ...none, ...options })
  return `${code} ${out()}`
}

function exported(make: (context: Context) => number, name: string): string {
  const { context: given, out } = context()
  expect(make(given)).toBe(0)
  writeFileSync(join(folder, name), `${out()}\n`)
  return name
}

describe('writ verify of a log with an approval', () => {
  it('goes on after the approver was given another key, and after being removed [G-log]', async () => {
    expect(await verified()).toMatch(/^0 VALID:LOGGED[^]*checked +APPROVER/)
    const config = join(folder, 'writ.yaml')
    const before = readFileSync(config, 'utf8')
    edit(config, (text) => text.replace(world.ada.x, generateKey().x))
    expect(await verified()).toMatch(/^0 VALID:LOGGED[^]*checked +APPROVER/)
    writeFileSync(config, before.replace(/^approvers:\n.*$/m, 'approvers: []'))
    expect(await verified()).toMatch(/^0 VALID:LOGGED[^]*checked +APPROVER/)
    writeFileSync(config, before)
  })

  it('checks an exported log with the statements beside it and the keys it is told [G-log]', async () => {
    const log = exported(receiptsExport, 'log.txt')
    const statements = exported(statementsExport, 'statements.txt')
    expect(await verified(log, { log: true })).toMatch(/^0 VALID:LOGGED[^]*1 could not be checked/)
    const told = { log: true, with: [statements] }
    expect(await verified(log, { ...told, approver: [world.ada.x] })).toMatch(/^0 VALID:LOGGED[^]*checked +APPROVER/)
    expect(await verified(log, { ...told, approver: [generateKey().x] })).toMatch(/^1 UNTRUSTED UNKNOWN_APPROVER/)
    const views = openViews(join(folder, '.writ', 'ledger.db'))
    const approval = views.receipts(0, 100).find(({ kind }) => kind === 'approval')
    views.close()
    writeFileSync(join(folder, 'approval.jws'), approval?.jws ?? '')
    expect(await verified('approval.jws', { with: [statements], approver: [world.ada.x] })).toMatch(
      /^0 VALID:SIGNED[^]*checked +APPROVER/,
    )
  })
})

import { spawn } from 'node:child_process'
import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { once } from 'node:events'
import { setTimeout as pause } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import type { JsonObject } from '../../src/digest.ts'
import { connectOrStart } from '../../src/start.ts'
import { until } from '../wait.ts'
import { final, type Line, openLine } from './crash/line.ts'
import { type Place } from './crash/place.ts'
import { brokerOf, familyOf, kill } from './crash/processes.ts'
import { put, start, status, stopped, submit, use, works } from './faults/fixture.ts'

describe('processes', () => {
  const fixture = use({ name: 'writ-processes-' })

  it('[G-one-broker] are one broker, however many are started at once', async () => {
    const { place } = fixture
    const sockets = await Promise.all([1, 2, 3, 4].map(async () => await connectOrStart(place)))
    for (const socket of sockets) socket.destroy()
    const held = place.writ(['serve'])
    expect(held.code).toBe(2)
    expect(held.err).toMatch(/another broker holds this data folder[^]*writ stop/)
    expect(held.err.match(/holds this data folder/g)?.length).toBe(1)
    await until('one broker is left', () => brokersOf(place) === 1)
    await works(fixture)
  }, 180_000)

  it('[G-no-loss] end a run unknown, with its receipt, when the run host dies under it, and the next one runs', async () => {
    const { place, line } = fixture
    const submitted = await submit(
      line,
      "console.log('begun')\nawait new Promise((resolve) => setTimeout(resolve, 200_000))",
    )
    const started = await line.call('start_execution', { task_id: submitted['task_id'] as string, wait_ms: 500 })
    expect(started).toMatchObject({ state: 'running' })
    const broker = brokerOf(place.configFile)
    const host = broker === null ? null : familyOf(broker).host
    if (host === null) throw new Error('there is no run host')
    await until('it has begun', async () => (await printed(line, started)).includes('begun'))
    expect(kill(host)).toBe(true)
    expect(await final(line, String(started['execution_id']))).toMatchObject({
      state: 'unknown',
      ran: true,
      reasons: [{ code: 'run_host_lost' }],
    })
    const result = await line.call('get_result', { execution_id: started['execution_id'] as string })
    expect(result).toMatchObject({
      tail: 'begun\n',
      receipt: { receipt_id: expect.stringMatching(/^rcpt_/) as string },
    })
    await works(fixture)
  }, 180_000)

  it('[G-no-loss] wait for a ledger that another program holds locked, say so, and lose nothing', async () => {
    const { place, line } = fixture
    const submitted = await submit(
      line,
      "await new Promise((resolve) => setTimeout(resolve, 6000))\nconsole.log('kept')",
    )
    const generation = (await status(place)).policy.generation
    // It is there before the run begins, and locks in the middle of it.
    const locker = spawn(
      process.execPath,
      [
        '--no-warnings',
        '-e',
        "const { DatabaseSync } = require('node:sqlite'); const db = new DatabaseSync(process.argv[1], { timeout: 5000 }); process.stdin.once('data', () => { db.exec('BEGIN IMMEDIATE'); console.log('locked') }); console.log('ready')",
        place.folder.ledger,
      ],
      { stdio: ['pipe', 'pipe', 'inherit'] },
    )
    let started: JsonObject
    try {
      await once(locker.stdout, 'data')
      started = await line.call('start_execution', { task_id: submitted['task_id'] as string })
      expect(started).toMatchObject({ state: 'running' })
      locker.stdin.write('lock\n')
      await once(locker.stdout, 'data')
      const refused = await submit(line, "console.log('not now')")
      expect(refused['error']).toMatchObject({
        code: 'ledger_unavailable',
        remedy: expect.stringMatching(/operator/) as string,
      })
      // A policy whose receipt cannot be written decides nothing.
      put(
        join(place.root, 'policies', 'org', 'locked.rego'),
        'package writ.pack.org\n\n# METADATA\n# title: No secrets in goals\n# custom: { id: T-003, remedy: Say it otherwise. }\ndeny contains {"rule": rego.metadata.rule()} if contains(input.context.task.goal, "secret")\n',
      )
      await until('the policy is refused', async () =>
        JSON.stringify(await status(place)).includes('another program holds the ledger locked'),
      )
      expect((await status(place)).policy.generation).toEqual(generation)
      // The run ends meanwhile; its outcome waits for the ledger, and is not told before it is written.
      await until('it has printed its last', async () => (await printed(line, started)).includes('kept'))
      await pause(1000)
      expect(await line.call('get_status', { execution_id: started['execution_id'] as string })).toMatchObject({
        state: 'running',
      })
      expect(readFileSync(place.logFile, 'utf8')).toMatch(/another program holds the ledger locked/)
    } finally {
      locker.kill('SIGKILL')
    }
    expect(await final(line, String(started['execution_id']))).toMatchObject({ state: 'succeeded' })
    expect(await line.call('get_result', { execution_id: started['execution_id'] as string })).toMatchObject({
      tail: 'kept\n',
    })
    await until(
      'the policy is in force',
      async () => (await status(place)).policy.generation?.number === (generation?.number ?? 0) + 1,
    )
    await works(fixture)
  }, 180_000)
})

/** All that a run has printed. */
async function printed(line: Line, started: JsonObject): Promise<string> {
  const status = await line.call('get_status', { execution_id: started['execution_id'] as string, cursor: 'start' })
  return String((status['log'] as JsonObject | undefined)?.['text'])
}

function brokersOf(place: Place): number {
  return readdirSync('/proc').filter((name) => {
    try {
      return (
        /^\d+$/.test(name) &&
        /serve\0.*--config\0/.test(readFileSync(`/proc/${name}/cmdline`, 'latin1')) &&
        readFileSync(`/proc/${name}/cmdline`, 'latin1').includes(place.configFile)
      )
    } catch {
      return false
    }
  }).length
}

describe('a data folder whose path is too long for a socket', () => {
  const fixture = use({ name: 'writ-long-', data: `${'a-rather-long-name/'.repeat(8)}data` })

  it('is served all the same, over a private folder elsewhere', async () => {
    const { place } = fixture
    await works(fixture)
    expect(place.folder.mcpSocket.startsWith(place.folder.root)).toBe(false)
    expect(statSync(dirname(place.folder.mcpSocket)).mode & 0o777).toBe(0o700)
    expect(statSync(place.folder.mcpSocket).mode & 0o777).toBe(0o600)
    await stopped(fixture)
    expect(existsSync(place.folder.mcpSocket)).toBe(false)
    await works(fixture)
  }, 180_000)
})

describe('a clock that jumps', () => {
  const fixture = use({ name: 'writ-clock-' })

  it('[G-approval-time] forward, expires what waited for approval; back, leaves the order of the log as it is', async () => {
    const { place, line } = fixture
    const shift = join(place.root, 'shift')
    writeFileSync(shift, '0')
    // The broker's own wall clock, set as an administrator would set the machine's.
    const clock = join(place.root, 'clock.mjs')
    writeFileSync(
      clock,
      `import { readFileSync } from 'node:fs'\nconst now = Date.now.bind(Date)\nDate.now = () => now() + Number(readFileSync(${JSON.stringify(shift)}, 'utf8'))\n`,
    )
    const env = { ...place.env, NODE_OPTIONS: `--import ${clock}` }
    line.close()
    const shifted = openLine({ ...place, env })
    const day = 86_400_000
    try {
      const started = await start(shifted, "console.log('late')", { target_ref: 'production' })
      expect(started).toMatchObject({ state: 'awaiting_approval' })
      const approval = String((started['approval'] as JsonObject)['approval_id'])
      writeFileSync(shift, String(2 * day))
      expect(await final(shifted, String(started['execution_id']))).toMatchObject({
        state: 'expired',
        ran: false,
        reasons: [{ code: 'request_expired' }],
      })
      await expect(place.answer(approval, 'approve')).rejects.toMatchObject({ code: 'approval_refused' })

      writeFileSync(shift, String(-3 * day))
      await expect(place.answer(approval, 'approve')).rejects.toMatchObject({ code: 'approval_refused' })
      expect(await final(shifted, String(started['execution_id']))).toMatchObject({ state: 'expired' })
      const again = await shifted.call('start_execution', { task_id: started['task_id'] as string })
      expect(again).toMatchObject({ state: 'awaiting_approval' })
      expect(again['execution_id']).not.toBe(started['execution_id'])
      writeFileSync(shift, '0')
      await works({ place, line: shifted })
    } finally {
      shifted.close()
    }
  }, 180_000)
})

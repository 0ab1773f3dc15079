import { spawnSync } from 'node:child_process'
import { mkdirSync, rmSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import type { JsonObject } from '../../src/digest.ts'
import { brokerOf, kill } from './crash/processes.ts'
import { final } from './crash/line.ts'
import { start, status, stopped, submit, use, whyNoDisk, works } from './faults/fixture.ts'
import { until } from '../wait.ts'

describe('a full disk', () => {
  const fixture = use({ name: 'writ-disk-', data: 'disk/data' })
  const mount = (path: string, kib: number): boolean => {
    mkdirSync(path, { recursive: true, mode: 0o700 })
    const options = ['-t', 'tmpfs', '-o', `size=${String(kib)}k,mode=0700`]
    return spawnSync('mount', [...options, 'tmpfs', path], { stdio: 'ignore' }).status === 0
  }
  const unmount = (path: string): void => void spawnSync('umount', ['-l', path], { stdio: 'ignore' })
  const fill = (path: string): string => {
    const file = join(path, 'filler')
    spawnSync('dd', ['if=/dev/zero', `of=${file}`, 'bs=4096'], { stdio: 'ignore' })
    spawnSync('dd', ['if=/dev/zero', `of=${file}`, 'bs=1', 'oflag=append', 'conv=notrunc', 'count=8192'], {
      stdio: 'ignore',
    })
    return file
  }
  let disk = ''
  let there = false
  // Once: another over it would hide what the broker has in the first.
  beforeAll(() => {
    disk = join(fixture.place.root, 'disk')
    there = mount(disk, 64 << 10)
  })
  afterAll(async () => {
    await stopped(fixture)
    unmount(disk)
  })

  it('[G-room-for-receipts] starts nothing, still accounts for what runs, keeps reading, and goes on when there is room', async (context) => {
    const { place, line } = fixture
    if (!there) context.skip(whyNoDisk)
    onTestFinished(() => rmSync(join(disk, 'filler'), { force: true }))
    const submitted = await submit(
      line,
      "await new Promise((resolve) => setTimeout(resolve, 10_000))\nconsole.log('accounted for')",
    )
    const ready = await submit(line, "console.log('started later')")
    const started = await line.call('start_execution', { task_id: submitted['task_id'] as string })
    expect(started).toMatchObject({ state: 'running' })
    const filler = fill(disk)

    for (const answer of [
      await submit(line, "console.log('too much')"),
      await line.call('start_execution', { task_id: ready['task_id'] as string }),
    ])
      expect(answer['error']).toMatchObject({ code: 'no_space', remedy: expect.stringMatching(/operator/) as string })
    // It is still going on: what is told of its end was written on the full disk.
    expect(await status(place)).toMatchObject({ room: 'low', running: 1 })
    expect(statSync(filler).size).toBeGreaterThan(10 << 20)
    expect(await final(line, String(started['execution_id']))).toMatchObject({ ran: true })
    const result = await line.call('get_result', { execution_id: started['execution_id'] as string })
    expect(result).toMatchObject({ receipt: { receipt_id: expect.stringMatching(/^rcpt_/) as string } })
    expect((await line.call('list_targets', {}))['error']).toBeUndefined()

    // A broker that is killed on the full disk comes back, reads, and still starts nothing.
    const broker = brokerOf(place.configFile)
    if (broker === null) throw new Error('there is no broker')
    kill(broker)
    // A connection may still find the one that is going.
    const known = await until('a broker that answers', async () => {
      const asked = { execution_id: started['execution_id'] as string }
      return await line.call('get_result', asked).catch(() => null)
    })
    expect(known['receipt']).toEqual(result['receipt'])

    rmSync(filler)
    const later = await line.call('start_execution', { task_id: ready['task_id'] as string })
    expect(await final(line, String(later['execution_id']))).toMatchObject({ state: 'succeeded' })
    await works(fixture)
  }, 180_000)

  it('of the outputs alone drops what finds no room, counts it, and still ends the run with its receipt', async (context) => {
    const { place, line } = fixture
    await stopped(fixture)
    const output = join(place.folder.root, 'output')
    if (!there || !mount(output, 256)) return context.skip(whyNoDisk)
    onTestFinished(() => unmount(output))
    const lines =
      "for (let n = 0; n < 8000; n++) console.log('line', n, 'x'.repeat(90))\nwrit.writeFile('/out/kept.txt', 'kept')"
    const ran = await start(line, lines)
    expect(ran).toMatchObject({ state: 'succeeded' })
    const result = await line.call('get_result', { execution_id: ran['execution_id'] as string })
    expect(result).toMatchObject({ state: 'succeeded', files: [{ path: 'kept.txt', text: 'kept' }] })
    const log = (await line.call('get_status', { execution_id: ran['execution_id'] as string, cursor: 'start' }))[
      'log'
    ] as JsonObject
    expect(log['dropped_bytes']).toBeGreaterThan(400_000)
    expect(log['text']).toMatch(/^line 0 /)
    const next = await start(line, "console.log('no room for this either')")
    expect(next).toMatchObject({ state: 'succeeded' })
    await stopped(fixture)
    unmount(output)
    await works(fixture)
  }, 180_000)
})

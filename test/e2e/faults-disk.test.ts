import { spawnSync } from 'node:child_process'
import { mkdirSync, rmSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import type { JsonObject } from '../../src/digest.ts'
import { brokerOf, kill } from './crash/processes.ts'
import { final, start, status, stopped, submit, use, whyNoDisk, works } from './faults/fixture.ts'

describe('a full disk', () => {
  const fixture = use({ name: 'writ-disk-', data: 'disk/data' })
  const mounted: string[] = []
  const mount = (path: string, kib: number): boolean => {
    mkdirSync(path, { recursive: true, mode: 0o700 })
    const done = spawnSync('mount', ['-t', 'tmpfs', '-o', `size=${String(kib)}k,mode=0700`, 'tmpfs', path], {
      stdio: 'ignore',
    })
    if (done.status === 0) mounted.push(path)
    return done.status === 0
  }
  const fill = (path: string): string => {
    const file = join(path, 'filler')
    spawnSync('dd', ['if=/dev/zero', `of=${file}`, 'bs=4096'], { stdio: 'ignore' })
    spawnSync('dd', ['if=/dev/zero', `of=${file}`, 'bs=1', 'oflag=append', 'conv=notrunc', 'count=8192'], {
      stdio: 'ignore',
    })
    return file
  }
  afterAll(() => {
    for (const path of mounted.toReversed()) spawnSync('umount', ['-l', path], { stdio: 'ignore' })
  })

  it('[G-room-for-receipts] starts nothing, still accounts for what runs, keeps reading, and goes on when there is room', async (context) => {
    const { place, line } = fixture
    const disk = join(place.root, 'disk')
    if (!mount(disk, 64 << 10)) context.skip(whyNoDisk)
    const submitted = await submit(
      line,
      "await new Promise((resolve) => setTimeout(resolve, 2500))\nconsole.log('accounted for')",
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
    expect(await status(place)).toMatchObject({ room: 'low' })
    expect(statSync(filler).size).toBeGreaterThan(10 << 20)
    expect(await final(line, String(started['execution_id']))).toMatchObject({ ran: true })
    const result = await line.call('get_result', { execution_id: started['execution_id'] as string })
    expect(result).toMatchObject({ receipt: { receipt_id: expect.stringMatching(/^rcpt_/) as string } })
    expect((await line.call('list_targets', {}))['error']).toBeUndefined()

    // A broker that is killed on the full disk comes back, reads, and still starts nothing.
    const broker = brokerOf(place.configFile)
    if (broker === null) throw new Error('there is no broker')
    kill(broker)
    await line.call('get_status', {}).catch(() => undefined)
    const known = await line.call('get_result', { execution_id: started['execution_id'] as string })
    expect(known['receipt']).toEqual(result['receipt'])

    rmSync(filler)
    const later = await line.call('start_execution', { task_id: ready['task_id'] as string, wait_ms: 20_000 })
    expect(later).toMatchObject({ state: 'succeeded' })
    await works(fixture)
  }, 180_000)

  it('of the outputs alone drops what finds no room, counts it, and still ends the run with its receipt', async (context) => {
    const { place, line } = fixture
    await stopped(fixture)
    if (!mount(join(place.folder.root, 'output'), 256)) context.skip(whyNoDisk)
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
    spawnSync('umount', ['-l', join(place.folder.root, 'output')])
    await works(fixture)
  }, 180_000)
})

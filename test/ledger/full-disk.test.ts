import { closeSync, existsSync, openSync, rmSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it, onTestFinished } from 'vitest'
import { digestOf } from '../../src/digest.ts'
import { WritError, systemCode } from '../../src/error.ts'
import { newId } from '../../src/id.ts'
import { openSqliteLedger } from '../../src/ledger/sqlite/sqlite.ts'
import type { Ledger } from '../../src/ledger/ledger.ts'
import { createFrontier } from '../../src/receipt/tree.ts'
import { handClock, life, sampleReport, sampleToken, signed, testSigner } from './sample.ts'
import { smallDisk, whyNoDisk } from './small-disk.ts'

function open(dir: string): Ledger {
  const ledger = openSqliteLedger({
    path: join(dir, 'ledger.db'),
    signer: testSigner(),
    clock: handClock(),
    reserveBytes: 512 << 10,
  })
  onTestFinished(() => ledger.close())
  return ledger
}

/** Fills the disk to its last block, as any other program might. */
function fill(dir: string): string {
  const path = join(dir, 'filler')
  const file = openSync(path, 'w')
  try {
    for (const size of [65_536, 4_096, 1]) {
      try {
        for (;;) writeSync(file, Buffer.alloc(size, 1))
      } catch (error) {
        if (systemCode(error) !== 'ENOSPC') throw error
      }
    }
  } finally {
    closeSync(file)
  }
  return path
}

async function codeOf(work: Promise<unknown>): Promise<string> {
  try {
    await work
    return 'done'
  } catch (error) {
    if (error instanceof WritError) return error.code
    throw error
  }
}

it('[G-room-for-receipts] starts nothing on a full disk, still accounts for what is running, and goes on when there is room', async (ctx) => {
  const disk = smallDisk(4096)
  if (disk === null) return ctx.skip(whyNoDisk)
  const ledger = open(disk.path)
  const running = Array.from({ length: 8 }, () => life())
  const waiting = life()
  for (const one of running) {
    await ledger.append(...one.queue)
    await ledger.append(...one.start, {
      kind: 'lease_intended',
      lease: newId('lease'),
      execution: one.execution,
      credentials: [],
    })
  }
  await ledger.append(...waiting.queue)
  const token = sampleToken()
  await ledger.append({ kind: 'token_created', token })
  expect(ledger.room()).toBe('ok')

  const filler = fill(disk.path)
  expect(ledger.room()).toBe('low')
  expect(await codeOf(ledger.append(...life().queue))).toBe('no_space')
  expect(await codeOf(ledger.append(...waiting.start))).toBe('no_space')
  expect(await codeOf(ledger.append({ kind: 'token_created', token: sampleToken() }))).toBe('no_space')
  // What was stolen can be ended all the same.
  expect(await codeOf(ledger.append({ kind: 'token_revoked', token: token.id }, signed('policy')))).toBe('done')
  expect(
    await codeOf(
      ledger.append(
        { kind: 'refused', tenant: 't', caller: 'c', code: 'x', input: digestOf(''), at_ms: 1 },
        signed('denials'),
      ),
    ),
  ).toBe('no_space')
  const leases = ledger.views.leases(['intended'])
  for (const one of running) {
    const lease = leases.find(({ execution }) => execution === one.execution)
    if (lease === undefined) throw new Error('the lease was recorded')
    const report = sampleReport({
      files: Array.from({ length: 8 }, (_, i) => ({ path: `f${i}`, sha256: digestOf(`${i}`), size: 1 })),
    })
    const codes = await Promise.all([
      codeOf(
        ledger.append({ kind: 'lease_ended', lease: lease.id, revocation: 'done' }, ...one.end('succeeded', report)),
      ),
      codeOf(ledger.append(...life().queue)),
    ])
    expect(codes).toEqual(['done', 'no_space'])
  }
  expect(ledger.views.executions({ state: ['succeeded'] }, 99)).toHaveLength(8)
  expect(ledger.views.execution(waiting.execution)?.state).toBe('queued')

  rmSync(filler)
  expect(ledger.room()).toBe('ok')
  expect(existsSync(join(disk.path, 'reserve'))).toBe(true)
  expect(await codeOf(ledger.append(...waiting.start))).toBe('done')
  const frontier = createFrontier()
  for (const row of ledger.views.receipts(0, 999)) frontier.append(row.jws)
  expect(ledger.views.logHead()).toMatchObject({ size: frontier.size, root: frontier.root().toString('base64') })
  const before = ledger.views.logHead()
  ledger.rebuild()
  expect(ledger.views.logHead()).toEqual(before)
})

it('rejects everything while even the reserve is used up, and is whole again afterwards', async (ctx) => {
  const disk = smallDisk(4096)
  if (disk === null) return ctx.skip(whyNoDisk)
  const ledger = open(disk.path)
  const one = life()
  await ledger.append(...one.queue)
  await ledger.append(...one.start)
  rmSync(join(disk.path, 'reserve'))
  const filler = fill(disk.path)
  const big = sampleReport({ reason: 'x'.repeat(6 << 20) })
  expect(await codeOf(ledger.append(...one.end('failed', big)))).toBe('no_space')
  const head = ledger.views.logHead()
  expect(head.size).toBe(2)
  rmSync(filler)
  expect(await codeOf(ledger.append(...one.end('failed')))).toBe('done')
  expect(ledger.views.logHead().size).toBe(3)
})

it('says ledger_unavailable while the disk refuses writes, and goes on when it takes them again', async (ctx) => {
  const disk = smallDisk(8192)
  if (disk === null) return ctx.skip(whyNoDisk)
  // A writer with a file open forbids the change to read-only, so the ledger is opened on a disk that is so already.
  const first = open(disk.path)
  await first.append(signed('genesis'))
  first.close()
  disk.remount('ro')
  expect(() => open(disk.path)).toThrow(WritError)
  disk.remount('rw')
  const ledger = open(disk.path)
  expect((await ledger.append(signed('policy'))).receipts[0]?.index).toBe(1)
})

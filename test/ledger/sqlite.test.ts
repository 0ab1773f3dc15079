import { spawn } from 'node:child_process'
import { copyFileSync, readdirSync, renameSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { describe, expect, it, onTestFinished } from 'vitest'
import { digestOf } from '../../src/digest.ts'
import { WritError } from '../../src/error.ts'
import type { Entry, Ledger } from '../../src/ledger/ledger.ts'
import { openSqliteLedger } from '../../src/ledger/sqlite/sqlite.ts'
import { openViews } from '../../src/ledger/sqlite/views.ts'
import { folder } from './folder.ts'
import { handClock, life, sampleTask, signed, testSigner } from './sample.ts'

const signer = testSigner()

function open(path: string, reserveBytes = 4096, named = signer): Ledger {
  const ledger = openSqliteLedger({ path, signer: named, clock: handClock(), reserveBytes })
  onTestFinished(() => ledger.close())
  return ledger
}

function caught(work: () => unknown): WritError {
  try {
    work()
  } catch (error) {
    if (error instanceof WritError) return error
    throw error
  }
  throw new Error('nothing was thrown')
}

async function rejected(work: Promise<unknown>): Promise<WritError> {
  const error: unknown = await work.then(
    () => null,
    (reason: unknown) => reason,
  )
  if (error instanceof WritError) return error
  throw new Error('no WritError was thrown', { cause: error })
}

describe('the files of a ledger', () => {
  it('are open to their owner alone', async () => {
    const dir = folder()
    const ledger = open(join(dir, 'ledger.db'))
    await ledger.append(signed('genesis'))
    const names = readdirSync(dir)
    expect(names.toSorted()).toEqual(['ledger.db', 'ledger.db-shm', 'ledger.db-wal', 'reserve'])
    expect(names.map((name) => (statSync(join(dir, name)).mode & 0o777).toString(8))).toEqual([
      '600',
      '600',
      '600',
      '600',
    ])
  })

  it('have room for the first commits before they come, and what a copy of them holds is read as far as it was committed', async () => {
    const dir = folder()
    const path = join(dir, 'ledger.db')
    const ledger = open(path)
    const room = statSync(`${path}-wal`).size
    await ledger.append(signed('genesis'))
    await ledger.append({ kind: 'task', task: sampleTask() })
    expect(room).toBeGreaterThan(1 << 20)
    expect(statSync(`${path}-wal`).size).toBe(room)
    // As a power cut would leave it: frames, then the zeros that were never written over.
    const copy = join(folder(), 'ledger.db')
    for (const ending of ['', '-wal']) copyFileSync(path + ending, copy + ending)
    const again = open(copy)
    expect(again.views.logHead()).toEqual(ledger.views.logHead())
    expect(again.steps(0, 10).map((step) => step.position)).toEqual([1, 2])
    await again.append({ kind: 'task', task: sampleTask() })
    expect(again.steps(0, 10)).toHaveLength(3)
  })

  it('are refused where they are of another issuer, another program, a newer Writ, or damaged, without a path in the message', () => {
    const dir = folder()
    const path = join(dir, 'ledger.db')
    open(path).close()
    expect(caught(() => open(path, 4096, testSigner('urn:writ:another'))).code).toBe('invalid_config')

    const newer = join(dir, 'newer.db')
    copyFileSync(path, newer)
    edit(newer, 'PRAGMA user_version = 99')
    expect(caught(() => open(newer)).code).toBe('ledger_unavailable')
    expect(caught(() => openViews(newer)).code).toBe('ledger_unavailable')

    const foreign = join(dir, 'foreign.db')
    edit(foreign, 'CREATE TABLE theirs (a); PRAGMA user_version = 1')
    expect(caught(() => open(foreign)).code).toBe('ledger_corrupt')

    const rubbish = join(dir, 'rubbish.db')
    writeFileSync(rubbish, 'x'.repeat(5000))
    expect(caught(() => open(rubbish)).code).toBe('ledger_corrupt')
    expect(caught(() => openViews(rubbish)).code).toBe('ledger_corrupt')

    const nowhere = caught(() => open(join(dir, 'no', 'such', 'ledger.db')))
    expect(nowhere.code).toBe('ledger_unavailable')
    for (const text of [nowhere.message, nowhere.remedy]) expect(text).not.toContain(dir)
  })

  it('are refused where the stored head of the receipt log does not fit the receipts', async () => {
    const path = join(folder(), 'ledger.db')
    const ledger = open(path)
    await ledger.append(signed('genesis'), signed('policy'), signed('policy'))
    ledger.close()
    for (const damage of [
      "UPDATE head SET root = x'00'",
      'UPDATE head SET size = 2',
      "UPDATE head SET peaks = x'00'",
      'DELETE FROM head',
      'DELETE FROM receipts WHERE log_index = 2',
    ]) {
      const copy = join(folder(), 'ledger.db')
      copyFileSync(path, copy)
      edit(copy, damage)
      expect(caught(() => open(copy)).code).toBe('ledger_corrupt')
    }
  })

  it('do not let a step be changed or taken away', async () => {
    const path = join(folder(), 'ledger.db')
    const ledger = open(path)
    await ledger.append(signed('genesis'))
    ledger.close()
    expect(() => edit(path, "UPDATE steps SET body = '{}'")).toThrow('append-only')
    expect(() => edit(path, 'DELETE FROM steps')).toThrow('append-only')
  })

  it('refuse to be rebuilt from steps that contradict each other, and then stay as they were', async () => {
    const path = join(folder(), 'ledger.db')
    const first = open(path)
    await first.append(...life().queue)
    const head = first.views.logHead()
    first.close()
    for (const damage of [
      'DELETE FROM steps WHERE position = 2',
      "UPDATE steps SET body = json_set(body, '$.receipt.jws', 'forged') WHERE kind = 'receipt'",
      "UPDATE steps SET body = json_set(body, '$.state', 'succeeded') WHERE kind = 'state'",
    ]) {
      const copy = join(folder(), 'ledger.db')
      copyFileSync(path, copy)
      edit(copy, `DROP TRIGGER steps_keep_update; DROP TRIGGER steps_keep_delete; ${damage}`)
      const ledger = open(copy)
      expect(caught(() => ledger.rebuild()).code).toBe('ledger_corrupt')
      expect(ledger.views.logHead()).toEqual(head)
    }
  })
})

function edit(path: string, sql: string): void {
  const db = new DatabaseSync(path)
  try {
    db.exec(sql)
  } finally {
    db.close()
  }
}

describe('reading without being the broker', () => {
  it('works beside the writer, after it closed, and after it was killed with its log unmerged', async () => {
    const dir = folder()
    const path = join(dir, 'ledger.db')
    const ledger = open(path)
    const one = life()
    await ledger.append(...one.queue)
    const beside = openViews(path)
    expect(beside.execution(one.execution)?.state).toBe('queued')
    await ledger.append(...one.start)
    expect(beside.execution(one.execution)?.state).toBe('running')
    expect(beside.read(one.execution).length).toBe(8)
    // What a killed writer leaves: the database and its write-ahead log, without the shared memory.
    const left = folder()
    for (const name of ['ledger.db', 'ledger.db-wal']) copyFileSync(join(dir, name), join(left, name))
    ledger.close()
    expect(beside.steps(0, 99).length).toBe(9)
    beside.close()
    for (const from of [path, join(left, 'ledger.db')]) {
      const views = openViews(from)
      expect(views.execution(one.execution)?.state).toBe('running')
      expect(views.logHead().size).toBe(2)
      views.close()
    }
  })

  it('sees one moment where it asks for one, whatever is written meanwhile, and every set of approvers there ever was', async () => {
    const path = join(folder(), 'ledger.db')
    const ledger = open(path)
    const sets = ['a', 'b'].map((name) => ({
      kind: 'approver_set' as const,
      digest: digestOf(name),
      approvers: [{ subject: name }],
    }))
    await ledger.append(...sets, signed('genesis'))
    const views = openViews(path)
    expect(views.approverSets()).toEqual(sets)
    const writer = new DatabaseSync(path)
    const move = (to: string): void =>
      void writer.prepare("UPDATE newest SET digest = ? WHERE what = 'approver_set'").run(digestOf(to))
    expect(
      views.atOnce(() => {
        const first = views.approverSet()
        move('c')
        return [first, views.approverSet()]
      }),
    ).toEqual([digestOf('b'), digestOf('b')])
    expect(views.approverSet()).toBe(digestOf('c'))
    expect(() => views.atOnce(() => JSON.parse('{') as unknown)).toThrow('JSON')
    expect(views.atOnce(() => views.approverSet())).toBe(digestOf('c'))
    writer.close()
    views.close()
  })

  it('cannot write, and says clearly where there is no ledger yet', () => {
    const path = join(folder(), 'ledger.db')
    expect(caught(() => openViews(path)).code).toBe('ledger_unavailable')
    expect(readdirSync(join(path, '..'))).toEqual([])
  })
})

describe('a ledger that another program holds', () => {
  it('rejects with ledger_unavailable, loses nothing, and goes on when it is free', async () => {
    const path = join(folder(), 'ledger.db')
    const ledger = open(path)
    await ledger.append(signed('genesis'))
    const other = new DatabaseSync(path)
    other.exec('BEGIN IMMEDIATE')
    const refused = await rejected(ledger.append(signed('policy')))
    expect([refused.code, refused.message]).toEqual(['ledger_unavailable', 'another program holds the ledger locked'])
    expect(ledger.views.logHead().size).toBe(1)
    other.exec('ROLLBACK')
    other.close()
    const { receipts } = await ledger.append(signed('policy'))
    expect(receipts[0]?.index).toBe(1)
  })

  it('goes on after another program wrote steps of its own, on the head they left', async () => {
    const path = join(folder(), 'ledger.db')
    const ledger = open(path)
    await ledger.append(signed('genesis'))
    const second = openSqliteLedger({ path, signer, clock: handClock(), reserveBytes: 4096 })
    await second.append(signed('policy'), signed('policy'))
    const { position, receipts } = await ledger.append(signed('policy'))
    expect([position, receipts[0]?.index]).toEqual([4, 3])
    second.close()
    const head = ledger.views.logHead()
    ledger.rebuild()
    expect(ledger.views.logHead()).toEqual(head)
  })
})

describe('a ledger whose file is taken away', () => {
  it('promises nothing it would lose, and begins no second log in its place', async () => {
    const dir = folder()
    const path = join(dir, 'ledger.db')
    const ledger = open(path)
    await ledger.append(signed('genesis'))
    renameSync(path, join(dir, 'aside.db'))
    expect((await rejected(ledger.append(signed('policy')))).code).toBe('ledger_unavailable')
    writeFileSync(path, '')
    expect((await rejected(ledger.append(signed('policy')))).code).toBe('ledger_unavailable')
    expect(statSync(path).size).toBe(0)
    renameSync(join(dir, 'aside.db'), path)
    expect((await ledger.append(signed('policy'))).receipts[0]?.index).toBe(1)
  })
})

describe('hostile steps', () => {
  it('that hold a lone surrogate are refused alone', async () => {
    const ledger = open(join(folder(), 'ledger.db'))
    const results = await Promise.allSettled([
      ledger.append({ kind: 'task', task: sampleTask({ goal: '\ud800' }) }),
      ledger.append({ kind: 'task', task: sampleTask({ goal: 'fine' }) }),
    ])
    expect(results.map(({ status }) => status)).toEqual(['rejected', 'fulfilled'])
    expect(ledger.steps(0, 9).map(({ position }) => position)).toEqual([1])
  })

  it('with quotes, zero bytes and names of prototypes come back as they went in', async () => {
    const ledger = open(join(folder(), 'ledger.db'))
    const goal = `'); DROP TABLE steps; -- \u0000 "\\ \u202e \u{1f600}`
    const task = sampleTask({
      goal,
      owner: '__proto__',
      inputs: JSON.parse('{"__proto__": 1, "constructor": 2}') as { a: number },
    })
    const entry: Entry = { kind: 'task', task }
    await ledger.append(entry)
    expect(ledger.views.task(task.id)).toEqual(task)
    expect(ledger.views.executions({ tenant: "' OR 1=1 --" }, 9)).toEqual([])
    expect(ledger.views.tasks('acme', 9)).toHaveLength(1)
  })
})

it('does not keep the process alive, and needs no close to have written', async () => {
  const path = join(folder(), 'ledger.db')
  const root = new URL('../../', import.meta.url).href
  const program = `
    const { openSqliteLedger } = await import('${root}src/ledger/sqlite/sqlite.ts')
    const { testSigner, signed, handClock } = await import('${root}test/ledger/sample.ts')
    const ledger = openSqliteLedger({ path: ${JSON.stringify(path)}, signer: testSigner(), clock: handClock() })
    await ledger.append(signed('genesis'))`
  const child = spawn(process.execPath, ['--input-type=module', '-e', program], { stdio: 'inherit', env: {} })
  expect(await new Promise((resolve) => child.on('close', resolve))).toBe(0)
  const views = openViews(path)
  expect(views.logHead().size).toBe(1)
  views.close()
})

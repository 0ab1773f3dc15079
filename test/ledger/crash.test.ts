import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, it } from 'vitest'
import { systemClock } from '../../src/clock.ts'
import { openSqliteLedger } from '../../src/ledger/sqlite/sqlite.ts'
import { openViews } from '../../src/ledger/sqlite/views.ts'
import { createFrontier } from '../../src/receipt/tree.ts'
import { folder } from './folder.ts'
import { testSigner } from './sample.ts'

const appender = fileURLToPath(new URL('appender.ts', import.meta.url))

interface Acknowledged {
  readonly name: string
  readonly position: number
  readonly index: number
}

/** Runs the appender, kills it with SIGKILL so many milliseconds after so many promises, and returns what it was promised. */
async function killed(
  path: string,
  round: string,
  when: { readonly promises: number; readonly laterMs: number },
): Promise<readonly Acknowledged[]> {
  const child = spawn(process.execPath, [appender, path, round], { stdio: ['ignore', 'pipe', 'inherit'], env: {} })
  let said = ''
  let armed = false
  child.stdout.setEncoding('utf8')
  child.stdout.on('data', (text: string) => {
    said += text
    // The first line says that it is about to begin.
    if (armed || said.split('\n').length - 1 <= when.promises) return
    armed = true
    setTimeout(() => child.kill('SIGKILL'), when.laterMs)
  })
  const signal = await new Promise<NodeJS.Signals | null>((resolve, reject) => {
    child.on('error', reject)
    child.on('close', (_, by) => resolve(by))
  })
  expect(signal).toBe('SIGKILL')
  const lines = said.slice('ready\n'.length, said.lastIndexOf('\n') + 1).split('\n')
  return lines
    .filter((line) => line !== '')
    .map((line) => {
      const [name = '', position, index] = line.split(' ')
      return { name, position: Number(position), index: Number(index) }
    })
}

/** Whole numbers below one that is given, the same ones for the same seed. */
function openChance(seed: string): (below: number) => number {
  let drawn = 0
  return (below) => createHash('sha256').update(`${seed} ${drawn++}`).digest().readUInt32BE() % below
}

interface Audit {
  /** Batches that are there whole. */
  readonly whole: number
  readonly wrongs: readonly string[]
}

/** No gap, no half batch, nothing acknowledged missing, and the tree is that of the entries. */
function audit(path: string, promised: readonly Acknowledged[]): Audit {
  const views = openViews(path)
  const wrongs: string[] = []
  const batches = new Map<string, string[]>()
  const frontier = createFrontier()
  const receiptAt = new Map<number, string>()
  const steps = views.steps(0, 1_000_000)
  for (const [i, { position, step }] of steps.entries()) {
    if (position !== i + 1) wrongs.push(`a gap before ${position}`)
    if (step.kind === 'refused') batches.set(step.caller, [...(batches.get(step.caller) ?? []), step.code])
    if (step.kind !== 'receipt') continue
    const task = views.receipt(step.receipt.id)?.task ?? ''
    if (step.receipt.index !== frontier.size) wrongs.push(`receipt ${step.receipt.index} out of place`)
    frontier.append(step.receipt.jws)
    receiptAt.set(position, `${task} ${step.receipt.index}`)
    batches.get(task)?.push('receipt')
  }
  for (const [name, parts] of batches) {
    const count = parts.length - 1
    const expected = [...Array.from({ length: count }, (_, n) => `${n}/${count}`), 'receipt']
    if (parts.join() !== expected.join()) wrongs.push(`half a batch: ${name}`)
  }
  for (const { name, position, index } of promised)
    if (receiptAt.get(position) !== `${name} ${index}`) wrongs.push(`lost: ${name}`)
  const head = views.logHead()
  if (head.size !== frontier.size || head.root !== frontier.root().toString('base64')) wrongs.push('another tree')
  views.close()
  return { whole: batches.size, wrongs }
}

it(
  '[G-no-loss] loses nothing it acknowledged and keeps no half batch through 32 kills -9 of its process',
  { timeout: 300_000 },
  async () => {
    const totals = await Promise.all(
      ['a', 'b'].map(async (lane) => {
        const path = join(folder(), 'ledger.db')
        const promised: Acknowledged[] = []
        const chance = openChance(lane)
        for (let round = 0; round < 16; round++)
          promised.push(...(await killed(path, `${lane}${round}`, { promises: chance(12), laterMs: chance(12) })))
        const { whole, wrongs } = audit(path, promised)
        expect(wrongs).toEqual([])
        expect(whole).toBeGreaterThanOrEqual(promised.length)
        const ledger = openSqliteLedger({ path, signer: testSigner(), clock: systemClock, reserveBytes: 4096 })
        const before = ledger.views.logHead()
        ledger.rebuild()
        expect(ledger.views.logHead()).toEqual(before)
        ledger.close()
        return promised.length
      }),
    )
    expect(Math.min(...totals)).toBeGreaterThan(16)
  },
)

import { expect, it } from 'vitest'
import { digestOf } from '../../../src/digest.ts'
import { WritError } from '../../../src/error.ts'
import type { Entry } from '../../../src/ledger/ledger.ts'
import { createFrontier } from '../../../src/receipt/tree.ts'
import { effort } from '../../cost.ts'
import { account, handClock, life, signed } from '../../ledger/sample.ts'
import { codeOf } from './opened.ts'
import type { OpenLedger } from './opened.ts'

/** Steps, batches, receipts and time: what is written, and what is told of it. */
export function stepsContract(open: OpenLedger): void {
  it('numbers steps from 1 without gaps and reads them back as they were written', async () => {
    const { ledger } = open(handClock())
    const one = life()
    const appended = await ledger.append(...one.queue)
    expect(appended.position).toBe(one.queue.length)
    const steps = ledger.steps(0, 100)
    expect(steps.map((step) => step.position)).toEqual([1, 2, 3, 4, 5])
    expect(steps.map((step) => step.step).slice(0, 4)).toEqual(one.queue.slice(0, 4))
    expect(ledger.steps(3, 1).map((step) => step.position)).toEqual([4])
  })

  it('answers reads from what is committed only', async () => {
    const { ledger } = open(handClock())
    const one = life()
    const appending = ledger.append(...one.queue)
    expect(ledger.views.execution(one.execution)).toBeNull()
    expect(ledger.steps(0, 10)).toEqual([])
    await appending
    expect(ledger.views.execution(one.execution)?.state).toBe('queued')
  })

  it('[G-all-or-nothing] writes a batch whole or not at all, and a refused one harms no other of the same commit', async () => {
    const { ledger } = open(handClock())
    const [good, bad, later] = [life(), life(), life()]
    const results = await Promise.allSettled([
      ledger.append(...good.queue),
      ledger.append(...bad.queue, {
        kind: 'state',
        execution: bad.execution,
        state: 'succeeded',
        ran: true,
        reasons: [],
      }),
      ledger.append(...later.queue),
    ])
    expect(results.map((result) => result.status)).toEqual(['fulfilled', 'rejected', 'fulfilled'])
    expect(ledger.views.execution(bad.execution)).toBeNull()
    expect(ledger.views.task(bad.task.id)).toBeNull()
    expect(ledger.steps(0, 100).map((step) => step.position)).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
    expect(ledger.views.logHead().size).toBe(2)
  })

  it('signs each receipt on the head it has, so that the stored entries make the stored root', async () => {
    const { ledger } = open(handClock())
    const frontier = createFrontier()
    await Promise.all(Array.from({ length: 9 }, async () => await ledger.append(signed('policy'), signed('policy'))))
    for (const [i, row] of ledger.views.receipts(0, 100).entries()) {
      const claims = JSON.parse(Buffer.from(row.jws.split('.')[1] ?? '', 'base64url').toString()) as {
        predicate: { log: unknown }
      }
      expect(claims.predicate.log).toEqual({
        origin: ledger.views.logHead().origin,
        size: i,
        root: frontier.root().toString('base64'),
      })
      expect(row.digest).toBe(digestOf(row.jws))
      frontier.append(row.jws)
    }
    expect(ledger.views.logHead()).toMatchObject({ size: 18, root: frontier.root().toString('base64') })
  })

  it('gives an account that is a function the receipts this batch has signed before it', async () => {
    const { ledger } = open(handClock())
    const seen: number[][] = []
    const dependent: Entry = {
      kind: 'sign',
      execution: null,
      account: (written) => {
        seen.push(written.map((receipt) => receipt.index))
        return account('policy', { clear: { of: written.at(-1)?.digest ?? null } })
      },
    }
    await ledger.append(signed('genesis'))
    const { receipts } = await ledger.append(signed('policy'), dependent, dependent)
    expect(seen).toEqual([[1], [1, 2]])
    expect(receipts.map((receipt) => receipt.index)).toEqual([1, 2, 3])
  })

  it('refuses a batch whose account cannot be made, and signs the next on the unchanged head', async () => {
    const { ledger } = open(handClock())
    const failing: Entry = {
      kind: 'sign',
      execution: null,
      account: () => {
        throw new WritError('key_unavailable', 'no key')
      },
    }
    const results = await Promise.all([
      codeOf(ledger.append(signed('policy'), failing)),
      codeOf(ledger.append(signed('policy'))),
    ])
    expect(results).toEqual(['key_unavailable', 'done'])
    expect(ledger.views.receipts(0, 10).map((row) => row.index)).toEqual([0])
  })

  it('keeps disclosures beside the steps and out of them', async () => {
    const { ledger } = open(handClock())
    const { receipts } = await ledger.append(
      signed('policy', null, { salted: { image: 'secret-image' } }),
      signed('policy'),
    )
    const [first, second] = receipts
    if (first === undefined || second === undefined) throw new Error('two receipts were asked for')
    expect(first.disclosures).toHaveLength(1)
    expect(ledger.views.disclosures(first.id)).toEqual(first.disclosures)
    expect(ledger.views.disclosures(second.id)).toEqual([])
    expect(ledger.steps(0, 1).map(({ step }) => (step.kind === 'receipt' ? step.receipt.disclosures : null))).toEqual([
      [],
    ])
  })

  it('never lets its time run backwards, whatever the wall clock does', async () => {
    const clock = handClock(5_000)
    const { ledger, reopen } = open(clock)
    await ledger.append(signed('genesis'))
    clock.set(1_000)
    await ledger.append(signed('policy'))
    expect(ledger.steps(0, 9).map(({ at_ms }) => at_ms)).toEqual([5_000, 5_000])
    const again = reopen()
    await again.append(signed('policy'))
    expect(again.views.newestTimeMs()).toBe(5_000)
  })

  it('wakes watchers after each commit with the newest position, and misses nothing between two looks', async () => {
    const { ledger } = open(handClock())
    const stop = new AbortController()
    const watching = ledger.watch(stop.signal)
    await ledger.append(signed('genesis'))
    await ledger.append(signed('policy'))
    const seen: number[] = []
    for await (const position of watching) {
      seen.push(position)
      if (position === 3) break
      await ledger.append(signed('policy'))
    }
    expect(seen).toEqual([2, 3])
    const idle = ledger.watch(stop.signal)[Symbol.asyncIterator]().next()
    stop.abort()
    expect(await idle).toEqual({ done: true, value: undefined })
  })

  it('wakes a thousand watchers on one commit, and ends them all when it closes', async () => {
    const { ledger } = open(handClock())
    const never = new AbortController().signal
    const watchers = Array.from({ length: 1_000 }, () => ledger.watch(never)[Symbol.asyncIterator]())
    const first = watchers.map(async (watcher) => await watcher.next())
    await ledger.append(signed('genesis'))
    expect(new Set((await Promise.all(first)).map((result) => result.value as number))).toEqual(new Set([1]))
    const second = watchers.map(async (watcher) => await watcher.next())
    ledger.close()
    expect((await Promise.all(second)).every((result) => result.done === true)).toBe(true)
  })

  it('wakes watchers in time that grows with their number', async () => {
    const { ledger } = open(handClock())
    const waking = async (number: number): Promise<number> => {
      // Each has a signal of its own, as each caller has.
      const stops = Array.from({ length: number }, () => new AbortController())
      const watchers = stops.map(({ signal }) => ledger.watch(signal)[Symbol.asyncIterator]())
      const spent = await effort(async () => {
        const woken = watchers.map(async (watcher) => await watcher.next())
        await ledger.append(signed('policy'))
        await Promise.all(woken)
      })
      for (const stop of stops) stop.abort()
      return spent
    }
    await waking(100)
    // 16 times as many take 256 times as long where the time is quadratic.
    expect(await waking(8000)).toBeLessThan((await waking(500)) * 80)
  })

  it('writes what was queued before it closes, and nothing after', async () => {
    const { ledger, reopen } = open(handClock())
    const last = ledger.append(signed('genesis'))
    ledger.close()
    expect(await codeOf(last)).toBe('done')
    expect(await codeOf(ledger.append(signed('policy')))).toBe('ledger_unavailable')
    expect(reopen().views.logHead().size).toBe(1)
  })

  it('knows everything again after it is opened again, and goes on where it was', async () => {
    const { ledger, reopen } = open(handClock())
    const one = life()
    await ledger.append(...one.queue)
    const before = {
      head: ledger.views.logHead(),
      execution: ledger.views.execution(one.execution),
      steps: ledger.steps(0, 99),
    }
    const again = reopen()
    expect({
      head: again.views.logHead(),
      execution: again.views.execution(one.execution),
      steps: again.steps(0, 99),
    }).toEqual(before)
    const { position, receipts } = await again.append(...one.start)
    expect([position, receipts[0]?.index]).toEqual([one.queue.length + 4, 1])
  })
}

import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { openDeadlines } from '../../src/execution/deadline.ts'
import { newId } from '../../src/id.ts'

const patience = { late: 5, answer: 4, ending: 20 }
const asked: string[] = []
const gaveUp: string[] = []

function open() {
  asked.length = 0
  gaveUp.length = 0
  return openDeadlines({
    ask: (execution) => void asked.push(execution),
    giveUp: (why) => void gaveUp.push(why),
    patience,
  })
}

const seconds = async (count: number): Promise<void> => void (await vi.advanceTimersByTimeAsync(count * 1000))

describe('what the broker holds against its run host', () => {
  beforeEach(() => void vi.useFakeTimers())
  afterEach(() => void vi.useRealTimers())

  it('is nothing where runs end in time', async () => {
    const deadlines = open()
    const run = newId('exec')
    deadlines.begin(run, 10)
    await seconds(14)
    deadlines.end(run)
    await seconds(100)
    expect([asked, gaveUp]).toEqual([[], []])
    expect(vi.getTimerCount()).toBe(0)
  })

  it('is an end asked for once a run passes its wall time, and giving up where that is not heard [G-host-answers]', async () => {
    const deadlines = open()
    const run = newId('exec')
    deadlines.begin(run, 10)
    await seconds(15)
    expect(asked).toEqual([])
    await seconds(1)
    expect(asked).toEqual([run])
    await seconds(4)
    expect(gaveUp).toEqual([])
    await seconds(1)
    expect(gaveUp).toEqual(['the run host did not answer'])
    deadlines.close()
  })

  it('is giving up where a cancel is not heard within seconds [G-host-answers]', async () => {
    const deadlines = open()
    const run = newId('exec')
    deadlines.begin(run, 1000)
    deadlines.asked(run)
    await seconds(4)
    expect(gaveUp).toEqual([])
    await seconds(1)
    expect(gaveUp).toEqual(['the run host did not answer'])
    deadlines.close()
  })

  it('waits longer for an end that was heard of, and not for ever', async () => {
    const deadlines = open()
    const [slow, stuck] = [newId('exec'), newId('exec')]
    deadlines.begin(slow, 1000)
    deadlines.begin(stuck, 1000)
    for (const run of [slow, stuck]) {
      deadlines.asked(run)
      deadlines.heard(run)
    }
    await seconds(20)
    deadlines.end(slow)
    expect(gaveUp).toEqual([])
    await seconds(5)
    expect(gaveUp).toEqual(['the run host did not end a run'])
    deadlines.close()
  })

  it('is not put off by asking again', async () => {
    const deadlines = open()
    const run = newId('exec')
    deadlines.begin(run, 1000)
    for (let at = 0; at < 5; at++) {
      deadlines.asked(run)
      await seconds(1)
    }
    expect(gaveUp).toEqual(['the run host did not answer'])
    deadlines.close()
  })
})

import { describe, expect, it } from 'vitest'
import { openLine } from '../../src/mcp/line.ts'

const never = new AbortController().signal

describe('the line before a decision', () => {
  it('gives no more places than there are, each back once', async () => {
    const line = openLine(2)
    const [one, two] = [await line.enter('ada', never), await line.enter('ada', never)]
    const third = line.enter('ada', never)
    expect(line.waiting).toBe(1)
    one?.[Symbol.dispose]()
    one?.[Symbol.dispose]()
    const held = await third
    expect([held !== null, line.waiting]).toEqual([true, 0])
    const fourth = line.enter('ada', never)
    expect(line.waiting).toBe(1)
    two?.[Symbol.dispose]()
    expect(await fourth).not.toBeNull()
  })

  it('has callers take turns, so that a long line of one keeps no other waiting', async () => {
    const line = openLine(1)
    const first = await line.enter('mallory', never)
    const served: string[] = []
    const all = ['mallory', 'mallory', 'mallory', 'mallory', 'ada', 'eve'].map(async (caller) => {
      const place = await line.enter(caller, never)
      served.push(caller)
      place?.[Symbol.dispose]()
    })
    first?.[Symbol.dispose]()
    await Promise.all(all)
    expect(served).toEqual(['mallory', 'ada', 'eve', 'mallory', 'mallory', 'mallory'])
  })

  it('lets go who does not wait any more, and gives the place to the next', async () => {
    const line = openLine(1)
    const first = await line.enter('ada', never)
    const gone = new AbortController()
    const left = line.enter('ada', gone.signal)
    const next = line.enter('ada', never)
    gone.abort()
    expect([await left, line.waiting]).toEqual([null, 1])
    expect(await line.enter('ada', gone.signal)).toBeNull()
    first?.[Symbol.dispose]()
    const place = await next
    expect(place).not.toBeNull()
    place?.[Symbol.dispose]()
    // The place is free again: nobody took it along.
    expect(await line.enter('eve', never)).not.toBeNull()
  })
})

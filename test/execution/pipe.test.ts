import { Duplex } from 'node:stream'
import * as fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { openPipe } from '../../src/execution/pipe.ts'

interface Note {
  readonly n: number
}
const check = (header: unknown): Note | null =>
  typeof header === 'object' && header !== null && 'n' in header && typeof header.n === 'number'
    ? { n: header.n }
    : null

/** Two ends of one stream; what one writes the other reads, in chunks of at most `size` bytes. */
function ends(size = 65_536): readonly [Duplex, Duplex] {
  const make = (other: () => Duplex): Duplex =>
    new Duplex({
      read() {},
      write(chunk: Buffer, _encoding, done) {
        for (let at = 0; at < chunk.length; at += size) other().push(chunk.subarray(at, at + size))
        done()
      },
      final(done) {
        other().push(null)
        done()
      },
    })
  const left: Duplex = make(() => right)
  const right: Duplex = make(() => left)
  return [left, right]
}

function collect(stream: Duplex, caps = { maxHeader: 100, maxPayload: 1000 }) {
  const got: { n: number; payload: string }[] = []
  const pipe = openPipe<Note, Note>(stream, {
    check,
    ...caps,
    take: ({ n }, payload) => void got.push({ n, payload: payload.toString('latin1') }),
  })
  return { got, pipe }
}

function frame(header: string, payload = '', lengths?: readonly [number, number]): Buffer {
  const head = Buffer.alloc(8)
  head.writeUInt32BE(lengths?.[0] ?? Buffer.byteLength(header) + payload.length, 0)
  head.writeUInt32BE(lengths?.[1] ?? Buffer.byteLength(header), 4)
  return Buffer.concat([head, Buffer.from(header), Buffer.from(payload, 'latin1')])
}

describe('the pipe', () => {
  test('hands over every frame in order, however the bytes are cut', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.string({ maxLength: 60, unit: 'binary-ascii' }), { maxLength: 12 }),
        fc.integer({ min: 1, max: 40 }),
        async (payloads, size) => {
          const [left, right] = ends(size)
          const { got, pipe } = collect(right)
          const from = openPipe<Note, Note>(left, { check, maxHeader: 100, maxPayload: 1000, take: () => undefined })
          for (const [n, payload] of payloads.entries())
            expect(await from.send({ n }, Buffer.from(payload, 'latin1'))).toBe(true)
          left.end()
          expect(await pipe.closed).toBe('ended')
          expect(got).toEqual(payloads.map((payload, n) => ({ n, payload })))
        },
      ),
      { numRuns: 60 },
    )
  })

  test.each([
    ['a header over the cap', frame(JSON.stringify({ n: 1, x: 'y'.repeat(100) }))],
    ['a payload over the cap', frame('{"n":1}', 'x'.repeat(1001))],
    ['a header longer than the frame', frame('{"n":1}', '', [3, 7])],
    ['lengths of four gigabytes', frame('', '', [0xffffffff, 0xffffffff])],
    ['a header that is no JSON', frame('{"n":')],
    ['a header nobody expects', frame('{"m":1}')],
    ['an empty header', frame('')],
    ['a frame cut short', frame('{"n":1}', 'abc').subarray(0, 12)],
    ['half a length', Buffer.from([0, 0, 0])],
  ])('%s ends the connection and is not taken', async (_name, bytes) => {
    const [left, right] = ends()
    const { got, pipe } = collect(right)
    left.write(frame('{"n":0}'))
    left.write(bytes)
    left.end(frame('{"n":2}'))
    if (bytes.length < 20 && bytes.length > 0 && bytes[3] === 0) left.destroy()
    expect(await pipe.closed).toBe('malformed')
    expect(got[0]).toEqual({ n: 0, payload: '' })
    expect(got.filter(({ n }) => n === 1)).toEqual([])
    expect(right.destroyed).toBe(true)
    expect(await pipe.send({ n: 1 })).toBe(false)
  })

  test('does not read on while a frame is being taken', async () => {
    const [left, right] = ends()
    const events: string[] = []
    const pipe = openPipe<Note, Note>(right, {
      check,
      maxHeader: 100,
      maxPayload: 1000,
      async take({ n }) {
        events.push(`begin ${n}`)
        await new Promise((resolve) => setTimeout(resolve, 10))
        events.push(`end ${n}`)
      },
    })
    for (const n of [1, 2, 3]) left.write(frame(JSON.stringify({ n })))
    left.end()
    await pipe.closed
    expect(events).toEqual(['begin 1', 'end 1', 'begin 2', 'end 2', 'begin 3', 'end 3'])
  })

  test('a taker that throws ends the connection', async () => {
    const [left, right] = ends()
    const pipe = openPipe<Note, Note>(right, {
      check,
      maxHeader: 100,
      maxPayload: 1000,
      take() {
        throw new Error('no')
      },
    })
    left.write(frame('{"n":1}'))
    expect(await pipe.closed).toBe('malformed')
  })
})

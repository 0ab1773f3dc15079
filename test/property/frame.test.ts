import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { WritError } from '../../src/error.ts'
import { FrameBreach, encodeFrame, readFrames, windowBytes } from '../../src/executor/docker/frame.ts'
import type { AgentFrame } from '../../src/executor/docker/frame.ts'
import { openWire } from '../../src/executor/docker/wire.ts'
import { agentInNamespaces, jobOf, namespacesMissing } from '../executor/docker/agent.ts'
import { agentBytes, exited, prepared, ready } from '../executor/docker/sample.ts'

const connection = fc.integer({ min: 14, max: 20 })
/** Frames that are right by themselves, in any order, and some that are not. */
const piece: fc.Arbitrary<Buffer> = fc.oneof(
  fc.constantFrom(ready, prepared, exited(1), exited(2), agentBytes(0x8f, 0)),
  fc.uint8Array({ minLength: 0, maxLength: 40 }).map((bytes) => agentBytes(0x83, 1, bytes)),
  fc.integer({ min: 1, max: 65_536 }).map((size) => agentBytes(0x84, 2, Buffer.alloc(size))),
  connection.map((number) => agentBytes(0x87, number)),
  fc
    .tuple(connection, fc.integer({ min: 1, max: 65_536 }))
    .map(([number, size]) => agentBytes(0x88, number, Buffer.alloc(size))),
  fc.tuple(connection, fc.constantFrom(0x89, 0x8a)).map(([number, kind]) => agentBytes(kind, number)),
  fc.tuple(connection, fc.integer({ min: 0, max: 2 ** 32 - 1 })).map(([number, by]) => {
    const payload = Buffer.alloc(4)
    payload.writeUInt32BE(by)
    return agentBytes(0x86, number, payload)
  }),
  fc
    .tuple(fc.integer({ min: 0, max: 255 }), fc.integer({ min: 0, max: 20 }), fc.json({ maxDepth: 2 }))
    .map(([kind, channel, text]) => agentBytes(kind, channel, Buffer.from(text))),
  fc.uint8Array({ minLength: 1, maxLength: 30 }).map((bytes) => Buffer.from(bytes)),
)

/** All a reader says of bytes, cut at the given places. */
function read(
  bytes: Buffer,
  cuts: readonly number[],
): { readonly frames: readonly AgentFrame[]; readonly rule: string | null } {
  const frames: AgentFrame[] = []
  // A payload shares memory with its chunk, which nobody writes to here.
  const take = readFrames((frame) => frames.push(frame))
  const places = [...new Set(cuts.map((cut) => cut % (bytes.length + 1)))].toSorted((a, b) => a - b)
  try {
    let from = 0
    for (const to of [...places, bytes.length]) {
      take(bytes.subarray(from, to))
      from = to
    }
    return { frames, rule: null }
  } catch (error) {
    if (error instanceof FrameBreach) return { frames, rule: error.rule }
    throw error
  }
}

describe('bytes of an agent', () => {
  it('are frames or one breach, whatever they are and however they are cut', () => {
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 8 }), fc.array(fc.nat(200_000), { maxLength: 12 }), (pieces, cuts) => {
        const bytes = Buffer.concat(pieces)
        expect(read(bytes, cuts)).toEqual(read(bytes, []))
      }),
      { numRuns: 300 },
    )
  })

  it('never pass the host more than was asked for, in any order of both sides [G-agent-frames]', () => {
    const act = fc.oneof(
      { weight: 5, arbitrary: piece.map((bytes) => ({ bytes })) },
      {
        weight: 3,
        arbitrary: fc
          .oneof(
            fc.constantFrom('job', 'files_end', 'step', 'collect', 'stop'),
            fc.tuple(fc.constantFrom('window', 'data', 'end', 'reset'), connection),
          )
          .map((host) => ({ host })),
      },
    )
    fc.assert(
      fc.property(fc.boolean(), fc.array(act, { maxLength: 30 }), (begun, acts) => {
        const frames: AgentFrame[] = []
        const wire = openWire((frame) => frames.push(frame))
        let step = 0
        let granted = 0
        let broken = false
        const host = (what: string | readonly [string, number]): void => {
          const [name, at] = typeof what === 'string' ? [what, 0] : what
          if (name === 'job') wire.encode({ type: 'job', job: jobOf(['a', 'b'], { egress: true }) })
          else if (name === 'step') {
            wire.encode({ type: 'step', step: step + 1 })
            step++
          } else if (name === 'window' && wire.encode({ type: 'window', channel: at, bytes: 1000 }) !== null)
            granted += 1000
          else if (name === 'data') wire.encode({ type: 'egress_data', connection: at, bytes: Buffer.alloc(1000) })
          else if (name === 'end') wire.encode({ type: 'egress_end', connection: at })
          else if (name === 'reset') wire.encode({ type: 'egress_reset', connection: at })
          else if (name === 'files_end' || name === 'collect' || name === 'stop') wire.encode({ type: name })
        }
        const opening: readonly (typeof acts)[number][] = begun
          ? [
              { bytes: ready },
              { host: 'job' },
              { host: 'files_end' },
              { bytes: prepared },
              { host: 'step' },
              { bytes: agentBytes(0x87, 16) },
            ]
          : []
        for (const one of [...opening, ...acts]) {
          try {
            if ('bytes' in one) wire.take(one.bytes)
            else host(one.host)
          } catch (error) {
            if (error instanceof FrameBreach) broken = true
            else if (!(error instanceof WritError && error.code === 'internal')) throw error
          }
          if (broken) break
        }
        const count = (type: AgentFrame['type']): number => frames.filter((frame) => frame.type === type).length
        expect(count('ready')).toBeLessThanOrEqual(1)
        expect(count('prepared')).toBeLessThanOrEqual(1)
        expect(count('exited')).toBeLessThanOrEqual(step)
        expect(count('done')).toBeLessThanOrEqual(1)
        const opened = frames.flatMap((frame) => (frame.type === 'egress_open' ? [frame.connection] : []))
        expect(opened).toEqual(opened.map((_, index) => 16 + index))
        for (const number of opened) {
          const size = frames.reduce(
            (sum, frame) =>
              sum + (frame.type === 'egress_data' && frame.connection === number ? frame.bytes.length : 0),
            0,
          )
          expect(size).toBeLessThanOrEqual(windowBytes + granted)
        }
        for (const type of ['stdout', 'stderr'] as const) {
          const size = frames.reduce((sum, frame) => sum + (frame.type === type ? frame.bytes.length : 0), 0)
          expect(size).toBeLessThanOrEqual(windowBytes)
        }
        const last = frames.findIndex(({ type }) => type === 'failed' || type === 'done')
        if (last !== -1) expect(frames.slice(last + 1)).toEqual([])
      }),
      { numRuns: 500 },
    )
  })
})

/** Bytes that a host might send: a conversation that works, with frames left out, doubled, swapped, changed and cut. */
const hostile: fc.Arbitrary<Buffer> = fc
  .tuple(
    fc.array(
      fc.oneof(
        fc.constantFrom(
          encodeFrame({
            type: 'job',
            job: jobOf(['setsid -f sleep 1000; echo 1; sleep 1000', 'cat /dev/zero'], { egress: true, stdin: 'x' }),
          }),
          encodeFrame({ type: 'files_end' }),
          encodeFrame({ type: 'step', step: 1 }),
          encodeFrame({ type: 'step', step: 2 }),
          encodeFrame({ type: 'collect' }),
        ),
        fc
          .tuple(fc.constantFrom(1, 2, 4, 16), fc.integer({ min: 1, max: 2 ** 32 - 1 }))
          .map(([channel, bytes]) => encodeFrame({ type: 'window', channel, bytes })),
        fc.uint8Array({ minLength: 1, maxLength: 2000 }).map((bytes) => encodeFrame({ type: 'files', bytes })),
        fc
          .uint8Array({ minLength: 1, maxLength: 2000 })
          .map((bytes) => encodeFrame({ type: 'egress_data', connection: 16, bytes })),
        fc.uint8Array({ minLength: 1, maxLength: 40 }).map((bytes) => Buffer.from(bytes)),
      ),
      { maxLength: 8 },
    ),
    fc.boolean(),
    fc.array(fc.tuple(fc.nat(5000), fc.nat(255)), { maxLength: 2 }),
  )
  .map(([frames, begun, changes]) => {
    const opening = begun
      ? [
          encodeFrame({ type: 'job', job: jobOf(['setsid -f sleep 1000; echo 1; sleep 1000', 'true']) }),
          encodeFrame({ type: 'files_end' }),
          encodeFrame({ type: 'step', step: 1 }),
        ]
      : []
    const bytes = Buffer.concat([...opening, ...frames])
    const from = Buffer.concat(opening).length
    for (const [at, value] of changes) if (from + at < bytes.length) bytes.writeUInt8(value, from + at)
    return bytes
  })

describe('a real agent', () => {
  it(
    'given whatever bytes ends by itself once its input does, leaving nothing, and breaks no rule',
    { timeout: 120_000 },
    async (context) => {
      const missing = namespacesMissing()
      if (missing !== null) context.skip(missing)
      for (const bytes of fc.sample(hostile, { numRuns: 12 })) {
        const agent = await agentInNamespaces()
        try {
          agent.raw(bytes)
          agent.hangUp()
          const { code } = await agent.ended
          expect([bytes.toString('hex'), code === 0 || code === 70]).toEqual([bytes.toString('hex'), true])
          expect(agent.others()).toEqual([])
          // What it said was said by the page, though this host never followed it.
          const rule = agent.breach?.rule ?? null
          expect([null, 'order']).toContain(rule)
        } finally {
          await agent.stop()
        }
      }
    },
  )
})

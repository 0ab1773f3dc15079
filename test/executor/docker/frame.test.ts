import { describe, expect, it } from 'vitest'
import { WritError } from '../../../src/error.ts'
import { FrameBreach, encodeFrame, maxJob, readFrames, windowBytes } from '../../../src/executor/docker/frame.ts'
import type { AgentFrame, AgentJob, HostFrame, Rule } from '../../../src/executor/docker/frame.ts'
import { openWire } from '../../../src/executor/docker/wire.ts'
import { agentBytes, exited, json, prepared, ready } from './sample.ts'

const job: AgentJob = {
  env: { PATH: '/bin' },
  steps: [{ argv: ['true'] }, { argv: ['false', 'é'] }],
  stdin: null,
  egress: true,
  limits: { cpu_s: 1, wall_s: 2, artifact_bytes: 3, artifact_files: 4 },
}

function decoded(bytes: Buffer): AgentFrame[] {
  const frames: AgentFrame[] = []
  readFrames((frame) => frames.push(frame))(bytes)
  return frames
}

function ruleOf(act: () => unknown): Rule | null {
  try {
    act()
    return null
  } catch (error) {
    if (error instanceof FrameBreach) return error.rule
    throw error
  }
}

function codeOf(act: () => unknown): string | null {
  try {
    act()
    return null
  } catch (error) {
    return error instanceof WritError ? error.code : String(error)
  }
}

/** A wire with what was taken, at the point where step 1 runs. */
function running(): {
  readonly wire: ReturnType<typeof openWire>
  readonly seen: AgentFrame[]
  readonly rule: (bytes: Buffer) => Rule | null
} {
  const seen: AgentFrame[] = []
  const wire = openWire((frame) => seen.push(frame))
  wire.take(ready)
  wire.encode({ type: 'job', job })
  wire.encode({ type: 'files_end' })
  wire.take(prepared)
  wire.encode({ type: 'step', step: 1 })
  return { wire, seen, rule: (bytes) => ruleOf(() => wire.take(bytes)) }
}

const opened = (number: number): Buffer => agentBytes(0x87, number)
const data = (number: number, size: number): Buffer => agentBytes(0x88, number, Buffer.alloc(size))

describe('what the host sends', () => {
  const cases: readonly (readonly [HostFrame, string])[] = [
    [{ type: 'files', bytes: Buffer.from('ab') }, '0000000702000000006162'],
    [{ type: 'files_end' }, '000000050300000000'],
    [{ type: 'step', step: 258 }, '000000050400000102'],
    [{ type: 'window', channel: 4, bytes: 65_536 }, '00000009050000000400010000'],
    [{ type: 'egress_data', connection: 16, bytes: Buffer.from([0xff]) }, '000000060600000010ff'],
    [{ type: 'egress_end', connection: 4_294_967_295 }, '0000000507ffffffff'],
    [{ type: 'egress_reset', connection: 17 }, '000000050800000011'],
    [{ type: 'collect' }, '000000050900000000'],
    [{ type: 'stop' }, '000000050a00000000'],
  ]
  it('has exactly the bytes of the page', () => {
    for (const [frame, hex] of cases) expect(encodeFrame(frame).toString('hex')).toBe(hex)
    const bytes = encodeFrame({ type: 'job', job })
    expect(bytes.readUInt32BE(0)).toBe(bytes.length - 4)
    expect(bytes.subarray(4, 9).toString('hex')).toBe('0100000000')
    expect(JSON.parse(bytes.subarray(9).toString('utf8'))).toEqual({ protocol: 'writ-frame/1', ...job })
  })

  it('refuses a job with a text that no program can be given, or with more than the page allows', () => {
    const refused: readonly (readonly [Partial<AgentJob>, string])[] = [
      [{ env: { A: 'a\0b' } }, 'invalid_arguments'],
      [{ env: { 'A\0': '' } }, 'invalid_arguments'],
      [{ steps: [{ argv: ['a', '\ud800'] }] }, 'invalid_arguments'],
      [{ stdin: '\udfff' }, 'invalid_arguments'],
      [{ stdin: 'x'.repeat(maxJob) }, 'too_large'],
    ]
    for (const [more, code] of refused)
      expect(codeOf(() => encodeFrame({ type: 'job', job: { ...job, ...more } }))).toBe(code)
    expect(codeOf(() => encodeFrame({ type: 'job', job: { ...job, stdin: 'a\0b' } }))).toBeNull()
    for (const bytes of [Buffer.alloc(0), Buffer.alloc(65_537)])
      expect(codeOf(() => encodeFrame({ type: 'files', bytes }))).toBe('internal')
  })

  it('comes in the order of the page or not at all', () => {
    const wire = openWire(() => undefined)
    const code = (frame: HostFrame): string | null => codeOf(() => wire.encode(frame))
    expect(code({ type: 'job', job })).toBe('internal')
    wire.take(ready)
    expect([code({ type: 'files_end' }), code({ type: 'step', step: 1 }), code({ type: 'collect' })]).toEqual([
      'internal',
      'internal',
      'internal',
    ])
    expect(code({ type: 'job', job })).toBeNull()
    expect([code({ type: 'job', job }), code({ type: 'step', step: 1 })]).toEqual(['internal', 'internal'])
    expect(code({ type: 'files_end' })).toBeNull()
    expect([code({ type: 'files_end' }), code({ type: 'step', step: 1 })]).toEqual(['internal', 'internal'])
    wire.take(prepared)
    expect([code({ type: 'step', step: 2 }), code({ type: 'step', step: 0 })]).toEqual(['internal', 'internal'])
    expect(code({ type: 'step', step: 1 })).toBeNull()
    expect([code({ type: 'step', step: 2 }), code({ type: 'collect' })]).toEqual(['internal', 'internal'])
    wire.take(exited(1))
    expect(code({ type: 'step', step: 1 })).toBe('internal')
    expect(code({ type: 'step', step: 2 })).toBeNull()
    wire.take(exited(2))
    expect(code({ type: 'step', step: 3 })).toBe('internal')
    expect(code({ type: 'collect' })).toBeNull()
  })
})

describe('what an agent sends', () => {
  const whole = Buffer.concat([
    ready,
    prepared,
    agentBytes(0x83, 1, Buffer.from('out')),
    agentBytes(0x84, 2, Buffer.alloc(65_536, 1)),
    opened(16),
    agentBytes(0x86, 16, Buffer.from([0, 1, 0, 0])),
    data(16, 1),
    agentBytes(0x89, 16),
    agentBytes(0x8a, 16),
    exited(1),
    agentBytes(0x8b, 4, Buffer.from('tar')),
    json(0x8c, 0, { files: 1, bytes: 2, left_out: { links: 3, special: 4, names: 5, over_limit: 6 } }),
    json(0x8d, 0, { code: 'internal', step: 1 }),
    agentBytes(0x8f, 0),
  ])

  it('is the same frames however it is cut', () => {
    const frames = decoded(whole)
    expect(frames.map(({ type }) => type)).toEqual(
      'ready prepared stdout stderr egress_open window egress_data egress_end egress_reset exited archive archive_end failed done'.split(
        ' ',
      ),
    )
    for (const size of [1, 2, 8, 9, 10, 13, 4096]) {
      const cut: AgentFrame[] = []
      const take = readFrames((frame) => cut.push(frame))
      for (let at = 0; at < whole.length; at += size) take(whole.subarray(at, at + size))
      expect(cut).toEqual(frames)
    }
  })

  it('breaks one rule each, and is not listened to again [G-agent-frames]', () => {
    const raw = (length: number, kind: number, channel: number): Buffer => {
      const head = agentBytes(kind, channel)
      head.writeUInt32BE(length, 0)
      return head
    }
    const cases: readonly (readonly [string, Buffer, Rule])[] = [
      ['no length', raw(0, 0x83, 1), 'length'],
      ['a length without payload', raw(5, 0x83, 1), 'length'],
      ['too much data', raw(65_542, 0x83, 1), 'length'],
      ['the longest length', raw(4_294_967_295, 0x83, 1), 'length'],
      ['too much control', raw(4102, 0x81, 0), 'length'],
      ['an end with content', agentBytes(0x8f, 0, Buffer.from('x')), 'length'],
      ['a short window', agentBytes(0x86, 16, Buffer.alloc(3)), 'length'],
      ['type 0', agentBytes(0x00, 0), 'type'],
      ['a type of the host', encodeFrame({ type: 'collect' }), 'type'],
      ['a type nobody has', agentBytes(0x8e, 0), 'type'],
      ['stdout on another channel', agentBytes(0x83, 2, Buffer.from('x')), 'channel'],
      ['control on a channel', json(0x82, 1, { files: 0, bytes: 0 }), 'channel'],
      ['an archive on the control channel', agentBytes(0x8b, 0, Buffer.from('x')), 'channel'],
      ['a connection below 16', agentBytes(0x87, 15), 'channel'],
      ['step 0', json(0x85, 0, { exit: 0, signal: null, ms: 0, cpu_ms: 0, stopped: null }), 'channel'],
      ['no JSON', agentBytes(0x82, 0, Buffer.from('{x')), 'content'],
      ['no UTF-8', agentBytes(0x82, 0, Buffer.from([0x22, 0xff, 0x22])), 'content'],
      ['an array', json(0x82, 0, []), 'content'],
      ['a member missing', json(0x82, 0, { files: 0 }), 'content'],
      ['a member more', json(0x82, 0, { files: 0, bytes: 0, x: 0 }), 'content'],
      ['a member twice', agentBytes(0x82, 0, Buffer.from('{"files":0,"bytes":0,"bytes":0}')), 'content'],
      ['a member of every object', agentBytes(0x82, 0, Buffer.from('{"files":0,"bytes":0,"__proto__":{}}')), 'content'],
      ['a fraction', agentBytes(0x82, 0, Buffer.from('{"files":0.5,"bytes":0}')), 'content'],
      ['a negative count', json(0x82, 0, { files: -1, bytes: 0 }), 'content'],
      [
        'neither exit nor signal',
        json(0x85, 1, { exit: null, signal: null, ms: 0, cpu_ms: 0, stopped: null }),
        'content',
      ],
      ['exit and signal', json(0x85, 1, { exit: 0, signal: 9, ms: 0, cpu_ms: 0, stopped: null }), 'content'],
      ['another stop', json(0x85, 1, { exit: 0, signal: null, ms: 0, cpu_ms: 0, stopped: 'memory' }), 'content'],
      ['another code', json(0x8d, 0, { code: 'fine', step: null }), 'content'],
      ['another protocol', Buffer.from(ready.toString('latin1').replace('frame/1', 'frame/2'), 'latin1'), 'content'],
    ]
    for (const [what, bytes, rule] of cases) {
      const taken: AgentFrame[] = []
      const take = readFrames((frame) => taken.push(frame))
      expect([what, ruleOf(() => take(bytes))]).toEqual([what, rule])
      expect(ruleOf(() => take(prepared))).toBe(rule)
      expect(taken).toEqual([])
    }
  })

  it('comes in the order of the page or breaks it', () => {
    const first: readonly Buffer[] = [
      prepared,
      exited(1),
      opened(16),
      agentBytes(0x8f, 0),
      json(0x8d, 0, { code: 'internal', step: null }),
    ]
    for (const bytes of first) expect(ruleOf(() => openWire(() => undefined).take(bytes))).toBe('order')
    expect(running().rule(ready)).toBe('order')
    expect(running().rule(prepared)).toBe('order')
    expect(running().rule(exited(2))).toBe('order')
    expect(running().rule(agentBytes(0x8b, 4, Buffer.from('x')))).toBe('order')
    const over = running()
    expect(over.rule(exited(1))).toBeNull()
    expect(over.rule(agentBytes(0x83, 1, Buffer.from('late')))).toBe('order')
    const collected = running()
    collected.wire.take(exited(1))
    collected.wire.encode({ type: 'collect' })
    expect(collected.rule(agentBytes(0x8f, 0))).toBe('order')
    const failed = running()
    expect(failed.rule(json(0x8d, 0, { code: 'internal', step: 1 }))).toBeNull()
    expect(failed.rule(agentBytes(0x83, 1, Buffer.from('more')))).toBe('order')
  })

  it('is no more than its window lets through', () => {
    const { wire, rule } = running()
    const full = agentBytes(0x83, 1, Buffer.alloc(65_536))
    for (let sent = 0; sent < windowBytes; sent += 65_536) wire.take(full)
    wire.encode({ type: 'window', channel: 1, bytes: 1 })
    expect(rule(agentBytes(0x83, 1, Buffer.alloc(1)))).toBeNull()
    expect(rule(agentBytes(0x84, 2, Buffer.alloc(1)))).toBeNull()
    expect(rule(agentBytes(0x83, 1, Buffer.alloc(1)))).toBe('window')
  })
})

describe('connections', () => {
  it('are opened in order, sixty-four at once, and only where the job has egress', () => {
    expect(running().rule(opened(17))).toBe('order')
    const { wire, rule } = running()
    for (let number = 16; number < 80; number++) wire.take(opened(number))
    wire.encode({ type: 'egress_reset', connection: 16 })
    expect(rule(opened(80))).toBeNull()
    expect(rule(opened(81))).toBe('order')
    const closed = openWire(() => undefined)
    closed.take(ready)
    closed.encode({ type: 'job', job: { ...job, egress: false } })
    closed.encode({ type: 'files_end' })
    closed.take(prepared)
    closed.encode({ type: 'step', step: 1 })
    expect(ruleOf(() => closed.take(opened(16)))).toBe('order')
  })

  it('carry a window each way', () => {
    const { wire, rule } = running()
    wire.take(opened(16))
    expect(wire.room(16)).toBe(windowBytes)
    for (let sent = 0; sent < windowBytes; sent += 65_536)
      wire.encode({ type: 'egress_data', connection: 16, bytes: Buffer.alloc(65_536) })
    expect(wire.room(16)).toBe(0)
    expect(codeOf(() => wire.encode({ type: 'egress_data', connection: 16, bytes: Buffer.alloc(1) }))).toBe('internal')
    wire.take(agentBytes(0x86, 16, Buffer.from([0, 1, 0, 0])))
    expect(wire.room(16)).toBe(65_536)
    expect(rule(agentBytes(0x86, 16, Buffer.from([0, 4, 0, 0])))).toBe('window')
    const other = running()
    other.wire.take(opened(16))
    for (let sent = 0; sent < windowBytes; sent += 65_536) other.wire.take(data(16, 65_536))
    expect(other.rule(data(16, 1))).toBe('window')
  })

  it('are over by two ends or one reset; what crosses that is dropped on both sides', () => {
    const { wire, seen, rule } = running()
    for (let number = 16; number < 20; number++) wire.take(opened(number))
    const taken = seen.length
    wire.encode({ type: 'egress_reset', connection: 16 })
    expect([rule(data(16, 5)), rule(agentBytes(0x89, 16)), rule(agentBytes(0x8a, 16))]).toEqual([null, null, null])
    expect(seen.length).toBe(taken)
    expect(wire.encode({ type: 'egress_data', connection: 16, bytes: Buffer.alloc(1) })).toBeNull()
    expect(wire.room(16)).toBe(0)
    wire.take(agentBytes(0x89, 17))
    expect(wire.encode({ type: 'egress_data', connection: 17, bytes: Buffer.alloc(1) })).not.toBeNull()
    expect(wire.encode({ type: 'egress_end', connection: 17 })).not.toBeNull()
    expect(wire.encode({ type: 'egress_end', connection: 17 })).toBeNull()
    wire.take(agentBytes(0x89, 18))
    expect(rule(data(18, 1))).toBe('order')
    expect(running().rule(data(16, 1))).toBe('order')
  })

  it('end with their step', () => {
    const { wire, rule } = running()
    wire.take(opened(16))
    expect(rule(exited(1))).toBe('order')
    const ended = running()
    ended.wire.take(opened(16))
    ended.wire.take(agentBytes(0x8a, 16))
    expect(ended.rule(exited(1))).toBeNull()
    expect(ended.rule(data(16, 1))).toBe('order')
  })
})

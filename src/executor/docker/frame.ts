import { z } from 'zod'
import { WritError } from '../../error.ts'
import { parseIJson } from '../../json.ts'

/*
 * writ-frame/1, the host's side (native/sandbox-agent/PROTOCOL.md): the shapes of both directions, bytes of what the host
 * sends, and what an agent sent taken apart one frame at a time. What comes when is wire.ts.
 */

export const protocol = 'writ-frame/1'

/** Bytes of a data payload at most. */
export const maxData = 65_536
/** Bytes of a job at most. */
export const maxJob = 8_388_608
/** Bytes each channel begins with. */
export const windowBytes = 262_144
export const channels = { control: 0, stdout: 1, stderr: 2, archive: 4, firstConnection: 16 } as const

export interface AgentJob {
  /** All a step finds in its environment. */
  readonly env: Readonly<Record<string, string>>
  readonly steps: readonly { readonly argv: readonly string[] }[]
  /** Standard input of the first step. */
  readonly stdin: string | null
  /** Whether 127.0.0.1:3128 is there. */
  readonly egress: boolean
  readonly limits: {
    readonly cpu_s: number
    readonly wall_s: number
    readonly artifact_bytes: number
    readonly artifact_files: number
  }
}

export type HostFrame =
  | { readonly type: 'job'; readonly job: AgentJob }
  | { readonly type: 'files'; readonly bytes: Uint8Array }
  | { readonly type: 'files_end' }
  | { readonly type: 'step'; readonly step: number }
  /** Of stdout, stderr, the archive (`channels`) or a connection. */
  | { readonly type: 'window'; readonly channel: number; readonly bytes: number }
  | { readonly type: 'egress_data'; readonly connection: number; readonly bytes: Uint8Array }
  | { readonly type: 'egress_end'; readonly connection: number }
  | { readonly type: 'egress_reset'; readonly connection: number }
  | { readonly type: 'collect' }
  | { readonly type: 'stop' }

const count = z.int().min(0)
const ready = z.strictObject({
  protocol: z.literal(protocol),
  version: z.string().max(64),
  arch: z.enum(['amd64', 'arm64']),
  kernel: z.string().max(256),
  uid: count,
  no_new_privs: z.boolean(),
  seccomp: count,
  dumpable: z.boolean(),
})
const prepared = z.strictObject({ files: count, bytes: count })
const exited = z
  .strictObject({
    exit: z.int().min(0).max(255).nullable(),
    signal: z.int().min(1).max(64).nullable(),
    ms: count,
    cpu_ms: count,
    stopped: z.enum(['cpu', 'time']).nullable(),
  })
  .refine(({ exit, signal }) => (exit === null) !== (signal === null))
const archiveEnd = z.strictObject({
  files: count,
  bytes: count,
  left_out: z.strictObject({ links: count, special: count, names: count, over_limit: count }),
})
const failed = z.strictObject({
  code: z.enum(['bad_frame', 'bad_job', 'no_space', 'exec_failed', 'internal']),
  step: z.int().min(1).nullable(),
})

export type Ready = z.output<typeof ready>

export type AgentFrame =
  | ({ readonly type: 'ready' } & Ready)
  | ({ readonly type: 'prepared' } & z.output<typeof prepared>)
  | { readonly type: 'stdout' | 'stderr'; readonly bytes: Uint8Array }
  | ({ readonly type: 'exited'; readonly step: number } & z.output<typeof exited>)
  /** So many more bytes may be sent to a connection. */
  | { readonly type: 'window'; readonly connection: number; readonly bytes: number }
  | { readonly type: 'egress_open'; readonly connection: number }
  | { readonly type: 'egress_data'; readonly connection: number; readonly bytes: Uint8Array }
  | { readonly type: 'egress_end'; readonly connection: number }
  | { readonly type: 'egress_reset'; readonly connection: number }
  | { readonly type: 'archive'; readonly bytes: Uint8Array }
  | ({ readonly type: 'archive_end' } & z.output<typeof archiveEnd>)
  | ({ readonly type: 'failed' } & z.output<typeof failed>)
  | { readonly type: 'done' }

/** Which rule of the page a peer broke: whoever breaks one is not talked to again. */
export type Rule = 'length' | 'type' | 'channel' | 'content' | 'order' | 'window'

/** Thrown where an agent broke a rule. Holds nothing of what was sent. */
export class FrameBreach extends Error {
  readonly rule: Rule

  constructor(rule: Rule) {
    super(`the agent broke a rule of ${protocol}: ${rule}`)
    this.name = 'FrameBreach'
    this.rule = rule
  }
}

const headBytes = 9
const hostKinds = {
  job: 0x01,
  files: 0x02,
  files_end: 0x03,
  step: 0x04,
  window: 0x05,
  egress_data: 0x06,
  egress_end: 0x07,
  egress_reset: 0x08,
  collect: 0x09,
  stop: 0x0a,
} as const satisfies Record<HostFrame['type'], number>

/** The bytes of one frame. Rejects `too_large` for a job that is, and `internal` for what no caller may hand over. */
export function encodeFrame(frame: HostFrame): Buffer {
  const kind = hostKinds[frame.type]
  switch (frame.type) {
    case 'job':
      return encode(kind, channels.control, jobText(frame.job))
    case 'files':
      return encode(kind, channels.control, data(frame.bytes))
    case 'files_end':
    case 'collect':
    case 'stop':
      return encode(kind, channels.control, null)
    case 'step':
      return encode(kind, frame.step, null)
    case 'window':
      return encode(kind, frame.channel, size(frame.bytes))
    case 'egress_data':
      return encode(kind, frame.connection, data(frame.bytes))
    case 'egress_end':
    case 'egress_reset':
      return encode(kind, frame.connection, null)
  }
}

function encode(kind: number, channel: number, payload: Uint8Array | null): Buffer {
  const bytes = Buffer.allocUnsafe(headBytes + (payload?.length ?? 0))
  bytes.writeUInt32BE(bytes.length - 4, 0)
  bytes.writeUInt8(kind, 4)
  bytes.writeUInt32BE(channel, 5)
  if (payload !== null) bytes.set(payload, headBytes)
  return bytes
}

function data(bytes: Uint8Array): Uint8Array {
  if (bytes.length === 0 || bytes.length > maxData) throw new WritError('internal', 'a frame of no size there is')
  return bytes
}

function size(bytes: number): Buffer {
  if (bytes < 1) throw new WritError('internal', 'a window is raised by one byte or more')
  const payload = Buffer.allocUnsafe(4)
  payload.writeUInt32BE(bytes, 0)
  return payload
}

/** A text that would reach the step as another one is not sent: UTF-8 has no lone surrogate, an argument no NUL. */
function jobText(job: AgentJob): Buffer {
  const texts = [...Object.entries(job.env).flat(), ...job.steps.flatMap(({ argv }) => argv)]
  if (texts.some((text) => !text.isWellFormed() || text.includes('\0')) || !(job.stdin ?? '').isWellFormed())
    throw new WritError('invalid_arguments', 'a text holds what no program can be given: a NUL or half a character')
  const { env, steps, stdin, egress, limits } = job
  const payload = Buffer.from(
    JSON.stringify({ protocol, env, steps: steps.map(({ argv }) => ({ argv })), stdin, egress, limits }),
  )
  if (payload.length > maxJob)
    throw new WritError('too_large', 'standard input, arguments and environment are more than 8 MiB together')
  return payload
}

/** Payload bytes an agent's control frame has at most; the largest has under 400. */
const maxControl = 4096

interface Kind {
  readonly least: number
  readonly most: number
  channel(channel: number): boolean
  read(channel: number, payload: Buffer): AgentFrame
}

const control = (channel: number): boolean => channel === channels.control
const step = (channel: number): boolean => channel >= 1
const connected = (channel: number): boolean => channel >= channels.firstConnection

function said<T>(schema: z.ZodType<T>, payload: Buffer): T {
  let value: unknown
  try {
    value = parseIJson(payload, { maxBytes: maxControl, maxDepth: 4, allowFraction: false, refuseProto: true })
  } catch (error) {
    if (error instanceof WritError) throw new FrameBreach('content')
    throw error
  }
  const checked = schema.safeParse(value)
  if (!checked.success) throw new FrameBreach('content')
  return checked.data
}

const text = { least: 2, most: maxControl }
const bulk = { least: 1, most: maxData }
const nothing = { least: 0, most: 0 }

const agentKinds: ReadonlyMap<number, Kind> = new Map<number, Kind>([
  [0x81, { ...text, channel: control, read: (_, payload) => ({ type: 'ready', ...said(ready, payload) }) }],
  [0x82, { ...text, channel: control, read: (_, payload) => ({ type: 'prepared', ...said(prepared, payload) }) }],
  [
    0x83,
    { ...bulk, channel: (at) => at === channels.stdout, read: (_, payload) => ({ type: 'stdout', bytes: payload }) },
  ],
  [
    0x84,
    { ...bulk, channel: (at) => at === channels.stderr, read: (_, payload) => ({ type: 'stderr', bytes: payload }) },
  ],
  [0x85, { ...text, channel: step, read: (at, payload) => ({ type: 'exited', step: at, ...said(exited, payload) }) }],
  [
    0x86,
    {
      least: 4,
      most: 4,
      channel: connected,
      read: (connection, payload) => ({ type: 'window', connection, bytes: payload.readUInt32BE(0) }),
    },
  ],
  [0x87, { ...nothing, channel: connected, read: (connection) => ({ type: 'egress_open', connection }) }],
  [
    0x88,
    {
      ...bulk,
      channel: connected,
      read: (connection, payload) => ({ type: 'egress_data', connection, bytes: payload }),
    },
  ],
  [0x89, { ...nothing, channel: connected, read: (connection) => ({ type: 'egress_end', connection }) }],
  [0x8a, { ...nothing, channel: connected, read: (connection) => ({ type: 'egress_reset', connection }) }],
  [
    0x8b,
    { ...bulk, channel: (at) => at === channels.archive, read: (_, payload) => ({ type: 'archive', bytes: payload }) },
  ],
  [0x8c, { ...text, channel: control, read: (_, payload) => ({ type: 'archive_end', ...said(archiveEnd, payload) }) }],
  [0x8d, { ...text, channel: control, read: (_, payload) => ({ type: 'failed', ...said(failed, payload) }) }],
  [0x8f, { ...nothing, channel: control, read: () => ({ type: 'done' }) }],
])

/**
 * Takes an agent's bytes as they come, cut anywhere, and hands on each frame once it is whole. Checks length, type, channel
 * and content; throws `FrameBreach` for the first that is wrong, and from then on for every call. Data payloads may share
 * memory with the chunk they came in. Never holds more than one frame.
 */
export function readFrames(take: (frame: AgentFrame) => void): (chunk: Buffer) => void {
  const head = Buffer.alloc(headBytes)
  let begun: Buffer | null = null
  let filled = 0
  let broken: FrameBreach | null = null
  const all = (chunk: Buffer): void => {
    let at = 0
    while (at < chunk.length) {
      if (begun === null) {
        const here = chunk.subarray(at)
        const size = filled === 0 && here.length >= headBytes ? sizeOf(here) : Number.POSITIVE_INFINITY
        if (size <= here.length) {
          at += size
          take(read(here.subarray(0, size)))
          continue
        }
        const copied = here.copy(head, filled, 0, headBytes - filled)
        at += copied
        filled += copied
        if (filled < headBytes) return
        begun = Buffer.allocUnsafe(sizeOf(head))
        head.copy(begun)
      } else {
        const copied = chunk.copy(begun, filled, at)
        at += copied
        filled += copied
      }
      if (filled === begun.length) {
        const whole = begun
        begun = null
        filled = 0
        take(read(whole))
      }
    }
  }
  return (chunk) => {
    if (broken !== null) throw broken
    try {
      all(chunk)
    } catch (error) {
      if (error instanceof FrameBreach) broken = error
      throw error
    }
  }
}

/** Bytes of the frame whose head this begins with; a head that is wrong is refused before a byte of its payload is kept. */
function sizeOf(head: Buffer): number {
  const length = head.readUInt32BE(0)
  const kind = agentKinds.get(head.readUInt8(4))
  if (kind === undefined) throw new FrameBreach('type')
  if (length < 5 + kind.least || length > 5 + kind.most) throw new FrameBreach('length')
  if (!kind.channel(head.readUInt32BE(5))) throw new FrameBreach('channel')
  return 4 + length
}

function read(frame: Buffer): AgentFrame {
  const kind = agentKinds.get(frame.readUInt8(4))
  if (kind === undefined) throw new FrameBreach('type')
  return kind.read(frame.readUInt32BE(5), frame.subarray(headBytes))
}

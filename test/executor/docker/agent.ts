import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readdirSync, readlinkSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Writable } from 'node:stream'
import { setTimeout as pause } from 'node:timers/promises'
import { agentFor } from '../../../src/executor/docker/binary.ts'
import type { Architecture } from '../../../src/executor/docker/binary.ts'
import { FrameBreach } from '../../../src/executor/docker/frame.ts'
import type { AgentFrame, AgentJob, HostFrame } from '../../../src/executor/docker/frame.ts'
import { openWire } from '../../../src/executor/docker/wire.ts'
import { until } from '../../wait.ts'

export const architecture: Architecture = process.arch === 'arm64' ? 'arm64' : 'amd64'

type Of<T extends AgentFrame['type']> = Extract<AgentFrame, { readonly type: T }>

/** A real agent with nothing but this test on its other end. */
export interface Agent {
  /** All that came and broke no rule. */
  readonly frames: readonly AgentFrame[]
  /** What broke one. */
  readonly breach: FrameBreach | null
  /** The first frame of that type that was not asked for before; rejects when the agent ended without. */
  next<T extends AgentFrame['type']>(type: T): Promise<Of<T>>
  send(frame: HostFrame): void
  /** Whatever bytes, past every rule. */
  raw(bytes: Uint8Array): void
  /** Ends what the agent hears, as a host that died does. */
  hangUp(): void
  text(stream: 'stdout' | 'stderr'): string
  /** Bytes that may be sent to a connection now. */
  room(connection: number): number
  /** Raises the window of a stream by what came, unless told not to. */
  readonly flow: { on: boolean }
  /** How the agent ended. */
  readonly ended: Promise<{ readonly code: number | null }>
  /** Processes there are beside the agent; of a container, of which only its own pages tell, none can be counted. */
  others(): readonly number[]
  /** Kilobytes the agent holds. */
  memory(): number
  readonly pid: number
  stop(): Promise<void>
}

const shell = { PATH: '/usr/local/bin:/usr/bin:/bin', HOME: '/work/home', LANG: 'C.UTF-8', WRIT_OUT: '/out' }

/** A job of shell scripts, one a step. */
export function jobOf(scripts: readonly string[], more: Partial<AgentJob> = {}): AgentJob {
  return {
    env: shell,
    steps: scripts.map((script) => ({ argv: ['sh', '-c', script] })),
    stdin: null,
    egress: false,
    limits: { cpu_s: 20, wall_s: 60, artifact_bytes: 1_000_000, artifact_files: 100 },
    ...more,
  }
}

/** Sends a job without files, or with an archive of them, and waits until it is prepared. */
export async function prepare(agent: Agent, job: AgentJob, files: Uint8Array = Buffer.alloc(0)): Promise<void> {
  agent.send({ type: 'job', job })
  for (let at = 0; at < files.length; at += 65_536)
    agent.send({ type: 'files', bytes: files.subarray(at, at + 65_536) })
  agent.send({ type: 'files_end' })
  await agent.next('prepared')
}

export async function run(agent: Agent, step: number): Promise<Of<'exited'>> {
  agent.send({ type: 'step', step })
  return await agent.next('exited')
}

/** The archive of the outputs, and what was said of it. */
export async function collect(agent: Agent): Promise<{ readonly archive: Buffer; readonly end: Of<'archive_end'> }> {
  agent.send({ type: 'collect' })
  const end = await agent.next('archive_end')
  await agent.next('done')
  return { archive: Buffer.concat(agent.frames.flatMap((f) => (f.type === 'archive' ? [f.bytes] : []))), end }
}

/** Why no agent can be started in namespaces here, or null. */
export function namespacesMissing(): string | null {
  const how = 'run the tests as root on Linux, with util-linux (unshare, setpriv) and perl'
  if (process.platform !== 'linux' || process.getuid?.() !== 0) return `namespaces of our own need root: ${how}`
  const tried = spawnSync('unshare', [
    '--mount',
    '--pid',
    '--net',
    '--fork',
    'sh',
    '-c',
    'command -v setpriv && command -v perl',
  ])
  return tried.status === 0 ? null : `namespaces cannot be made: ${how}`
}

/** The conversation with an agent, whatever carries it. */
export function converse(input: Writable, ended: Promise<{ readonly code: number | null }>) {
  const frames: AgentFrame[] = []
  const asked = new Map<string, number>()
  /** Whoever waits for a frame that has not come: all of them are woken to look again. */
  const waiting: (() => void)[] = []
  const wake = (): void => {
    for (const look of waiting.splice(0)) look()
  }
  let over = false
  let breach: FrameBreach | null = null
  const flow = { on: true }
  const send = (frame: HostFrame): void => {
    const bytes = wire.encode(frame)
    if (bytes !== null) input.write(bytes)
  }
  input.on('error', () => undefined)
  const wire = openWire((frame) => {
    frames.push(
      frame.type === 'stdout' || frame.type === 'stderr' || frame.type === 'archive' || frame.type === 'egress_data'
        ? { ...frame, bytes: Buffer.from(frame.bytes) }
        : frame,
    )
    if (flow.on && frame.type === 'stdout') send({ type: 'window', channel: 1, bytes: frame.bytes.length })
    if (flow.on && frame.type === 'stderr') send({ type: 'window', channel: 2, bytes: frame.bytes.length })
    if (flow.on && frame.type === 'archive') send({ type: 'window', channel: 4, bytes: frame.bytes.length })
    if (flow.on && frame.type === 'egress_data')
      send({ type: 'window', channel: frame.connection, bytes: frame.bytes.length })
    wake()
  })
  const take = (chunk: Buffer): void => {
    try {
      wire.take(chunk)
    } catch (error) {
      if (!(error instanceof FrameBreach)) throw error
      breach = error
      wake()
    }
  }
  void ended.then(() => {
    over = true
    wake()
  })
  return {
    take,
    frames,
    flow,
    get breach() {
      return breach
    },
    send,
    room: (connection: number) => wire.room(connection),
    async next<T extends AgentFrame['type']>(type: T): Promise<Of<T>> {
      const at = asked.get(type) ?? 0
      asked.set(type, at + 1)
      for (;;) {
        const found = frames.filter((frame): frame is Of<T> => frame.type === type)[at]
        if (found !== undefined) return found
        if (breach !== null) throw new Error(breach.message)
        if (over) throw new Error(`the agent ended before it said ${type}: ${JSON.stringify(frames.slice(-3))}`)
        await new Promise<void>((resolve) => waiting.push(resolve))
      }
    },
    raw: (bytes: Uint8Array) => void input.write(bytes),
    hangUp: () => void input.end(),
    text: (stream: 'stdout' | 'stderr') =>
      Buffer.concat(frames.flatMap((frame) => (frame.type === stream ? [frame.bytes] : []))).toString('utf8'),
  }
}

function processesIn(namespace: string): readonly number[] {
  return readdirSync('/proc').flatMap((name) => {
    try {
      return /^\d+$/.test(name) && readlinkSync(`/proc/${name}/ns/pid`) === namespace ? [Number(name)] : []
    } catch {
      return []
    }
  })
}

/** An agent as first process of namespaces made for it; says `ready` before it resolves. */
export async function agentInNamespaces(): Promise<Agent> {
  const folder = mkdtempSync(join(tmpdir(), 'writ-agent-'))
  const binary = join(folder, 'agent')
  const root = mkdtempSync(join(folder, 'root-'))
  writeFileSync(binary, agentFor(architecture).bytes, { mode: 0o755 })
  const child = spawn('sh', [join(import.meta.dirname, 'box.sh'), binary, root], { stdio: ['pipe', 'pipe', 'inherit'] })
  const ended = once(child, 'exit').then(([code]) => ({ code: code as number | null }))
  const talk = converse(child.stdin, ended)
  child.stdout.on('data', talk.take)
  try {
    await talk.next('ready')
  } catch (error) {
    child.kill('SIGKILL')
    await ended
    rmSync(folder, { recursive: true, force: true })
    throw error
  }
  // `unshare` forked it: the only child of the process we started.
  const first = children(child.pid ?? 0)[0] ?? 0
  const namespace = readlinkSync(`/proc/${String(first)}/ns/pid`)
  return Object.assign(talk, {
    ended,
    pid: first,
    others: () => processesIn(namespace).filter((pid) => pid !== first),
    memory: () => {
      const status = spawnSync('cat', [`/proc/${String(first)}/status`], { encoding: 'utf8' }).stdout
      return Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1] ?? 0)
    },
    async stop() {
      // Hearing the end of its input it ends by itself; killed from outside, namespaces take a second longer to go.
      child.stdin.destroy()
      await Promise.race([ended, pause(2000)])
      child.kill('SIGKILL')
      await ended
      await until('no process of the agent is left', () => processesIn(namespace).length === 0)
      rmSync(folder, { recursive: true, force: true })
    },
  })
}

function children(parent: number): readonly number[] {
  return spawnSync('cat', [`/proc/${String(parent)}/task/${String(parent)}/children`], { encoding: 'utf8' })
    .stdout.trim()
    .split(' ')
    .filter((text) => text !== '')
    .map(Number)
}

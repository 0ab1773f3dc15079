import { spawn } from 'node:child_process'
import { closeSync, fstatSync, openSync, readFileSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { dirname } from 'node:path'
import { systemCode, WritError } from './error.ts'
import { withoutCore } from './execution/child.ts'
import { checkSocket, makeFolders } from './folder.ts'
import { siblingModule } from './module.ts'

/** What starting a broker needs to know; found without reading the whole configuration. */
export interface StartOptions {
  readonly configFile: string
  readonly socket: string
  readonly logFile: string
  readonly env: NodeJS.ProcessEnv
  /** Milliseconds to wait for a broker to answer; 20,000 unless told. */
  readonly withinMs?: number
}

/** The exit status of a broker that found another one holding the data folder. */
export const heldExit = 3

/** How a broker that was started here ended, or null while it lives. */
type Ended = 'by itself' | 'lock held' | 'killed' | null

/** Milliseconds before another broker is started after one found the folder held: its holder may just be coming up. */
const heldPauseMs = 1000
const killedPauseMs = 50

/**
 * A connection to the broker of this configuration, which is started detached where none answers, so that it outlives
 * every client. Two clients may do this at once: one of the two brokers gets the lock, and both clients reach that one.
 * A broker that was killed while it came up, or found the lock of one that then died, is followed by another.
 * Rejects `broker_unreachable` with the reason the broker gave in its log.
 */
export async function connectOrStart(options: StartOptions): Promise<Socket> {
  const running = await tryConnect(options.socket)
  if (running !== null) return running
  const until = performance.now() + (options.withinMs ?? 20_000)
  while (performance.now() < until) {
    const broker = launch(options)
    let pausedFor = 0
    while (performance.now() < until) {
      await new Promise((resolve) => setTimeout(resolve, 15))
      const socket = await tryConnect(options.socket)
      if (socket !== null) return socket
      const how = broker.ended()
      if (how === 'by itself')
        throw new WritError('broker_unreachable', `The broker did not start: ${broker.complaint()}`)
      if (how !== null && (pausedFor += 15) >= (how === 'killed' ? killedPauseMs : heldPauseMs)) break
    }
  }
  throw new WritError('broker_unreachable', 'The broker did not answer in time.')
}

function launch(options: StartOptions): { ended(): Ended; complaint(): string } {
  const log = openLog(options.logFile)
  const before = fstatSync(log).size
  const { command, args } = withoutCore(process.execPath, [
    '--disable-proto=delete',
    '--disable-sigusr1',
    siblingModule(import.meta.url, './main'),
    'serve',
    '--detached',
    '--config',
    options.configFile,
  ])
  const child = spawn(command, args, { detached: true, stdio: ['ignore', log, log], env: options.env })
  closeSync(log)
  let ended: Ended = null
  child.on('exit', (code) => (ended = code === null ? 'killed' : code === heldExit ? 'lock held' : 'by itself'))
  child.on('error', () => (ended = 'by itself'))
  child.unref()
  return { ended: () => ended, complaint: () => lastComplaint(options.logFile, before) }
}

function openLog(file: string): number {
  try {
    makeFolders(dirname(file), 0o700)
    return openSync(file, 'a', 0o600)
  } catch (cause) {
    const code = systemCode(cause) ?? 'unknown'
    throw new WritError('broker_unreachable', `The broker cannot be started: its log cannot be written (${code}).`, {
      remedy: 'See that the data folder named in writ.yaml is on a disk with room and belongs to this user.',
      cause,
    })
  }
}

async function tryConnect(path: string): Promise<Socket | null> {
  checkSocket(path)
  return await new Promise((resolve) => {
    const socket = connect(path)
    socket.once('connect', () => {
      socket.removeAllListeners('error')
      resolve(socket)
    })
    socket.once('error', () => {
      socket.destroy()
      resolve(null)
    })
  })
}

/** Why a broker gave up, from what the log holds after its first `from` bytes: its record, else what it said in plain words. */
function lastComplaint(logFile: string, from: number): string {
  const lines = readFileSync(logFile).subarray(from).toString('utf8').split('\n')
  for (const line of lines.toReversed()) {
    const message = messageOf(line)
    if (message !== null) return message
  }
  return (
    (lines.find((line) => line.startsWith('writ: ')) ?? lines[0] ?? '').replace(/^writ: /, '').slice(0, 500) ||
    'see its log'
  )
}

/** The error of a record that tells of one, or null. */
function messageOf(line: string): string | null {
  try {
    const record = JSON.parse(line) as { readonly err?: { readonly message?: string } } | null
    return record?.err?.message ?? null
  } catch {
    return null
  }
}

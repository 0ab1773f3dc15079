import { spawn, spawnSync } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { mkdtempSync, readFileSync, readdirSync, rmSync, statSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { loadConfig } from '../src/config.ts'
import { folderOf } from '../src/folder.ts'

export const root = join(import.meta.dirname, '..')

/** Which Writ is measured: the compiled one that the package holds, or the sources as a clone runs them. */
export type From = 'dist' | 'src'

export function entryOf(from: From): string {
  return join(root, from, from === 'dist' ? 'main.js' : 'main.ts')
}

/** Makes `dist` where it is older than the sources, as publishing does. */
export function build(): void {
  const sources = readdirSync(join(root, 'src'), { recursive: true, encoding: 'utf8' }).filter((name) =>
    name.endsWith('.ts'),
  )
  const newest = Math.max(...sources.map((name) => statSync(join(root, 'src', name)).mtimeMs))
  if ((statSync(entryOf('dist'), { throwIfNoEntry: false })?.mtimeMs ?? 0) > newest) return
  const done = spawnSync(process.execPath, [join(root, 'tools', 'build.mjs')], { encoding: 'utf8' })
  if (done.status !== 0) throw new Error(`the build failed: ${done.stdout}${done.stderr}`)
}

/** For a broker whose folder is not made here: as `World.env`. */
export const environment = { PATH: process.env['PATH'] ?? '', HOME: tmpdir() }

/** A folder as `writ init` makes it, in which brokers may be started. */
export interface World {
  readonly folder: string
  readonly config: string
  readonly socket: string
  /** What a broker that a person started would find in its environment, and nothing else of ours. */
  readonly env: Readonly<Record<string, string>>
  /** `writ serve`; resolves at the first MCP message that it answers, with the milliseconds since the process was made and those it was on a CPU. */
  serve(from: From): Promise<{ readonly broker: ChildProcess; readonly ms: number; readonly cpuMs: number }>
  close(): void
}

export function makeWorld(): World {
  const folder = mkdtempSync(join(tmpdir(), 'writ-bench-'))
  const env = { PATH: process.env['PATH'] ?? '', HOME: folder }
  const made = spawnSync(process.execPath, [entryOf('dist'), 'init', folder], { env, encoding: 'utf8' })
  if (made.status !== 0) throw new Error(`writ init failed: ${made.stdout}${made.stderr}`)
  const config = join(folder, 'writ.yaml')
  const socket = folderOf(loadConfig(config).data).mcpSocket
  return {
    folder,
    config,
    socket,
    env,
    async serve(from) {
      const began = performance.now()
      const broker = spawn(
        process.execPath,
        ['--disable-proto=delete', entryOf(from), 'serve', '--listen', 'none', '--config', config],
        {
          env,
          stdio: ['ignore', 'ignore', 'pipe'],
        },
      )
      let complaint = ''
      broker.stderr.setEncoding('utf8').on('data', (text: string) => (complaint = (complaint + text).slice(-4000)))
      while (!(await answers(socket))) {
        if (broker.exitCode !== null || performance.now() - began > 30_000)
          throw new Error(`the broker did not start: ${complaint}`)
        await new Promise((resolve) => setTimeout(resolve, 2))
      }
      return { broker, ms: performance.now() - began, cpuMs: cpuOf(broker.pid ?? 0) }
    },
    close: () => rmSync(folder, { recursive: true, force: true }),
  }
}

const discover = {
  jsonrpc: '2.0',
  id: 1,
  method: 'tools/list',
  params: {
    _meta: {
      'io.modelcontextprotocol/protocolVersion': '2026-07-28',
      'io.modelcontextprotocol/clientCapabilities': {},
    },
  },
}

/** True once a call on the broker's socket was decided by policy and answered with the tools. */
async function answers(path: string): Promise<boolean> {
  return await new Promise((resolve) => {
    const socket = connect(path)
    let text = ''
    socket.setEncoding('utf8')
    socket.once('connect', () => void socket.write(`${JSON.stringify(discover)}\n`))
    socket.on('data', (piece: string) => {
      text += piece
      if (text.includes('\n')) socket.destroy()
    })
    socket.once('error', () => socket.destroy())
    socket.once('close', () => resolve(text.includes('start_execution')))
  })
}

export async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const gone = new Promise((resolve) => child.once('exit', resolve))
  child.kill('SIGTERM')
  await gone
}

/** Milliseconds all threads of a process were on a CPU; 0 where the kernel does not tell. */
function cpuOf(pid: number): number {
  try {
    const tasks = readdirSync(`/proc/${String(pid)}/task`)
    return (
      tasks.reduce(
        (sum, task) => sum + Number(readFileSync(`/proc/${String(pid)}/task/${task}/schedstat`, 'utf8').split(' ')[0]),
        0,
      ) / 1e6
    )
  } catch {
    return 0
  }
}

/** The process and all that descend from it. */
export function family(pid: number): readonly number[] {
  const children = readdirSync(`/proc/${String(pid)}/task`).flatMap((task) =>
    readFileSync(`/proc/${String(pid)}/task/${task}/children`, 'utf8')
      .split(' ')
      .filter((text) => text !== '')
      .map(Number),
  )
  return [pid, ...children.flatMap(family)]
}

import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { JsonObject } from '../../../src/digest.ts'
import { folderOf } from '../../../src/folder.ts'
import { undecided } from '../clients/driver.ts'

const bin = join(import.meta.dirname, '..', '..', '..', 'bin', 'writ')

export interface Memory {
  /** Bytes of objects and of buffers beside them. */
  readonly heap: number
  readonly rss: number
}

/** A Writ of its own that serves both transports. */
export interface Place {
  readonly folder: string
  readonly url: string
  readonly socket: string
  token(subject: string): string
  receipts(): readonly { readonly kind: string; readonly execution: string | null }[]
  /** Whether the process that was started still is the one that serves. */
  alive(): boolean
  /** Bytes the broker holds after everything that nothing holds was collected, and its resident memory then. */
  memory(): Promise<Memory>
  /** What the broker wrote down as an error of its own, other than that it had no time to decide. */
  errors(): readonly string[]
  close(): Promise<void>
}

export async function openPlace(): Promise<Place> {
  const folder = mkdtempSync(join(tmpdir(), 'writ-fuzz-'))
  const env = { PATH: process.env['PATH'] ?? '', HOME: folder }
  const writ = (...args: readonly string[]): string => {
    const ran = spawnSync(process.execPath, [bin, ...args], { cwd: folder, env, encoding: 'utf8', maxBuffer: 2 ** 28 })
    if (ran.status !== 0) throw new Error(`writ ${args.join(' ')}: ${ran.stderr}`)
    return ran.stdout
  }
  writ('init')
  const child: ChildProcess = spawn(
    process.execPath,
    [
      '--import',
      join(import.meta.dirname, 'processes', 'heap.ts'),
      bin,
      'serve',
      '--listen',
      '127.0.0.1:0',
      '--config',
      join(folder, 'writ.yaml'),
    ],
    { cwd: folder, env, stdio: ['ignore', 'ignore', 'pipe'] },
  )
  const serving = Promise.withResolvers<string>()
  const errors: string[] = []
  let measured = Promise.withResolvers<Memory>()
  let rest = ''
  child.stderr?.setEncoding('utf8').on('data', (piece: string) => {
    const lines = (rest + piece).split('\n')
    rest = lines.pop() ?? ''
    for (const line of lines) {
      if (line.startsWith('{"heap":')) {
        measured.resolve(JSON.parse(line) as Memory)
        continue
      }
      if (line.includes('"serving MCP over HTTP"')) serving.resolve(String((JSON.parse(line) as JsonObject)['address']))
      // What is no JSON was written by no logger: a warning of the runtime, a stack.
      if (!line.startsWith('{') || (/^\{"level":[56]0/.test(line) && !line.includes(undecided)))
        errors.push(line.slice(0, 500))
    }
  })
  const ended = once(child, 'exit')
  void ended.then(() => serving.reject(new Error(`writ serve ended: ${rest}${errors.join('\n')}`)))
  const url = await serving.promise
  return {
    folder,
    url,
    socket: folderOf(join(folder, '.writ')).mcpSocket,
    token: (subject) => {
      const made = writ('token', 'create', '--subject', subject, '--role', 'developer', '--json')
      return (JSON.parse(made) as { readonly token: string }).token
    },
    receipts: () => {
      const all = writ('receipts', 'list', '--json', '--limit', '1000000')
      return (JSON.parse(all) as { readonly receipts: ReturnType<Place['receipts']> }).receipts
    },
    alive: () => child.exitCode === null && child.signalCode === null,
    async memory() {
      measured = Promise.withResolvers<Memory>()
      child.kill('SIGUSR2')
      return await Promise.race([measured.promise, ended.then(() => ({ heap: Number.NaN, rss: Number.NaN }))])
    },
    errors: () => errors,
    async close() {
      child.kill('SIGTERM')
      await ended
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { appendFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll } from 'vitest'
import type { JsonObject } from '../../src/digest.ts'
import { undecided } from '../e2e/clients/driver.ts'
import { makeWorld, type World, writBin } from '../e2e/world.ts'

const heap = join(import.meta.dirname, '..', 'e2e', 'fuzz', 'processes', 'heap.ts')

/** A world whose broker serves HTTP in a process of its own, as `writ serve` does. */
export interface HttpWorld {
  readonly world: World
  /** Origin of the address it listens on. */
  readonly url: string
  readonly pid: number
  /** A new token of Writ, as the operator hands one out. */
  token(subject: string, roles?: readonly string[]): string
  /** Bytes the broker holds after everything that nothing holds was collected; it is opened with `measured`. */
  held(): Promise<number>
  /** A figure of the broker, as whoever watches it reads it. */
  metric(name: string): Promise<number>
  /** What the broker wrote down as an error, other than that it had no time to decide. */
  errors(): readonly JsonObject[]
  /** SIGTERM, as systemd sends it; resolves with the exit status. */
  stop(): Promise<number | null>
  close(): Promise<void>
}

export async function openHttpWorld(
  options: { readonly http?: string; readonly listen?: string; readonly measured?: boolean } = {},
): Promise<HttpWorld> {
  const world = makeWorld()
  if (options.http !== undefined) appendFileSync(join(world.folder, 'writ.yaml'), `\nhttp:\n${options.http}\n`)
  const child: ChildProcess = spawn(
    process.execPath,
    [
      ...(options.measured === true ? ['--import', heap] : []),
      writBin,
      'serve',
      '--listen',
      options.listen ?? '127.0.0.1:0',
      '--config',
      join(world.folder, 'writ.yaml'),
    ],
    { env: world.env, stdio: ['ignore', 'ignore', 'pipe'] },
  )
  const lines: JsonObject[] = []
  let rest = ''
  let measured = Promise.withResolvers<number>()
  const serving = Promise.withResolvers<string>()
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    const parts = (rest + text).split('\n')
    rest = parts.pop() ?? ''
    for (const part of parts) {
      let line: JsonObject
      try {
        line = JSON.parse(part) as JsonObject
      } catch {
        line = { msg: part }
      }
      if (typeof line['heap'] === 'number') {
        measured.resolve(line['heap'])
        continue
      }
      lines.push(line)
      if (line['msg'] === 'serving MCP over HTTP') serving.resolve(String(line['address']))
    }
  })
  const ended = once(child, 'exit') as Promise<[number | null]>
  void ended.then(() => serving.reject(new Error(`writ serve ended: ${rest}${JSON.stringify(lines.slice(-3))}`)))
  const url = await serving.promise
  return {
    world,
    url,
    pid: pidOf(child),
    token(subject, roles = ['developer']) {
      const ran = world.writ([
        'token',
        'create',
        '--subject',
        subject,
        ...roles.flatMap((role) => ['--role', role]),
        '--json',
      ])
      if (ran.code !== 0) throw new Error(ran.err)
      return (JSON.parse(ran.out) as { readonly token: string }).token
    },
    async held() {
      measured = Promise.withResolvers()
      child.kill('SIGUSR2')
      return await Promise.race([measured.promise, ended.then(() => Number.NaN)])
    },
    async metric(name) {
      const text = await (await fetch(`${url}/metrics`)).text()
      return Number(new RegExp(`^${name} (\\S+)$`, 'm').exec(text)?.[1])
    },
    errors: () => lines.filter((line) => Number(line['level']) >= 50 && !JSON.stringify(line).includes(undecided)),
    async stop() {
      child.kill('SIGTERM')
      return (await ended)[0]
    },
    async close() {
      if (child.exitCode === null && child.signalCode === null) {
        child.kill('SIGTERM')
        await ended
      }
      await world.close()
    },
  }
}

function pidOf({ pid }: ChildProcess): number {
  if (pid === undefined) throw new Error('it was not started')
  return pid
}

/** One that is taken down after the file's tests, however they end. */
export async function useHttpWorld(options: Parameters<typeof openHttpWorld>[0] = {}): Promise<HttpWorld> {
  const opened = await openHttpWorld(options)
  afterAll(async () => await opened.close())
  return opened
}

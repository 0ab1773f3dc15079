import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { appendFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll } from 'vitest'
import type { JsonObject } from '../../src/digest.ts'
import { makeWorld, type World, writBin } from '../e2e/world.ts'

/** A world whose broker serves HTTP in a process of its own, as `writ serve` does. */
export interface HttpWorld {
  readonly world: World
  /** Origin of the address it listens on. */
  readonly url: string
  readonly pid: number
  /** A new token of Writ, as the operator hands one out. */
  token(subject: string, roles?: readonly string[]): string
  /** What the broker wrote to its log, line by line. */
  log(): readonly JsonObject[]
  /** SIGTERM, as systemd sends it; resolves with the exit status. */
  stop(): Promise<number | null>
  close(): Promise<void>
}

export async function openHttpWorld(
  options: { readonly http?: string; readonly listen?: string } = {},
): Promise<HttpWorld> {
  const world = makeWorld()
  if (options.http !== undefined) appendFileSync(join(world.folder, 'writ.yaml'), `\nhttp:\n${options.http}\n`)
  const child: ChildProcess = spawn(
    process.execPath,
    [writBin, 'serve', '--listen', options.listen ?? '127.0.0.1:0', '--config', join(world.folder, 'writ.yaml')],
    { env: world.env, stdio: ['ignore', 'ignore', 'pipe'] },
  )
  const lines: JsonObject[] = []
  let rest = ''
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
    pid: child.pid ?? 0,
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
    log: () => lines,
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

/** One that is taken down after the file's tests, however they end. */
export async function useHttpWorld(options: Parameters<typeof openHttpWorld>[0] = {}): Promise<HttpWorld> {
  const opened = await openHttpWorld(options)
  afterAll(async () => await opened.close())
  return opened
}

import { execFile } from 'node:child_process'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { describe, expect, it } from 'vitest'
import type { JsonObject } from '../../src/digest.ts'
import { writBin } from '../e2e/world.ts'
import { openProxy } from './proxy.ts'
import { useHttpWorld } from './world.ts'

const http = await useHttpWorld()
const token = http.token('carol')
const require = createRequire(import.meta.url)

/** Runs a program of a package with this Node; its exit status and all it printed. */
async function run(file: string, args: readonly string[]): Promise<{ readonly code: number; readonly out: string }> {
  return await new Promise((resolve) => {
    const child = execFile(
      process.execPath,
      [file, ...args],
      { cwd: http.world.folder, env: http.world.env, maxBuffer: 16 * 1024 * 1024, timeout: 80_000 },
      (error, out, err) => resolve({ code: error === null ? 0 : (child.exitCode ?? 1), out: `${out}${err}` }),
    )
  })
}

describe('@modelcontextprotocol/conformance', () => {
  const program = join(dirname(require.resolve('@modelcontextprotocol/conformance/package.json')), 'dist', 'index.js')
  it.each(['server-initialize', 'ping', 'tools-list', 'resources-list', 'dns-rebinding-protection'])(
    'finds nothing wrong in its scenario %s',
    async (scenario) => {
      const proxy = await openProxy(http.url, token)
      const { code, out } = await run(program, ['server', '--url', `${proxy}/mcp`, '--scenario', scenario])
      expect(out).toMatch(/Passed: (\d+)\/\1, 0 failed, 0 warnings/)
      expect(code).toBe(0)
    },
    90_000,
  )
})

describe('@modelcontextprotocol/inspector --cli', () => {
  const { world } = http
  world.enrol()
  const program = join(
    dirname(require.resolve('@modelcontextprotocol/inspector/package.json')),
    'clients',
    'launcher',
    'build',
    'index.js',
  )
  const overHttp = [
    '--transport',
    'http',
    '--server-url',
    `${http.url}/mcp`,
    '--header',
    `Authorization: Bearer ${token}`,
  ]
  // Its own --config is another thing: the folder it is started in says which.
  const overStdio = [process.execPath, writBin, 'mcp']
  const inspect = async (where: readonly string[], ...args: readonly string[]): Promise<JsonObject> => {
    let { code, out } = await run(program, ['--cli', ...where, ...args])
    // A busy machine has no time to decide now and then; the remedy is to ask again.
    if (out.includes('Policy did not answer in time.'))
      ({ code, out } = await run(program, ['--cli', ...where, ...args]))
    expect([code, out.slice(0, 400)]).toEqual([0, out.slice(0, 400)])
    return JSON.parse(out.slice(out.indexOf('{'))) as JsonObject
  }

  it.each([
    ['HTTP', overHttp],
    ['stdio', overStdio],
  ])(
    'walks the whole path over %s, a process a call: task, files, start, approval by a person, result, receipt verified',
    async (name, where) => {
      const listed = await inspect(where, '--method', 'tools/list')
      expect((listed['tools'] as readonly JsonObject[]).length).toBe(8)
      const call = async (tool: string, args: JsonObject): Promise<JsonObject> => {
        const pairs = Object.entries(args).flatMap(([key, value]) => [
          '--tool-arg',
          `${key}=${typeof value === 'string' ? value : JSON.stringify(value)}`,
        ])
        const answer = await inspect(where, '--method', 'tools/call', '--tool-name', tool, ...pairs)
        return answer['structuredContent'] as JsonObject
      }
      const submitted = await call('submit_task', {
        project_name: 'inspector',
        goal: `Print a line over ${name}`,
        target_ref: 'production',
        execution_intent: 'run_script',
        inputs: { script: 'p.js' },
      })
      const task_id = String(submitted['task_id'])
      const content = `console.log('a line over ${name}')`
      expect(await call('upload_artifact', { task_id, files: [{ path: 'p.js', content }] })).toMatchObject({
        state: 'ready',
      })
      const started = await call('start_execution', { task_id })
      expect(started).toMatchObject({ state: 'awaiting_approval' })
      const id = String(started['execution_id'])
      const approval = started['approval'] as JsonObject
      expect(world.approve(String(approval['approval_id']))).toMatchObject({ code: 0 })
      let status: JsonObject = {}
      for (let tries = 0; tries < 10 && status['final'] !== true; tries++)
        status = await call('get_status', { execution_id: id, wait_ms: 10_000 })
      const result = await call('get_result', { execution_id: id })
      expect(result).toMatchObject({ state: 'succeeded', tail: `a line over ${name}\n` })
      const { uri } = result['receipt'] as { readonly uri: string }
      const read = await inspect(where, '--method', 'resources/read', '--uri', uri)
      const [receipt] = read['contents'] as readonly { readonly text: string }[]
      expect(world.writ(['verify', '-'], { input: receipt?.text ?? '' }).out).toContain('VALID:SIGNED')
    },
    300_000,
  )
})

import { execFile } from 'node:child_process'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { describe, expect, it } from 'vitest'
import type { JsonObject } from '../../src/digest.ts'
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
      { cwd: http.world.folder, env: http.world.env, maxBuffer: 16 * 1024 * 1024, timeout: 25_000 },
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
  )
})

describe('@modelcontextprotocol/inspector --cli over HTTP', () => {
  const program = join(
    dirname(require.resolve('@modelcontextprotocol/inspector/package.json')),
    'clients',
    'launcher',
    'build',
    'index.js',
  )
  const inspect = async (...args: readonly string[]): Promise<JsonObject> => {
    const { code, out } = await run(program, [
      '--cli',
      '--transport',
      'http',
      '--server-url',
      `${http.url}/mcp`,
      '--header',
      `Authorization: Bearer ${token}`,
      ...args,
    ])
    expect([code, out.slice(0, 400)]).toEqual([0, out.slice(0, 400)])
    return JSON.parse(out.slice(out.indexOf('{'))) as JsonObject
  }

  it('lists the tools and calls one', async () => {
    const listed = await inspect('--method', 'tools/list')
    expect((listed['tools'] as readonly JsonObject[]).map((tool) => tool['name'])).toContain('start_execution')
    const called = await inspect('--method', 'tools/call', '--tool-name', 'list_targets')
    expect(called['structuredContent']).toMatchObject({
      targets: [{ target_ref: 'sandbox' }, { target_ref: 'production' }],
    })
  })
})

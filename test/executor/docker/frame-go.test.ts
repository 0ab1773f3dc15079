import { spawn, spawnSync } from 'node:child_process'
import { resolve } from 'node:path'
import { describe, expect, it } from 'vitest'
import type { TestContext } from 'vitest'

const native = resolve(import.meta.dirname, '../../../native')

/** Exit code and output of a go command in native/. Building for the first time takes most of it. */
async function go(context: TestContext, ...args: readonly string[]): Promise<readonly [number | null, string]> {
  if (spawnSync('go', ['version']).status !== 0)
    context.skip('go is missing; it is needed only to build and test native/: native/go.mod names the version')
  if (process.platform !== 'linux') context.skip('the agent is for Linux, and so are its tests')
  const child = spawn('go', args, { cwd: native, stdio: ['ignore', 'pipe', 'pipe'] })
  let text = ''
  child.stdout.on('data', (chunk: Buffer) => (text += chunk.toString()))
  child.stderr.on('data', (chunk: Buffer) => (text += chunk.toString()))
  const code = await new Promise<number | null>((done) => child.on('close', done))
  return [code, text]
}

describe('the source of the agent', () => {
  it('passes its own tests', { timeout: 300_000 }, async (context) => {
    const [code, text] = await go(context, 'test', './sandbox-agent')
    expect([code, text]).toEqual([0, expect.stringContaining('ok')])
  })

  for (const name of ['FuzzReadFrame', 'FuzzParseJob'])
    it(`withstands what ${name} invents`, { timeout: 600_000 }, async (context) => {
      const args = ['test', '-run', 'NONE', '-fuzz', `^${name}$`, '-fuzztime', '3s', './sandbox-agent']
      const [code, text] = await go(context, ...args)
      expect([code, text]).toEqual([0, expect.stringContaining('PASS')])
    })
})

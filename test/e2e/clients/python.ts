import { spawn } from 'node:child_process'
import type { ChildProcessByStdio } from 'node:child_process'
import { existsSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import type { Readable, Writable } from 'node:stream'
import { fileURLToPath } from 'node:url'
import type { JsonObject } from '../../../src/digest.ts'
import { outcomeOf, resourceOf, textOf, toolOf } from './driver.ts'
import type { Driver } from './driver.ts'

const interpreter = join(
  process.env['XDG_CACHE_HOME'] ?? join(homedir(), '.cache'),
  'writ',
  'python-mcp-2.3.0',
  'bin',
  'python',
)
const script = fileURLToPath(new URL('python_client.py', import.meta.url))

/** Why the Python client cannot be driven on this machine, as a sentence for a skipped test; null where it can. */
export function pythonMissing(): string | null {
  return existsSync(interpreter)
    ? null
    : "Python's mcp client is not installed here; sh test/e2e/clients/python-setup.sh installs it"
}

/** PyPI's `mcp` 2.x, in a Python process of its own: `auto` asks for 2026-07-28 first, `legacy` shakes hands as in 2025. */
export function python(mode: 'auto' | 'legacy'): Driver {
  let child: ChildProcessByStdio<Writable, Readable, null> | null = null
  let answers: AsyncIterator<string> | null = null
  let version: string | null = null
  let instructions = ''

  const ask = async (command: object): Promise<JsonObject> => {
    if (child === null || answers === null) throw new Error('not connected')
    child.stdin.write(`${JSON.stringify(command)}\n`)
    const next = await answers.next()
    if (next.done === true) throw new Error('the Python client ended')
    const reply = JSON.parse(next.value) as { readonly ok?: JsonObject; readonly error?: string }
    if (reply.ok === undefined) throw new Error(reply.error)
    return reply.ok
  }
  const listOf = (value: unknown): readonly JsonObject[] => (Array.isArray(value) ? value : [])

  return {
    name: `Python mcp 2 (${mode})`,
    connect: async (command, args, env = {}) => {
      child = spawn(interpreter, [script], { stdio: ['pipe', 'pipe', 'inherit'] })
      answers = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
      await ask({ command, args, env, mode })
      const session = await ask({ do: 'version' })
      version = textOf(session['version'])
      instructions = textOf(session['instructions'])
    },
    negotiatedVersion: () => version,
    instructions: () => instructions,
    listTools: async () => listOf((await ask({ do: 'list' }))['tools']).map(toolOf),
    call: async (tool, args) => outcomeOf(await ask({ do: 'call', tool, arguments: args })),
    readResource: async (uri) => resourceOf(listOf((await ask({ do: 'read', uri }))['contents'])),
    close: async () => {
      const process = child
      if (process === null) return
      const ended = new Promise<void>((resolve) => process.once('exit', () => resolve()))
      process.stdin.end()
      await ended
    },
  }
}

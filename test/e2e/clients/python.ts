import { existsSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { HttpClient } from '../../http/clients.ts'
import { outcomeOf, patient, resourceOf, textOf, toolOf } from './driver.ts'
import type { Driver } from './driver.ts'
import { type ForeignClient, listOf, startForeign } from './lines.ts'

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
  let client: ForeignClient | null = null
  let version: string | null = null
  let instructions = ''
  const ask: ForeignClient['ask'] = async (command) => {
    if (client === null) throw new Error('not connected')
    return await client.ask(command)
  }
  return {
    name: `Python mcp 2 (${mode})`,
    connect: async (command, args, env = {}) => {
      client = startForeign('Python', interpreter, [script])
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
    close: async () => await client?.close(),
  }
}

/** The same over Streamable HTTP. */
export async function pythonHttp(
  mode: 'auto' | 'legacy',
  where: { readonly url: string; readonly token: string },
): Promise<HttpClient> {
  const client = startForeign('Python', interpreter, [script])
  try {
    await client.ask({ url: `${where.url}/mcp`, token: where.token, mode })
  } catch (refused) {
    await client.close()
    throw refused
  }
  const session = await client.ask({ do: 'version' })
  return patient({
    version: () => textOf(session['version']),
    listTools: async () => listOf((await client.ask({ do: 'list' }))['tools']).map((tool) => textOf(tool['name'])),
    call: async (tool, args) => outcomeOf(await client.ask({ do: 'call', tool, arguments: args })),
    readResource: async (uri) => resourceOf(listOf((await client.ask({ do: 'read', uri }))['contents'])),
    close: () => client.close(),
  })
}

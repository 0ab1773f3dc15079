import { createHash } from 'node:crypto'
import { existsSync, readFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'
import type { HttpClient } from '../../http/clients.ts'
import { outcomeOf, patient, resourceOf, textOf } from './driver.ts'
import { listOf, startForeign } from './lines.ts'

const source = join(import.meta.dirname, 'go')
const key = createHash('sha256')
  .update(readFileSync(join(source, 'main.go')))
  .update(readFileSync(join(source, 'go.sum')))
  .digest('hex')
  .slice(0, 12)
const program = join(
  process.env['XDG_CACHE_HOME'] ?? join(homedir(), '.cache'),
  'writ',
  `go-mcp-1.8.0-${key}`,
  'goclient',
)

/** Why the Go client cannot be driven on this machine, as a sentence for a skipped test; null where it can. */
export function goMissing(): string | null {
  return existsSync(program)
    ? null
    : "Go's mcp client is not built here; sh test/e2e/clients/go-setup.sh builds it where Go 1.25 or newer is installed"
}

type Where =
  | { readonly url: string; readonly token: string }
  | { readonly command: string; readonly args: readonly string[]; readonly env: Readonly<Record<string, string>> }

/** `github.com/modelcontextprotocol/go-sdk`, over HTTP or over the stdio of a command. */
export async function go(where: Where): Promise<HttpClient> {
  const client = startForeign('Go', program, [])
  try {
    await client.ask('url' in where ? { ...where, url: `${where.url}/mcp` } : where)
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

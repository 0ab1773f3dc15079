import { Client } from '@modelcontextprotocol/client'
import { StdioClientTransport } from '@modelcontextprotocol/client/stdio'
import type { JsonObject } from '../../../src/digest.ts'
import { outcomeOf, resourceOf, toolOf } from './driver.ts'
import type { Driver } from './driver.ts'

/** `@modelcontextprotocol/client` 2.x: `auto` asks for 2026-07-28 first, `legacy` is its default, a 2025 handshake. */
export function client2(mode: 'auto' | 'legacy'): Driver {
  const client = new Client(
    { name: 'client2', version: '2' },
    mode === 'auto' ? { versionNegotiation: { mode: 'auto' } } : {},
  )
  return {
    name: `@modelcontextprotocol/client 2 (${mode})`,
    connect: (command, args, env = {}) =>
      client.connect(new StdioClientTransport({ command, args: [...args], env: { ...env }, stderr: 'inherit' })),
    negotiatedVersion: () => client.getNegotiatedProtocolVersion() ?? null,
    instructions: () => client.getInstructions() ?? '',
    listTools: async () => (await client.listTools()).tools.map((tool) => toolOf(tool as unknown as JsonObject)),
    call: async (name, args, options = {}) => {
      const { signal, progress } = options
      const result = await client.callTool(
        { name, arguments: { ...args } },
        {
          timeout: 60_000,
          ...(signal === undefined ? {} : { signal }),
          ...(progress === undefined ? {} : { onprogress: (it) => progress(it.message ?? '') }),
        },
      )
      return outcomeOf(result as unknown as JsonObject)
    },
    readResource: async (uri) =>
      resourceOf((await client.readResource({ uri })).contents as unknown as readonly JsonObject[]),
    close: () => client.close(),
  }
}

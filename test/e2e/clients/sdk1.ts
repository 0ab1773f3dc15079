import { Client } from '@modelcontextprotocol/sdk/client/index.js'
import { StdioClientTransport } from '@modelcontextprotocol/sdk/client/stdio.js'
import type { JsonObject } from '../../../src/digest.ts'
import { outcomeOf, resourceOf, toolOf } from './driver.ts'
import type { Driver } from './driver.ts'

/** `@modelcontextprotocol/sdk` 1.x, the older official client; it checks `structuredContent` even beside `isError`. */
export function sdk1(): Driver {
  const client = new Client({ name: 'sdk1', version: '1' })
  let version: string | null = null
  return {
    name: '@modelcontextprotocol/sdk 1',
    connect: async (command, args, env = {}) => {
      const transport = new StdioClientTransport({ command, args: [...args], env: { ...env }, stderr: 'inherit' })
      const negotiated = Object.assign(transport, { setProtocolVersion: (text: string) => void (version = text) })
      await client.connect(negotiated)
    },
    negotiatedVersion: () => version,
    instructions: () => client.getInstructions() ?? '',
    listTools: async () => (await client.listTools()).tools.map((tool) => toolOf(tool as unknown as JsonObject)),
    call: async (name, args, options = {}) => {
      const { signal, progress } = options
      const result = await client.callTool({ name, arguments: { ...args } }, undefined, {
        timeout: 60_000,
        ...(signal === undefined ? {} : { signal }),
        ...(progress === undefined ? {} : { onprogress: (it) => progress(it.message ?? '') }),
      })
      return outcomeOf(result as unknown as JsonObject)
    },
    readResource: async (uri) =>
      resourceOf((await client.readResource({ uri })).contents as unknown as readonly JsonObject[]),
    close: () => client.close(),
  }
}

import { serve } from '@hono/node-server'
import { createMcpHandler, McpServer } from '@modelcontextprotocol/server'
import * as z from 'zod'

/** The least an MCP server over HTTP can be: one tool that gives back what it got. Prints its port. */
const handler = createMcpHandler(() => {
  const server = new McpServer({ name: 'echo', version: '1' })
  server.registerTool(
    'echo',
    { description: 'Gives back its text', inputSchema: z.object({ text: z.string() }) },
    ({ text }) => ({
      content: [{ type: 'text', text }],
    }),
  )
  return server
})
serve({ fetch: (request) => handler.fetch(request), hostname: '127.0.0.1', port: 0 }, ({ port }) => console.log(port))

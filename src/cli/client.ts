import { Client, ProtocolError } from '@modelcontextprotocol/client'
import { StdioClientTransport } from '@modelcontextprotocol/client/stdio'
import { visibleLine } from '../approval/visible.ts'
import { findConfig, loadConfig } from '../config.ts'
import type { JsonObject } from '../digest.ts'
import { WritError } from '../error.ts'
import type { Results } from '../execution/result.ts'
import { siblingModule } from '../module.ts'
import type { ToolName } from '../request/call.ts'
import { type Context, faultOf } from './context.ts'
import { type RemoteOptions, remoteOf } from './remote.ts'

/** The tools of a Writ, here or elsewhere, as any MCP client has them. */
export interface ToolClient extends AsyncDisposable {
  /** What went wrong inside a tool stands in the result; what kept the call from it is thrown as a `WritError`. */
  call<T extends ToolName>(tool: T, args: JsonObject): Promise<Results[T]>
}

/** Longer than any wait of a tool. */
const callMs = 120_000

/** A client like any other: it speaks MCP to `writ mcp`, or over HTTP to a Writ elsewhere, and may do nothing that an agent may not. */
export async function openClient(context: Context, options: RemoteOptions): Promise<ToolClient> {
  const remote = remoteOf(context, options)
  const client = new Client({ name: 'writ-run', version: context.version }, { versionNegotiation: { mode: 'auto' } })
  const explained = async <T>(asked: Promise<T>): Promise<T> => {
    try {
      return await asked
    } catch (failure) {
      throw failure instanceof WritError
        ? failure
        : failure instanceof ProtocolError
          ? refusalOf(failure)
          : (remote?.explain(failure) ?? endedBy(failure))
    }
  }
  const close = async (): Promise<void> => await client.close()
  try {
    await explained(client.connect(remote?.transport ?? nearby(context)))
  } catch (failure) {
    await close()
    throw failure
  }
  return {
    async call<T extends ToolName>(tool: T, args: JsonObject): Promise<Results[T]> {
      const result = await explained(client.callTool({ name: tool, arguments: args }, { timeout: callMs }))
      const structured: unknown = result.structuredContent ?? {}
      return structured as Results[T]
    },
    [Symbol.asyncDispose]: close,
  }
}

function nearby(context: Context): StdioClientTransport {
  const config = findConfig({ flag: context.configFlag, env: context.env, cwd: context.cwd })
  if (config === null) throw new WritError('no_config', 'There is no writ.yaml here or in a folder above.')
  // Said here: a client of a process that could not start hears only that it ended.
  loadConfig(config)
  const env = Object.fromEntries(
    Object.entries(context.env).filter((entry): entry is [string, string] => entry[1] !== undefined),
  )
  const main = siblingModule(import.meta.url, '../main')
  return new StdioClientTransport({
    command: process.execPath,
    args: [main, 'mcp', '--config', config],
    env,
    cwd: context.cwd,
    stderr: 'inherit',
  })
}

/** A message refused outside of a tool's result: its text is Writ's own and made for callers. */
function refusalOf(failure: ProtocolError): WritError {
  const { code, message, remedy } = (failure.data ?? {}) as { code?: unknown; message?: unknown; remedy?: unknown }
  if (typeof code !== 'string' || typeof message !== 'string')
    return new WritError('denied', visibleLine(failure.message), { cause: failure })
  return faultOf({ code, message, remedy: typeof remedy === 'string' ? remedy : '' })
}

/** The relay ended, or did not answer. */
function endedBy(failure: unknown): WritError {
  const why = visibleLine(failure instanceof Error ? failure.message : 'unknown').slice(0, 200)
  return new WritError('broker_unreachable', `The conversation with the broker ended: ${why}.`, {
    remedy: 'What was started runs on: "writ executions list" shows it. "writ doctor" says what is wrong here.',
    cause: failure,
  })
}

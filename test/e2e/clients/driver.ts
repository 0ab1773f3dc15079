import type { Json, JsonObject } from '../../../src/digest.ts'

/** What a client that nobody here wrote makes of a tool's result. */
export interface CallOutcome {
  readonly text: string
  readonly structured: JsonObject
  readonly isError: boolean
  readonly meta: JsonObject
}

export interface ToolSeen {
  readonly name: string
  readonly description: string
  readonly inputSchema: JsonObject
  readonly outputSchema: JsonObject | null
}

/** One real MCP client, driven the same way whichever it is. Errors of the protocol reject with the client's own error. */
export interface Driver {
  readonly name: string
  /** Starts the command as the client would and opens the session over its stdio. */
  connect(command: string, args: readonly string[], env?: Readonly<Record<string, string>>): Promise<void>
  negotiatedVersion(): string | null
  instructions(): string
  listTools(): Promise<readonly ToolSeen[]>
  call(
    tool: string,
    args: JsonObject,
    options?: { readonly signal?: AbortSignal; readonly progress?: (text: string) => void },
  ): Promise<CallOutcome>
  readResource(uri: string): Promise<{ readonly text: string | null; readonly base64: string | null }>
  close(): Promise<void>
}

/** Reads a result as any of the clients hands it out. */
export function outcomeOf(result: JsonObject): CallOutcome {
  const content = result['content']
  const texts = Array.isArray(content)
    ? content.map((block: JsonObject) => block['text']).filter((text) => typeof text === 'string')
    : []
  return {
    text: texts.join('\n'),
    structured: (result['structuredContent'] ?? {}) as JsonObject,
    isError: result['isError'] === true,
    meta: (result['_meta'] ?? {}) as JsonObject,
  }
}

/** Whether policy said no for want of time. Nothing was done then, and its remedy is to make the same call again. */
function missedDeadline({ error, state, reasons }: JsonObject): boolean {
  const code = (reason: Json | undefined): unknown => (reason as JsonObject | undefined)?.['code']
  const first = Array.isArray(reasons) ? (reasons as readonly Json[])[0] : undefined
  return (
    code(error) === 'deadline' ||
    code(error) === 'policy_unavailable' ||
    (state === 'denied' && code(first) === 'deadline')
  )
}

/** What a broker writes to its log where it had no time for that. */
export const undecided = 'whether a target may be seen could not be decided'

/** Makes a call again that a busy machine had no time to decide, a few times. */
export async function decided<T>(call: () => Promise<T>, structured: (answer: T) => JsonObject): Promise<T> {
  for (let tries = 1; ; tries++) {
    const answer = await call()
    if (tries === 5 || !missedDeadline(structured(answer))) return answer
  }
}

/** The same client, on a machine that may be too busy for policy's deadline. */
export function patient<C extends Pick<Driver, 'call'>>(client: C): C {
  const call: Driver['call'] = async (...asked) =>
    await decided(
      async () => await client.call(...asked),
      (answer) => answer.structured,
    )
  return { ...client, call }
}

export function textOf(value: Json | undefined): string {
  return typeof value === 'string' ? value : ''
}

export function toolOf(tool: JsonObject): ToolSeen {
  return {
    name: textOf(tool['name']),
    description: textOf(tool['description']),
    inputSchema: (tool['inputSchema'] ?? {}) as JsonObject,
    outputSchema: (tool['outputSchema'] ?? null) as JsonObject | null,
  }
}

export function resourceOf(contents: readonly JsonObject[]): {
  readonly text: string | null
  readonly base64: string | null
} {
  const first = contents[0] ?? {}
  return {
    text: typeof first['text'] === 'string' ? first['text'] : null,
    base64: typeof first['blob'] === 'string' ? first['blob'] : null,
  }
}

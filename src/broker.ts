import type { JsonObject } from './digest.ts'
import type { Results } from './execution/result.ts'
import type { Reason } from './policy/policy.ts'
import type { Arguments, ToolName } from './request/call.ts'
import type { Caller } from './request/caller.ts'

/** A call that may wait: `signal` ends the wait (never the execution), `progress` is called while waiting. */
export interface Waiting {
  readonly signal: AbortSignal
  progress(text: string): void
}

/** One message as classified at the edge: an MCP method, or a tool name for `tools/call`. */
export interface Message {
  readonly name: string
  readonly arguments: JsonObject
}

export type Admission = { readonly allowed: true } | { readonly allowed: false; readonly reason: Reason }

export interface Resource {
  readonly uri: string
  readonly mime: string
  readonly text?: string
  readonly base64?: string
}

/** What the edges may ask of the broker. No method rejects: what went wrong stands in the result's `error`. */
export interface Broker {
  /** Phase `request` of the policy, for every message before the SDK sees it. */
  admit(caller: Caller, message: Message): Promise<Admission>
  call<T extends ToolName>(caller: Caller, tool: T, args: Arguments[T], waiting: Waiting): Promise<Results[T]>
  /** `writ://receipts/…` and `writ://artifacts/…`; null for unknown and forbidden alike. */
  readResource(caller: Caller, uri: string): Promise<Resource | null>
  listResources(
    caller: Caller,
  ): Promise<readonly { readonly uri: string; readonly name: string; readonly mime: string }[]>
}

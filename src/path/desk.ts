import type { Digest } from '../digest.ts'
import type { WritError } from '../error.ts'
import type { Execution, OutputFile } from '../execution/execution.ts'
import type { Results } from '../execution/result.ts'
import type { UploadIn } from '../request/call.ts'
import type { Caller } from '../request/caller.ts'
import type { Task } from '../request/task.ts'
import type { Body } from './bytes.ts'
import type { Ticket } from './ticket.ts'

export interface Given {
  readonly url: string
  /** RFC 3339. */
  readonly expires_at: string
}

export interface Progress {
  readonly offset: number
  readonly size: number
}

export interface Download {
  readonly path: string
  readonly size: number
  readonly sha256: Digest
}

/** One-time URLs for files too large for a message (docs/transfers.md), and what keeps their disk in bounds. */
export interface TransferDesk {
  /** Rejects `invalid_file`, `too_large`, `quota_exceeded`, `no_space`. */
  issueUpload(caller: Caller, task: Task, upload: UploadIn): Promise<Given>
  /** Null where the tenant has no room for another ticket: the file can be read in pieces all the same. */
  issueDownload(caller: Caller, execution: Execution, file: OutputFile): Promise<Given | null>
  /** What a token is for; throws for one that lives no more. */
  kindOf(token: string): Ticket['kind']
  /** Decides the request and says how many bytes arrived so far, and are to come in all. */
  progress(token: string): Promise<Progress>
  /** Takes a body. `result` is there once the file is whole and part of its task; then the ticket is used. */
  receive(token: string, body: Body): Promise<Progress & { readonly result: Results['upload_artifact'] | null }>
  /** Decides the request and says what would come. */
  describe(token: string): Promise<Download>
  /**
   * The bytes `from` to `to`, both included; the last of them come only after the whole file was hashed again.
   * @param ended called where they end before: the generator itself says so only when it is asked for more
   */
  send(token: string, from: number, to: number, ended: (why: WritError) => void): AsyncGenerator<Uint8Array>
  /** Removes artifacts that are nobody's, stored before the moment or, without one, before any request of now. */
  sweep(beforeMs?: number): Promise<number>
  tick(): Promise<void>
  close(): Promise<void>
  readonly live: number
}

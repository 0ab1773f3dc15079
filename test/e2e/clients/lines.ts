import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import type { JsonObject } from '../../../src/digest.ts'

/** A client in another language, in a process of its own: one JSON command a line, one JSON answer a line. */
export interface ForeignClient {
  /** Rejects with the client's own words. */
  ask(command: object): Promise<JsonObject>
  close(): Promise<void>
}

export function startForeign(name: string, command: string, args: readonly string[]): ForeignClient {
  const child = spawn(command, [...args], { stdio: ['pipe', 'pipe', 'inherit'] })
  const ended = once(child, 'exit')
  // A command may still be on its way when the client has ended; its answer says so.
  child.stdin.on('error', () => undefined)
  const answers = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  return {
    async ask(asked) {
      child.stdin.write(`${JSON.stringify(asked)}\n`)
      const next = await answers.next()
      if (next.done === true) throw new Error(`the ${name} client ended`)
      const reply = JSON.parse(next.value) as { readonly ok?: JsonObject; readonly error?: string }
      if (reply.ok === undefined) throw new Error(reply.error)
      return reply.ok
    },
    async close() {
      child.stdin.end()
      await ended
    },
  }
}

export function listOf(value: unknown): readonly JsonObject[] {
  return Array.isArray(value) ? value : []
}

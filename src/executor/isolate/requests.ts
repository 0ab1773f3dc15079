import { fetchLimits } from './wire.ts'
import type { FromWorker } from './wire.ts'

type Pair = readonly [string, string]
interface Asked {
  readonly method: string
  readonly url: string
  readonly headers: readonly Pair[]
  readonly body: Uint8Array
}
type Deliver = (of: number, header: string, body: Uint8Array) => void

/**
 * The requests of a worker on their way to the run host, at most so many together; the rest wait for their turn. Each has
 * a number of its own on the pipe, so that no step is given what another asked for.
 */
export function openRequests(send: (frame: FromWorker, body?: Uint8Array) => void) {
  /** The step's number by the one on the pipe; null where nobody waits for the answer any more. */
  const sent = new Map<number, number | null>()
  const waiting = new Map<number, Asked>()
  let last = 0
  let deliver: Deliver = () => undefined

  function next(): void {
    for (const [of, { body, ...asked }] of waiting) {
      if (sent.size >= fetchLimits.together) return
      waiting.delete(of)
      sent.set(++last, of)
      send({ t: 'fetch', id: last, ...asked }, body)
    }
  }
  function forget(id: number): void {
    sent.set(id, null)
    send({ t: 'unfetch', id })
  }

  return {
    /** Whether the run host has still something to answer. */
    get pending(): boolean {
      return sent.size > 0
    },
    /** A step begins, and is told what it asks for; what one before it asked for is nobody's now. */
    begin: (to: Deliver): void => {
      waiting.clear()
      for (const [id, of] of sent) if (of !== null) forget(id)
      deliver = to
    },
    fetch: (of: number, method: string, url: string, headers: readonly Pair[], body: Uint8Array): void => {
      waiting.set(of, { method, url, headers, body })
      next()
    },
    unfetch: (of: number): void => {
      if (waiting.delete(of)) return
      for (const [id, known] of sent) if (known === of) forget(id)
    },
    answered: (id: number, header: string, body: Uint8Array): void => {
      const of = sent.get(id) ?? null
      sent.delete(id)
      next()
      if (of !== null) deliver(of, header, body)
    },
  }
}

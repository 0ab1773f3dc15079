import { connect } from 'node:net'
import { setTimeout as pause } from 'node:timers/promises'
import { until } from '../wait.ts'

export interface Answered {
  /** Status lines in the order they came. */
  readonly statuses: readonly number[]
  readonly text: string
  /** Whether the server ended the connection by itself. */
  readonly closed: boolean
  /** How many of the pieces were written before it did. */
  readonly sent: number
}

/** What comes this long after an answer was not asked for. */
const quietMs = 300

/**
 * Sends bytes as they are, and resolves when the server has ended the connection; where it keeps it open, a little after
 * the last of `answers` came, one unless told, so that what was hidden behind it would show. With `close` only the end
 * counts. A server that does neither is waited for in vain.
 */
export async function sendRaw(
  url: string,
  bytes: string | Uint8Array | readonly (string | Uint8Array | number)[],
  options: { readonly answers?: number; readonly close?: boolean; readonly half?: boolean } = {},
): Promise<Answered> {
  const { hostname, port } = new URL(url)
  const socket = connect({ host: hostname, port: Number(port), allowHalfOpen: true })
  const chunks: Buffer[] = []
  const state = { closed: false, heardAt: performance.now() }
  const end = (): void => void (state.closed = true)
  socket.on('error', () => undefined)
  socket.once('end', end).once('close', end)
  socket.on('data', (chunk: Buffer) => {
    chunks.push(chunk)
    state.heardAt = performance.now()
  })
  const text = (): string => Buffer.concat(chunks).toString('latin1')
  const statuses = (): readonly number[] =>
    [...text().matchAll(/HTTP\/1\.1 (\d{3}) /g)].map((match) => Number(match[1]))
  let sent = 0
  try {
    await new Promise<void>((resolve, reject) => socket.once('connect', resolve).once('error', reject))
    // A number is a pause in milliseconds.
    for (const piece of typeof bytes === 'string' || bytes instanceof Uint8Array ? [bytes] : bytes) {
      if (state.closed) break
      if (typeof piece === 'number') await pause(piece)
      else socket.write(typeof piece === 'string' ? Buffer.from(piece, 'latin1') : piece)
      sent++
    }
    if (options.half === true) socket.end()
    const enough = (): boolean =>
      options.close !== true &&
      statuses().length >= (options.answers ?? 1) &&
      performance.now() - state.heardAt > quietMs
    await until('the server has answered or ended the connection', () => state.closed || enough(), { withinMs: 15_000 })
  } finally {
    socket.destroy()
  }
  return { statuses: statuses(), text: text(), closed: state.closed, sent }
}

import { connect } from 'node:net'

export interface Answered {
  /** Status lines in the order they came. */
  readonly statuses: readonly number[]
  readonly text: string
  /** Whether the server ended the connection by itself. */
  readonly closed: boolean
}

/** Sends bytes as they are and gathers what comes until the server ends the connection or `forMs` went by. */
export async function sendRaw(
  url: string,
  bytes: string | Uint8Array | readonly (string | Uint8Array | number)[],
  options: { readonly forMs?: number; readonly half?: boolean } = {},
): Promise<Answered> {
  const { hostname, port } = new URL(url)
  const socket = connect({ host: hostname, port: Number(port), allowHalfOpen: true })
  const chunks: Buffer[] = []
  let closed = false
  socket.on('error', () => undefined)
  socket.on('data', (chunk: Buffer) => chunks.push(chunk))
  const over = new Promise<void>((resolve) => {
    const timer = setTimeout(resolve, options.forMs ?? 1500)
    const end = (): void => {
      closed = true
      clearTimeout(timer)
      resolve()
    }
    socket.once('end', end).once('close', end)
  })
  await new Promise<void>((resolve, reject) => socket.once('connect', resolve).once('error', reject))
  // A number is a pause in milliseconds.
  for (const piece of typeof bytes === 'string' || bytes instanceof Uint8Array ? [bytes] : bytes) {
    if (closed) break
    if (typeof piece === 'number') await new Promise((resolve) => setTimeout(resolve, piece))
    else socket.write(typeof piece === 'string' ? Buffer.from(piece, 'latin1') : piece)
  }
  if (options.half === true) socket.end()
  await over
  socket.destroy()
  const text = Buffer.concat(chunks).toString('latin1')
  return { statuses: [...text.matchAll(/HTTP\/1\.1 (\d{3}) /g)].map((match) => Number(match[1])), text, closed }
}

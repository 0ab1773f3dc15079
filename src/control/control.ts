import { chmod, rm } from 'node:fs/promises'
import { connect, createServer, type Socket } from 'node:net'
import { createInterface } from 'node:readline'
import type { Json, JsonObject } from '../digest.ts'
import { WritError, type ErrorCode, errorCodes } from '../error.ts'
import { parseIJson } from '../json.ts'

/** What the command line asks of a running broker: one JSON object a line, answered in order. */
export interface ControlMethods {
  status(): Promise<JsonObject>
  stop(): Promise<JsonObject>
  reload(): Promise<JsonObject>
  /** The approval and the text to show. */
  approval(id: string): Promise<JsonObject>
  /** A signed statement. */
  answer(jws: string): Promise<JsonObject>
  cancel(execution: string): Promise<JsonObject>
}

const maxLine = 4 * 1024 * 1024

/** Serves the control socket, mode 0600: who can open it is the local operator. */
export async function serveControl(path: string, methods: ControlMethods): Promise<{ close(): Promise<void> }> {
  await rm(path, { force: true })
  const open = new Set<Socket>()
  const server = createServer((socket) => {
    open.add(socket)
    socket.on('close', () => open.delete(socket))
    socket.on('error', () => socket.destroy())
    const lines = createInterface({ input: socket, crlfDelay: Infinity })
    void (async () => {
      for await (const line of lines) {
        if (line.length > maxLine) break
        socket.write(`${JSON.stringify(await answerLine(line, methods))}\n`)
      }
      socket.end()
    })().catch(() => socket.destroy())
  })
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(path, resolve)
  })
  await chmod(path, 0o600)
  return {
    async close() {
      for (const socket of open) socket.destroySoon()
      await new Promise<void>((resolve) => server.close(() => resolve()))
      await rm(path, { force: true })
    },
  }
}

async function answerLine(line: string, methods: ControlMethods): Promise<JsonObject> {
  try {
    const asked = parseIJson(line, { maxBytes: maxLine })
    if (asked === null || typeof asked !== 'object' || Array.isArray(asked)) throw new WritError('malformed_message', 'not an object')
    const { method, argument } = asked as { readonly method?: Json; readonly argument?: Json }
    const text = typeof argument === 'string' ? argument : ''
    switch (method) {
      case 'status':
        return { ok: await methods.status() }
      case 'stop':
        return { ok: await methods.stop() }
      case 'reload':
        return { ok: await methods.reload() }
      case 'approval':
        return { ok: await methods.approval(text) }
      case 'answer':
        return { ok: await methods.answer(text) }
      case 'cancel':
        return { ok: await methods.cancel(text) }
      default:
        throw new WritError('method_not_allowed', 'the control socket has no such method')
    }
  } catch (error) {
    // The other end is the operator, who may know why; still never a stack or a cause.
    if (error instanceof WritError) return { error: { code: error.code, message: error.message, remedy: error.remedy } }
    return { error: { code: 'internal', message: 'the broker could not answer', remedy: 'See broker.log in the data folder.' } }
  }
}

/** Asks a running broker. Rejects `broker_unreachable` where none answers, and with the broker's own refusal else. */
export async function askBroker(path: string, method: keyof ControlMethods, argument = ''): Promise<JsonObject> {
  const socket = connect(path)
  try {
    return await new Promise<JsonObject>((resolve, reject) => {
      socket.once('error', (cause) => reject(new WritError('broker_unreachable', 'No broker answers for this configuration.', { cause })))
      socket.once('close', () => reject(new WritError('broker_unreachable', 'The broker ended before it answered.')))
      const lines = createInterface({ input: socket, crlfDelay: Infinity })
      // readline repeats the socket's error; it was told above.
      lines.on('error', () => undefined)
      lines.once('line', (line) => {
        const answer = parseIJson(line, { maxBytes: 16 * maxLine }) as { readonly ok?: JsonObject; readonly error?: { readonly code: string; readonly message: string; readonly remedy: string } }
        if (answer.ok !== undefined) return resolve(answer.ok)
        const code = errorCodes.find((known): known is ErrorCode => known === answer.error?.code) ?? 'internal'
        return reject(new WritError(code, answer.error?.message ?? 'the broker refused', { remedy: answer.error?.remedy ?? '' }))
      })
      socket.write(`${JSON.stringify({ method, argument })}\n`)
    })
  } finally {
    socket.destroy()
  }
}

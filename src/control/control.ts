import { chmod, rm } from 'node:fs/promises'
import { connect, createServer, type Socket } from 'node:net'
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
  /** A piece of a file of the plan that waits; asked for as JSON `{id, path, from}`, given as `{size, sha256, bytes}` in base64. */
  approval_file(asked: string): Promise<JsonObject>
  /** A signed statement. */
  answer(jws: string): Promise<JsonObject>
  /** Asked for as JSON `{id, reason}`; an empty reason is none. */
  cancel(asked: string): Promise<JsonObject>
  /** What a token is to stand for, as JSON; the answer is the only place the token ever stands. */
  token_create(asked: string): Promise<JsonObject>
  token_list(): Promise<JsonObject>
  token_revoke(id: string): Promise<JsonObject>
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
    void answerAll(socket, methods).catch(() => socket.destroy())
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

/** One answer a line, in order. A line that does not end is cut off: nothing is held that nobody may send. */
async function answerAll(socket: Socket, methods: ControlMethods): Promise<void> {
  let have = ''
  socket.setEncoding('utf8')
  for await (const piece of socket) {
    have += String(piece)
    for (let end = have.indexOf('\n'); end >= 0; end = have.indexOf('\n')) {
      const line = have.slice(0, end)
      have = have.slice(end + 1)
      socket.write(`${JSON.stringify(await answerLine(line, methods))}\n`)
    }
    if (have.length > maxLine) return void socket.destroy()
  }
  socket.end()
}

const answers: ReadonlyMap<string, (methods: ControlMethods, text: string) => Promise<JsonObject>> = new Map([
  ['status', async (methods: ControlMethods) => await methods.status()],
  ['stop', async (methods: ControlMethods) => await methods.stop()],
  ['reload', async (methods: ControlMethods) => await methods.reload()],
  ['approval', async (methods: ControlMethods, id: string) => await methods.approval(id)],
  ['approval_file', async (methods: ControlMethods, asked: string) => await methods.approval_file(asked)],
  ['answer', async (methods: ControlMethods, jws: string) => await methods.answer(jws)],
  ['cancel', async (methods: ControlMethods, asked: string) => await methods.cancel(asked)],
  ['token_create', async (methods: ControlMethods, asked: string) => await methods.token_create(asked)],
  ['token_list', async (methods: ControlMethods) => await methods.token_list()],
  ['token_revoke', async (methods: ControlMethods, id: string) => await methods.token_revoke(id)],
])

async function answerLine(line: string, methods: ControlMethods): Promise<JsonObject> {
  try {
    const asked = parseIJson(line, { maxBytes: maxLine })
    if (asked === null || typeof asked !== 'object' || Array.isArray(asked))
      throw new WritError('malformed_message', 'not an object')
    const { method, argument } = asked as { readonly method?: Json; readonly argument?: Json }
    const text = typeof argument === 'string' ? argument : ''
    const answer = typeof method === 'string' ? answers.get(method) : undefined
    if (answer === undefined) throw new WritError('method_not_allowed', 'the control socket has no such method')
    return { ok: await answer(methods, text) }
  } catch (error) {
    // The other end is the operator, who may know why; still never a stack or a cause.
    if (error instanceof WritError) return { error: { code: error.code, message: error.message, remedy: error.remedy } }
    return {
      error: { code: 'internal', message: 'the broker could not answer', remedy: 'See broker.log in the data folder.' },
    }
  }
}

/** How long a broker may take: a verdict waits for the ledger, a reload for the compiler. */
const answerWithinMs = 60_000

/**
 * Asks a running broker. Rejects `broker_unreachable` where none answers in a minute, and with the broker's own refusal
 * else.
 */
export async function askBroker(path: string, method: keyof ControlMethods, argument = ''): Promise<JsonObject> {
  const socket = connect(path)
  try {
    const line = await new Promise<string>((resolve, reject) => {
      const refuse = (message: string, cause?: unknown): void =>
        reject(new WritError('broker_unreachable', message, cause === undefined ? {} : { cause }))
      socket.setTimeout(answerWithinMs, () => refuse('The broker did not answer in a minute.'))
      socket.once('error', (cause) => refuse('No broker answers for this configuration.', cause))
      socket.once('close', () => refuse('The broker ended before it answered.'))
      const pieces: Buffer[] = []
      socket.on('data', (piece: Buffer) => {
        pieces.push(piece)
        if (piece.includes(0x0a)) resolve(Buffer.concat(pieces).toString('utf8'))
      })
      socket.write(`${JSON.stringify({ method, argument })}\n`)
    })
    return readAnswer(line.slice(0, line.indexOf('\n')))
  } finally {
    socket.destroy()
  }
}

function readAnswer(line: string): JsonObject {
  const answer = parseIJson(line, { maxBytes: 16 * maxLine }) as {
    readonly ok?: JsonObject
    readonly error?: { readonly code: string; readonly message: string; readonly remedy: string }
  }
  if (answer.ok !== undefined) return answer.ok
  const code = errorCodes.find((known): known is ErrorCode => known === answer.error?.code) ?? 'internal'
  throw new WritError(code, answer.error?.message ?? 'the broker refused', { remedy: answer.error?.remedy ?? '' })
}

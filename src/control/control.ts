import { chmod, rm } from 'node:fs/promises'
import { connect, createServer, type Socket } from 'node:net'
import { z } from 'zod'
import { WritError, type ErrorCode, errorCodes } from '../error.ts'
import { checkSocket } from '../folder.ts'
import { parseIJson } from '../json.ts'
import { type Answered, type Asked, type ControlMethods, isMethod, type Method, protocol } from './protocol.ts'

const maxLine = 4 * 1024 * 1024
/** Time the other end has to read the last answer of a connection that is being closed. */
const lingerMs = 1000

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
      // Whoever does not read its answer, as a command that was suspended, keeps no broker from stopping.
      const forced = setTimeout(() => {
        for (const socket of open) socket.destroy()
      }, lingerMs)
      await new Promise<void>((resolve) => server.close(() => resolve()))
      clearTimeout(forced)
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

async function answerLine(line: string, methods: ControlMethods): Promise<object> {
  try {
    const asked = parseIJson(line, { maxBytes: maxLine })
    if (asked === null || typeof asked !== 'object' || Array.isArray(asked))
      throw new WritError('malformed_message', 'not an object')
    const { method, arguments: given } = asked as { readonly method?: unknown; readonly arguments?: unknown }
    if (!isMethod(method)) throw new WritError('method_not_allowed', 'the control socket has no such method')
    return { ok: await answer(methods, method, given) }
  } catch (error) {
    // The other end is the operator, who may know why; still never a stack or a cause.
    if (error instanceof WritError) return { error: { code: error.code, message: error.message, remedy: error.remedy } }
    return {
      error: { code: 'internal', message: 'the broker could not answer', remedy: 'See broker.log in the data folder.' },
    }
  }
}

async function answer<M extends Method>(methods: ControlMethods, method: M, given: unknown): Promise<Answered<M>> {
  const asked = protocol[method].asked.safeParse(given)
  if (!asked.success) {
    const at = asked.error.issues[0]?.path.join('.') ?? ''
    throw new WritError('malformed_message', `"${method}" is not asked like that${at === '' ? '' : `: ${at}`}`)
  }
  return await methods[method](asked.data)
}

/** How long a broker may take: a verdict waits for the ledger, a reload for the compiler. */
const answerWithinMs = 60_000

/** Nothing where nothing has to be said. */
export type Given<M extends Method> = Asked<M> extends Record<string, never> ? [] : [asked: Asked<M>]

/**
 * Asks a running broker. Rejects `broker_unreachable` where none answers in a minute, `broker_running` where one of
 * another version does, `invalid_config` where another user could have put the socket there, and with the broker's own
 * refusal else.
 */
export async function askBroker<M extends Method>(path: string, method: M, ...[asked]: Given<M>): Promise<Answered<M>> {
  checkSocket(path)
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
      socket.write(`${JSON.stringify({ method, arguments: asked ?? {} })}\n`)
    })
    return readAnswer(method, line.slice(0, line.indexOf('\n')))
  } finally {
    socket.destroy()
  }
}

const refusal = z.object({ error: z.object({ code: z.string(), message: z.string(), remedy: z.string() }) })
const answered = z.object({ ok: z.unknown() })

function readAnswer<M extends Method>(method: M, line: string): Answered<M> {
  const read = parsed(line)
  const refused = refusal.safeParse(read)
  if (refused.success) {
    const { code, message, remedy } = refused.data.error
    const known = errorCodes.find((one): one is ErrorCode => one === code) ?? 'internal'
    throw new WritError(known, message, { remedy })
  }
  const answer = protocol[method].answered.safeParse(answered.safeParse(read).data?.ok)
  if (answer.success) return answer.data
  throw new WritError(
    'broker_running',
    'The broker that runs answers in a way that this version of Writ does not know.',
    {
      remedy: 'Where Writ was updated since that broker started, run "writ stop" and ask again.',
    },
  )
}

function parsed(line: string): unknown {
  try {
    return parseIJson(line, { maxBytes: 16 * maxLine })
  } catch {
    return null
  }
}

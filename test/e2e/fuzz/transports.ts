import { Agent, request } from 'node:http'
import { connect } from 'node:net'
import { createInterface } from 'node:readline'
import type { JsonObject } from '../../../src/digest.ts'
import type { Fuzzed } from './messages.ts'

/** Takes what was answered to one message: the JSON-RPC answers there were. */
export type Judge = (message: Fuzzed, answers: readonly JsonObject[], text: string, status: number | null) => void

const inFlight = 48
const longestMs = 60_000

/**
 * Sends messages over one connection of the socket, many at once. An answer under no id belongs to no message, so those
 * are counted: `orphans` is how many came, `expected` the least and the most there may be.
 */
export async function overSocket(options: {
  readonly path: string
  readonly next: () => Fuzzed | null
  readonly judge: Judge
  readonly breach: (text: string) => void
}): Promise<void> {
  const socket = connect(options.path)
  const waiting = new Map<string, { readonly message: Fuzzed }>()
  const answered = new Set<string>()
  const letGo = new Set<string>()
  let [orphans, least, most] = [0, 0, 0]
  let room = Promise.withResolvers<void>()
  const state = { broken: false }
  const settle = (): void => {
    room.resolve()
    room = Promise.withResolvers<void>()
  }
  socket.on('error', () => undefined)
  socket.on('close', () => {
    state.broken = true
    settle()
  })
  createInterface({ input: socket }).on('line', (line) => {
    const answer = JSON.parse(line) as JsonObject
    const { id } = answer
    if (answer['method'] !== undefined) return
    const held = typeof id === 'string' ? waiting.get(id) : undefined
    if (held !== undefined && typeof id === 'string') {
      waiting.delete(id)
      answered.add(id)
      options.judge(held.message, [answer], line, null)
      settle()
    } else if (id === null) {
      orphans++
      options.judge({ bytes: Buffer.alloc(0), id: '', expects: 'any', family: 'no id' }, [answer], line, null)
    } else if (typeof id === 'string' && letGo.delete(id)) {
      answered.add(id)
      options.judge({ bytes: Buffer.alloc(0), id, expects: 'any', family: 'bytes' }, [answer], line, null)
    } else options.breach(`${answered.has(String(id)) ? 'a second' : 'an unasked'} answer: ${line.slice(0, 200)}`)
  })
  const until = (done: () => boolean, ms: number): Promise<boolean> => {
    const end = performance.now() + ms
    const look = async (): Promise<boolean> => {
      while (!done() && !state.broken) {
        const left = end - performance.now()
        if (left <= 0) return false
        await Promise.race([room.promise, new Promise((resolve) => setTimeout(resolve, Math.min(left, 200)))])
      }
      return !state.broken
    }
    return look()
  }
  for (let message = options.next(); message !== null; message = options.next()) {
    if (message.expects === 'id') waiting.set(message.id, { message })
    if (message.expects === 'any') {
      most++
      // Answered under its id or under none: waited for no longer than the others are.
      waiting.set(message.id, { message })
    }
    if (message.expects === 'null') {
      least++
      most++
    }
    socket.write(Buffer.concat([message.bytes, Buffer.from('\n')]))
    const sure = (): number => [...waiting.values()].filter((one) => one.message.expects === 'id').length
    if (waiting.size >= inFlight && !(await until(() => sure() < inFlight, longestMs))) break
    // Those that may be answered under no id are not waited for; an answer under theirs may still come.
    for (const [id, one] of waiting) {
      if (waiting.size <= 2 * inFlight) break
      if (one.message.expects !== 'any') continue
      waiting.delete(id)
      letGo.add(id)
    }
  }
  await until(() => [...waiting.values()].every((one) => one.message.expects !== 'id'), longestMs)
  await until(() => orphans >= least, 5000)
  if (state.broken) options.breach('the socket was closed')
  for (const { message } of waiting.values())
    if (message.expects === 'id') options.breach(`never answered: ${message.bytes.toString().slice(0, 300)}`)
  if (orphans < least || orphans > most)
    options.breach(`${String(orphans)} answers under no id, where ${String(least)} to ${String(most)} belong`)
  socket.destroy()
}

interface HttpOptions {
  readonly url: string
  readonly token: string
  readonly next: () => Fuzzed | null
  readonly judge: Judge
  readonly breach: (text: string) => void
}

interface Exchanged {
  readonly status: number
  readonly text: string
  readonly session: string | null
}

type Post = (method: 'POST' | 'DELETE', bytes: Buffer, headers: Readonly<Record<string, string>>) => Promise<Exchanged>

function openPost(url: string, token: string): { readonly post: Post; close(): void } {
  const { hostname, port } = new URL(url)
  const agent = new Agent({ keepAlive: true, maxSockets: inFlight })
  const post: Post = async (method, bytes, headers) =>
    await new Promise((resolve, reject) => {
      const asked = request(
        {
          agent,
          host: hostname,
          port,
          path: '/mcp',
          method,
          timeout: longestMs,
          headers: {
            authorization: `Bearer ${token}`,
            'content-type': 'application/json',
            'content-length': bytes.length,
            accept: 'application/json, text/event-stream',
            ...headers,
          },
        },
        (answer) => {
          let text = ''
          answer.setEncoding('utf8').on('data', (piece: string) => (text += piece))
          answer.on('error', reject)
          answer.on('end', () => {
            const session = answer.headers['mcp-session-id']
            resolve({ status: answer.statusCode ?? 0, text, session: typeof session === 'string' ? session : null })
          })
        },
      )
      asked.on('timeout', () => asked.destroy(new Error('no answer in time')))
      asked.on('error', reject)
      asked.end(bytes)
    })
  return { post, close: () => agent.destroy() }
}

/** Sends each message as a POST of its own in the stateless revision, many at once; what comes back belongs to it. */
export async function overHttp(options: HttpOptions): Promise<void> {
  const { post, close } = openPost(options.url, options.token)
  await Promise.all(
    Array.from({ length: inFlight }, async () => {
      for (let message = options.next(); message !== null; message = options.next()) {
        const sent = message
        // What the revision wants of the head, where the body says it legibly.
        const headers = { 'mcp-protocol-version': '2026-07-28', ...headOf(sent) }
        await post('POST', sent.bytes, headers).then(
          ({ status, text }) => options.judge(sent, answersIn(text), text, status),
          (error: unknown) => options.breach(`${String(error)}: ${sent.bytes.toString().slice(0, 300)}`),
        )
      }
    }),
  )
  close()
}

/** Sessions that are open at once, and messages at once in each. */
const [sessionsOpen, inSession] = [16, 3]
const initialized = Buffer.from('{"jsonrpc":"2.0","method":"notifications/initialized"}')
const initialize = Buffer.from(
  '{"jsonrpc":"2.0","id":"open","method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"fuzz","version":"1"}}}',
)
const endless = 50

/**
 * Sends messages as the 2025 revisions do, in sessions that are opened, used by several requests at once, and ended or left.
 * Now and then a message names no session, one there is not, or another revision than the one agreed on.
 */
export async function inSessions(options: HttpOptions & { readonly roll: () => number }): Promise<void> {
  const { roll, breach } = options
  const { post, close } = openPost(options.url, options.token)
  const open = async (): Promise<string> => {
    let { session, text } = await post('POST', initialize, {})
    // A busy machine has no time to decide now and then; the remedy is to ask again.
    if (session === null) ({ session, text } = await post('POST', initialize, {}))
    if (session === null) throw new Error(`no session: ${text}`)
    await post('POST', initialized, { 'mcp-session-id': session })
    return session
  }
  const headersOf = (session: string): Record<string, string> => {
    const at = roll()
    const named = at < 0.95 ? { 'mcp-session-id': session } : at < 0.975 ? {} : { 'mcp-session-id': `x${session}` }
    const version = roll()
    return {
      ...named,
      ...(version < 0.9
        ? { 'mcp-protocol-version': '2025-11-25' }
        : version < 0.97
          ? {}
          : { 'mcp-protocol-version': version < 0.985 ? '2025-06-18' : '1999-01-01' }),
    }
  }
  await Promise.all(
    Array.from({ length: sessionsOpen }, async () => {
      try {
        let session = await open()
        for (let round = 1; ; round++) {
          const messages = Array.from({ length: inSession }, () => options.next()).filter((one) => one !== null)
          await Promise.all(
            messages.map(async (message) => {
              const { status, text } = await post('POST', message.bytes, headersOf(session))
              options.judge(message, answersIn(text), text, status)
            }),
          )
          if (messages.length < inSession) break
          if (round % endless > 0) continue
          // Half of the clients say that they go.
          if (roll() < 0.5) await post('DELETE', Buffer.alloc(0), { 'mcp-session-id': session })
          session = await open()
        }
      } catch (error) {
        breach(`in a session: ${String(error)}`)
      }
    }),
  )
  close()
}

function headOf(message: Fuzzed): Record<string, string> {
  try {
    const { method, params } = JSON.parse(message.bytes.toString()) as {
      readonly method?: unknown
      readonly params?: { readonly name?: unknown; readonly uri?: unknown }
    }
    const head: Record<string, string> = {}
    if (typeof method === 'string' && /^[\w/.]+$/.test(method)) head['mcp-method'] = method
    const name = method === 'resources/read' ? params?.uri : params?.name
    if (typeof name === 'string' && /^[\w:/.-]+$/.test(name)) head['mcp-name'] = name
    return head
  } catch {
    // What is no JSON has nothing to say in the head.
    return {}
  }
}

function answersIn(text: string): readonly JsonObject[] {
  const documents = /^(?:event|data|id|:|retry)/.test(text)
    ? text.split('\n').flatMap((line) => (line.startsWith('data: ') ? [line.slice(6)] : []))
    : [text]
  return documents
    .filter((one) => one.trim() !== '')
    .map((one) => JSON.parse(one) as JsonObject)
    .filter((one) => one['method'] === undefined)
}

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

/** Sends each message as a POST of its own, many at once; what comes back belongs to it. */
export async function overHttp(options: {
  readonly url: string
  readonly token: string
  readonly next: () => Fuzzed | null
  readonly judge: Judge
  readonly breach: (text: string) => void
}): Promise<void> {
  const { hostname, port } = new URL(options.url)
  const agent = new Agent({ keepAlive: true, maxSockets: inFlight })
  const post = async (message: Fuzzed): Promise<void> => {
    const [status, text] = await new Promise<readonly [number, string]>((resolve, reject) => {
      const asked = request(
        {
          agent,
          host: hostname,
          port,
          path: '/mcp',
          method: 'POST',
          timeout: longestMs,
          headers: {
            authorization: `Bearer ${options.token}`,
            'content-type': 'application/json',
            'content-length': message.bytes.length,
            accept: 'application/json, text/event-stream',
            'mcp-protocol-version': '2026-07-28',
            // What the revision wants of the head, where the body says it legibly.
            ...headOf(message),
          },
        },
        (answer) => {
          const pieces: Buffer[] = []
          answer.on('data', (piece: Buffer) => pieces.push(piece))
          answer.on('error', reject)
          answer.on('end', () => resolve([answer.statusCode ?? 0, Buffer.concat(pieces).toString('utf8')]))
        },
      )
      asked.on('timeout', () => asked.destroy(new Error('no answer in time')))
      asked.on('error', reject)
      asked.end(message.bytes)
    })
    options.judge(message, answersIn(text), text, status)
  }
  await Promise.all(
    Array.from({ length: inFlight }, async () => {
      for (let message = options.next(); message !== null; message = options.next()) {
        const sent = message
        await post(sent).catch((error: unknown) =>
          options.breach(`${String(error)}: ${sent.bytes.toString().slice(0, 300)}`),
        )
      }
    }),
  )
  agent.destroy()
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

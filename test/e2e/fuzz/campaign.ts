import { hostname } from 'node:os'
import { dirname } from 'node:path'
import type { JsonObject } from '../../../src/digest.ts'
import { literal } from '../../literal.ts'
import { dice, type Fuzzed, makeMessages, type Tool } from './messages.ts'
import { type Memory, openPlace, type Place } from './place.ts'
import { inSessions, type Judge, overHttp, overSocket } from './transports.ts'

export interface Report {
  readonly seed: number
  readonly messages: number
  readonly seconds: number
  readonly perSecond: number
  /** Messages by transport and by what they were a case of. */
  readonly sent: Readonly<Record<string, number>>
  /** Answers by the code of the refusal, or `ok`. */
  readonly answers: Readonly<Record<string, number>>
  readonly receipts: Readonly<Record<string, number>>
  /**
   * Megabytes that are left in the broker when everything nothing holds was collected: after a third of the messages, after
   * two thirds, and at rest after all; and its resident memory then.
   */
  readonly heap: readonly number[]
  readonly resident: readonly number[]
  readonly breaches: readonly string[]
}

/**
 * Megabytes that may come after the first third of the messages: to what is still held, and to resident memory, of which V8
 * keeps what it had when it was busiest.
 */
const flatMb = 8
const slackMb = 128

/**
 * Sends generated messages to one real broker over both transports and in both eras of HTTP at once and looks whether it did what it has to: each
 * request answered exactly once, nothing crashed, memory flat, no more signatures than the flood rule allows, no
 * infrastructure in any text. Ends early, and says how far it came, when `withinMs` is over.
 */
export async function campaign(options: {
  readonly seed: number
  readonly messages: number
  readonly withinMs: number
}): Promise<Report> {
  const place = await openPlace()
  try {
    return await drive(place, options)
  } finally {
    await place.close()
  }
}

async function drive(place: Place, options: Parameters<typeof campaign>[0]): Promise<Report> {
  const token = place.token('mallory')
  const tools = await toolsOf(place.url, token)
  const seen: string[] = []
  const [sent, answers] = [new Map<string, number>(), new Map<string, number>()]
  const breaches = new Set<string>()
  const refusals = new Set<string>()
  const breach = (text: string): void => {
    if (breaches.size < 40) breaches.add(text)
  }
  const secrets = infrastructure(place)
  const began = performance.now()
  const memory: Memory[] = []
  let [made, looks] = [0, 0]

  const judge =
    (transport: string): Judge =>
    (message, found, text, status) => {
      for (const pattern of secrets)
        if (pattern.test(text)) breach(`${transport}: ${String(pattern)} in ${text.slice(0, 400)}`)
      for (const one of found) {
        const code = codeOf(one)
        add(answers, code)
        refusals.add(`${transport} ${code}`)
        if (code === '-32603' || code === 'internal') breach(`${transport}: ${text.slice(0, 300)} to ${shown(message)}`)
        for (const [id] of JSON.stringify(one).matchAll(/\b(?:task|exec|appr|rcpt)_[a-z2-7]{10}\b/g))
          if (seen.length < 500) seen.push(id)
          else seen[made % 500] = id
      }
      if (status === null) return
      const right = found.length === 1 && found[0]?.['id'] === message.id
      if (status >= 500 || status === 429) breach(`${transport}: ${String(status)} to ${shown(message)}`)
      if (message.expects === 'id' && !right)
        breach(`${transport}: ${String(status)} ${text.slice(0, 200)} to ${shown(message)}`)
      if (found.length > 1) breach(`${transport}: ${String(found.length)} answers to ${shown(message)}`)
      if (message.expects === 'null' && !(status === 400 && (found[0]?.['id'] ?? null) === null))
        breach(`${transport}: ${String(status)} ${text.slice(0, 200)} to ${shown(message)}`)
    }
  const source = (transport: string, share: number, offset: number): (() => Fuzzed | null) => {
    const make = makeMessages({
      seed: options.seed + offset,
      prefix: `${transport[0] ?? ''}${String(offset)}-`,
      tools,
      seen,
      stateless: transport === 'session' ? 0.05 : 0.7,
    })
    let left = share
    return () => {
      if (left-- <= 0 || performance.now() - began > options.withinMs) return null
      made++
      const part = Math.max(made / options.messages, (performance.now() - began) / options.withinMs)
      if (part >= (looks + 1) / 3 && looks < 2) {
        looks++
        void place.memory().then((now) => memory.push(now))
      }
      const message = make()
      add(sent, `${transport} ${message.family}`)
      return message
    }
  }
  const third = Math.floor(options.messages / 3)
  const each = Math.floor(third / 4)
  const web = { url: place.url, token, breach }
  await Promise.all([
    ...[0, 1, 2, 3].map(async (at) => {
      const share = at === 0 ? third - 3 * each : each
      await overSocket({ path: place.socket, next: source('socket', share, at), judge: judge('socket'), breach })
    }),
    overHttp({ ...web, next: source('http', options.messages - 2 * third, 10), judge: judge('http') }),
    inSessions({
      ...web,
      next: source('session', third, 20),
      judge: judge('session'),
      roll: dice(options.seed + 30),
    }),
  ])
  const seconds = (performance.now() - began) / 1000
  memory.push(await place.memory())
  if (!place.alive()) breach('the broker ended')
  for (const line of place.errors()) breach(`the broker wrote: ${line}`)
  if (!((await fetch(`${place.url}/healthz`)).status === 200)) breach('the broker is not healthy any more')
  const [first, last] = [memory[0], memory.at(-1)]
  if (first === undefined || last === undefined || memory.length < 3) breach('memory was not measured')
  else if (last.heap - first.heap > flatMb * 2 ** 20)
    breach(`what is held grew from ${mb(first.heap)} to ${mb(last.heap)} MB`)
  else if (last.rss - first.rss > slackMb * 2 ** 20)
    breach(`resident memory grew from ${mb(first.rss)} to ${mb(last.rss)} MB`)

  const receipts = new Map<string, number>()
  const all = place.receipts()
  for (const { kind, execution } of all) add(receipts, execution === null ? kind : `${kind} of an execution`)
  // SECURITY.md G-flood: one for the first of each caller and code, then one a minute for each caller.
  const without = all.filter(
    ({ kind, execution }) => execution === null && kind !== 'policy' && kind !== 'config',
  ).length
  const most = refusals.size + 2 * (Math.ceil(seconds / 60) + 1) + 8
  if (without > most) breach(`${String(without)} receipts for what did not run, where ${String(most)} are allowed`)
  return {
    seed: options.seed,
    messages: made,
    seconds: Math.round(seconds * 10) / 10,
    perSecond: Math.round(made / seconds),
    sent: sorted(sent),
    answers: sorted(answers),
    receipts: sorted(receipts),
    heap: memory.map(({ heap }) => mb(heap)),
    resident: memory.map(({ rss }) => mb(rss)),
    breaches: [...breaches],
  }
}

/** What no answer may say: where this broker is, what it runs on, how it is made. */
function infrastructure(place: Place): readonly RegExp[] {
  const quoted = (text: string): RegExp => new RegExp(literal(text))
  const root = dirname(dirname(dirname(import.meta.dirname)))
  return [
    quoted(place.folder),
    quoted(root),
    quoted(dirname(process.execPath)),
    ...(hostname().length > 5 ? [quoted(hostname())] : []),
    /\bnode:[a-z]/,
    /\/tmp\//,
    /\bat \S+ \(?(?:file:|\/)\S+:\d+:\d+/,
    /node_modules|\.sock\b|sqlite/i,
  ]
}

async function toolsOf(url: string, token: string): Promise<readonly Tool[]> {
  const answer = await fetch(`${url}/mcp`, {
    method: 'POST',
    headers: {
      authorization: `Bearer ${token}`,
      'content-type': 'application/json',
      accept: 'application/json, text/event-stream',
      'mcp-protocol-version': '2026-07-28',
      'mcp-method': 'tools/list',
    },
    body: JSON.stringify({
      jsonrpc: '2.0',
      id: 1,
      method: 'tools/list',
      params: {
        _meta: {
          'io.modelcontextprotocol/protocolVersion': '2026-07-28',
          'io.modelcontextprotocol/clientCapabilities': {},
          'io.modelcontextprotocol/clientInfo': { name: 'fuzz', version: '1' },
        },
      },
    }),
  })
  const text = await answer.text()
  const line = text.startsWith('{') ? text : (/^data: (.*)$/m.exec(text)?.[1] ?? '{}')
  const listed =
    (JSON.parse(line) as { readonly result?: { readonly tools?: readonly JsonObject[] } }).result?.tools ?? []
  if (listed.length === 0) throw new Error(`no tools: ${text.slice(0, 300)}`)
  return listed.map((tool) => ({ name: String(tool['name']), schema: tool['inputSchema'] as JsonObject }))
}

function codeOf(answer: JsonObject): string {
  const error = answer['error'] as JsonObject | undefined
  if (error !== undefined) return String(error['code'])
  const structured = (answer['result'] as JsonObject | undefined)?.['structuredContent'] as JsonObject | undefined
  return String((structured?.['error'] as JsonObject | undefined)?.['code'] ?? 'ok')
}

function shown(message: Fuzzed): string {
  return `${message.family}: ${message.bytes.toString().slice(0, 300)}`
}

function add(counts: Map<string, number>, key: string): void {
  counts.set(key, (counts.get(key) ?? 0) + 1)
}

function sorted(counts: ReadonlyMap<string, number>): Readonly<Record<string, number>> {
  return Object.fromEntries([...counts].toSorted(([a], [b]) => (a < b ? -1 : 1)))
}

function mb(bytes: number): number {
  return Math.round(bytes / 2 ** 18) / 4
}

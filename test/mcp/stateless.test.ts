import { createMcpHandler } from '@modelcontextprotocol/server'
import type { AuthInfo } from '@modelcontextprotocol/server'
import * as fc from 'fast-check'
import { expect, it } from 'vitest'
import type { JsonObject } from '../../src/digest.ts'
import { openMcpHttp } from '../../src/mcp/http.ts'
import type { McpHttp } from '../../src/mcp/http.ts'
import { readMessage } from '../../src/mcp/message.ts'
import { openStateless, statelessRevision } from '../../src/mcp/stateless.ts'
import { makeServer } from '../../src/mcp/server.ts'
import { caller, memoryBroker, quiet } from './memory-broker.ts'

const revision = 'io.modelcontextprotocol/protocolVersion'
const capabilities = 'io.modelcontextprotocol/clientCapabilities'
const info = 'io.modelcontextprotocol/clientInfo'
const related = 'io.modelcontextprotocol/related-task'
const never = new AbortController().signal

function open(broker = memoryBroker()) {
  const limits = { sessions: 10, sessionsPerCaller: 10, idleMs: 60_000 }
  return { broker, mcp: openMcpHttp({ broker, log: quiet, limits }) }
}

interface Sent {
  readonly body: object
  readonly headers: Readonly<Record<string, string>>
}

function call(name: string, args: object, meta: object = {}, over: Partial<Sent> = {}, id: unknown = 'a'): Sent {
  const _meta = { [revision]: '2026-07-28', [capabilities]: {}, [info]: { name: 'test', version: '1' }, ...meta }
  return {
    body: over.body ?? { jsonrpc: '2.0', id, method: 'tools/call', params: { name, arguments: args, _meta } },
    headers: {
      'content-type': 'application/json',
      'mcp-protocol-version': '2026-07-28',
      'mcp-method': 'tools/call',
      'mcp-name': name,
      ...over.headers,
    },
  }
}

interface Told {
  readonly status: number
  readonly type: string
  readonly text: string
}

function told(status: number, type: string, text: string): Told {
  return { status, type, text: text.replaceAll(/dec_[a-z2-7]{10}/g, 'dec_') }
}

async function ask(mcp: McpHttp, { body, headers }: Sent): Promise<Told> {
  const answer = await mcp.handle({
    method: 'POST',
    headers: new Map(Object.entries(headers)),
    body: Buffer.from(JSON.stringify(body)),
    caller,
    shortOf: () => null,
    signal: never,
  })
  if (!(answer instanceof Response)) return told(answer.status, 'application/json', answer.json)
  return told(answer.status, answer.headers.get('content-type') ?? '', await answer.text())
}

/** What the SDK's own handler says, which makes a server for each request. */
async function askHandler({ body, headers }: Sent): Promise<Told> {
  const inbound = readMessage(Buffer.from(JSON.stringify(body)))
  if (inbound.kind !== 'request') throw new Error('not a request')
  const asked = () => ({ caller, signal: never })
  const handler = createMcpHandler(() => makeServer(memoryBroker(), asked, quiet), { legacy: 'reject' })
  const authInfo: AuthInfo = { token: '', clientId: '', scopes: [] }
  const answer = await handler.fetch(
    new Request('http://writ.invalid/mcp', {
      method: 'POST',
      headers: { accept: 'application/json, text/event-stream', ...headers },
    }),
    { parsedBody: inbound.forward, authInfo },
  )
  return told(answer.status, answer.headers.get('content-type') ?? '', await answer.text())
}

const id = 'exec_bbbbbbbbbb'

it.each([
  ['a call', call('get_status', { execution_id: id })],
  ['a call with a number for its id', call('get_status', {}, {}, {}, 0)],
  ['a call with arguments that do not fit', call('get_status', { execution_id: 7 })],
  ['a call whose result is large and hostile', call('get_result', { execution_id: id })],
  ['a call without capabilities', call('get_status', {}, { [capabilities]: undefined })],
  ['a call with capabilities of a wrong type', call('get_status', {}, { [capabilities]: 'all' })],
  ['a call with an info of a wrong type', call('get_status', {}, { [info]: { name: 7 } })],
  ['a call of a revision there is not', call('get_status', {}, { [revision]: '2099-01-01' })],
  [
    'a call whose head has another revision',
    call('get_status', {}, {}, { headers: { 'mcp-protocol-version': '2027-01-01' } }),
  ],
  ['a call whose head has another tool', call('get_status', {}, {}, { headers: { 'mcp-name': 'get_result' } })],
  ['a call whose head has another method', call('get_status', {}, {}, { headers: { 'mcp-method': 'tools/list' } })],
  [
    'a call whose head spells the tool in Base64',
    call('get_status', {}, {}, { headers: { 'mcp-name': '=?base64?Z2V0X3N0YXR1cw==?=' } }),
  ],
  ['a call of a task', call('get_status', {}, { [related]: { taskId: 't' } })],
  ['a call whose trace is no text', call('get_status', {}, { traceparent: 7, tracestate: {}, baggage: [] })],
  ['a call that asks for progress', call('get_status', {}, { progressToken: 'p' })],
])('answers %s as the SDK does that makes a server for it alone', async (_, sent) => {
  expect(await ask(open().mcp, sent)).toEqual(await askHandler(sent))
})

it('answers whatever envelope as the SDK does that makes a server for it alone', async () => {
  const { mcp } = open()
  const value = fc.oneof(
    fc.constant(undefined),
    fc.string({ maxLength: 8 }),
    fc.integer(),
    fc.dictionary(fc.constantFrom('name', 'version', 'sampling', 'roots', 'x'), fc.constantFrom('1', {}, null, 4)),
  )
  const meta = fc.record(
    {
      [capabilities]: value,
      [info]: value,
      'io.modelcontextprotocol/logLevel': value,
      [related]: fc.constant({ taskId: 't' }),
      'io.modelcontextprotocol/subscriptionId': value,
      traceparent: value,
      other: value,
    },
    { requiredKeys: [] },
  )
  await fc.assert(
    fc.asyncProperty(meta, async (over) => {
      const sent = call('get_status', {}, over)
      expect(await ask(mcp, sent)).toEqual(await askHandler(sent))
    }),
    { numRuns: 150 },
  )
})

it('has the SDK’s own handler asked about what its server drops without a word', async () => {
  const { broker } = open()
  const stateless = openStateless(makeServer(broker, () => ({ caller, signal: never }), quiet, [statelessRevision]))
  const { body, headers } = call('get_status', {})
  const inbound = readMessage(Buffer.from(JSON.stringify(body)))
  if (inbound.kind !== 'request') throw new Error('not a request')
  const authInfo: AuthInfo = { token: '', clientId: '', scopes: [] }
  const request = { headers: new Map(Object.entries(headers)) }
  const { _meta: meta } = inbound.forward['params'] as { readonly _meta: JsonObject }
  const drop = { ...inbound.forward, params: { name: 'get_status', arguments: {}, _meta: { ...meta, [related]: 7 } } }
  expect(await stateless.call(request, { ...inbound, forward: drop }, authInfo)).toBeNull()
  expect(await stateless.call(request, inbound, authInfo)).toMatchObject({ id: 'a', result: {} })
  expect(broker.seen.called).toHaveLength(1)
})

it('answers a call of a related task that is none, over HTTP and before the SDK', async () => {
  const { broker, mcp } = open()
  const sent = call('get_status', {}, { [related]: 7 })
  expect(await ask(mcp, sent)).toMatchObject({ status: 400, text: expect.stringContaining('related task') as string })
  expect(broker.seen.admitted).toEqual([])
})

it('gives each of many calls at once its own answer, its own caller and its own end', async () => {
  const { broker, mcp } = open()
  const ends = Array.from({ length: 60 }, () => new AbortController())
  const all = Promise.all(
    ends.map(async (end, at) => {
      const sent = call('get_status', { execution_id: id, wait_ms: at % 2 === 0 ? 50_000 : 0 }, {}, {}, 'same')
      const answer = await mcp.handle({
        method: 'POST',
        headers: new Map(Object.entries(sent.headers)),
        body: Buffer.from(JSON.stringify(sent.body)),
        caller: { ...caller, subject: { type: 'user', id: `user:${String(at)}` } },
        shortOf: () => null,
        signal: end.signal,
      })
      if (answer instanceof Response) throw new Error('this is no plain call')
      return (JSON.parse(answer.json) as { readonly id: string }).id
    }),
  )
  while (broker.seen.called.length < ends.length) await new Promise((resolve) => setImmediate(resolve))
  for (const [at, end] of ends.entries()) if (at % 2 === 0) end.abort()
  expect(new Set(await all)).toEqual(new Set(['same']))
  expect(broker.seen.aborted).toBe(30)
  expect(new Set(broker.seen.called.map(({ caller: of }) => of.subject.id)).size).toBe(60)
})

it('never serves a call that was not admitted', async () => {
  const { broker, mcp } = open(memoryBroker({ denied: ['get_result'] }))
  expect((await ask(mcp, call('get_result', { execution_id: id }))).text).toContain('"isError":true')
  expect(broker.seen.called).toEqual([])
  expect(broker.seen.admitted).toHaveLength(1)
})

import { expect, it } from 'vitest'
import { call, initialize, openEdge, openSession, post } from './edge.ts'
import { later, until } from '../wait.ts'

const ping = { jsonrpc: '2.0', id: 1, method: 'ping' }
const wait = { execution_id: 'exec_bbbbbbbbbb', wait_ms: 20_000 }

it('sessions are one person’s, through whatever agent: another agent buys no second share', async () => {
  const edge = await openEdge({ limits: { sessions_per_caller: 2 } })
  const [one, two, three] = await Promise.all(['a', 'b', 'c'].map(async (agent) => await edge.token('ada', agent)))
  const [first, second] = [await openSession(edge.url, one ?? ''), await openSession(edge.url, two ?? '')]
  const third = await openSession(edge.url, three ?? '')
  expect((await post(edge.url, one ?? '', ping, { 'mcp-session-id': first })).status).toBe(404)
  expect((await post(edge.url, two ?? '', ping, { 'mcp-session-id': second })).status).toBe(200)
  expect((await post(edge.url, three ?? '', ping, { 'mcp-session-id': third })).status).toBe(200)
})

it('[G-session-bound] where there is room for no more sessions, a newcomer ends its own or comes back later, and ends no stranger’s', async () => {
  const edge = await openEdge({ limits: { sessions: 3 } })
  const [ada, eve] = [await edge.token('ada'), await edge.token('eve')]
  const [first, second] = [await openSession(edge.url, ada), await openSession(edge.url, ada)]
  const evening = await openSession(edge.url, eve)
  // Its own goes, the one longest unused.
  const again = await openSession(edge.url, eve)
  expect((await post(edge.url, eve, ping, { 'mcp-session-id': evening })).status).toBe(404)
  for (const id of [first, second]) expect((await post(edge.url, ada, ping, { 'mcp-session-id': id })).status).toBe(200)
  // It has none to end, and those of others stay, used or not.
  const late = await post(edge.url, await edge.token('bob'), initialize)
  expect([late.status, late.headers.get('retry-after')]).toEqual([503, '30'])
  // Nor is one ended that is in use.
  const gone = new AbortController()
  const busy = later(post(edge.url, eve, call(5, 'get_status', wait), { 'mcp-session-id': again }, gone.signal))
  await until('the call waits', () => edge.broker.seen.called.length === 1)
  expect((await post(edge.url, eve, initialize)).status).toBe(503)
  for (const id of [first, second]) expect((await post(edge.url, ada, ping, { 'mcp-session-id': id })).status).toBe(200)
  gone.abort()
  await busy.then(async (response) => await response.text()).catch(() => undefined)
})

import { describe, expect, it } from 'vitest'
import type { JsonObject } from '../../src/digest.ts'
import { memoryBroker } from '../mcp/memory-broker.ts'
import { later, until } from '../wait.ts'
import {
  call,
  type Edge,
  initialize,
  messagesOf,
  openEdge,
  openSession,
  post,
  statelessCall,
  statelessHeaders,
} from './edge.ts'

const ping = { jsonrpc: '2.0', id: 1, method: 'ping' }
const wait = { execution_id: 'exec_bbbbbbbbbb', wait_ms: 20_000 }

/** Resolves when so many calls have reached the broker. */
async function arrived({ broker }: Edge, count: number): Promise<void> {
  await until(`${String(count)} calls have arrived`, () => broker.seen.called.length === count)
}

/** Resolves when so many waits have ended because their client was gone. */
async function letGo({ broker }: Edge, count: number): Promise<void> {
  await until(`${String(count)} waits have ended`, () => broker.seen.aborted === count)
}

describe('the gate in front of MCP over HTTP', () => {
  it('[G-every-message-decided] has every message decided before the SDK sees it, in both eras', async () => {
    const edge = await openEdge({ broker: memoryBroker({ denied: ['get_status', 'tools/list'] }) })
    const token = await edge.token()
    const session = await openSession(edge.url, token)
    const denied = await messagesOf(
      await post(edge.url, token, call(1, 'get_status', {}), { 'mcp-session-id': session }),
    )
    const stateless = await messagesOf(
      await post(edge.url, token, statelessCall(2, 'get_status', {}), statelessHeaders('get_status')),
    )
    for (const answer of [denied[0], stateless[0]])
      expect(answer?.['result']).toMatchObject({
        isError: true,
        structuredContent: { error: { code: 'not_yours', ref: 'dec_aaaaaaaaaa' } },
      })
    const listed = await messagesOf(
      await post(edge.url, token, { jsonrpc: '2.0', id: 3, method: 'tools/list' }, { 'mcp-session-id': session }),
    )
    expect(listed[0]).toMatchObject({ id: 3, error: { code: -32_010 } })
    expect(edge.broker.seen.admitted.map(({ message }) => message.name)).toEqual([
      'initialize',
      'notifications/initialized',
      'get_status',
      'get_status',
      'tools/list',
    ])
    expect(edge.broker.seen.called).toEqual([])
    // Whoever asks is who the token says, and what the client says of itself is only that.
    const { caller } = edge.broker.seen.admitted[2] ?? {}
    expect(caller).toMatchObject({
      subject: { id: 'ada' },
      agent: { id: 'agent', asserted: { client: 'raw', version: '1' } },
      auth: { method: 'token' },
    })
  })

  it('decides nothing for a stranger and reads no body of one', async () => {
    const edge = await openEdge()
    for (const token of ['', 'x', `writ_${'a'.repeat(48)}`]) {
      const refused = await post(edge.url, token, initialize)
      expect(refused.status).toBe(401)
      expect(refused.headers.get('www-authenticate')).toMatch(/^Bearer /)
    }
    expect(edge.broker.seen.admitted).toEqual([])
  })

  it('answers malformed messages with a status of their own and the words of the socket', async () => {
    const edge = await openEdge()
    const token = await edge.token()
    const cases: readonly (readonly [string, number, number])[] = [
      ['{', 400, -32_700],
      ['[]', 400, -32_600],
      ['{"jsonrpc":"2.0","id":1,"method":"no/such"}', 200, -32_601],
      ['{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{}}', 200, -32_602],
      ['{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}', 400, -32_700],
    ]
    for (const [body, status, code] of cases) {
      const answer = await post(edge.url, token, body)
      expect([body, answer.status]).toEqual([body, status])
      expect((await messagesOf(answer))[0]).toMatchObject({ error: { code } })
    }
    const modern = await post(edge.url, token, '{"jsonrpc":"2.0","id":1,"method":"no/such"}', {
      'mcp-protocol-version': '2026-07-28',
    })
    expect(modern.status).toBe(404)
    // A response is nothing we asked for.
    expect((await post(edge.url, token, '{"jsonrpc":"2.0","id":1,"result":{}}')).status).toBe(202)
  })

  it('holds what the head says against the body in the stateless revision', async () => {
    const edge = await openEdge()
    const token = await edge.token()
    const other = await post(edge.url, token, statelessCall(1, 'get_status', {}), statelessHeaders('cancel_execution'))
    expect(other.status).toBe(400)
    expect((await messagesOf(other))[0]).toMatchObject({ id: 1, error: {} })
    expect(edge.broker.seen.called).toEqual([])
  })
})

describe('a session', () => {
  it('[G-session-bound] is the caller’s who opened it: for another it looks like one that does not exist', async () => {
    const edge = await openEdge()
    const [ada, adaAgain, eve, adaElse] = await Promise.all([
      edge.token('ada'),
      edge.token('ada'),
      edge.token('eve'),
      edge.token('ada', 'another-agent'),
    ])
    const session = await openSession(edge.url, ada)
    const headers = { 'mcp-session-id': session }
    expect((await messagesOf(await post(edge.url, ada, ping, headers)))[0]).toMatchObject({ id: 1, result: {} })
    // A token that replaced another is the same caller.
    expect((await post(edge.url, adaAgain, ping, headers)).status).toBe(200)
    const unknown = await post(edge.url, eve, ping, { 'mcp-session-id': 'A'.repeat(32) })
    const text = await unknown.text()
    for (const token of [eve, adaElse]) {
      const answer = await post(edge.url, token, ping, headers)
      expect([answer.status, await answer.text()]).toEqual([unknown.status, text])
      const ended = await fetch(`${edge.url}/mcp`, {
        method: 'DELETE',
        headers: { ...headers, authorization: `Bearer ${token}` },
      })
      expect(ended.status).toBe(404)
      const stream = await fetch(`${edge.url}/mcp`, {
        headers: { ...headers, authorization: `Bearer ${token}`, accept: 'text/event-stream' },
      })
      expect(stream.status).toBe(404)
    }
    expect((await post(edge.url, ada, ping, headers)).status).toBe(200)
  })

  it('ends by DELETE, and is unknown from then on', async () => {
    const edge = await openEdge()
    const token = await edge.token()
    const session = await openSession(edge.url, token)
    const headers = { 'mcp-session-id': session, authorization: `Bearer ${token}` }
    expect((await fetch(`${edge.url}/mcp`, { method: 'DELETE', headers })).status).toBe(200)
    expect((await post(edge.url, token, ping, { 'mcp-session-id': session })).status).toBe(404)
  })

  it('makes room for another by the one longest unused, never by one that is in use', async () => {
    const edge = await openEdge({ limits: { sessions_per_caller: 2 } })
    const token = await edge.token()
    const [first, second] = [await openSession(edge.url, token), await openSession(edge.url, token)]
    const gone = new AbortController()
    const waiting = later(post(edge.url, token, call(5, 'get_status', wait), { 'mcp-session-id': first }, gone.signal))
    await arrived(edge, 1)
    const third = await openSession(edge.url, token)
    expect((await post(edge.url, token, ping, { 'mcp-session-id': second })).status).toBe(404)
    expect((await post(edge.url, token, ping, { 'mcp-session-id': third })).status).toBe(200)
    const response = await waiting
    const busy = later(post(edge.url, token, call(6, 'get_status', wait), { 'mcp-session-id': third }, gone.signal))
    await arrived(edge, 2)
    const full = await post(edge.url, token, initialize)
    expect([full.status, full.headers.get('retry-after')]).toEqual([429, '30'])
    // Another caller is not concerned.
    expect(await openSession(edge.url, await edge.token('eve'))).toMatch(/^[\w-]{32}$/)
    gone.abort()
    await Promise.allSettled([busy, response.text()])
  })

  it('is forgotten when nobody used it for its time', async () => {
    const edge = await openEdge({ sessionIdleMs: 3000 })
    const token = await edge.token()
    const session = await openSession(edge.url, token)
    const status = async (): Promise<number> =>
      (await post(edge.url, token, ping, { 'mcp-session-id': session })).status
    expect(await status()).toBe(200)
    // Looked at from outside: to ask for it would be to use it.
    await until('it is forgotten', async () =>
      (await (await fetch(`${edge.url}/metrics`)).text()).includes('writ_http_sessions 0'),
    )
    expect(await status()).toBe(404)
  })

  it('answers an id once: the same id again while it is being served is refused', async () => {
    const edge = await openEdge()
    const token = await edge.token()
    const session = await openSession(edge.url, token)
    const headers = { 'mcp-session-id': session }
    const slow = later(post(edge.url, token, call(7, 'get_status', wait), headers))
    await arrived(edge, 1)
    const again = await post(edge.url, token, call(7, 'get_status', {}), headers)
    expect(again.status).toBe(400)
    edge.broker.release()
    expect((await messagesOf(await slow)).at(-1)).toMatchObject({ id: 7, result: {} })
    expect((await post(edge.url, token, call(7, 'get_status', {}), headers)).status).toBe(200)
  })

  it('lets a client hold one stream open, and ends it with the session', async () => {
    const edge = await openEdge()
    const token = await edge.token()
    const session = await openSession(edge.url, token)
    const headers = { 'mcp-session-id': session, authorization: `Bearer ${token}`, accept: 'text/event-stream' }
    const stream = await fetch(`${edge.url}/mcp`, { headers })
    expect([stream.status, stream.headers.get('content-type')]).toEqual([200, 'text/event-stream'])
    const second = await fetch(`${edge.url}/mcp`, { headers })
    expect(second.status).toBe(409)
    const ended = stream.text()
    await fetch(`${edge.url}/mcp`, { method: 'DELETE', headers })
    expect(await ended).toBe('')
  })

  it('answers nothing to what was cancelled and ends its stream', async () => {
    const edge = await openEdge()
    const token = await edge.token()
    const session = await openSession(edge.url, token)
    const headers = { 'mcp-session-id': session }
    const waiting = await post(edge.url, token, call(8, 'get_status', wait), headers)
    await arrived(edge, 1)
    const cancelled = { jsonrpc: '2.0', method: 'notifications/cancelled', params: { requestId: 8 } }
    expect((await post(edge.url, token, cancelled, headers)).status).toBe(202)
    expect(await waiting.text()).toBe('')
    await letGo(edge, 1)
  })
})

describe('a wait over HTTP', () => {
  it.each(['a session', 'the stateless revision'])(
    'ends when its client goes, in %s, and frees what it held',
    async (era) => {
      const edge = await openEdge()
      const token = await edge.token()
      const gone = new AbortController()
      const sent =
        era === 'a session'
          ? post(
              edge.url,
              token,
              call(1, 'get_status', wait),
              { 'mcp-session-id': await openSession(edge.url, token) },
              gone.signal,
            )
          : post(edge.url, token, statelessCall(1, 'get_status', wait), statelessHeaders('get_status'), gone.signal)
      sent.catch(() => undefined)
      await arrived(edge, 1)
      gone.abort()
      await letGo(edge, 1)
      await sent.catch(() => undefined)
    },
  )

  it.each(['a session', 'the stateless revision'])(
    '[G-token-revoked] ends without an answer when its token is revoked, in %s',
    async (era) => {
      const edge = await openEdge()
      const token = await edge.token()
      const headers =
        era === 'a session' ? { 'mcp-session-id': await openSession(edge.url, token) } : statelessHeaders('get_status')
      const sent = post(
        edge.url,
        token,
        era === 'a session' ? call(1, 'get_status', wait) : statelessCall(1, 'get_status', wait),
        headers,
      )
      const over = sent.then(async (response) => await response.text()).catch(() => 'cut')
      await arrived(edge, 1)
      await edge.tokens.revoke(edge.tokens.list()[0]?.id ?? '')
      expect(await over).toBe('cut')
      expect((await post(edge.url, token, ping)).status).toBe(401)
      await letGo(edge, 1)
    },
  )

  it('ends when its token expires', async () => {
    const edge = await openEdge()
    const token = await edge.token('ada', 'agent', 4000)
    const sent = post(edge.url, token, statelessCall(1, 'get_status', wait), statelessHeaders('get_status'))
    const over = later(sent.then(async (response) => await response.text()))
    await Promise.race([over, arrived(edge, 1)])
    await expect(over).rejects.toThrow(/terminated|fetch failed/)
    await letGo(edge, 1)
  })

  it('[G-no-lost-wait] is answered when the broker stops, and then the connection closes', async () => {
    // Whoever was only cut off would be so after this long.
    const edge = await openEdge({ timeouts: { stop: 25_000 } })
    const token = await edge.token()
    const session = await openSession(edge.url, token)
    const stream = await fetch(`${edge.url}/mcp`, {
      headers: { 'mcp-session-id': session, authorization: `Bearer ${token}`, accept: 'text/event-stream' },
    })
    const waiting = [
      post(edge.url, token, call(1, 'get_status', wait), { 'mcp-session-id': session }),
      post(edge.url, token, call(2, 'start_execution', { task_id: 'task_aaaaaaaaaa', wait_ms: 20_000 }), {
        'mcp-session-id': session,
      }),
      post(edge.url, token, statelessCall(3, 'get_status', wait), statelessHeaders('get_status')),
    ].map(later)
    await arrived(edge, 3)
    const began = performance.now()
    const closing = edge.http.close()
    const answers = await Promise.all(waiting.map(async (one) => (await messagesOf(await one)).at(-1)))
    expect(
      answers.map((answer) => (answer?.['result'] as JsonObject | undefined)?.['structuredContent']),
    ).toMatchObject([
      { state: 'running', final: false },
      { state: 'running', final: false },
      { state: 'running', final: false },
    ])
    expect(await stream.text()).toBe('')
    await closing
    expect(performance.now() - began).toBeLessThan(15_000)
    await expect(fetch(`${edge.url}/healthz`)).rejects.toThrow('fetch failed')
  })

  it('tells its progress on the way where it was asked to, every 5 s', async () => {
    const edge = await openEdge()
    const token = await edge.token()
    const session = await openSession(edge.url, token)
    const args = { execution_id: 'exec_bbbbbbbbbb', wait_ms: 7500 }
    const [legacy, modern] = await Promise.all([
      post(edge.url, token, call(1, 'get_status', args, { progressToken: 'p' }), { 'mcp-session-id': session }).then(
        messagesOf,
      ),
      post(
        edge.url,
        token,
        statelessCall(1, 'get_status', args, { progressToken: 'p' }),
        statelessHeaders('get_status'),
      ).then(messagesOf),
    ])
    for (const messages of [legacy, modern]) {
      expect(messages.map((message) => message['method'] ?? 'answer')).toEqual(['notifications/progress', 'answer'])
      expect(messages[0]?.['params']).toMatchObject({ progressToken: 'p', message: 'step 1 of 1' })
    }
  })
})

describe('what is too much', () => {
  it('is refused to the caller who asks for it and to nobody else, with a time to come back', async () => {
    const edge = await openEdge({ limits: { requests_per_caller: 2 } })
    const [ada, eve] = [await edge.token('ada'), await edge.token('eve')]
    const gone = new AbortController()
    const held = [1, 2].map((id) =>
      post(edge.url, ada, statelessCall(id, 'get_status', wait), statelessHeaders('get_status'), gone.signal).catch(
        () => null,
      ),
    )
    await arrived(edge, 2)
    const third = await post(edge.url, ada, statelessCall(3, 'get_status', {}), statelessHeaders('get_status'))
    expect([third.status, third.headers.get('retry-after')]).toEqual([429, '1'])
    expect((await post(edge.url, eve, statelessCall(3, 'get_status', {}), statelessHeaders('get_status'))).status).toBe(
      200,
    )
    gone.abort()
    await Promise.all(held)
    await letGo(edge, 2)
    expect((await post(edge.url, ada, statelessCall(4, 'get_status', {}), statelessHeaders('get_status'))).status).toBe(
      200,
    )
  })

  it('is refused to everybody where all together ask for it', async () => {
    const edge = await openEdge({ limits: { requests: 2 } })
    const tokens = [await edge.token('ada'), await edge.token('eve')]
    const gone = new AbortController()
    const held = tokens.map((token) =>
      post(edge.url, token, statelessCall(1, 'get_status', wait), statelessHeaders('get_status'), gone.signal).catch(
        () => null,
      ),
    )
    await arrived(edge, 2)
    const third = await fetch(`${edge.url}/healthz`)
    expect([third.status, third.headers.get('retry-after')]).toEqual([503, '1'])
    gone.abort()
    await Promise.all(held)
  })

  it('counts connections too: one caller’s share does not grow with them', async () => {
    const edge = await openEdge({ limits: { connections_per_caller: 2 } })
    const token = await edge.token()
    const gone = new AbortController()
    const held = [1, 2].map((id) =>
      post(edge.url, token, statelessCall(id, 'get_status', wait), statelessHeaders('get_status'), gone.signal).catch(
        () => null,
      ),
    )
    await arrived(edge, 2)
    expect(
      (await post(edge.url, token, statelessCall(3, 'get_status', {}), statelessHeaders('get_status'))).status,
    ).toBe(429)
    gone.abort()
    await Promise.all(held)
    await letGo(edge, 2)
    expect(
      (await post(edge.url, token, statelessCall(4, 'get_status', {}), statelessHeaders('get_status'))).status,
    ).toBe(200)
  })
})

describe('beside MCP', () => {
  it('tells keys, health, readiness and what is unavailable, to whoever asks', async () => {
    const edge = await openEdge()
    const read = async (path: string): Promise<readonly [number, unknown]> => {
      const answer = await fetch(`${edge.url}${path}`)
      return [answer.status, await answer.json()]
    }
    expect(await read('/.well-known/jwks.json')).toEqual([200, { keys: [], key_set: '' }])
    expect(await read('/healthz')).toEqual([200, { ok: true }])
    expect(await read('/readyz')).toEqual([200, { ready: true, unavailable: ['engine'] }])
    expect((await read('/nothing'))[0]).toBe(404)
    expect((await fetch(`${edge.url}/healthz`, { method: 'POST' })).status).toBe(405)
    expect((await fetch(`${edge.url}/healthz`, { method: 'HEAD' })).status).toBe(200)
  })

  it('[G-metrics-value-free] counts without a name, an id or a tenant, for loopback only and not through a proxy', async () => {
    const edge = await openEdge()
    const token = await edge.token('somebody-with-a-name', 'agent-with-a-name')
    const session = await openSession(edge.url, token)
    await post(edge.url, token, call(1, 'get_status', { execution_id: 'exec_bbbbbbbbbb' }), {
      'mcp-session-id': session,
    })
    await fetch(`${edge.url}/some/path/of/mine`)
    for (const guess of ['writ_guess', 'writ_another', null])
      await fetch(`${edge.url}/mcp`, guess === null ? {} : { headers: { authorization: `Bearer ${guess}` } })
    const text = await (await fetch(`${edge.url}/metrics`)).text()
    expect(text).toMatch(/writ_http_requests_total\{route="mcp",status="200"\} \d/)
    expect(text).toContain('writ_waits 3')
    expect(text).toContain('writ_http_sessions 1')
    expect(text).toContain('writ_http_unauthenticated_total{code="invalid_token"} 2')
    expect(text).toContain('writ_http_unauthenticated_total{code="missing_token"} 1')
    expect(text).toContain('writ_http_token_failures_worst_address 2')
    expect(text).toContain('writ_http_token_failures_addresses 1')
    for (const secret of ['somebody', 'agent-with', 'exec_', 'default', session, '/some', token, '127.0.0.1'])
      expect(text).not.toContain(secret)
    // Every label is one of a closed list.
    for (const [, name, value] of text.matchAll(/[{,](\w+)="([^"]*)"/g)) {
      expect(['route', 'status', 'why', 'code', 'le']).toContain(name)
      expect(value).toMatch(
        /^(mcp|transfer|well-known|health|metrics|other|\d{3}|[\d.]+|\+Inf|malformed|host|origin|busy|connections|(missing|invalid)_token)$/,
      )
    }
    for (const name of ['x-forwarded-for', 'forwarded', 'via'])
      expect((await fetch(`${edge.url}/metrics`, { headers: { [name]: '192.0.2.1' } })).status).toBe(404)
    const open = await openEdge({ http: { metrics: true } })
    expect((await fetch(`${open.url}/metrics`, { headers: { via: '1.1 proxy' } })).status).toBe(200)
  })

  it('lets pages of listed origins call and read, and no others', async () => {
    const edge = await openEdge({ http: { origins: ['https://app.example'] } })
    const token = await edge.token()
    const ask = async (origin: string): Promise<Response> =>
      await fetch(`${edge.url}/mcp`, {
        method: 'OPTIONS',
        headers: { origin, 'access-control-request-method': 'POST' },
      })
    const allowed = await ask('https://app.example')
    expect([allowed.status, allowed.headers.get('access-control-allow-origin')]).toEqual([204, 'https://app.example'])
    const foreign = await ask('https://evil.example')
    expect([foreign.status, foreign.headers.get('access-control-allow-origin')]).toEqual([403, null])
    const called = await post(edge.url, token, initialize, { origin: 'https://app.example' })
    expect([called.status, called.headers.get('access-control-allow-origin')]).toEqual([200, 'https://app.example'])
    // A page this server would serve itself is of the same origin and needs no permission to read.
    const own = await post(edge.url, token, initialize, { origin: edge.url })
    expect([own.status, own.headers.get('access-control-allow-origin')]).toEqual([200, null])
  })
})

import { afterEach, describe, expect, test } from 'vitest'
import type { EgressRequest, EgressResponse } from '../../../src/egress/egress.ts'
import { until as waitUntil } from '../../wait.ts'
import { openConnections } from '../../../src/executor/docker/egress.ts'
import type { Connections } from '../../../src/executor/docker/egress.ts'

/*
 * What a run sends over its loopback, as bytes of connections, against the port of a gateway: here every byte is foreign.
 */

const first = 16
const window = 262_144

interface Side {
  readonly connections: Connections
  readonly asked: EgressRequest[]
  /** What came back on a connection. */
  text(connection?: number): string
  readonly ended: number[]
  readonly resets: number[]
  /** Bytes that the agent was told that it may send again. */
  returned: number
  /** Bytes that the agent takes of a connection. */
  room: number
  readonly signals: AbortSignal[]
}

let open: Side[] = []
afterEach(() => {
  for (const { connections } of open) connections.close()
  open = []
})

function begin(answer: (request: EgressRequest) => Promise<EgressResponse> | EgressResponse, bodyMs?: number): Side {
  const sent = new Map<number, Buffer[]>()
  const side: Side = {
    connections: openConnections(
      {
        fetch(request, signal) {
          side.asked.push(request)
          side.signals.push(signal)
          return Promise.resolve(answer(request))
        },
      },
      {
        data(connection, bytes) {
          side.room -= bytes.length
          sent.set(connection, [...(sent.get(connection) ?? []), Buffer.from(bytes)])
        },
        end: (connection) => void side.ended.push(connection),
        reset: (connection) => void side.resets.push(connection),
        window: (_connection, bytes) => void (side.returned += bytes),
        room: () => side.room,
      },
      bodyMs,
    ),
    asked: [],
    text: (connection = first) => Buffer.concat(sent.get(connection) ?? []).toString('latin1'),
    ended: [],
    resets: [],
    returned: 0,
    room: window,
    signals: [],
  }
  open.push(side)
  return side
}

const ok = (body = 'hello', headers: EgressResponse['headers'] = []): EgressResponse => ({
  status: 200,
  headers,
  body: Buffer.from(body),
})

async function until(condition: () => boolean): Promise<void> {
  await waitUntil('what was sent comes to something', condition, { everyMs: 2 })
}

function say(side: Side, text: string, connection = first): void {
  side.connections.open(connection)
  side.connections.data(connection, Buffer.from(text, 'latin1'))
}

const host = 'Host: 127.0.0.1:3128\r\n'

describe('a request of a run', () => {
  test('comes to the gateway as it was written, and the answer goes back whole', async () => {
    const side = begin(() =>
      ok('answer', [
        ['x-one', '1'],
        ['x-one', '2'],
      ]),
    )
    say(side, `POST /vault/v1/%61?q=1 HTTP/1.1\r\n${host}X-A: 1\r\nx-a: 2\r\nContent-Length: 4\r\n\r\nbody`)
    await until(() => side.text().endsWith('answer'))
    const [asked] = side.asked
    expect(asked).toMatchObject({ method: 'POST', url: 'http://127.0.0.1:3128/vault/v1/%61?q=1' })
    expect(Buffer.from(asked?.body ?? []).toString()).toBe('body')
    expect(asked?.headers.filter(([name]) => name.toLowerCase() === 'x-a')).toEqual([
      ['X-A', '1'],
      ['x-a', '2'],
    ])
    expect(side.text()).toMatch(/^HTTP\/1\.1 200 OK\r\nx-one: 1\r\nx-one: 2\r\ncontent-length: 6\r\n/)
  })

  test('cut at every byte is the same request', async () => {
    const text = `POST /vault/ HTTP/1.1\r\n${host}Content-Length: 3\r\n\r\nabc`
    const side = begin(() => ok())
    side.connections.open(first)
    for (const byte of Buffer.from(text)) side.connections.data(first, Buffer.from([byte]))
    await until(() => side.text().endsWith('hello'))
    expect(side.asked).toHaveLength(1)
  })

  test('follows another on one connection, in order', async () => {
    const side = begin(async ({ url }) => {
      await new Promise((resolve) => setTimeout(resolve, url.endsWith('1') ? 30 : 0))
      return ok(url.slice(-1))
    })
    say(side, `GET /v/1 HTTP/1.1\r\n${host}\r\nGET /v/2 HTTP/1.1\r\n${host}\r\n`)
    await until(() => side.text().split('HTTP/1.1 200').length === 3 && side.text().endsWith('2'))
    expect(side.text().indexOf('\r\n\r\n1')).toBeLessThan(side.text().indexOf('\r\n\r\n2'))
  })

  test('that waits for leave to send its body is given it', async () => {
    const side = begin(() => ok())
    say(side, `POST /v/ HTTP/1.1\r\n${host}Expect: 100-continue\r\nContent-Length: 2\r\n\r\n`)
    await until(() => side.text().startsWith('HTTP/1.1 100 Continue'))
    side.connections.data(first, Buffer.from('ab'))
    await until(() => side.text().endsWith('hello'))
  })

  test.each([
    ['another host', `GET /v/ HTTP/1.1\r\nHost: evil.example\r\n\r\n`, 'http://evil.example/v/'],
    ["a proxy's form", `GET http://evil.example/v/ HTTP/1.1\r\n${host}\r\n`, 'http://evil.example/v/'],
    ['another port', `GET /v/ HTTP/1.1\r\nHost: 127.0.0.1:80\r\n\r\n`, 'http://127.0.0.1:80/v/'],
    ['two hosts', `GET /v/ HTTP/1.1\r\n${host}Host: evil.example\r\n\r\n`, 'http://127.0.0.1:3128 evil.example/v/'],
    ['its host twice', `GET /v/ HTTP/1.1\r\n${host}${host}\r\n`, 'http://127.0.0.1:3128 127.0.0.1:3128/v/'],
    [
      "a proxy's form of here and another host",
      `GET http://127.0.0.1:3128/v/ HTTP/1.1\r\nHost: evil.example\r\n\r\n`,
      'http://evil.example/',
    ],
  ])('for %s is not made one for a service [G-egress-closed]', async (_what, text, url) => {
    const side = begin(() => ({ status: 400, headers: [], body: Buffer.alloc(0) }))
    say(side, text)
    await until(() => side.text().startsWith('HTTP/1.1 400'))
    expect(side.asked.map((one) => one.url)).toEqual([url])
  })

  test('to this machine by name is one to the gateway', async () => {
    const side = begin(() => ok())
    say(side, `GET /v/ HTTP/1.1\r\nHost: LOCALHOST:3128\r\n\r\n`)
    await until(() => side.asked.length === 1)
    expect(side.asked[0]?.url).toBe('http://127.0.0.1:3128/v/')
  })

  test('to open a tunnel is asked of the gateway, which counts it, and no tunnel is made [G-egress-closed]', async () => {
    const side = begin(() => ok('tunnel?'))
    say(side, `CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\nmore bytes`)
    await until(() => side.ended.includes(first))
    expect(side.asked.map(({ method }) => method)).toEqual(['CONNECT'])
    expect(side.text()).toMatch(/^HTTP\/1\.1 405 /)
  })

  test('to speak another protocol is refused and not passed on', async () => {
    const side = begin(() => ok())
    say(side, `GET /v/ HTTP/1.1\r\n${host}Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n`)
    await until(() => side.text().startsWith('HTTP/1.1 501'))
    expect(side.asked).toEqual([])
  })

  test.each([
    ['two lengths', `POST /v/ HTTP/1.1\r\n${host}Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd`],
    [
      'a length and chunks',
      `POST /v/ HTTP/1.1\r\n${host}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`,
    ],
    ['no host', 'GET /v/ HTTP/1.1\r\n\r\n'],
    ['a bare line feed', `GET /v/ HTTP/1.1\n${host}\n\n`],
    ['a header that goes on in the next line', `GET /v/ HTTP/1.1\r\n${host}X: a\r\n b\r\n\r\n`],
    ['more headers than are taken', `GET /v/ HTTP/1.1\r\n${host}X: ${'a'.repeat(40_000)}\r\n\r\n`],
    ['another protocol altogether', '\u0016\u0003\u0001\u0002\u0000\u0001\u0000\u0001\u00fc\u0003\u0003'],
    ['version 2', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'],
  ])('with %s is refused and not passed on', async (_what, text) => {
    const side = begin(() => ok())
    say(side, text)
    await until(() => side.text().startsWith('HTTP/1.1 4') || side.ended.length + side.resets.length > 0)
    expect(side.asked).toEqual([])
  })

  test('with more body than any gateway takes is refused before it is all held', async () => {
    const side = begin(() => ok())
    say(side, `POST /v/ HTTP/1.1\r\n${host}Transfer-Encoding: chunked\r\n\r\n`)
    const chunk = Buffer.concat([Buffer.from('10000\r\n'), Buffer.alloc(65_536, 97), Buffer.from('\r\n')])
    for (let sent = 0; sent < 20 && !side.text().startsWith('HTTP/1.1 413'); sent++) {
      side.connections.data(first, chunk)
      await new Promise((resolve) => setTimeout(resolve, 1))
    }
    await until(() => side.text().startsWith('HTTP/1.1 413'))
    expect(side.asked).toEqual([])
  })
})

describe('a body', () => {
  test('that is not there in time is refused, and others have its turn [G-egress-bounded]', async () => {
    const side = begin(() => ok(), 200)
    const head = `POST /v/ HTTP/1.1\r\n${host}Content-Length: 10\r\n\r\n`
    for (let n = 0; n < 8; n++) say(side, `${head}half`, first + n)
    say(side, `GET /v/ HTTP/1.1\r\n${host}\r\n`, first + 8)
    await until(() => side.text(first + 8).endsWith('hello'))
    for (let n = 0; n < 8; n++) await until(() => side.text(first + n).startsWith('HTTP/1.1 408 '))
    expect(side.asked).toHaveLength(1)
  })

  test('that is cut off is refused', async () => {
    const side = begin(() => ok())
    say(side, `POST /v/ HTTP/1.1\r\n${host}Content-Length: 10\r\n\r\nhalf`)
    await new Promise((resolve) => setTimeout(resolve, 20))
    side.connections.end(first)
    await until(() => side.ended.includes(first) || side.resets.includes(first))
    expect(side.asked).toEqual([])
  })

  test('is not read before its turn, of whatever length [G-egress-bounded]', async () => {
    const side = begin(() => new Promise(() => undefined))
    for (let n = 0; n < 8; n++) say(side, `GET /v/ HTTP/1.1\r\n${host}\r\n`, first + n)
    await until(() => side.asked.length === 8)
    say(side, `POST /v/ HTTP/1.1\r\n${host}Transfer-Encoding: chunked\r\n\r\n`, first + 8)
    side.connections.data(first + 8, Buffer.from(`30000\r\n${'a'.repeat(0x30000)}\r\n`))
    await new Promise((resolve) => setTimeout(resolve, 50))
    expect(side.returned).toBe(0)
  })

  test('with the end of a head in it at every place is read whole', async () => {
    const body = `${'\r\n\r\n'.repeat(20_000)}end`
    const side = begin(() => ok())
    for (const [at, text] of [
      `POST /v/ HTTP/1.1\r\n${host}Content-Length: ${body.length}\r\n\r\n${body}`,
      `POST /v/ HTTP/1.1\r\n${host}Transfer-Encoding: chunked\r\n\r\n${body.length.toString(16)}\r\n${body}\r\n0\r\n\r\n`,
    ].entries()) {
      say(side, text, first + at)
      await until(() => side.text(first + at).endsWith('hello'))
      expect(Buffer.from(side.asked[at]?.body ?? []).toString()).toBe(body)
    }
  })
})

describe('an answer', () => {
  test('goes out only as fast as the agent takes it', async () => {
    const side = begin(() => ok('x'.repeat(1_000_000)))
    side.room = 1000
    say(side, `GET /v/ HTTP/1.1\r\n${host}\r\n`)
    await until(() => side.text().length === 1000)
    await new Promise((resolve) => setTimeout(resolve, 30))
    expect(side.text()).toHaveLength(1000)
    while (!side.text().endsWith('x'.repeat(1000)) || side.text().length < 1_000_000) {
      side.room = 65_000
      side.connections.raised(first)
      await new Promise((resolve) => setTimeout(resolve, 0))
    }
    expect(side.text().length - side.text().indexOf('\r\n\r\n') - 4).toBe(1_000_000)
  })

  test('that nobody reads holds up no more than eight requests of its run', async () => {
    const side = begin(() => ok('x'.repeat(1_000_000)))
    side.room = 0
    for (let n = 0; n < 30; n++) say(side, `GET /v/${n} HTTP/1.1\r\n${host}\r\n`, first + n)
    await until(() => side.asked.length === 8)
    await new Promise((resolve) => setTimeout(resolve, 50))
    expect(side.asked).toHaveLength(8)
    for (let n = 0; n < 8; n++) side.connections.reset(first + n)
    await until(() => side.asked.length >= 16)
    await new Promise((resolve) => setTimeout(resolve, 50))
    expect(side.asked).toHaveLength(16)
  })

  test('is waited for before the next request of its connection is read, however many are sent ahead [G-egress-bounded]', async () => {
    const held: (() => void)[] = []
    const side = begin(async ({ url }) => {
      await new Promise<void>((resolve) => held.push(resolve))
      return ok(url.slice(-1))
    })
    side.room = 100_000_000
    for (let n = 0; n < 8; n++) say(side, `GET /v/ HTTP/1.1\r\n${host}\r\n`, first + n)
    await until(() => side.asked.length === 8)
    const one = `GET /v/x HTTP/1.1\r\n${host}\r\n`
    const many = Math.floor(window / 8 / one.length)
    // A ninth in every form that holds many requests: whole, byte by byte, and with bodies.
    say(side, one.repeat(many), first + 8)
    side.connections.open(first + 9)
    for (const byte of Buffer.from(one.repeat(200))) side.connections.data(first + 9, Buffer.from([byte]))
    say(side, `POST /v/x HTTP/1.1\r\n${host}Content-Length: 3\r\n\r\na\r\n${one.repeat(300)}`, first + 10)
    say(side, `POST /v/x HTTP/1.1\r\n${host}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n${one.repeat(300)}`, first + 11)
    await new Promise((resolve) => setTimeout(resolve, 100))
    expect(side.asked).toHaveLength(8)
    // Nothing was read but a head of each.
    expect(side.returned).toBe(0)
    for (let answered = 0; answered < 8; answered++) held.shift()?.()
    await until(() => side.asked.length === 12)
    await new Promise((resolve) => setTimeout(resolve, 100))
    // One at a time, all of them: those of one connection do not pass those of another.
    expect(side.asked).toHaveLength(12)
    const all = many + 200 + 301 + 301
    for (const late = Date.now() + 60_000; side.asked.length < 8 + all || held.length > 0;) {
      if (Date.now() > late) throw new Error(`only ${side.asked.length} were asked`)
      expect(held.length).toBeLessThanOrEqual(4)
      for (const answer of held.splice(0)) answer()
      await new Promise((resolve) => setImmediate(resolve))
    }
    expect(side.text(first + 8).split('HTTP/1.1 200').length - 1).toBe(many)
    expect(side.resets).toEqual([])
  })

  test('is not waited for by what was given up: requests that nobody waits for any more keep no place [G-egress-bounded]', async () => {
    let free: () => void = () => undefined
    const gate = new Promise<void>((resolve) => (free = resolve))
    const side = begin(async () => {
      await gate
      return ok()
    })
    side.room = 100_000_000
    const one = `GET /v/ HTTP/1.1\r\n${host}\r\n`
    for (let n = 0; n < 8; n++) say(side, one, first + n)
    await until(() => side.asked.length === 8)
    for (let n = 8; n < 3000; n++) {
      say(side, one + one, first + n)
      side.connections.reset(first + n)
    }
    say(side, one, first + 3000)
    free()
    await until(() => side.text(first + 3000).endsWith('hello'))
    expect(side.asked).toHaveLength(9)
  })

  test('to a question for the head alone, and one without content, has none', async () => {
    const side = begin(({ method }) =>
      method === 'HEAD' ? ok('') : { status: 204, headers: [], body: Buffer.from('no') },
    )
    say(side, `HEAD /v/ HTTP/1.1\r\n${host}\r\nGET /v/ HTTP/1.1\r\n${host}\r\n`)
    await until(() => side.text().includes('204 No Content'))
    expect(side.text()).not.toContain('content-length')
    expect(side.text().endsWith('\r\n\r\n')).toBe(true)
  })

  test('that is none, or that HTTP cannot say, is an error and not a lie', async () => {
    const side = begin(({ url }) => {
      if (url.endsWith('1')) return { status: 99, headers: [], body: Buffer.alloc(0) }
      if (url.endsWith('2')) throw new Error('never')
      return ok('x', [['bad name', 'x']])
    })
    say(side, `GET /v/1 HTTP/1.1\r\n${host}\r\n`)
    say(side, `GET /v/2 HTTP/1.1\r\n${host}\r\n`, first + 1)
    say(side, `GET /v/3 HTTP/1.1\r\n${host}\r\n`, first + 2)
    await until(() => side.text().startsWith('HTTP/1.1 502') && side.text(first + 1).startsWith('HTTP/1.1 502'))
    await until(() => side.resets.includes(first + 2))
  })
})

describe('a connection', () => {
  test('that the run gives up stops the request', async () => {
    const side = begin(() => new Promise(() => undefined))
    say(side, `GET /v/ HTTP/1.1\r\n${host}\r\n`)
    await until(() => side.signals.length === 1)
    side.connections.reset(first)
    await until(() => side.signals[0]?.aborted === true)
    expect(side.resets).toEqual([])
  })

  test('that the run ends is ended in turn', async () => {
    const side = begin(() => ok())
    say(side, `GET /v/ HTTP/1.1\r\n${host}\r\n`)
    await until(() => side.text().endsWith('hello'))
    side.connections.end(first)
    await until(() => side.ended.includes(first))
    expect(side.resets).toEqual([])
  })

  test('gives the agent back what was read of it', async () => {
    const side = begin(() => ok())
    say(side, `POST /v/ HTTP/1.1\r\n${host}Content-Length: 500000\r\n\r\n`)
    for (let sent = 0; sent < 500_000; sent += 50_000) side.connections.data(first, Buffer.alloc(50_000))
    await until(() => side.text().endsWith('hello'))
    expect(side.returned).toBeGreaterThan(500_000 - window)
  })

  test('is forgotten when all are closed, and nothing is sent after', async () => {
    const side = begin(() => new Promise(() => undefined))
    say(side, `GET /v/ HTTP/1.1\r\n${host}\r\n`)
    await until(() => side.signals.length === 1)
    side.connections.close()
    await until(() => side.signals[0]?.aborted === true)
    expect([side.ended, side.resets]).toEqual([[], []])
  })
})

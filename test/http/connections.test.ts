import { EventEmitter } from 'node:events'
import { connect, type Socket } from 'node:net'
import { writeFileSync } from 'node:fs'
import { request } from 'node:https'
import { describe, expect, it, onTestFinished } from 'vitest'
import { networkOf, openConnections } from '../../src/http/connections.ts'
import { newAuthority } from '../egress/certificate.ts'
import { folder } from '../ledger/folder.ts'
import { later, until } from '../wait.ts'
import { call, openEdge, openSession, post, statelessCall, statelessHeaders } from './edge.ts'

const wait = { execution_id: 'exec_bbbbbbbbbb', wait_ms: 20_000 }

/** Connections that somebody without a token holds, and asks something on now and then. */
class Strangers {
  readonly #sockets: Socket[] = []
  readonly #url: URL
  closed = 0

  constructor(url: string) {
    this.#url = new URL(url)
    onTestFinished(() => this.#sockets.forEach((socket) => void socket.destroy()))
  }
  hold(count: number): void {
    for (let at = 0; at < count; at++) {
      const socket = connect(Number(this.#url.port), '127.0.0.1')
      socket.on('error', () => undefined).on('data', () => undefined)
      socket.once('close', () => this.closed++)
      this.#sockets.push(socket)
    }
  }
  ask(): void {
    for (const socket of this.#sockets)
      if (socket.writable) socket.write(`GET /healthz HTTP/1.1\r\nhost: ${this.#url.host}\r\n\r\n`)
  }
}

describe('[G-strangers] connections of which nobody knows whose they are', () => {
  it('make room for a caller, however many a stranger holds and however it keeps them busy', async () => {
    const edge = await openEdge({ limits: { connections: 20 } })
    const token = await edge.token()
    const strangers = new Strangers(edge.url)
    strangers.hold(20)
    await until('all are open', () => edge.http.connections() === 20)
    const asking = setInterval(() => strangers.ask(), 50)
    onTestFinished(() => clearInterval(asking))
    for (let at = 0; at < 5; at++) {
      const headers = { ...statelessHeaders('get_status'), connection: 'close' }
      const answer = await post(edge.url, token, statelessCall(at, 'get_status', {}), headers)
      expect(answer.status).toBe(200)
      await answer.text()
      strangers.hold(2)
      await until('they are open', () => edge.http.connections() === 20)
    }
    expect(strangers.closed).toBeGreaterThan(0)
  })

  it('make room for one another, and a caller who waits is not closed for any of them', async () => {
    const edge = await openEdge({ limits: { connections: 10 } })
    const token = await edge.token()
    const session = await openSession(edge.url, token)
    const waiting = later(post(edge.url, token, call(1, 'get_status', wait), { 'mcp-session-id': session }))
    await until('it waits', () => edge.broker.seen.called.length === 1)
    const strangers = new Strangers(edge.url)
    strangers.hold(40)
    await until('the others went', () => strangers.closed >= 30)
    expect(edge.http.connections()).toBe(10)
    edge.broker.release()
    const answer = await waiting
    expect([answer.status, (await answer.text()).includes('"result"')]).toEqual([200, true])
  })

  it('make room over TLS too, before they have said anything', async () => {
    const authority = newAuthority()
    const issued = authority.issue({ ip: ['127.0.0.1'] })
    const [certificate, key] = [`${folder()}/tls.crt`, `${folder()}/tls.key`]
    writeFileSync(certificate, issued.cert)
    writeFileSync(key, issued.key)
    const edge = await openEdge({ http: { tls: { certificate, key } }, limits: { connections: 5 } })
    const strangers = new Strangers(edge.url)
    strangers.hold(5)
    await until('all are open', () => edge.http.connections() === 5)
    const token = await edge.token()
    const status = await new Promise((resolve, reject) => {
      const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json' }
      const asked = request(
        `${edge.url}/mcp`,
        { method: 'POST', agent: false, headers, ca: authority.ca },
        (answer) => {
          answer.resume()
          strangers.hold(10)
          answer.once('end', () => resolve(answer.statusCode))
        },
      )
      asked.once('error', reject).end('{"jsonrpc":"2.0","id":1,"method":"ping"}')
    })
    expect(status).toBe(400)
  })
})

/** A connection as far as it is looked at. */
class Faked extends EventEmitter {
  readonly remoteAddress: string
  readonly remotePort: number
  destroyed = false

  constructor(address: string, port: number) {
    super()
    this.remoteAddress = address
    this.remotePort = port
  }
  destroy(): void {
    this.destroyed = true
    this.emit('close')
  }
}

describe('the connections', () => {
  let port = 1
  const from = (address: string): Faked & Socket => new Faked(address, port++) as Faked & Socket
  const openMany = (all: ReturnType<typeof openConnections>, address: string, count: number): (Faked & Socket)[] =>
    Array.from({ length: count }, () => {
      const socket = from(address)
      expect(all.open(socket)).toBe(true)
      return socket
    })
  const limits = { connections: 10, connections_per_address: 3 }

  it('of one address without a caller are so many, the newest; those of callers beside them do not count', () => {
    let refused = 0
    const all = openConnections({ limits, behindProxy: false, refused: () => refused++ })
    const [mine] = openMany(all, '192.0.2.1', 1)
    if (mine === undefined) throw new Error('none')
    const served = all.serve(mine)
    served.known()
    served.end()
    const five = openMany(all, '192.0.2.1', 5)
    expect(five.map(({ destroyed }) => destroyed)).toEqual([true, true, false, false, false])
    expect([mine.destroyed, refused, all.size]).toEqual([false, 2, 4])
    // Nobody else is concerned; but a customer's IPv6 addresses are one, and an IPv4 address is itself however it is spelt.
    const six = [1, 2, 3, 4].map((at) => from(`2001:db8:1:2::${String(at)}`))
    for (const socket of six) all.open(socket)
    expect(six.map(({ destroyed }) => destroyed)).toEqual([true, false, false, false])
    all.open(from('::ffff:192.0.2.1'))
    expect(five.filter(({ destroyed }) => !destroyed).length).toBe(2)
  })

  it('of loopback, where a proxy may be, and those a proxy opens are bounded all together only', () => {
    const near = openConnections({ limits, behindProxy: false, refused: () => undefined })
    expect([...openMany(near, '127.0.0.1', 5), ...openMany(near, '::1', 5)].some(({ destroyed }) => destroyed)).toBe(
      false,
    )
    const proxied = openConnections({ limits, behindProxy: true, refused: () => undefined })
    const all = openMany(proxied, '10.0.0.4', 12)
    expect(all.filter(({ destroyed }) => destroyed)).toEqual(all.slice(0, 2))
  })

  it('close the one longest idle first, one that is being served last, and none of a caller', () => {
    let refused = 0
    const all = openConnections({ limits: { ...limits, connections: 3 }, behindProxy: true, refused: () => refused++ })
    const [asks, idle, other] = openMany(all, '10.0.0.4', 3)
    if (asks === undefined || idle === undefined || other === undefined) throw new Error('none')
    const busy = all.serve(asks)
    const [fourth] = openMany(all, '10.0.0.4', 1)
    expect([asks.destroyed, idle.destroyed, other.destroyed]).toEqual([false, true, false])
    openMany(all, '10.0.0.4', 1)
    expect([other.destroyed, fourth?.destroyed]).toEqual([true, false])
    busy.known()
    const callers = openMany(all, '10.0.0.4', 2)
    for (const one of callers) all.serve(one).known()
    expect([asks.destroyed, ...callers.map(({ destroyed }) => destroyed)]).toEqual([false, false, false])
    expect(all.open(from('10.0.0.4'))).toBe(false)
    // What was asked last says whose it is.
    busy.end()
    const again = all.serve(asks)
    again.end()
    expect(all.open(from('10.0.0.4'))).toBe(true)
    expect(asks.destroyed).toBe(true)
  })

  it('tell networks from addresses', () => {
    expect(['127.0.0.1', '::ffff:127.0.0.1', '::1'].map(networkOf)).toEqual([null, null, null])
    expect(['192.0.2.7', '::ffff:192.0.2.7'].map(networkOf)).toEqual(['192.0.2.7', '192.0.2.7'])
    expect(['2001:db8::1', '2001:db8:0:0:1::', '2001:0db8::', 'fe80::1%eth0', '::2'].map(networkOf)).toEqual([
      '2001:db8:0:0',
      '2001:db8:0:0',
      '2001:db8:0:0',
      'fe80:0:0:0',
      '0:0:0:0',
    ])
  })
})

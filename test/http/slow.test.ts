import { connect, type Socket } from 'node:net'
import { describe, expect, it } from 'vitest'
import { openEdge, post, statelessCall, statelessHeaders } from './edge.ts'
import { sendRaw } from './raw.ts'

const timeouts = { head: 300, body: 300, idle: 800, keepAlive: 300 }
const pause = async (ms: number): Promise<void> => await new Promise((resolve) => setTimeout(resolve, ms))

function headOf(url: string, token: string, length: number): string {
  return `POST /mcp HTTP/1.1\r\nhost: ${new URL(url).host}\r\nauthorization: Bearer ${token}\r\ncontent-type: application/json\r\naccept: application/json, text/event-stream\r\ncontent-length: ${String(length)}\r\n\r\n`
}

describe('[G-slow-clients] a client that takes its time', () => {
  it('is cut off in the middle of a head, whatever it trickles', async () => {
    const edge = await openEdge({ timeouts })
    const trickle = Array.from({ length: 40 }, (_, at) => [`x-${String(at)}: 1\r\n`, 60]).flat()
    const began = performance.now()
    const { statuses, closed } = await sendRaw(edge.url, ['POST /mcp HTTP/1.1\r\n', ...trickle], { forMs: 5000 })
    expect([statuses, closed]).toEqual([[408], true])
    expect(performance.now() - began).toBeLessThan(2500)
  })

  it('is cut off before it said anything', async () => {
    const edge = await openEdge({ timeouts })
    const { closed } = await sendRaw(edge.url, [], { forMs: 4000 })
    expect(closed).toBe(true)
  })

  it('is told so in the middle of a body, and what it sent is not acted upon', async () => {
    const edge = await openEdge({ timeouts })
    const body = JSON.stringify(statelessCall(1, 'get_status', {}))
    const trickle = Array.from({ length: 30 }, (_, at) => [body.slice(at, at + 1), 60]).flat()
    const { statuses } = await sendRaw(edge.url, [headOf(edge.url, await edge.token(), body.length), ...trickle], {
      forMs: 4000,
    })
    expect(statuses).toEqual([408])
    expect(edge.broker.seen.admitted).toEqual([])
  })

  it('is cut off after an answer, when it keeps the connection and asks nothing', async () => {
    const edge = await openEdge({ timeouts })
    const { statuses, closed } = await sendRaw(
      edge.url,
      `GET /healthz HTTP/1.1\r\nhost: ${new URL(edge.url).host}\r\n\r\n`,
      { forMs: 3000 },
    )
    expect([statuses, closed]).toEqual([[200], true])
  })

  it('that half closed its connection in the middle of a body is not acted upon, and one that did after it is answered', async () => {
    const edge = await openEdge({ timeouts })
    const token = await edge.token()
    const body = JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'ping' })
    const cut = await sendRaw(edge.url, headOf(edge.url, token, body.length + 10) + body, { half: true, forMs: 2000 })
    expect([cut.statuses.filter((status) => status === 200), cut.closed]).toEqual([[], true])
    expect(edge.broker.seen.admitted).toEqual([])
    const whole = await sendRaw(edge.url, `GET /healthz HTTP/1.1\r\nhost: ${new URL(edge.url).host}\r\n\r\n`, {
      half: true,
      forMs: 2000,
    })
    expect(whole.closed).toBe(true)
  })

  it('that does not read its answers costs no more than what fits the sockets', async () => {
    const edge = await openEdge({ timeouts })
    const token = await edge.token()
    const body = JSON.stringify(statelessCall(1, 'get_result', { execution_id: 'exec_bbbbbbbbbb' }))
    const head = headOf(edge.url, token, body.length).replace(
      'content-length',
      `${Object.entries(statelessHeaders('get_result'))
        .map(([name, value]) => `${name}: ${value}\r\n`)
        .join('')}content-length`,
    )
    const socket = connect(Number(new URL(edge.url).port), '127.0.0.1')
    socket.on('error', () => undefined)
    socket.pause()
    const ended = new Promise<void>((resolve) => socket.once('close', () => resolve()))
    // Requests behind one another on one connection are served one after the other, so what is not read is not worked on.
    for (let sent = 0; sent < 8000; sent++) socket.write(head + body)
    let served = -1
    for (; served !== edge.broker.seen.called.length && served < 8000; await pause(400))
      served = edge.broker.seen.called.length
    expect(served).toBeLessThan(6000)
    socket.destroy()
    await ended
    expect(
      (await post(edge.url, token, statelessCall(2, 'get_status', {}), statelessHeaders('get_status'))).status,
    ).toBe(200)
  })
})

describe('a flood', () => {
  it('of connections beyond the limit is turned away, and there is room again when they went', async () => {
    const edge = await openEdge({ limits: { connections: 20 } })
    const open: Socket[] = []
    let dropped = 0
    for (let at = 0; at < 60; at++) {
      const socket = connect(Number(new URL(edge.url).port), '127.0.0.1')
      socket.on('error', () => undefined)
      socket.on('close', () => dropped++)
      open.push(socket)
    }
    await pause(300)
    expect(edge.http.connections()).toBe(20)
    expect(dropped).toBe(40)
    for (const socket of open) socket.destroy()
    await pause(200)
    expect((await fetch(`${edge.url}/healthz`)).status).toBe(200)
  })

  it('of strangers is refused one by one without a decision, and without growing', async () => {
    const edge = await openEdge()
    const before = process.memoryUsage().heapUsed
    for (let round = 0; round < 20; round++)
      await Promise.all(
        Array.from({ length: 50 }, async (_, at) => {
          const answer = await post(edge.url, `writ_${String(at)}${'x'.repeat(40)}`, '{}')
          expect(answer.status).toBe(401)
          await answer.text()
        }),
      )
    expect(edge.broker.seen.admitted).toEqual([])
    expect(process.memoryUsage().heapUsed - before).toBeLessThan(150 * 1024 * 1024)
  })
})

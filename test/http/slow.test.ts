import { connect, type Socket } from 'node:net'
import { setTimeout as pause } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import { held } from '../cost.ts'
import { until } from '../wait.ts'
import { openEdge, post, statelessCall, statelessHeaders } from './edge.ts'
import { sendRaw } from './raw.ts'

const timeouts = { head: 300, body: 300, idle: 800, keepAlive: 300 }

function headOf(url: string, token: string, length: number): string {
  return `POST /mcp HTTP/1.1\r\nhost: ${new URL(url).host}\r\nauthorization: Bearer ${token}\r\ncontent-type: application/json\r\naccept: application/json, text/event-stream\r\ncontent-length: ${String(length)}\r\n\r\n`
}

describe('[G-slow-clients] a client that takes its time', () => {
  it('is cut off in the middle of a head, whatever it trickles', async () => {
    const edge = await openEdge({ timeouts })
    const trickle = Array.from({ length: 90 }, (_, at) => [`x-${String(at)}: 1\r\n`, 60]).flat()
    const { statuses, closed, sent } = await sendRaw(edge.url, ['POST /mcp HTTP/1.1\r\n', ...trickle], { close: true })
    expect([statuses, closed]).toEqual([[408], true])
    expect(sent).toBeLessThan(trickle.length)
  })

  it('is cut off before it said anything', async () => {
    const edge = await openEdge({ timeouts })
    const { closed } = await sendRaw(edge.url, [], { close: true })
    expect(closed).toBe(true)
  })

  it('is told so in the middle of a body, and what it sent is not acted upon', async () => {
    const edge = await openEdge({ timeouts })
    const body = JSON.stringify(statelessCall(1, 'get_status', {}))
    const trickle = Array.from(body, (letter) => [letter, 60]).flat()
    const pieces = [headOf(edge.url, await edge.token(), body.length), ...trickle]
    const { statuses, sent } = await sendRaw(edge.url, pieces, { close: true })
    expect(statuses).toEqual([408])
    expect(sent).toBeLessThan(pieces.length)
    expect(edge.broker.seen.admitted).toEqual([])
  })

  it('is cut off after an answer, when it keeps the connection and asks nothing', async () => {
    const edge = await openEdge({ timeouts })
    const { statuses, closed } = await sendRaw(
      edge.url,
      `GET /healthz HTTP/1.1\r\nhost: ${new URL(edge.url).host}\r\n\r\n`,
      { close: true },
    )
    expect([statuses, closed]).toEqual([[200], true])
  })

  it('that half closed its connection in the middle of a body is not acted upon, and one that did after it is answered', async () => {
    const edge = await openEdge({ timeouts })
    const token = await edge.token()
    const body = JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'ping' })
    const cut = await sendRaw(edge.url, headOf(edge.url, token, body.length + 10) + body, { half: true, close: true })
    expect([cut.statuses.filter((status) => status === 200), cut.closed]).toEqual([[], true])
    expect(edge.broker.seen.admitted).toEqual([])
    const whole = await sendRaw(edge.url, `GET /healthz HTTP/1.1\r\nhost: ${new URL(edge.url).host}\r\n\r\n`, {
      half: true,
      close: true,
    })
    expect(whole.closed).toBe(true)
  })

  it(
    'that does not read its answers costs no more than what fits the sockets, and is served the rest when it reads',
    { timeout: 120_000 },
    async () => {
      const edge = await openEdge()
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
      let served = 0
      for (let still = 0; still < 5; await pause(200)) {
        const now = edge.broker.seen.called.length
        still = now > 0 && now === served ? still + 1 : 0
        served = now
      }
      expect(served).toBeLessThan(6000)
      socket.resume()
      await until('more is served', () => edge.broker.seen.called.length > served)
      socket.destroy()
      await ended
      expect(
        (await post(edge.url, token, statelessCall(2, 'get_status', {}), statelessHeaders('get_status'))).status,
      ).toBe(200)
    },
  )
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
    await until('40 are turned away', () => dropped === 40)
    expect(edge.http.connections()).toBe(20)
    for (const socket of open) socket.destroy()
    await until('none is open', () => edge.http.connections() === 0)
    expect((await fetch(`${edge.url}/healthz`)).status).toBe(200)
  })

  it('of strangers is refused one by one without a decision, and without growing', async () => {
    const edge = await openEdge()
    const rounds = async (count: number): Promise<void> => {
      for (let round = 0; round < count; round++)
        await Promise.all(
          Array.from({ length: 50 }, async (_, at) => {
            const answer = await post(edge.url, `writ_${String(at)}${'x'.repeat(40)}`, '{}')
            expect(answer.status).toBe(401)
            await answer.text()
          }),
        )
    }
    // What is made once is not what grows.
    await rounds(2)
    const before = held().heapUsed
    await rounds(10)
    expect(edge.broker.seen.admitted).toEqual([])
    expect(held().heapUsed - before).toBeLessThan(8 * 1024 * 1024)
  })
})

import { createServer, type AddressInfo, type Socket } from 'node:net'
import { gunzipSync, gzipSync } from 'node:zlib'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import type { EgressResponse } from '../../src/egress/egress.ts'
import type { Patience } from '../../src/egress/upstream.ts'
import { codeOf, openRun, service, type TestRun, textOf } from './run.ts'

/** A service that writes whatever bytes it likes on the wire. */

const token = 'hvs.SECRET-abcdefgh-0123456789'
let reply: (socket: Socket) => void = () => {}
let port = 0
let run: TestRun

const server = createServer((socket) => {
  socket.on('error', () => {})
  socket.on('data', (part: Buffer) => {
    if (part.includes('\r\n\r\n')) reply(socket)
  })
})

beforeAll(async () => {
  await new Promise<void>((done) => {
    server.listen(0, '127.0.0.1', done)
  })
  port = (server.address() as AddressInfo).port
})
afterAll(() => server.close())
beforeEach(() => {
  run = open()
  return async () => await run.gateway.close()
})

function open(patience?: Patience): TestRun {
  return openRun({
    services: [service('vault', `http://127.0.0.1:${port}`, { credential: 'vault-token' })],
    bindings: { 'vault-token': { kind: 'header', header: 'X-Vault-Token', prefix: '' } },
    values: { 'vault-token': token },
    ...(patience === undefined ? {} : { patience }),
  })
}

function answers(head: readonly string[], body: Buffer | string = ''): void {
  reply = (socket) =>
    socket.write(Buffer.concat([Buffer.from(`HTTP/1.1 200 OK\r\n${head.join('\r\n')}\r\n\r\n`), Buffer.from(body)]))
}

function json(value: unknown): void {
  const body = JSON.stringify(value)
  answers([`content-length: ${Buffer.byteLength(body)}`, 'content-type: application/json'], body)
}

const ask = async (): Promise<EgressResponse> => await run.fetch('/vault/x', { method: 'POST', body: 'x' })

describe('an answer on the wire', () => {
  it('in any transfer coding but chunks is withheld, as the redactor could not read it [G-redacted]', async () => {
    const packed = gzipSync(`echo ${token}`)
    const chunked = Buffer.concat([
      Buffer.from(`${packed.length.toString(16)}\r\n`),
      packed,
      Buffer.from('\r\n0\r\n\r\n'),
    ])
    answers(['transfer-encoding: gzip, chunked'], chunked)
    const response = await ask()
    expect([response.status, codeOf(response)]).toEqual([502, 'response_encoded'])
    expect(() => gunzipSync(response.body)).toThrow('incorrect header check')
    expect(run.gateway.counts()).toMatchObject({ blocked: 1 })
    answers(['transfer-encoding: chunked'], `${token.length.toString(16)}\r\n${token}\r\n0\r\n\r\n`)
    expect(textOf(await ask())).toBe(run.placeholders['vault-token'])
  })

  it('shows no value in the name of a header, whatever its case and coding [G-redacted]', async () => {
    const coded = Buffer.from(token).toString('base64').replaceAll('=', '')
    answers([`X-${token}: a`, `x-${token.toLowerCase()}: b`, `x-${coded}: c`, 'X-Other: d', 'content-length: 0'])
    const { headers } = await ask()
    expect(headers.map(([name]) => name)).toEqual(['x-other'])
  })

  it('has a time in which its headers have to come, however they trickle', async () => {
    await run.gateway.close()
    run = open({ connectMs: 2000, idleMs: 2000, headersMs: 600 })
    let drip: NodeJS.Timeout | undefined
    reply = (socket) => {
      socket.write('HTTP/1.1 200 OK\r\n')
      drip = setInterval(() => socket.write('x-a: b\r\n'), 50)
    }
    const begun = performance.now()
    expect(codeOf(await ask())).toBe('upstream_timeout')
    expect(performance.now() - begun).toBeLessThan(1900)
    clearInterval(drip)
  })
})

describe('tokens in an answer', () => {
  const issued = 'issued-0123456789-abcdefghij'

  it.each([
    ['an OAuth server', { access_token: issued, refresh_token: `r-${issued}` }],
    ['Vault', { auth: { client_token: issued, accessor: 'a' } }],
    ['a forge', { token: issued, expires_at: '2030-01-01T00:00:00Z' }],
    ['a registry', { token: issued, access_token: issued }],
    ['one that writes in camel case', { accessToken: issued, data: { refreshToken: `r-${issued}` } }],
    ['one that writes in capitals', { 'ID-TOKEN': issued, SessionToken: `s-${issued}` }],
  ])('of %s are replaced by placeholders [G-token-placeholder]', async (_who, body) => {
    json(body)
    const shown = textOf(await ask())
    expect(shown).not.toContain(issued)
    expect(shown).toMatch(/writ_ph_[0-9a-f]{32}/)
    expect(run.redactor.bytes(Buffer.from(issued)).hits).toBe(1)
  })

  it('are found under a name that is written with escapes, and twice', async () => {
    const body = `{"\\u0061ccess_token":"${issued}","\\u0061ccess_token":"second-${issued}"}`
    answers([`content-length: ${body.length}`], body)
    expect(textOf(await ask())).not.toContain(issued)
  })

  it('are not taken for such where the word is used for something else', async () => {
    const other = { token: 'word', tokens: ['a', 'b'], next_page_token: 'page-0123456789abcdef', tokenCount: 3 }
    json(other)
    expect(JSON.parse(textOf(await ask()))).toEqual(other)
  })

  it('are withheld, all of the answer, beyond 32 in a run or 32 KiB together', async () => {
    const many = (count: number, size: number, of: string) =>
      Array.from({ length: count }, (_, at) => ({ access_token: `${of}${at}-`.padEnd(size, 'x') }))
    json(many(33, 40, 'a'))
    expect(codeOf(await ask())).toBe('response_token')
    json(many(5, 8000, 'b'))
    expect(codeOf(await ask())).toBe('response_token')
    json(many(31, 1000, 'c'))
    expect(codeOf(await ask())).toBeNull()
    json(many(2, 40, 'd'))
    expect(codeOf(await ask())).toBe('response_token')
    // Nothing of an answer that was withheld counts.
    json(many(1, 40, 'e'))
    expect(codeOf(await ask())).toBeNull()
  })

  it('cost little, however they are made: at most so many times what it costs to look through the largest answer', async () => {
    const marks = `!'()*<>&/+~%#$`
    const mixed = (size: number, seed: number) =>
      Array.from({ length: size }, (_, at) => marks[(at * at + at * seed + seed) % marks.length]).join('')
    const cost = async (work: () => Promise<unknown>): Promise<number> => {
      const before = process.cpuUsage()
      await work()
      return process.cpuUsage(before).user
    }
    json(Array.from({ length: 32 }, (_, at) => ({ access_token: mixed(1000, at) })))
    const learning = await cost(ask)
    expect(run.redactor.bytes(Buffer.from(mixed(1000, 7))).hits).toBe(1)
    const looking = await cost(() => Promise.resolve(run.redactor.bytes(Buffer.alloc(8 << 20, 'plain text '))))
    expect(learning / looking).toBeLessThan(25)
    // A row of escaped quotes, each of which could begin a name, before what could be a value and has no end.
    const row = `"${'\\"'.repeat(150)}token":"${'x'.repeat(10_100)}`
    const body = row.repeat(Math.floor((8 << 20) / row.length))
    answers([`content-length: ${body.length}`], body)
    const searching = await cost(ask)
    expect(searching / looking).toBeLessThan(25)
  })
})

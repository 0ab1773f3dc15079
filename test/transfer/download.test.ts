import { spawn, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { closeSync, openSync, readFileSync, writeSync } from 'node:fs'
import { request } from 'node:http'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { until } from '../wait.ts'
import { openDesk, openTestBroker, put, send } from './broker.ts'
import type { Broker } from './broker.ts'

const size = 3_000_000
/** The bytes the script below writes. */
const wanted = Buffer.from(Uint8Array.from({ length: size }, (_, at) => (at * 7 + (at >> 8)) & 255))
const name = 'ergebnis (ä)\'";.bin'
const program = `import { writeFile } from 'writ'
writeFile('/out/reports/' + ${JSON.stringify(name)}, Uint8Array.from({ length: ${size} }, (_, at) => (at * 7 + (at >> 8)) & 255))
writeFile('/out/small.txt', 'small')`

let broker: Broker
let execution = ''
beforeAll(async () => {
  broker = await openTestBroker()
  const task = await broker.task({ files: [{ path: 'main.js', content: program }] })
  const started = await broker.call('start_execution', { task_id: task, wait_ms: 20_000 })
  if (started.state !== 'succeeded') throw new Error(JSON.stringify(started))
  execution = started.execution_id ?? ''
}, 60_000)
afterAll(async () => await broker.stop())

async function urlOf(file = `reports/${name}`): Promise<string> {
  const { file: part } = await broker.call('get_result', { execution_id: execution, file })
  return part?.download_url ?? ''
}

describe('a download', () => {
  it('is offered with the first piece of a file that does not fit, and with no other', async () => {
    const file = `reports/${name}`
    const first = await broker.call('get_result', { execution_id: execution, file })
    expect(first.file).toMatchObject({
      more: true,
      size,
      download_url: expect.stringContaining('/transfer/') as string,
    })
    expect(first.next).toMatchObject({ tell_user: expect.stringContaining(first.file?.download_url ?? '?') as string })
    const second = await broker.call('get_result', { execution_id: execution, file, offset: 8192 })
    expect(second.file).not.toHaveProperty('download_url')
    const small = await broker.call('get_result', { execution_id: execution, file: 'small.txt' })
    expect(small.file).toMatchObject({ text: 'small', more: false })
    expect(small.file).not.toHaveProperty('download_url')
  })

  it('gives the file as something to save and nothing to show', async () => {
    const answer = await send(await urlOf(), 'GET')
    expect(answer.status).toBe(200)
    expect(answer.bytes.equals(wanted)).toBe(true)
    expect(answer.headers).toMatchObject({
      'content-type': 'application/octet-stream',
      'content-length': String(size),
      'content-disposition': "attachment; filename*=UTF-8''ergebnis%20%28%C3%A4%29%27%22%3B.bin",
      'x-content-type-options': 'nosniff',
      'cache-control': 'no-store',
      'accept-ranges': 'bytes',
      'content-security-policy': "default-src 'none'; sandbox",
      etag: `"${createHash('sha256').update(wanted).digest('hex')}"`,
    })
  })

  it('answers HEAD like GET, without the bytes, and takes nothing', async () => {
    const url = await urlOf()
    const answer = await send(url, 'HEAD')
    expect(answer).toMatchObject({ status: 200, headers: { 'content-length': String(size) } })
    expect(answer.bytes).toHaveLength(0)
    expect(await put(url, wanted)).toMatchObject({
      status: 405,
      code: 'method_not_allowed',
      headers: { allow: 'GET, HEAD' },
    })
  })

  it.each([
    ['bytes=0-0', 0, 0],
    ['bytes=100-199', 100, 199],
    ['bytes=2999999-', size - 1, size - 1],
    ['bytes=2999990-99999999', size - 10, size - 1],
    ['bytes=-5', size - 5, size - 1],
    ['bytes=-99999999', 0, size - 1],
    ['bytes=65535-131073', 65_535, 131_073],
  ])('gives the one range %s', async (range, from, to) => {
    const answer = await send(await urlOf(), 'GET', { range })
    expect(answer.status).toBe(206)
    expect(answer.headers).toMatchObject({
      'content-range': `bytes ${from}-${to}/${size}`,
      'content-length': String(to - from + 1),
    })
    expect(answer.bytes.equals(wanted.subarray(from, to + 1))).toBe(true)
  })

  it('refuses a range the file does not have, and gives the whole for one it does not understand', async () => {
    const url = await urlOf()
    for (const range of ['bytes=3000000-', 'bytes=-0'])
      expect(await send(url, 'GET', { range })).toMatchObject({
        status: 416,
        headers: { 'content-range': `bytes */${size}` },
      })
    for (const range of ['bytes=0-1,5-6', 'lines=1-2', 'bytes=9-3', 'bytes=-'])
      expect(await send(url, 'HEAD', { range })).toMatchObject({
        status: 200,
        headers: { 'content-length': String(size) },
      })
    expect(await send(url, 'HEAD', { range: 'bytes=0-1', 'if-range': '"other"' })).toMatchObject({ status: 200 })
    const { etag = '' } = (await send(url, 'HEAD')).headers
    expect(await send(url, 'HEAD', { range: 'bytes=0-1', 'if-range': etag })).toMatchObject({ status: 206 })
  })

  it('comes by fetch, and by curl, which goes on where it was cut', async (context) => {
    const whole = await fetch(await urlOf())
    expect(Buffer.from(await whole.arrayBuffer()).equals(wanted)).toBe(true)
    if (spawnSync('curl', ['--version']).status !== 0) context.skip('curl is not installed: apt-get install curl')
    const file = join(broker.folder, 'got.bin')
    const part = openSync(file, 'w')
    writeSync(part, wanted.subarray(0, 1_234_567))
    closeSync(part)
    const child = spawn('curl', ['-sS', '-C', '-', '-o', file, await urlOf()], {
      stdio: ['ignore', 'ignore', 'inherit'],
    })
    await new Promise((resolve) => child.once('close', resolve))
    expect(readFileSync(file).equals(wanted)).toBe(true)
  })

  it('slows down for a client that reads slowly, and ends with one that goes away', async () => {
    const { desk, close } = openDesk(broker, { quotas: { stored_mb: 100, tickets: 10, transfers: 1 } })
    const found = broker.served.parts.ledger.views
      .executions({ tenant: 'default' }, 10)
      .find((one) => one.id === execution)
    const file = found?.report?.files.find((one) => one.size === size)
    if (found === undefined || file === undefined) throw new Error('no file')
    const given = await desk.issueDownload(broker.caller, found, file)
    const url = given?.url ?? ''
    await new Promise<void>((resolve) => {
      const asking = request(url, { agent: false }, (response) => {
        response.once('data', () => {
          response.destroy()
          resolve()
        })
      })
      asking.on('error', () => undefined)
      asking.end()
    })
    // Its place is free again: there is one only.
    await until('it is given again', async () => (await send(url, 'GET')).status === 200)
    await close()
  })
})

describe('bytes that are no longer the artifact’s', () => {
  it('break the connection and are never taken for the file [G-download-verified]', async () => {
    const digest = createHash('sha256').update(wanted).digest('hex')
    const place = join(broker.served.folder.artifacts, digest.slice(0, 2), digest)
    const write = (at: number, byte: number): void => {
      const file = openSync(place, 'r+')
      writeSync(file, Buffer.from([byte]), 0, 1, at)
      closeSync(file)
    }
    const url = await urlOf()
    const at = 1_500_000
    write(at, (wanted[at] ?? 0) ^ 1)
    try {
      await expect(send(url, 'GET')).rejects.toThrow(/aborted|hang up|ECONNRESET/)
      expect(broker.log).toContain('an artifact is not what its digest says')
      // Even a range that holds none of the damage: the last of it is kept back until all is known.
      await expect(send(url, 'GET', { range: 'bytes=0-199999' })).rejects.toThrow(/aborted|hang up|ECONNRESET/)
      expect(await send(url, 'GET', { range: 'bytes=0-9' })).toMatchObject({ status: 500, code: 'ledger_corrupt' })
    } finally {
      write(at, wanted[at] ?? 0)
    }
    expect((await send(url, 'GET')).bytes.equals(wanted)).toBe(true)
  })
})

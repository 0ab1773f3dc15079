import { spawn, spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { truncateSync, writeFileSync } from 'node:fs'
import { request } from 'node:http'
import type { ClientRequest } from 'node:http'
import { connect } from 'node:net'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { pack } from 'tar-stream'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { until } from '../wait.ts'
import { openTestBroker, put, send, sha256 } from './broker.ts'
import type { Broker } from './broker.ts'

let broker: Broker
beforeAll(async () => {
  broker = await openTestBroker()
}, 60_000)
afterAll(async () => await broker.stop())

/** Sends the head and the first bytes of a body, and no more of it. */
async function begin(
  url: string,
  headers: Readonly<Record<string, string | number>>,
  bytes: Uint8Array,
): Promise<ClientRequest> {
  const sending = request(url, { method: 'PUT', headers, agent: false })
  sending.on('error', () => undefined)
  await new Promise<void>((resolve) => sending.write(bytes, () => resolve()))
  return sending
}

async function arrived(url: string, bytes: number): Promise<void> {
  await until('so much of it arrived', async () => (await send(url, 'HEAD')).headers['upload-offset'] === String(bytes))
}

async function tarOf(...names: readonly string[]): Promise<Buffer> {
  const tar = pack()
  for (const name of names) tar.entry({ name }, `content of ${name}`)
  tar.finalize()
  const pieces: Buffer[] = []
  for await (const piece of tar) pieces.push(piece as Buffer)
  return Buffer.concat(pieces)
}

describe('a call that asks for an upload', () => {
  it('and is refused one leaves the files of the task as they were', async () => {
    const task = await broker.task()
    const before = broker.files(task)
    const upload = { path: '../data.bin', size: 3, sha256: '0'.repeat(64) }
    const files = [{ path: 'main.js', content: 'console.log(1)' }]
    expect(await broker.call('upload_artifact', { task_id: task, files, upload })).toMatchObject({
      error: { code: 'invalid_file' },
    })
    expect(broker.files(task)).toEqual(before)
  })
})

describe('an upload', () => {
  it('makes of bytes sent by PUT a file of the task, once [G-upload-once]', async () => {
    const task = await broker.task()
    const bytes = randomBytes(5_000_000)
    const url = await broker.upload(task, 'data/a.bin', bytes)
    expect(url).toMatch(/^http:\/\/127\.0\.0\.1:\d+\/transfer\/[\w-]{43}$/)
    expect(await put(url, bytes)).toMatchObject({
      status: 201,
      json: {
        task_id: task,
        state: 'ready',
        changed: [{ path: 'data/a.bin', size: bytes.length, change: 'added' }],
        next: { tool: 'start_execution' },
      },
    })
    const file = { path: 'data/a.bin', size: bytes.length, sha256: `sha256:${sha256(bytes)}`, executable: false }
    expect(broker.files(task)).toContainEqual(file)
    expect(await put(url, bytes)).toMatchObject({ status: 410, code: 'transfer_used' })
    expect(await send(url, 'HEAD')).toMatchObject({ status: 410 })
    expect(broker.halves()).toEqual([])
  })

  it('reaches a run as the bytes that were sent', async () => {
    const bytes = randomBytes(30_000_000)
    const content = `import { readBytes } from 'writ'
const bytes = readBytes('big.bin')
let sum = 0
for (let at = 0; at < bytes.length; at++) sum = (Math.imul(sum, 31) + bytes[at]) | 0
console.log(bytes.length, sum)`
    const task = await broker.task({ files: [{ path: 'main.js', content }] })
    let sum = 0
    for (const byte of bytes) sum = (Math.imul(sum, 31) + byte) | 0
    expect(await put(await broker.upload(task, 'big.bin', bytes), bytes)).toMatchObject({ status: 201 })
    const started = await broker.call('start_execution', { task_id: task, wait_ms: 20_000 })
    const result = await broker.call('get_result', { execution_id: started.execution_id ?? '' })
    expect(result).toMatchObject({ state: 'succeeded', tail: `${bytes.length} ${sum}\n` })
  }, 60_000)

  it('takes an empty file, and one over another of the same name', async () => {
    const task = await broker.task()
    expect(await put(await broker.upload(task, 'main.js', Buffer.alloc(0)), Buffer.alloc(0))).toMatchObject({
      status: 201,
      json: { changed: [{ path: 'main.js', size: 0, change: 'replaced' }] },
    })
  })

  it('comes by fetch, with a stream of known length refused no more than a buffer', async () => {
    const task = await broker.task()
    const bytes = randomBytes(200_000)
    const answer = await fetch(await broker.upload(task, 'f', bytes), { method: 'PUT', body: bytes })
    expect(answer.status).toBe(201)
    expect(answer.headers.get('cache-control')).toBe('no-store')
  })

  it('comes by curl, and goes on by curl after it was cut', async (context) => {
    if (spawnSync('curl', ['--version']).status !== 0) context.skip('curl is not installed: apt-get install curl')
    const task = await broker.task()
    const bytes = randomBytes(3_000_000)
    const file = join(broker.folder, 'curl.bin')
    const run = async (...args: readonly string[]): Promise<string> => {
      const child = spawn('curl', ['-sS', '-T', file, ...args], { stdio: ['ignore', 'pipe', 'inherit'] })
      let out = ''
      child.stdout.setEncoding('utf8').on('data', (text: string) => (out += text))
      await new Promise((resolve) => child.once('close', resolve))
      return out
    }
    writeFileSync(file, bytes)
    expect(JSON.parse(await run(await broker.upload(task, 'c.bin', bytes)))).toMatchObject({ task_id: task })
    const url = await broker.upload(task, 'd.bin', bytes)
    await begin(url, { 'content-length': bytes.length }, bytes.subarray(0, 1_000_000)).then(async (sending) => {
      await arrived(url, 1_000_000)
      sending.destroy()
    })
    await until('nobody sends to it', async () => (await put(url, Buffer.alloc(0))).code === 'size_mismatch')
    expect(JSON.parse(await run('-C', '1000000', url))).toMatchObject({ changed: [{ path: 'd.bin' }] })
    truncateSync(file)
    expect(broker.files(task).map((one) => one.sha256)).toContain(`sha256:${sha256(bytes)}`)
  }, 15_000)

  it('unpacks an archive in the run host, into the folder it names', async () => {
    const task = await broker.task()
    const archive = gzipSync(await tarOf('a.txt', 'deep/b.txt'))
    expect(await put(await broker.upload(task, 'lib', archive, { unpack: true }), archive)).toMatchObject({
      status: 201,
    })
    expect(await put(await broker.upload(task, '.', archive, { unpack: true }), archive)).toMatchObject({ status: 201 })
    expect(broker.files(task).map((file) => file.path)).toEqual([
      'a.txt',
      'deep/b.txt',
      'lib/a.txt',
      'lib/deep/b.txt',
      'main.js',
    ])
    expect(broker.halves()).toEqual([])
  })
})

describe('an upload that is cut', () => {
  it('goes on where it stopped, in parts, each answered', async () => {
    const task = await broker.task()
    const bytes = randomBytes(2_000_000)
    const url = await broker.upload(task, 'parts.bin', bytes)
    const sending = await begin(url, { 'content-length': bytes.length }, bytes.subarray(0, 300_000))
    await arrived(url, 300_000)
    sending.destroy()
    const part = async (from: number, to: number): ReturnType<typeof put> =>
      await put(url, bytes.subarray(from, to), { 'content-range': `bytes ${from}-${to - 1}/${bytes.length}` })
    await until('nobody sends to it', async () => (await part(0, 1)).code === 'size_mismatch')
    expect(await part(300_000, 900_000)).toMatchObject({
      status: 202,
      headers: { 'upload-offset': '900000', 'upload-length': '2000000' },
    })
    expect(await part(900_001, 2_000_000)).toMatchObject({ status: 400, code: 'size_mismatch' })
    expect(await part(300_000, 900_000)).toMatchObject({ status: 400, code: 'size_mismatch' })
    expect(broker.files(task).map((file) => file.path)).toEqual(['main.js'])
    expect(await part(900_000, 2_000_000)).toMatchObject({ status: 201 })
    expect(broker.files(task).at(-1)).toMatchObject({ sha256: `sha256:${sha256(bytes)}` })
  })

  it('starts anew with a plain PUT, and what had arrived does not count', async () => {
    const task = await broker.task()
    const bytes = randomBytes(500_000)
    const url = await broker.upload(task, 'anew.bin', bytes)
    const wrong = Buffer.from(bytes.subarray(0, 100_000).map((byte) => byte ^ 1))
    const first = await put(url, wrong, { 'content-range': `bytes 0-99999/500000` })
    expect(first).toMatchObject({ status: 202 })
    expect(await put(url, bytes)).toMatchObject({ status: 201 })
  })

  it('takes one request at a time', async () => {
    const task = await broker.task()
    const bytes = randomBytes(100_000)
    const url = await broker.upload(task, 'two.bin', bytes)
    const sending = await begin(url, { 'content-length': bytes.length }, bytes.subarray(0, 50_000))
    await arrived(url, 50_000)
    expect(await put(url, bytes)).toMatchObject({ status: 409, code: 'transfer_busy' })
    const done = new Promise<number>((resolve) =>
      sending.on('response', (response) => {
        response.resume()
        resolve(response.statusCode ?? 0)
      }),
    )
    sending.end(bytes.subarray(50_000))
    expect(await done).toBe(201)
  })
})

describe('a refused upload leaves its task as it was', () => {
  async function refused(
    ask: (url: string, bytes: Buffer) => ReturnType<typeof put>,
    wanted: { readonly status: number; readonly code: string },
    alive: boolean,
  ): Promise<void> {
    const task = await broker.task()
    const bytes = randomBytes(70_000)
    const url = await broker.upload(task, 'x.bin', bytes)
    const before = broker.files(task)
    expect(await ask(url, bytes)).toMatchObject(wanted)
    expect(broker.files(task)).toEqual(before)
    expect(broker.halves()).toEqual([])
    expect((await put(url, bytes)).status).toBe(alive ? 201 : 410)
  }

  it('where the digest is not the one it was asked for', async () => {
    await refused(
      async (url, bytes) => await put(url, Buffer.from(bytes.map((byte) => byte ^ 1))),
      { status: 422, code: 'digest_mismatch' },
      false,
    )
  })

  it('where the length is not its size, before a byte is read', async () => {
    for (const change of [-1, 1])
      await refused(
        async (url, bytes) => await put(url, Buffer.alloc(bytes.length + change)),
        { status: 400, code: 'size_mismatch' },
        true,
      )
  })

  it('where it does not say how long it is', async () => {
    await refused(
      async (url, bytes) => await send(url, 'PUT', { 'transfer-encoding': 'chunked' }, bytes),
      { status: 411, code: 'length_required' },
      true,
    )
  })

  it('where the range is not understood or not its own', async () => {
    for (const range of [
      'bytes 0-1/2',
      'bytes 5-69999/70000',
      'bytes 0-70000/70000',
      'bytes */70000',
      'items 0-69999/70000',
      'bytes 69999-0/70000',
    ])
      await refused(
        async (url, bytes) => await put(url, bytes, { 'content-range': range }),
        { status: 400, code: 'size_mismatch' },
        true,
      )
  })

  it('where another method is used', async () => {
    for (const method of ['POST', 'PATCH', 'DELETE', 'GET', 'OPTIONS'])
      await refused(
        async (url) => {
          const answer = await send(url, method)
          expect(answer.headers.allow).toBe('PUT, HEAD')
          return answer
        },
        { status: 405, code: 'method_not_allowed' },
        true,
      )
  })

  it('where the archive is none, or would leave the project', async () => {
    const outside = await tarOf('../../etc/passwd')
    for (const archive of [Buffer.alloc(2000, 'x'), outside]) {
      const task = await broker.task()
      const url = await broker.upload(task, '.', archive, { unpack: true })
      expect(await put(url, archive)).toMatchObject({ status: 422, code: 'invalid_archive' })
      expect(await put(url, archive)).toMatchObject({ status: 410, code: 'transfer_used' })
      expect(broker.files(task).map((file) => file.path)).toEqual(['main.js'])
      expect(broker.halves()).toEqual([])
    }
  })

  it('where the name has become a folder meanwhile', async () => {
    const task = await broker.task()
    const bytes = randomBytes(1000)
    const url = await broker.upload(task, 'name', bytes)
    await broker.call('upload_artifact', { task_id: task, files: [{ path: 'name/file', content: '' }] })
    expect(await put(url, bytes)).toMatchObject({ status: 422, code: 'invalid_file' })
    expect(broker.files(task).map((file) => file.path)).toEqual(['main.js', 'name/file'])
  })

  it('where it is not there: another path, another token, a longer one, none', async () => {
    const task = await broker.task()
    const bytes = randomBytes(10)
    const url = await broker.upload(task, 'x', bytes)
    const flipped = `${url.slice(0, -1)}${url.endsWith('A') ? 'B' : 'A'}`
    for (const other of [flipped, `${url}A`, `${url}/`, url.slice(0, -1), `${url}/x`, url.replace(/[^/]*$/, '')])
      expect(await put(other, bytes)).toMatchObject({ status: 404, code: 'not_found' })
    expect((await put(url.replace('/transfer/', '/mcp/'), bytes)).status).toBe(404)
    expect(broker.files(task).map((file) => file.path)).toEqual(['main.js'])
    expect(await put(url, bytes)).toMatchObject({ status: 201 })
  })
})

describe('asking for an upload URL', () => {
  async function asked(upload: { path: string; size: number; sha256: string; unpack?: boolean }): Promise<unknown> {
    const task = await broker.task()
    const answer = await broker.call('upload_artifact', { task_id: task, upload })
    expect(answer.upload_url).toBeUndefined()
    return answer.error
  }
  const sha = sha256(Buffer.alloc(0))

  it('is refused for a path, size or digest no file can have', async () => {
    for (const path of ['../x', '/etc/passwd', 'main.js/x', 'MAIN.js', 'a\u202eb', ''])
      expect(await asked({ path, size: 1, sha256: sha })).toMatchObject({ code: 'invalid_file' })
    expect(await asked({ path: 'x', size: 1, sha256: 'abc' })).toMatchObject({ code: 'invalid_arguments' })
    expect(await asked({ path: 'x', size: 2 ** 30 + 1, sha256: sha })).toMatchObject({ code: 'too_large' })
    expect(await asked({ path: 'x', size: 2 ** 26 + 1, sha256: sha, unpack: true })).toMatchObject({
      code: 'too_large',
      message: 'An archive that is to be unpacked has at most 64 MiB, packed and unpacked.',
    })
  })

  it('says at once what the run could not take', async () => {
    const task = await broker.task()
    const answer = await broker.call('upload_artifact', {
      task_id: task,
      upload: { path: 'x', size: 2 ** 26 + 1, sha256: sha },
    })
    expect(answer).toMatchObject({
      missing: [{ what: expect.stringMatching(/files of at most 64 MiB each, and "x" has 64 MiB/) as string }],
      upload_url: expect.any(String) as string,
    })
  })

  it('takes the place of an earlier one for the same file', async () => {
    const task = await broker.task()
    const bytes = randomBytes(10)
    const first = await broker.upload(task, 'x', bytes)
    const second = await broker.upload(task, 'x', bytes)
    expect(await put(first, bytes)).toMatchObject({ status: 410, code: 'transfer_expired' })
    expect(await put(second, bytes)).toMatchObject({ status: 201 })
  })
})

describe('the listener on loopback', () => {
  async function raw(url: string, text: string): Promise<string> {
    const { port } = new URL(url)
    return await new Promise((resolve) => {
      const socket = connect(Number(port), '127.0.0.1', () => socket.write(text))
      let got = ''
      socket.setEncoding('latin1').on('data', (piece: string) => (got += piece))
      socket.on('error', () => resolve(got))
      socket.on('close', () => resolve(got))
    })
  }

  it('answers nothing but transfers, and only who names it by its own name [G-transfer-listener]', async () => {
    const task = await broker.task()
    const url = await broker.upload(task, 'x', Buffer.from('x'))
    const { host, pathname, port } = new URL(url)
    for (const path of ['/', '/mcp', '/healthz', '/transfer', '/metrics', '/transfer/../mcp'])
      expect((await send(`http://${host}${path}`, 'GET')).status).toBe(404)
    const foreign = [`evil.example:${port}`, '127.0.0.1', `127.0.0.1:1`, `[::1]:${port}`, '']
    for (const name of foreign)
      expect(await raw(url, `HEAD ${pathname} HTTP/1.1\r\nHost: ${name}\r\nConnection: close\r\n\r\n`)).toMatch(
        /^HTTP\/1\.1 40[03] /,
      )
    expect(
      await raw(url, `HEAD ${pathname} HTTP/1.1\r\nHost: ${host}\r\nHost: ${host}\r\nConnection: close\r\n\r\n`),
    ).toMatch(/^HTTP\/1\.1 40[03] /)
    expect(await send(url, 'HEAD', { origin: 'http://evil.example' })).toMatchObject({ status: 403 })
    expect(
      await raw(
        url,
        `PUT ${pathname} HTTP/1.1\r\nHost: ${host}\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n`,
      ),
    ).toMatch(/^HTTP\/1\.1 400 /)
    expect(await raw(url, `TRACE ${pathname} HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`)).toMatch(
      /^HTTP\/1\.1 403 /,
    )
    expect(await put(url, Buffer.from('x'))).toMatchObject({ status: 201 })
  })
})

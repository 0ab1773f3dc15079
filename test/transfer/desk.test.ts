import { randomBytes } from 'node:crypto'
import { request } from 'node:http'
import { setTimeout as pause } from 'node:timers/promises'
import * as fc from 'fast-check'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { WritError } from '../../src/error.ts'
import { openTransferAnswers } from '../../src/http/transfer.ts'
import { later, until } from '../wait.ts'
import { openDesk, openTestBroker, put, send, sha256 } from './broker.ts'
import type { Answer, Broker } from './broker.ts'
import type { Parts } from '../../src/path/parts.ts'
import type { Caller } from '../../src/request/caller.ts'
import type { Task } from '../../src/request/task.ts'

let broker: Broker
const opened: { close(): Promise<void> }[] = []
beforeAll(async () => {
  broker = await openTestBroker()
}, 60_000)
afterEach(async () => {
  for (const one of opened.splice(0)) await one.close()
})
afterAll(async () => await broker.stop())

function open(options: Parameters<typeof openDesk>[1] = {}): ReturnType<typeof openDesk> {
  const desk = openDesk(broker, options)
  opened.push(desk)
  return desk
}

async function taskOf(): Promise<Task> {
  const id = await broker.task()
  const task = broker.served.parts.ledger.views.tasks('default', 1000).find((one) => one.id === id)
  if (task === undefined) throw new Error('no task')
  return task
}

const bytes = randomBytes(200_000)
const asked = { path: 'x.bin', size: bytes.length, sha256: sha256(bytes) }

/** Sends a body piece by piece, with a pause before each and `gate` after the first; resolves with the answer, whenever it comes. */
async function drip(
  url: string,
  pieces: readonly Uint8Array[],
  everyMs: number,
  gate: Promise<undefined> = Promise.resolve(undefined),
): Promise<Answer> {
  return await new Promise((resolve, reject) => {
    const headers = { 'content-length': bytes.length }
    const sending = request(url, { method: 'PUT', headers, agent: false }, (response) => {
      const got: Buffer[] = []
      response.on('data', (piece: Buffer) => got.push(piece))
      response.on('end', () => {
        const body = Buffer.concat(got)
        const json = JSON.parse(body.toString()) as Answer['json'] & { readonly error?: { readonly code: string } }
        resolve({
          status: response.statusCode ?? 0,
          headers: response.headers,
          bytes: body,
          json,
          code: json.error?.code ?? '',
        })
      })
      response.on('error', reject)
    })
    sending.on('error', reject)
    void (async () => {
      for (const [at, piece] of pieces.entries()) {
        await pause(everyMs)
        if (at === 1) await gate
        sending.write(piece)
      }
    })()
  })
}

describe('a ticket', () => {
  it('ends after ten minutes, and its half goes with it', async () => {
    const { desk, pass } = open()
    const { url, expires_at } = await desk.issueUpload(broker.caller, await taskOf(), asked)
    expect(Date.parse(expires_at) - Date.now()).toBeGreaterThan(590_000)
    const part = { 'content-range': `bytes 0-99/${bytes.length}` }
    expect(await put(url, bytes.subarray(0, 100), part)).toMatchObject({ status: 202 })
    pass(599_000)
    expect(await send(url, 'HEAD')).toMatchObject({ status: 200, headers: { 'upload-offset': '100' } })
    pass(1_100)
    expect(await put(url, bytes)).toMatchObject({ status: 410, code: 'transfer_expired' })
    expect(broker.halves()).toHaveLength(1)
    await desk.tick()
    expect(broker.halves()).toEqual([])
    expect(desk.live).toBe(0)
  })

  it('is decided anew whenever it is used: who lost the role or the token sends and fetches nothing [G-transfer-decided]', async () => {
    let roles: readonly string[] = broker.caller.roles
    const { desk } = open({ parts: { rolesOf: () => roles } })
    const task = await taskOf()
    const { url } = await desk.issueUpload(broker.caller, task, asked)
    roles = []
    expect(await put(url, bytes)).toMatchObject({ status: 403, code: 'denied' })
    const asking = await send(url, 'HEAD')
    expect([asking.status, asking.headers['upload-offset']]).toEqual([403, undefined])
    // Roles that came later than the URL give it nothing either.
    roles = ['operator']
    expect(await put(url, bytes)).toMatchObject({ status: 403 })
    roles = broker.caller.roles
    expect(await put(url, bytes)).toMatchObject({ status: 201 })
  })

  it('[G-token-revoked] ends with the token it was asked for with, though another token gives the same roles', async () => {
    const revoked = new AbortController()
    const { desk, pass } = open()
    const task = await taskOf()
    const shown = { until_ms: Date.now() + 60_000, revoked: revoked.signal }
    const caller: Caller = { ...broker.caller, auth: { ...broker.caller.auth, method: 'token', shown } }
    const { url, expires_at } = await desk.issueUpload(caller, task, asked)
    expect(Date.parse(expires_at)).toBe(shown.until_ms)
    const own = await desk.issueUpload(broker.caller, task, { ...asked, path: 'y.bin' })
    const part = { 'content-range': `bytes 0-99/${bytes.length}` }
    expect(await put(url, bytes.subarray(0, 100), part)).toMatchObject({ status: 202 })
    const gate = Promise.withResolvers<undefined>()
    const other = await desk.issueUpload(caller, task, { ...asked, path: 'z.bin' })
    const moving = later(drip(other.url, [bytes.subarray(0, 100_000), bytes.subarray(100_000)], 1, gate.promise))
    await until('half of it arrived', async () => (await send(other.url, 'HEAD')).headers['upload-offset'] === '100000')
    revoked.abort()
    // What moves is stopped in the middle, without its rest having to come.
    await desk.tick()
    expect(await moving).toMatchObject({ status: 403, code: 'denied' })
    expect((await send(url, 'HEAD')).status).toBe(403)
    expect(await put(url, bytes)).toMatchObject({ status: 403, code: 'denied' })
    expect(broker.halves()).toEqual([])
    expect(await put(own.url, bytes)).toMatchObject({ status: 201 })
    gate.resolve(undefined)
    // A token whose time is over is no better.
    const late = { ...shown, revoked: new AbortController().signal }
    const again: Caller = { ...caller, auth: { ...caller.auth, shown: late } }
    const last = await desk.issueUpload(again, task, { ...asked, path: 'w.bin' })
    pass(60_001)
    expect(await put(last.url, bytes)).toMatchObject({ status: 403, code: 'denied' })
  })

  it('is decided once more when the body is there', async () => {
    let roles: readonly string[] = broker.caller.roles
    const { desk } = open({ parts: { rolesOf: () => roles } })
    const task = await taskOf()
    const { url } = await desk.issueUpload(broker.caller, task, asked)
    const gate = Promise.withResolvers<undefined>()
    const answer = later(drip(url, [bytes.subarray(0, 100_000), bytes.subarray(100_000)], 1, gate.promise))
    await until('half of it arrived', async () => (await send(url, 'HEAD')).headers['upload-offset'] === '100000')
    roles = []
    gate.resolve(undefined)
    expect(await answer).toMatchObject({ status: 403, code: 'denied' })
    expect(broker.files(task.id)).toEqual(task.files)
    expect(broker.halves()).toEqual([])
  })

  it('of another tenant is another tenant’s: it cannot be had for a task of this one [G-transfer-bound]', async () => {
    const { desk } = open({ parts: { rolesOf: () => ['developer', 'operator'] } })
    const task = await taskOf()
    const stranger = { ...broker.caller, tenant: 'other', subject: { type: 'user' as const, id: 'eve' } }
    const { url } = await desk.issueUpload(stranger, task, asked)
    expect(await put(url, bytes)).toMatchObject({ status: 403, code: 'denied' })
    expect(broker.files(task.id)).toEqual(task.files)
  })
})

describe('a body', () => {
  it('that stops coming is answered 408, and the rest may follow', async () => {
    const { desk } = open({ paceMs: 600 })
    const { url } = await desk.issueUpload(broker.caller, await taskOf(), asked)
    expect(await drip(url, [bytes.subarray(0, 50_000)], 1)).toMatchObject({ status: 408, code: 'transfer_slow' })
    expect((await send(url, 'HEAD')).headers['upload-offset']).toBe('50000')
    const rest = { 'content-range': `bytes 50000-${bytes.length - 1}/${bytes.length}` }
    expect(await put(url, bytes.subarray(50_000), rest)).toMatchObject({ status: 201 })
  })

  it('that comes byte by byte is too slow', async () => {
    const { desk } = open({ paceMs: 300 })
    const { url } = await desk.issueUpload(broker.caller, await taskOf(), asked)
    const pieces = Array.from({ length: 400 }, (_, at) => bytes.subarray(at, at + 1))
    expect(await drip(url, pieces, 5)).toMatchObject({ status: 408, code: 'transfer_slow' })
  })

  it('has an end to its time, however fast it comes', async () => {
    const { desk } = open({ paceMs: 1000, bodyMs: 100 })
    const { url } = await desk.issueUpload(broker.caller, await taskOf(), asked)
    const pieces = Array.from({ length: 4 }, (_, at) => bytes.subarray(at * 40_000, (at + 1) * 40_000))
    expect(await drip(url, pieces, 40)).toMatchObject({ status: 408, code: 'transfer_slow' })
  })

  it('waits for no place: a tenant with as many transfers as it may have is told so', async () => {
    const { desk } = open({ quotas: { stored_mb: 100, tickets: 10, transfers: 1 } })
    const task = await taskOf()
    const first = await desk.issueUpload(broker.caller, task, asked)
    const second = await desk.issueUpload(broker.caller, task, { ...asked, path: 'y.bin' })
    const gate = Promise.withResolvers<undefined>()
    const answer = later(drip(first.url, [bytes.subarray(0, 1000), bytes.subarray(1000)], 1, gate.promise))
    await until('some of it arrived', async () => (await send(first.url, 'HEAD')).headers['upload-offset'] === '1000')
    expect(await put(second.url, bytes)).toMatchObject({
      status: 429,
      code: 'quota_exceeded',
      headers: { 'retry-after': '5' },
    })
    gate.resolve(undefined)
    expect((await answer).status).toBe(201)
    expect((await put(second.url, bytes)).status).toBe(201)
  })

  it('is refused before a byte of it where the disk has no room', async () => {
    const { artifacts } = broker.served.parts
    let room = 1 << 30
    const parts: Partial<Parts> = { artifacts: { ...artifacts, room: () => Promise.resolve(room) } }
    const { desk } = open({ parts })
    const task = await taskOf()
    const { url } = await desk.issueUpload(broker.caller, task, asked)
    room = bytes.length
    expect(await put(url, bytes)).toMatchObject({ status: 507, code: 'no_space' })
    await expect(desk.issueUpload(broker.caller, task, asked)).rejects.toMatchObject({ code: 'no_space' })
  })

  it('is given up when the broker stops, and nothing of it stays', async () => {
    const one = open()
    const task = await taskOf()
    const { url } = await one.desk.issueUpload(broker.caller, task, asked)
    const answer = later(drip(url, [bytes.subarray(0, 1000)], 1).catch(() => null))
    await until('some of it arrived', async () => (await send(url, 'HEAD')).headers['upload-offset'] === '1000')
    await one.desk.close()
    expect((await answer)?.status ?? 410).toBe(410)
    await until('no half is left', () => broker.halves().length === 0)
    expect(broker.files(task.id)).toEqual(task.files)
    await expect(one.desk.issueUpload(broker.caller, task, asked)).rejects.toMatchObject({ code: 'conflict' })
  })
})

it('keeps tokens and URLs out of the log', async () => {
  const { desk } = open()
  const { url } = await desk.issueUpload(broker.caller, await taskOf(), asked)
  await put(url, Buffer.alloc(bytes.length))
  await put(url, bytes)
  expect(broker.log).not.toContain(url.slice(url.lastIndexOf('/') + 1))
})

it('decides any request under its path, and changes nothing for one that is not exactly right', async () => {
  const { desk } = open()
  const answers = openTransferAnswers(desk, broker.served.parts)
  const task = await taskOf()
  const { url } = await desk.issueUpload(broker.caller, task, asked)
  const token = url.slice(url.lastIndexOf('/') + 1)
  const number = fc.oneof(fc.nat(), fc.constantFrom(0, bytes.length - 1, bytes.length, 2 ** 53, 1e21), fc.integer())
  const text = fc.oneof(
    fc.string({ maxLength: 20 }).map((it) => it.replaceAll(/[^\x20-\x7e]/g, '')),
    number.map(String),
    fc.tuple(number, number, number).map(([a, b, c]) => `bytes ${a}-${b}/${c}`),
  )
  const request = fc.record({
    method: fc.constantFrom('PUT', 'HEAD', 'GET', 'POST', 'DELETE', 'PATCH', 'OPTIONS'),
    path: fc.oneof(
      fc.constant(`/transfer/${token}`),
      fc.string({ maxLength: 60 }).map((it) => `/transfer/${it}`),
      fc.constantFrom('/transfer', '/transfer/', `/transfer/${token}/`, `/transfer//${token}`, `/transfer/${token}%00`),
    ),
    headers: fc.dictionary(fc.constantFrom('content-length', 'content-range', 'range', 'if-range', 'expect'), text),
    body: fc.uint8Array({ maxLength: 50 }),
  })
  await fc.assert(
    fc.asyncProperty(request, async ({ method, path, headers, body }) => {
      const bare = method === 'GET' || method === 'HEAD'
      const given = new Request('http://127.0.0.1/', { method, headers, ...(bare ? {} : { body }) })
      const answer = await answers.handle(given, path)
      expect(answer?.status).toBeGreaterThanOrEqual(200)
      expect(answer?.status).toBeLessThan(500)
      expect(answer?.headers.get('x-content-type-options')).toBe('nosniff')
      expect(await answer?.text()).not.toMatch(/node:|\/tmp\/|at .*\.ts/)
    }),
    { numRuns: 1500 },
  )
  expect(broker.files(task.id)).toEqual(task.files)
  expect(await answers.handle(new Request('http://127.0.0.1/'), '/transfers/x')).toBeNull()
  expect(await put(url, bytes)).toMatchObject({ status: 201 })
})

it('a URL is answered for as long as it lives, also where one that was asked for at the same time was refused', async () => {
  const { storage } = broker.served.parts
  const { promise: both, resolve: met } = Promise.withResolvers<void>()
  let asking = 0
  const full = {
    ...storage,
    async allowance(tenant: string) {
      const given = await storage.allowance(tenant)
      const at = ++asking
      if (at === 2) met()
      await both
      const check = (): void => {
        throw new WritError('quota_exceeded', 'full')
      }
      return at === 2 ? given : { ...given, check }
    },
  }
  const { desk } = open({ parts: { storage: full } })
  const [first, second] = [await taskOf(), await taskOf()]
  const { caller } = broker
  const issuing = [first, second].map(async (task) => await desk.issueUpload(caller, task, asked))
  const given = await Promise.allSettled(issuing)
  expect(given.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected'])
  const url = given.flatMap((one) => (one.status === 'fulfilled' ? [one.value.url] : [])).join('')
  // Longer than the listener stays when there is no URL any more.
  await pause(1500)
  expect((await put(url, bytes)).status).toBe(201)
})

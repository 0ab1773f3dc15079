import { randomBytes } from 'node:crypto'
import { spawn, spawnSync } from 'node:child_process'
import { rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { digestOf } from '../../src/digest.ts'
import { expect, it, onTestFinished } from 'vitest'
import { until } from '../wait.ts'
import { initialised, openTestBroker, put, send } from './broker.ts'
import type { Broker } from './broker.ts'

async function broker(yaml = ''): Promise<Broker> {
  const opened = await openTestBroker({ yaml })
  onTestFinished(async () => await opened.stop())
  return opened
}

async function reachable(url: string): Promise<boolean> {
  return await send(url, 'HEAD').then(
    () => true,
    () => false,
  )
}

it('closes the listener when no URL lives any more, and opens it with the next', async () => {
  const { task, upload } = await broker()
  const id = await task()
  const url = await upload(id, 'x', Buffer.from('x'))
  expect(await put(url, Buffer.from('x'))).toMatchObject({ status: 201 })
  await until('nobody listens', async () => !(await reachable(url)))
  const next = await upload(id, 'y', Buffer.from('y'))
  expect(await put(next, Buffer.from('y'))).toMatchObject({ status: 201 })
}, 60_000)

it('keeps a tenant to its quotas, and says what helps', async () => {
  const { task, upload, call } = await broker('quotas: { stored_mb: 1, tickets: 2, transfers: 1 }\n')
  const id = await task()
  const half = randomBytes(600_000)
  const refused = async (path: string, bytes: Buffer): Promise<unknown> =>
    await upload(id, path, bytes).catch((error: unknown) => (error instanceof Error ? error.message : error))
  const first = await upload(id, 'a', half)
  // What is only announced counts already; the same bytes count once.
  expect(await refused('b', randomBytes(600_000))).toContain('quota_exceeded')
  const second = await upload(id, 'c', randomBytes(10))
  expect(await refused('d', randomBytes(10))).toContain('one-time URLs already')
  expect(await put(first, half)).toMatchObject({ status: 201 })
  expect(await put(second, randomBytes(10))).toMatchObject({ status: 422 })
  const inline = async (size: number, path: string): Promise<unknown> =>
    (await call('upload_artifact', { task_id: id, files: [{ path, content: 'x'.repeat(size) }] })).error ?? 'done'
  expect(await inline(600_000, 'e')).toMatchObject({
    code: 'quota_exceeded',
    remedy: expect.stringContaining('Remove files') as string,
  })
  expect(await inline(100_000, 'e')).toBe('done')
  await call('upload_artifact', { task_id: id, remove: ['a'] })
  expect(await inline(600_000, 'f')).toBe('done')
  const submit = await call('submit_task', {
    project_name: 'p',
    goal: 'g',
    target_ref: 'sandbox',
    execution_intent: 'run_script',
    files: [{ path: 'g', content: 'y'.repeat(600_000) }],
  })
  expect(submit.error).toMatchObject({ code: 'quota_exceeded' })
}, 60_000)

it('forgets URLs at a restart, and says so; what was half sent or is nobody’s any more is gone', async () => {
  const folder = initialised()
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }))
  const before = await openTestBroker({ folder })
  const id = await before.task()
  const bytes = randomBytes(100_000)
  const url = await before.upload(id, 'x', bytes)
  const part = { 'content-range': 'bytes 0-49999/100000' }
  expect(await put(url, bytes.subarray(0, 50_000), part)).toMatchObject({ status: 202 })
  expect(before.halves()).toHaveLength(1)
  // Two files that were sent and taken away again, one of them after a plan was made with it.
  const [planned, dropped] = [randomBytes(1000), randomBytes(2000)]
  expect(await put(await before.upload(id, 'planned', planned), planned)).toMatchObject({ status: 201 })
  await before.call('start_execution', { task_id: id, wait_ms: 10_000 })
  expect(await put(await before.upload(id, 'dropped', dropped), dropped)).toMatchObject({ status: 201 })
  await before.call('upload_artifact', { task_id: id, remove: ['planned', 'dropped'] })
  const size = async (of: Broker, file: Buffer): Promise<number | null> =>
    await of.served.parts.artifacts.size(digestOf(file))
  expect(await size(before, dropped)).toBe(2000)
  await before.served.stop()
  const after = await openTestBroker({ folder })
  expect(after.halves()).toEqual([])
  await until('it is gone', async () => (await size(after, dropped)) === null)
  expect(await size(after, planned)).toBe(1000)
  const next = await after.upload(id, 'x', bytes)
  const answer = await put(next.replace(/[^/]*$/, url.slice(url.lastIndexOf('/') + 1)), bytes)
  expect(answer).toMatchObject({
    status: 404,
    code: 'not_found',
    json: { error: { message: expect.stringContaining('restart') as string } },
  })
  expect(await put(next, bytes)).toMatchObject({ status: 201 })
  await after.served.stop()
}, 60_000)

it('gives URLs under the HTTP server where there is one, with the same answers', async (context) => {
  const { task, upload, files, folder, served } = await broker('http: { listen: "127.0.0.1:0" }\n')
  const { http } = (await served.status()) as { readonly http: string }
  const id = await task()
  const bytes = randomBytes(3_000_000)
  const url = await upload(id, 'x.bin', bytes)
  expect(url.startsWith(`${http}/transfer/`)).toBe(true)
  expect(await send(url, 'PUT', { 'transfer-encoding': 'chunked' }, bytes)).toMatchObject({ code: 'length_required' })
  expect(await put(url, bytes.subarray(1))).toMatchObject({ status: 400, code: 'size_mismatch' })
  const part = { 'content-range': `bytes 0-999999/${bytes.length}` }
  expect(await put(url, bytes.subarray(0, 1_000_000), part)).toMatchObject({ status: 202 })
  expect(await send(url, 'HEAD')).toMatchObject({ status: 200, headers: { 'upload-offset': '1000000' } })
  const rest = { 'content-range': `bytes 1000000-${bytes.length - 1}/${bytes.length}` }
  expect(await put(url, bytes.subarray(1_000_000), rest)).toMatchObject({ status: 201 })
  expect(await put(url, bytes)).toMatchObject({ status: 410, code: 'transfer_used' })
  expect(await send(`${http}/transfer/${'A'.repeat(43)}`, 'GET')).toMatchObject({ status: 404, code: 'not_found' })
  if (spawnSync('curl', ['--version']).status !== 0) context.skip('curl is not installed: apt-get install curl')
  const file = join(folder, 'curl.bin')
  writeFileSync(file, bytes)
  // As the answer to upload_artifact says it.
  const curl = spawn('curl', ['-sS', '-T', file, await upload(id, 'y.bin', bytes)], {
    stdio: ['ignore', 'ignore', 'inherit'],
  })
  await new Promise((resolve) => curl.once('close', resolve))
  expect(files(id).map((one) => one.path)).toEqual(['main.js', 'x.bin', 'y.bin'])
}, 60_000)

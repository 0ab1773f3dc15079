import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { closeSync, existsSync, openSync, readdirSync, rmSync, statSync, writeSync } from 'node:fs'
import { request } from 'node:http'
import type { ClientRequest } from 'node:http'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { describe, expect, it, onTestFinished } from 'vitest'
import { systemCode } from '../../src/error.ts'
import { makeWorld } from '../e2e/world.ts'
import { smallDisk, whyNoDisk } from '../ledger/small-disk.ts'
import { until } from '../wait.ts'
import { initialised, openTestBroker, put, send, sha256 } from './broker.ts'
import type { Broker } from './broker.ts'

function begin(url: string, length: number): { readonly sending: ClientRequest; readonly status: Promise<number> } {
  const sending = request(url, { method: 'PUT', headers: { 'content-length': length }, agent: false })
  const status = new Promise<number>((resolve) => {
    sending.on('response', (response) => {
      response.resume()
      resolve(response.statusCode ?? 0)
    })
    sending.on('error', () => resolve(0))
  })
  return { sending, status }
}

async function writeAll(sending: ClientRequest, piece: Uint8Array, times: number): Promise<void> {
  for (let at = 0; at < times; at++) if (!sending.write(piece)) await once(sending, 'drain')
}

describe('a broker killed in the middle of an upload', () => {
  it('leaves the task as it was and nothing of the half; the file can be sent again [G-upload-whole]', async () => {
    const world = makeWorld()
    onTestFinished(async () => await world.close())
    const client = await world.client()
    const bytes = randomBytes(8_000_000)
    const submitted = await client.call('submit_task', {
      project_name: 'kill',
      goal: 'Be cut off',
      target_ref: 'sandbox',
      execution_intent: 'run_script',
      inputs: { script: 'main.js' },
      files: [
        {
          path: 'main.js',
          content:
            "import { files, readBytes } from 'writ'\nfor (const f of files()) console.log(f, readBytes(f).length)",
        },
      ],
    })
    const task = String(submitted.structured['task_id'])
    const ask = async (by: typeof client): Promise<string> => {
      const upload = { path: 'data.bin', size: bytes.length, sha256: sha256(bytes) }
      const { structured, text } = await by.call('upload_artifact', { task_id: task, upload })
      const url = String(structured['upload_url'])
      // Some clients show a model the text only.
      expect(text).toContain(url)
      return url
    }
    const url = await ask(client)
    const { sending, status } = begin(url, bytes.length)
    await writeAll(sending, bytes.subarray(0, 4_000_000), 1)
    await until(
      'some of it arrived',
      async () => Number((await send(url, 'HEAD')).headers['upload-offset']) > 1_000_000,
    )
    const artifacts = join(world.folder, '.writ', 'artifacts')
    const halves = (): readonly string[] => readdirSync(artifacts).filter((name) => name.startsWith('.incoming-'))
    expect(halves()).toHaveLength(1)
    process.kill(world.brokerPid(), 'SIGKILL')
    expect(await status).toBe(0)
    const next = await world.client()
    const before = await next.call('upload_artifact', {
      task_id: task,
      files: [{ path: 'main.js', edits: [{ old: 'for', new: 'for' }] }],
    })
    expect(before.structured).toMatchObject({ state: 'ready', changed: [{ path: 'main.js', change: 'unchanged' }] })
    expect(halves()).toEqual([])
    const answer = await put(await ask(next), bytes)
    expect(answer).toMatchObject({ status: 201, json: { changed: [{ path: 'data.bin', change: 'added' }] } })
    const started = await next.call('start_execution', { task_id: task, wait_ms: 20_000 })
    const result = await next.call('get_result', { execution_id: String(started.structured['execution_id']) })
    expect(result.structured).toMatchObject({
      state: 'succeeded',
      tail: expect.stringContaining(`data.bin ${bytes.length}`) as string,
    })
  }, 60_000)
})

/** Fills the disk to its last block, as any other program might. */
function fill(dir: string): string {
  const path = join(dir, 'filler')
  const file = openSync(path, 'w')
  const block = Buffer.alloc(65_536)
  try {
    for (;;) writeSync(file, block)
  } catch (error) {
    if (systemCode(error) !== 'ENOSPC') throw error
  } finally {
    closeSync(file)
  }
  return path
}

describe('a disk that is full in the middle of an upload', () => {
  it('is said so, costs the half and not the task, and the URL takes the file once there is room [G-upload-whole]', async (context) => {
    const disk = smallDisk(192 * 1024)
    if (disk === null) return context.skip(whyNoDisk)
    const broker: Broker = await openTestBroker({ folder: initialised('', disk.path) })
    onTestFinished(async () => await broker.stop())
    const task = await broker.task()
    const piece = randomBytes(1024 * 1024)
    const size = 48 * piece.length
    const hash = createHash('sha256')
    for (let at = 0; at < 48; at++) hash.update(piece)
    const answer = await broker.call('upload_artifact', {
      task_id: task,
      upload: { path: 'big.bin', size, sha256: hash.digest('hex') },
    })
    const url = answer.upload_url ?? ''
    const { sending, status } = begin(url, size)
    await writeAll(sending, piece, 8)
    await until(
      'some of it arrived',
      async () => Number((await send(url, 'HEAD')).headers['upload-offset']) > 4_000_000,
    )
    const filler = fill(disk.path)
    await Promise.race([writeAll(sending, piece, 40), status])
    expect(await status).toBe(507)
    expect(broker.halves()).toEqual([])
    expect(broker.files(task).map((file) => file.path)).toEqual(['main.js'])
    expect((await send(url, 'HEAD')).headers['upload-offset']).toBe('0')
    rmSync(filler)
    const again = begin(url, size)
    await writeAll(again.sending, piece, 48)
    again.sending.end()
    expect(await again.status).toBe(201)
    expect(broker.files(task)[0]).toMatchObject({ path: 'big.bin', size })
  }, 60_000)
})

describe('a large file', () => {
  it('goes to disk without filling memory: 128 MiB, and 1 GiB where this machine is fast enough for it', async () => {
    const broker = await openTestBroker()
    onTestFinished(async () => await broker.stop())
    const piece = randomBytes(1024 * 1024)
    const sent = async (mebibytes: number): Promise<number> => {
      const task = await broker.task()
      const hash = createHash('sha256')
      for (let at = 0; at < mebibytes; at++) hash.update(piece)
      const size = mebibytes * piece.length
      const digest = hash.digest('hex')
      const { upload_url: url = '' } = await broker.call('upload_artifact', {
        task_id: task,
        upload: { path: 'large.bin', size, sha256: digest },
      })
      const began = performance.now()
      const { sending, status } = begin(url, size)
      await writeAll(sending, piece, mebibytes)
      sending.end()
      expect(await status).toBe(201)
      const place = join(broker.served.folder.artifacts, digest.slice(0, 2), digest)
      expect(existsSync(place) && statSync(place).size).toBe(size)
      return performance.now() - began
    }
    const before = process.memoryUsage().arrayBuffers
    let most = 0
    const watch = setInterval(() => (most = Math.max(most, process.memoryUsage().arrayBuffers)), 20)
    const ms = await sent(128)
    const whole = ms * 8 < 7_000
    if (whole) await sent(1024)
    clearInterval(watch)
    await pause(1)
    // The client's buffers are in this process too, and garbage waits for its collection: half of what was sent is the bound.
    expect(most - before).toBeLessThan((whole ? 512 : 64) * 1024 * 1024)
  }, 60_000)
})

import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { request } from 'node:http'
import { join } from 'node:path'
import { Client } from '@modelcontextprotocol/client'
import { StdioClientTransport } from '@modelcontextprotocol/client/stdio'
import { quantile } from './figure.ts'
import type { Figure } from './figure.ts'
import { build, end, entryOf, environment, makeWorld } from './world.ts'
import type { World } from './world.ts'

const rounds = 7
const mebibytes = 256
const piece = randomBytes(1024 * 1024)
const size = mebibytes * piece.length

/**
 * One file from a client in a process of its own to the synced disk, its SHA-256 checked: by a one-time URL of Writ on
 * loopback and under its HTTP server, and beside them, in turns, by `node:http` piped to a file with the same hash.
 */
export async function run(): Promise<readonly Figure[]> {
  build()
  const world = makeWorld()
  const bare = spawn(
    process.execPath,
    [join(import.meta.dirname, 'bare', 'upload.ts'), join(world.folder, 'bare.bin')],
    { env: {}, stdio: ['ignore', 'pipe', 'inherit'] },
  )
  const port = String((await once(bare.stdout, 'data'))[0]).trim()
  try {
    const lanes = { loopback: await measured(world, 'none', port), http: await measured(world, '127.0.0.1:0', port) }
    return Object.entries(lanes).map(([name, { writ, plain }]) => {
      const ratio = quantile(plain, 0.5) / quantile(writ, 0.5)
      return {
        name: `upload, ${name === 'http' ? 'under the HTTP server' : 'to the loopback listener'}`,
        figure: `${ratio.toFixed(2)}x node:http to disk`,
        goal: '0.5x',
        reached: ratio >= 0.5,
        detail: `${String(mebibytes)} MiB, ${String(rounds)} rounds in turns: ${speed(writ)} against ${speed(plain)}, the medians; best ${speed(writ, 0)} against ${speed(plain, 0)}; synced, SHA-256 checked, a revision of the task in the ledger`,
      }
    })
  } finally {
    bare.kill()
    world.close()
  }
}

async function measured(
  world: World,
  listen: string,
  port: string,
): Promise<{ readonly writ: readonly number[]; readonly plain: readonly number[] }> {
  const broker = await serve(world, listen)
  const client = new Client({ name: 'writ-bench', version: '1' }, { versionNegotiation: { mode: 'auto' } })
  try {
    await client.connect(
      new StdioClientTransport({
        command: process.execPath,
        args: [entryOf('dist'), 'mcp', '--config', world.config],
        env: environment,
      }),
    )
    const hash = createHash('sha256')
    for (let at = 0; at < mebibytes; at++) hash.update(piece)
    const sha256 = hash.digest('hex')
    const task = await called(client, 'submit_task', {
      project_name: 'bench',
      goal: 'Take a file',
      target_ref: 'sandbox',
      execution_intent: 'run_script',
    })
    const times = { writ: [] as number[], plain: [] as number[] }
    for (let round = -1; round < rounds; round++) {
      const plain = await sent(`http://127.0.0.1:${port}/`)
      const upload = { path: 'data.bin', size, sha256 }
      const { upload_url: url } = await called(client, 'upload_artifact', { task_id: task['task_id'], upload })
      const writ = await sent(String(url))
      if (round < 0) continue
      times.plain.push(plain)
      times.writ.push(writ)
    }
    return times
  } finally {
    await client.close().catch(() => undefined)
    await end(broker)
  }
}

async function serve(world: World, listen: string): Promise<ChildProcess> {
  const broker = spawn(
    process.execPath,
    ['--disable-proto=delete', entryOf('dist'), 'serve', '--listen', listen, '--config', world.config],
    { env: environment, stdio: ['ignore', 'ignore', 'pipe'] },
  )
  for await (const text of broker.stderr.setEncoding('utf8') as AsyncIterable<string>)
    if (text.includes('"msg":"ready"')) break
  broker.stderr.resume()
  return broker
}

async function called(client: Client, name: string, args: Record<string, unknown>): Promise<Record<string, unknown>> {
  const { structuredContent, isError } = await client.callTool({ name, arguments: args })
  if (isError === true) throw new Error(`${name}: ${JSON.stringify(structuredContent)}`)
  return structuredContent as Record<string, unknown>
}

/** Milliseconds from the request to its answer. */
async function sent(url: string): Promise<number> {
  const began = performance.now()
  const sending = request(url, { method: 'PUT', headers: { 'content-length': size }, agent: false })
  const answer = once(sending, 'response')
  for (let at = 0; at < mebibytes; at++) if (!sending.write(piece)) await once(sending, 'drain')
  sending.end()
  const [response] = (await answer) as [NodeJS.ReadableStream & { readonly statusCode?: number }]
  let text = ''
  for await (const part of response) text += String(part)
  if (response.statusCode !== 201) throw new Error(`${String(response.statusCode)}: ${text}`)
  return performance.now() - began
}

function speed(times: readonly number[], share = 0.5): string {
  return `${(size / 1_048_576 / (quantile(times, share) / 1000)).toFixed(0)} MiB/s`
}

import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { connect } from 'node:net'
import type { Socket } from 'node:net'
import { createInterface } from 'node:readline'
import { join } from 'node:path'
import { appendFileSync } from 'node:fs'
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client'
import { end, entryOf, environment, makeWorld } from './world.ts'

/** What one request of a load is; the same bytes every time. */
export interface Shot {
  readonly port: number
  readonly bytes: Buffer
}

export function shot(port: number, tool: string, args: object, token: string | null): Shot {
  const body = JSON.stringify({
    jsonrpc: '2.0',
    id: 1,
    method: 'tools/call',
    params: {
      name: tool,
      arguments: args,
      _meta: {
        'io.modelcontextprotocol/protocolVersion': '2026-07-28',
        'io.modelcontextprotocol/clientInfo': { name: 'bench', version: '1' },
        'io.modelcontextprotocol/clientCapabilities': {},
      },
    },
  })
  const head = [
    'POST /mcp HTTP/1.1',
    `host: 127.0.0.1:${String(port)}`,
    ...(token === null ? [] : [`authorization: Bearer ${token}`]),
    'content-type: application/json',
    'accept: application/json, text/event-stream',
    'mcp-protocol-version: 2026-07-28',
    'mcp-method: tools/call',
    `mcp-name: ${tool}`,
    `content-length: ${String(Buffer.byteLength(body))}`,
  ]
  return { port, bytes: Buffer.from(`${head.join('\r\n')}\r\n\r\n${body}`) }
}

/** Requests one after the other on each of some connections, for a time; answers counted, each looked at. */
export async function load(
  fired: Shot,
  connections: number,
  ms: number,
): Promise<{ readonly perSecond: number; readonly failed: number }> {
  const until = performance.now() + ms
  let answered = 0
  let failed = 0
  const began = performance.now()
  await Promise.all(
    Array.from({ length: connections }, async () => {
      const socket = await open(fired.port)
      await new Promise<void>((resolve, reject) => {
        let held = ''
        socket.on('error', reject)
        socket.setEncoding('latin1')
        socket.on('data', (text: string) => {
          held += text
          const head = held.indexOf('\r\n\r\n')
          if (head < 0) return
          const length = Number(/content-length: (\d+)/i.exec(held.slice(0, head))?.[1] ?? Number.NaN)
          if (Number.isNaN(length)) return reject(new Error(`an answer without a length: ${held.slice(0, 300)}`))
          if (held.length < head + 4 + length) return
          if (!held.startsWith('HTTP/1.1 200') || held.includes('"isError":true')) failed++
          answered++
          held = held.slice(head + 4 + length)
          if (performance.now() < until) socket.write(fired.bytes)
          else resolve()
        })
        socket.write(fired.bytes)
      })
      socket.destroy()
    }),
  )
  return { perSecond: (answered / (performance.now() - began)) * 1000, failed }
}

/** Sends one request on a connection of its own and leaves it waiting; as a client does, it asks again when it is answered. */
export async function hold(fired: Shot): Promise<Socket> {
  const socket = await open(fired.port)
  socket.on('error', () => undefined)
  socket.on('data', () => setTimeout(() => socket.writable && socket.write(fired.bytes), 200))
  socket.write(fired.bytes)
  return socket
}

async function open(port: number): Promise<Socket> {
  const socket = connect(port, '127.0.0.1').setNoDelay(true)
  await new Promise<void>((resolve, reject) => socket.once('connect', resolve).once('error', reject))
  return socket
}

/** A broker that serves HTTP, with a token and an execution that ended. */
export interface Measured {
  readonly port: number
  readonly pid: number
  readonly token: string
  readonly execution: string
  /** Starts an execution that goes on until it is cancelled; resolves when it runs. */
  slow(): Promise<string>
  cancel(execution: string): Promise<void>
  metric(name: string): Promise<number>
  close(): Promise<void>
}

export async function openMeasured(): Promise<Measured> {
  const world = makeWorld()
  appendFileSync(
    world.config,
    '\nhttp:\n  limits: { requests: 20000, requests_per_caller: 20000, connections: 20000, connections_per_caller: 20000 }\n',
  )
  const broker = spawn(
    process.execPath,
    ['--disable-proto=delete', entryOf('dist'), 'serve', '--listen', '127.0.0.1:0', '--config', world.config],
    { env: environment, stdio: ['ignore', 'ignore', 'pipe'] },
  )
  const port = await firstOf(broker, (line) => /"address":"http:\/\/127\.0\.0\.1:(\d+)"/.exec(line)?.[1])
  const token = await tokenOf(world.config)
  const url = `http://127.0.0.1:${port}`
  const client = new Client({ name: 'writ-bench', version: '1' }, { versionNegotiation: { mode: 'auto' } })
  await client.connect(
    new StreamableHTTPClientTransport(new URL(`${url}/mcp`), {
      requestInit: { headers: { authorization: `Bearer ${token}` } },
    }),
  )
  const run = async (script: string, wait: number): Promise<string> => {
    const asked = {
      project_name: 'bench',
      goal: 'Be there',
      target_ref: 'sandbox',
      execution_intent: 'run_script',
      inputs: { script: 'main.js' },
      files: [{ path: 'main.js', content: script }],
    }
    const { structuredContent } = await client.callTool({ name: 'submit_task', arguments: asked })
    const task = (structuredContent as { readonly task_id: string }).task_id
    const started = await client.callTool({ name: 'start_execution', arguments: { task_id: task, wait_ms: wait } })
    return (started.structuredContent as { readonly execution_id: string }).execution_id
  }
  return {
    port: Number(port),
    pid: broker.pid ?? 0,
    token,
    execution: await run("console.log('done')\n", 20_000),
    async slow() {
      const id = await run('await new Promise((resolve) => setTimeout(resolve, 55_000))\n', 0)
      for (let state = ''; state !== 'running';) {
        const { structuredContent } = await client.callTool({
          name: 'get_status',
          arguments: { execution_id: id, wait_ms: 200 },
        })
        state = (structuredContent as { readonly state: string }).state
      }
      return id
    },
    cancel: async (execution) =>
      void (await client.callTool({ name: 'cancel_execution', arguments: { execution_id: execution } })),
    async metric(name) {
      const text = await (await fetch(`${url}/metrics`)).text()
      return Number(new RegExp(`^${name} (\\S+)$`, 'm').exec(text)?.[1])
    },
    async close() {
      await client.close().catch(() => undefined)
      await end(broker)
      world.close()
    },
  }
}

/** A bare SDK echo server over HTTP, in a process of its own. */
export async function openBare(): Promise<{ readonly shot: Shot; close(): Promise<void> }> {
  const child = spawn(process.execPath, [join(import.meta.dirname, 'bare', 'http.ts')], {
    env: environment,
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const port = await firstOf(child, (line) => /^\d+$/.exec(line)?.[0])
  return { shot: shot(Number(port), 'echo', { text: 'what is said' }, null), close: async () => await end(child) }
}

async function tokenOf(config: string): Promise<string> {
  const asked = spawn(
    process.execPath,
    [entryOf('dist'), 'token', 'create', '--subject', 'bench', '--role', 'developer', '--config', config, '--json'],
    { env: environment, stdio: ['ignore', 'pipe', 'inherit'] },
  )
  return await firstOf(asked, (line) => /"token": "([^"]+)"/.exec(line)?.[1])
}

async function firstOf(child: ChildProcess, found: (line: string) => string | undefined): Promise<string> {
  const stream = child.stdout ?? child.stderr
  if (stream === null) throw new Error('nothing to read from')
  for await (const line of createInterface({ input: stream })) {
    const text = found(line)
    if (text === undefined) continue
    // What else it says is read and forgotten, so that it never waits for us.
    stream.resume()
    return text
  }
  throw new Error('the process ended before it said what it should')
}

import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { Client } from '@modelcontextprotocol/client'
import { StdioClientTransport } from '@modelcontextprotocol/client/stdio'
import { quantile } from './figure.ts'
import type { Figure } from './figure.ts'
import { build, end, entryOf, makeWorld } from './world.ts'

const rounds = 60
const warmUp = 10
/** Milliseconds between rounds: the next worker is forked and warm by then, and nothing of the last run is left. */
const pauseMs = 400
const script = "console.log('done')\n"

/**
 * One task, from the call of `start_execution` to its answer, which is sent when the outcome receipt is on disk: over a
 * real client, `writ mcp` and the socket. Beside it, in turns, what such a task cannot do without: a call of an echo tool
 * on a bare SDK server over stdio, a bare isolate in a warm worker process, and two durable commits.
 */
export async function run(): Promise<readonly Figure[]> {
  build()
  const world = makeWorld()
  const { broker } = await world.serve('dist')
  const writ = new Client({ name: 'writ-bench', version: '1' }, { versionNegotiation: { mode: 'auto' } })
  const bare = new Client({ name: 'writ-bench', version: '1' }, { versionNegotiation: { mode: 'auto' } })
  const isolates = bareIsolates()
  const commits = bareCommits(join(world.folder, 'bare.db'))
  try {
    await writ.connect(
      new StdioClientTransport({
        command: process.execPath,
        args: [entryOf('dist'), 'mcp', '--config', world.config],
        env: world.env,
      }),
    )
    await bare.connect(
      new StdioClientTransport({
        command: process.execPath,
        args: [join(import.meta.dirname, 'bare', 'echo.ts')],
        env: world.env,
      }),
    )
    const echo: number[] = []
    const isolate: number[] = []
    const commit: number[] = []
    const task: number[] = []
    for (let round = -warmUp; round < rounds; round++) {
      const id = await submit(writ, round)
      await pause()
      const times = [
        await timed(async () => await bare.callTool({ name: 'echo', arguments: { text: id } })),
        await timed(isolates.run),
        await timed(commits.two),
      ]
      await pause()
      const whole = await timed(async () => await start(writ, id))
      if (round < 0) continue
      for (const [at, list] of [echo, isolate, commit].entries()) list.push(times[at] ?? Number.NaN)
      task.push(whole)
    }
    const floor = echo.map((ms, at) => ms + (isolate[at] ?? 0) + (commit[at] ?? 0))
    const ratio = quantile(task, 0.5) / quantile(floor, 0.5)
    return [
      {
        name: 'isolate task against its bare parts',
        figure: `${ratio.toFixed(2)}x`,
        goal: '2x',
        reached: ratio <= 2,
        detail: `${rounds} tasks, start_execution to durable outcome receipt: p50 ${shown(task, 0.5)}, p95 ${shown(task, 0.95)}; bare p50 ${shown(floor, 0.5)} = SDK echo call ${shown(echo, 0.5)} + isolate in a warm worker ${shown(isolate, 0.5)} + two durable commits ${shown(commit, 0.5)}`,
      },
    ]
  } finally {
    await writ.close().catch(() => undefined)
    await bare.close().catch(() => undefined)
    isolates.close()
    commits.close()
    await end(broker)
    world.close()
  }
}

async function submit(client: Client, round: number): Promise<string> {
  const task = {
    project_name: 'bench',
    goal: `Round ${String(round)}`,
    target_ref: 'sandbox',
    execution_intent: 'run_script',
    inputs: { script: 'main.js' },
    files: [{ path: 'main.js', content: script }],
  }
  const { structuredContent } = await client.callTool({ name: 'submit_task', arguments: task })
  const id = (structuredContent as { readonly task_id?: unknown } | undefined)?.task_id
  if (typeof id !== 'string') throw new Error(`no task: ${JSON.stringify(structuredContent)}`)
  return id
}

async function start(client: Client, task: string): Promise<void> {
  const { structuredContent } = await client.callTool({
    name: 'start_execution',
    arguments: { task_id: task, wait_ms: 20_000 },
  })
  const state = (structuredContent as { readonly state?: unknown } | undefined)?.state
  if (state !== 'succeeded') throw new Error(`the task did not succeed: ${JSON.stringify(structuredContent)}`)
}

async function pause(): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, pauseMs))
}

async function timed(work: () => unknown): Promise<number> {
  const began = performance.now()
  await work()
  return performance.now() - began
}

/** A worker process with isolated-vm loaded; each question is a fresh isolate, context, script and answer over a pipe. */
function bareIsolates(): { readonly run: () => Promise<void>; readonly close: () => void } {
  const child: ChildProcess = spawn(
    process.execPath,
    ['--no-node-snapshot', join(import.meta.dirname, 'bare', 'isolate.ts')],
    {
      env: {},
      stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
    },
  )
  return {
    async run() {
      child.send(script)
      const [answer] = (await once(child, 'message')) as unknown[]
      if (answer !== 'done') throw new Error('the bare isolate answered otherwise')
    },
    close: () => void child.kill(),
  }
}

/** Rows as large as a decision with its receipt, synced to disk as the ledger's are, and nothing else. */
function bareCommits(path: string): { readonly two: () => void; readonly close: () => void } {
  const db = new DatabaseSync(path)
  db.exec(
    'PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 4000; CREATE TABLE rows (id INTEGER PRIMARY KEY, body TEXT)',
  )
  const insert = db.prepare('INSERT INTO rows (body) VALUES (?)')
  const body = 'x'.repeat(8192)
  return {
    two() {
      for (let at = 0; at < 2; at++) {
        db.exec('BEGIN IMMEDIATE')
        insert.run(body)
        db.exec('COMMIT')
      }
    },
    close: () => db.close(),
  }
}

function shown(values: readonly number[], share: number): string {
  return `${quantile(values, share).toFixed(2)} ms`
}

import { execFile } from 'node:child_process'
import { appendFileSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { Client } from '@modelcontextprotocol/client'
import { StdioClientTransport } from '@modelcontextprotocol/client/stdio'
import type { DockerExecutor } from '../src/executor/docker/docker.ts'
import { contained, place } from '../test/executor/docker/place.ts'
import type { Place } from '../test/executor/docker/place.ts'
import { listen, prepare } from '../test/executor/fixture.ts'
import type { PlanImage } from '../src/plan/plan.ts'
import { quantile } from './figure.ts'
import type { Figure } from './figure.ts'
import { build, end, entryOf, makeWorld } from './world.ts'

const rounds = 15
const warmUp = 2
const atOnce = 50
/** Milliseconds: the next container waits by then, and nothing of the last run is left. */
const pauseMs = 1500

/**
 * One task in a container, from the call of `start_execution` to its answer, which is sent when the container was seen
 * gone and the outcome receipt is on disk: with a container that waits, and with none. Beside it, in turns, what anybody
 * would type: `docker run --rm` of the same image.
 */
export async function run(): Promise<readonly Figure[]> {
  const found = await place()
  if ('lacking' in found) throw new Error(found.lacking)
  build()
  const figures = await measure(found, null)
  return found.engine.runtimes.has('runsc') ? [...figures, ...(await measure(found, 'runsc'))] : figures
}

async function measure(at: Place, runtime: string | null): Promise<readonly Figure[]> {
  const under = runtime === null ? '' : ` under ${runtime}`
  const warm = await broker(at, runtime, 1)
  const cold = await broker(at, runtime, 0)
  const executor = at.open({ set: { warm: 1 } })
  try {
    const planned = at.image
    const bare: number[] = []
    const [warmTask, coldTask, first]: [number[], number[], number[]] = [[], [], []]
    for (let round = -warmUp; round < rounds; round++) {
      const once = [
        await timed(async () => await typed(at, runtime)),
        await warm.task(round),
        await cold.task(round),
        await firstByte(executor, planned, runtime),
      ]
      await pause()
      if (round < 0) continue
      for (const [which, list] of [bare, warmTask, coldTask, first].entries()) list.push(once[which] ?? Number.NaN)
    }
    const together = await many(executor, planned, runtime)
    const besides = await timed(
      async () => await Promise.all(Array.from({ length: atOnce }, async () => await typed(at, runtime))),
    )
    const floor = quantile(bare, 0.5)
    return [
      ratio(`warm task against docker run --rm${under}`, warmTask, floor, 0.25),
      ratio(`cold task against docker run --rm${under}`, coldTask, floor, 1.2),
      ratio(`first output byte, warm, against docker run --rm${under}`, first, floor, 0.05),
      {
        name: `${atOnce} containers at once against as many docker run --rm${under}`,
        figure: `${(together / besides).toFixed(2)}x`,
        goal: '1.2x',
        reached: together <= 1.2 * besides,
        detail: `all gone after ${(together / 1000).toFixed(1)} s, and ${(besides / 1000).toFixed(1)} s`,
      },
    ]
  } finally {
    await executor.close()
    await warm.close()
    await cold.close()
  }
}

function ratio(name: string, times: readonly number[], floor: number, goal: number): Figure {
  const value = quantile(times, 0.5) / floor
  return {
    name,
    figure: `${value.toFixed(2)}x`,
    goal: `${goal}x`,
    reached: value <= goal,
    detail: `${rounds} rounds in turns: p50 ${shown(times, 0.5)}, p95 ${shown(times, 0.95)}; docker run --rm p50 ${floor.toFixed(0)} ms`,
  }
}

/** What a person would type for it. */
async function typed(at: Place, runtime: string | null): Promise<void> {
  const options = ['--rm', '--network', 'none', ...(runtime === null ? [] : ['--runtime', runtime])]
  await promisify(execFile)('docker', [
    '-H',
    at.engine.host,
    'run',
    ...options,
    '--entrypoint',
    'echo',
    at.image.name,
    'done',
  ])
}

/** A broker with a target in containers, and a client of it over `writ mcp`. */
async function broker(at: Place, runtime: string | null, waiting: number) {
  const world = makeWorld()
  appendFileSync(world.config, `\ndocker: { host: "${at.engine.host}", warm: ${waiting} }\n`)
  const catalog = join(world.folder, 'catalog.yaml')
  const target = [
    'targets:',
    '  bench:',
    '    about: A shell in a container',
    '    labels: { env: sandbox }',
    '    executor: docker',
    `    image: ${at.image.name}`,
    ...(runtime === null ? [] : [`    container: { oci_runtime: ${runtime} }`]),
    '    runtimes: [shell]',
    '    intents: [run_script]',
    '    limits: { memory_mb: 128 }',
  ].join('\n')
  writeFileSync(catalog, readFileSync(catalog, 'utf8').replace(/^targets:$/m, target))
  const { broker } = await world.serve('dist')
  const client = new Client({ name: 'writ-bench', version: '1' }, { versionNegotiation: { mode: 'auto' } })
  await client.connect(
    new StdioClientTransport({
      command: process.execPath,
      args: [entryOf('dist'), 'mcp', '--config', world.config],
      env: world.env,
    }),
  )
  return {
    /** Milliseconds from asking for a run to its outcome receipt on disk. */
    async task(round: number): Promise<number> {
      const task = {
        project_name: 'bench',
        goal: `Round ${String(round)}`,
        target_ref: 'bench',
        execution_intent: 'run_script',
        inputs: { script: 'main.sh' },
        files: [{ path: 'main.sh', content: 'echo done\n' }],
      }
      const id = said(await client.callTool({ name: 'submit_task', arguments: task }), 'task_id')
      const began = performance.now()
      const ended = await client.callTool({ name: 'start_execution', arguments: { task_id: id, wait_ms: 20_000 } })
      const ms = performance.now() - began
      if (said(ended, 'state') !== 'succeeded') throw new Error(`no success: ${JSON.stringify(ended)}`)
      return ms
    },
    async close(): Promise<void> {
      await client.close().catch(() => undefined)
      await end(broker)
      world.close()
    },
  }
}

function said(answer: { readonly structuredContent?: unknown }, member: string): string {
  const value = (answer.structuredContent as Readonly<Record<string, unknown>> | undefined)?.[member]
  if (typeof value !== 'string') throw new Error(`no ${member}: ${JSON.stringify(answer)}`)
  return value
}

function program(planned: PlanImage, runtime: string | null, memory_mb: number) {
  const files = { 'main.sh': 'echo done\n' }
  const container = { oci_runtime: runtime, cpus_m: 1000 }
  return contained(prepare({ files, argv: [['sh', 'main.sh']], limits: { memory_mb } }, 'docker'), planned, container)
}

/** From handing a run to the executor to the first byte of its output, with a container that waits. */
async function firstByte(executor: DockerExecutor, planned: PlanImage, runtime: string | null): Promise<number> {
  const prepared = program(planned, runtime, 128)
  await executor.settled()
  const seen = listen(prepared)
  const outcome = await executor.run(prepared.job, seen.io)
  if (outcome.end !== 'exited') throw new Error(`ended ${outcome.end}`)
  return seen.firstOutput() ?? Number.NaN
}

async function many(executor: DockerExecutor, planned: PlanImage, runtime: string | null): Promise<number> {
  return await timed(async () => {
    const outcomes = await Promise.all(
      Array.from({ length: atOnce }, async () => {
        const prepared = program(planned, runtime, 64)
        return await executor.run(prepared.job, listen(prepared).io)
      }),
    )
    if (outcomes.some((outcome) => outcome.end !== 'exited' || outcome.steps[0]?.exit !== 0))
      throw new Error(`not all succeeded: ${JSON.stringify(outcomes)}`)
  })
}

async function timed(work: () => Promise<unknown>): Promise<number> {
  const began = performance.now()
  await work()
  return performance.now() - began
}

async function pause(): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, pauseMs))
}

function shown(values: readonly number[], share: number): string {
  return `${quantile(values, share).toFixed(0)} ms`
}

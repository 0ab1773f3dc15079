import { readFileSync } from 'node:fs'
import { Agent, request } from 'node:http'
import { expect, it, onTestFinished } from 'vitest'
import type { JsonObject } from '../../src/digest.ts'
import { later, until } from '../wait.ts'
import { decided } from '../e2e/clients/driver.ts'
import { script } from '../e2e/world.ts'
import { client2 } from './clients.ts'
import { statelessCall, statelessHeaders } from './edge.ts'
import { useHttpWorld } from './world.ts'

const many = 1000
const http = await useHttpWorld({
  http: '  limits: { requests_per_caller: 1100, connections_per_caller: 1100 }',
})
const token = http.token('carol')

/** How often the broker's process has read from anything, files of the ledger and of outputs included. */
function reads(): number {
  return Number(/syscr: (\d+)/.exec(readFileSync(`/proc/${String(http.pid)}/io`, 'utf8'))?.[1])
}

async function wait(
  agent: Agent,
  execution: string,
  at: number,
): Promise<{ readonly answer: JsonObject; readonly ms: number }> {
  const body = JSON.stringify(statelessCall(at, 'get_status', { execution_id: execution, wait_ms: 50_000 }))
  return await new Promise((resolve, reject) => {
    const asked = request(
      `${http.url}/mcp`,
      {
        agent,
        method: 'POST',
        headers: {
          authorization: `Bearer ${token}`,
          'content-type': 'application/json',
          accept: 'application/json, text/event-stream',
          'content-length': body.length,
          ...statelessHeaders('get_status'),
        },
      },
      (answer) => {
        let text = ''
        answer.setEncoding('utf8').on('data', (part: string) => (text += part))
        answer.on('end', () => {
          const result = (JSON.parse(text) as JsonObject)['result'] as JsonObject | undefined
          resolve({
            answer: (result?.['structuredContent'] ?? { status: answer.statusCode ?? 0 }) as JsonObject,
            ms: performance.now(),
          })
        })
      },
    )
    asked.once('error', reject).end(body)
  })
}

it('[G-waits-are-cheap] a thousand waiting clients cost one watch each and no reading, and all are told when it ends', async (context) => {
  const io = ((): boolean => {
    try {
      return reads() > 0
    } catch {
      return false
    }
  })()
  if (!io) context.skip('/proc/PID/io is not there: the kernel needs task I/O accounting (CONFIG_TASK_IO_ACCOUNTING)')
  const client = await client2('auto', { url: http.url, token })
  const submitted = await client.call('submit_task', {
    project_name: 'waiting',
    goal: 'Take a while',
    target_ref: 'sandbox',
    execution_intent: 'run_script',
    ...script(
      'slow.js',
      "console.log('begun')\nawait new Promise((resolve) => setTimeout(resolve, 100_000))\nconsole.log('over')",
    ),
  })
  const started = await client.call('start_execution', { task_id: submitted.structured['task_id'] as string })
  const execution = String(started.structured['execution_id'])
  const agent = new Agent({ keepAlive: false, maxSockets: Infinity })
  onTestFinished(async () => {
    agent.destroy()
    await until('nobody waits', async () => (await http.metric('writ_waits')) === 0)
  })
  const one = async (at: number): ReturnType<typeof wait> =>
    await decided(
      async () => await wait(agent, execution, at),
      ({ answer }) => answer,
    )
  const waiting = later(Promise.all(Array.from({ length: many }, async (_, at) => await one(at))))
  await until('all of them wait', async () => (await http.metric('writ_waits')) === many, {
    withinMs: 45_000,
    everyMs: 100,
  })
  // Longer than the 5 s in which progress is told: nobody looks at anything then either.
  const before = reads()
  await new Promise((resolve) => setTimeout(resolve, 5500))
  expect(reads() - before).toBeLessThan(many / 2)
  const cancelled = performance.now()
  await client.call('cancel_execution', { execution_id: execution })
  const answers = await waiting
  for (const { answer } of answers)
    expect(answer).toMatchObject({ execution_id: execution, state: 'cancelled', final: true })
  expect(Math.max(...answers.map(({ ms }) => ms)) - cancelled).toBeLessThan(15_000)
  expect(await http.metric('writ_waits')).toBe(0)
  await client.close()
}, 150_000)

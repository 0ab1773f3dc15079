import { randomBytes } from 'node:crypto'
import { mkdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, it } from 'vitest'
import { credentialsOf, echoing, newCanary } from './canary/canary.ts'
import { openEcho } from './canary/echo.ts'
import { needlesOf, sweepFolder, watchProcesses } from './canary/sweep.ts'
import { final, openLine } from './crash/line.ts'
import { makePlace } from './crash/place.ts'
import { brokerOf } from './crash/processes.ts'

/*
 * L-01 and L-09: a run that uses its credential and then takes all the memory there is, in a Writ whose environment asks
 * Node and its packages to say all they do.
 */

const canaries = { header: newCanary() }
const needles = needlesOf(canaries)
const echo = await openEcho(Object.values(canaries))
const temp = join(tmpdir(), `writ-canary-debug-${randomBytes(6).toString('hex')}`)
mkdirSync(temp)
const place = makePlace({
  name: 'writ-canary-debug-',
  targets: `
  open:
    about: A service that echoes
    labels: { env: staging }
    executor: isolate
    intents: [run_script]
${echoing(['header'], echo.port)}    limits: { wall_s: 60, memory_mb: 64 }
`,
  credentials: credentialsOf(['header']),
  secrets: { 'header-token': canaries.header },
  env: { TMPDIR: temp, DEBUG: '*', NODE_DEBUG: 'http,http2,net,tls,fetch,undici,child_process,stream,fs' },
})
const said: string[] = []
const line = openLine(place, (bytes) => said.push(bytes))
const watch = watchProcesses(() => brokerOf(place.configFile)?.pid ?? null)

afterAll(async () => {
  watch.close()
  line.close()
  place.writ(['stop'])
  await echo.close()
  for (const folder of [place.root, temp]) rmSync(folder, { recursive: true, force: true })
})

const script = `const headers = { 'x-vault-token': writ.env.HEADER_TOKEN }
const answer = await fetch(writ.env.HEADER_URL + '/', { method: 'POST', headers })
console.log(answer.status, await answer.text())
const all = []
for (;;) all.push(new Array(1000).fill({}))
`

it('a credential of a run that ends for want of memory is in no sink, though everything is asked to say all it does [G-secret-nowhere]', async () => {
  const submitted = await line.call('submit_task', {
    project_name: 'canary',
    goal: 'Take all there is',
    target_ref: 'open',
    execution_intent: 'run_script',
    inputs: { script: 'main.js' },
    files: [{ path: 'main.js', content: script }],
  })
  const started = await line.call('start_execution', { task_id: submitted['task_id'] as string })
  const execution = String(started['execution_id'])
  expect(await final(line, execution)).toMatchObject({ state: 'failed' })
  expect(JSON.stringify(await line.call('get_result', { execution_id: execution }))).toContain('memory')
  // The service had the value: what follows is not true for want of a secret.
  expect(echo.arrived).toEqual(new Set(Object.values(canaries)))
  const shown = ['doctor', 'credentials list', `executions show ${execution}`, 'receipts list --jws', 'status'].map(
    (command) => {
      const { out, err } = place.writ(command.split(' '))
      return out + err
    },
  )
  // … and Node did say what it does.
  expect(shown.join('')).toMatch(/^[A-Z_]+ \d+: /m)
  expect([
    ...sweepFolder(place.root, needles),
    ...sweepFolder(temp, needles),
    ...needles.in(Buffer.from(said.join(''))).map((name) => `${name} in the messages`),
    ...needles.in(Buffer.from(shown.join(''))).map((name) => `${name} in what commands showed`),
    ...[...watch.seen].flatMap(([key, bytes]) =>
      needles.in(bytes).map((name) => `${name} in process ${key.slice(0, 40)}`),
    ),
  ]).toEqual([])
}, 120_000)

import { randomBytes } from 'node:crypto'
import { mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import type { JsonObject } from '../../src/digest.ts'
import { until } from '../wait.ts'
import { credentialsOf, echoing, type Lane, newCanary } from './canary/canary.ts'
import { openEcho } from './canary/echo.ts'
import { needlesOf, sweepFolder, watchProcesses } from './canary/sweep.ts'
import { openLine, Unanswered } from './crash/line.ts'
import { makePlace } from './crash/place.ts'
import { alive, brokerOf, familyOf, kill } from './crash/processes.ts'

const lanes: readonly Lane[] = ['header', 'bearer', 'basic']
const canaries = { header: newCanary(), bearer: newCanary(), basic: newCanary() }
const needles = needlesOf(canaries)
const echo = await openEcho(Object.values(canaries))

const target = (name: string, env: string): string => `
  ${name}:
    about: Services that echo
    labels: { env: ${env} }
    executor: isolate
    intents: [run_script]
${echoing(lanes, echo.port)}    limits: { wall_s: 120 }
`
const begun = Date.now()
const temp = join(tmpdir(), `writ-canary-tmp-${randomBytes(6).toString('hex')}`)
mkdirSync(temp)
const place = makePlace({
  name: 'writ-canary-',
  targets: target('open', 'staging') + target('guarded', 'production'),
  credentials: credentialsOf(lanes),
  secrets: Object.fromEntries(Object.entries(canaries).map(([lane, value]) => [`${lane}-token`, value])),
  env: { TMPDIR: temp },
})

/** Everything said over MCP, in both directions. */
const said: string[] = []
const line = openLine(place, (bytes) => said.push(bytes))
const watch = watchProcesses(() => brokerOf(place.configFile)?.pid ?? null)
const shown: { readonly command: string; readonly text: string }[] = []
const cli = (...args: readonly string[]): string => {
  const ran = place.writ(args)
  shown.push({ command: args.join(' '), text: ran.out + ran.err })
  return ran.out
}

afterAll(async () => {
  watch.close()
  line.close()
  place.writ(['stop'])
  await echo.close()
  for (const folder of [place.root, temp]) rmSync(folder, { recursive: true, force: true })
})

/** Calls every service in every way, and gives out all it can reach by every way out there is. */
const script = (end: string): string => `
const seen = []
const say = (...words) => { seen.push(words.join(' ')); console.log(...words); console.error(...words) }
const { env } = writ
for (const [name, value] of Object.entries(env)) say(name + '=' + value)
const walk = (value, path, depth) => {
  if (depth > 3 || (typeof value !== 'object' && typeof value !== 'function') || value === null) return
  for (const key of Reflect.ownKeys(value)) {
    let item
    try { item = value[key] } catch (error) { item = error }
    if (typeof item === 'string') say(path + '.' + String(key) + '=' + item.slice(0, 300))
    else walk(item, path + '.' + String(key), depth + 1)
  }
}
walk(globalThis, 'globalThis', 0)
for (const lane of ['HEADER', 'BEARER', 'BASIC']) {
  const token = env[lane + '_TOKEN']
  const given = {
    HEADER: { 'x-vault-token': token },
    BEARER: { authorization: 'Bearer ' + token },
    BASIC: { authorization: 'Basic ' + btoa('robot:' + token) },
  }[lane]
  for (const path of ['/', '/unauthorised', '/moved'${end === 'hold' ? ", '/hold'" : ''}]) {
    for (const headers of [given, {}]) {
      try {
        const answer = await fetch(env[lane + '_URL'] + path, { method: 'POST', headers, body: 'token ' + token })
        say(lane, path, answer.status, JSON.stringify([...answer.headers]))
        say(await answer.text())
      } catch (error) {
        say(lane, path, String(error), error.stack)
      }
    }
  }
}
const all = seen.join('\\n')
writ.writeFile('/out/all.txt', all)
writ.writeFile('/out/hex.txt', [...new TextEncoder().encode(all)].map((byte) => byte.toString(16).padStart(2, '0')).join(''))
writ.writeFile('/out/base64.txt', btoa(unescape(encodeURIComponent(all))))
${end === 'throw' ? 'const failure = new Error(all)\nfailure.name = all.slice(-200)\nfailure.cause = { all }\nthrow failure' : ''}
${end === 'eat' ? 'const kept = []\nfor (;;) kept.push(new Array(10000).fill(all + kept.length))' : ''}
${end === 'wait' ? 'await new Promise((resolve) => setTimeout(resolve, 60000))' : ''}
export default { all }
`

interface Started {
  readonly task: string
  readonly execution: string
  readonly approval: string | null
}

async function begin(target: string, end: string, constraints: JsonObject = {}): Promise<Started> {
  const submitted = await line.call('submit_task', {
    project_name: 'canary',
    goal: `Give everything away, then ${end}`,
    target_ref: target,
    execution_intent: 'run_script',
    inputs: { script: 'main.js' },
    files: [{ path: 'main.js', content: script(end) }],
    constraints,
  })
  const started = await line.call('start_execution', { task_id: submitted['task_id'] as string })
  const approval = (started['approval'] as JsonObject | undefined)?.['approval_id']
  return {
    task: String(submitted['task_id']),
    execution: String(started['execution_id']),
    approval: typeof approval === 'string' ? approval : null,
  }
}

async function end(execution: string): Promise<JsonObject> {
  for (;;) {
    const status = await line
      .call('get_status', { execution_id: execution, wait_ms: 10_000 })
      .catch((failure: unknown) => {
        if (failure instanceof Unanswered) return {}
        throw failure
      })
    if ('final' in status && status['final'] === true) return status
  }
}

/** Reads back all there is of a run by every way a caller has. */
async function readAll(run: Started): Promise<JsonObject> {
  let cursor = 'start'
  for (;;) {
    const { log } = (await line.call('get_status', { execution_id: run.execution, cursor, max_bytes: 8192 })) as {
      readonly log?: { readonly cursor: string; readonly more: boolean }
    }
    if (log === undefined || !log.more) break
    cursor = log.cursor
  }
  const result = await line.call('get_result', { execution_id: run.execution })
  for (const file of (result['files'] ?? []) as readonly JsonObject[]) {
    const path = file['path'] as string
    await line.call('get_result', { execution_id: run.execution, file: path, max_bytes: 1_048_576 })
    await line.request('resources/read', { uri: file['uri'] as string })
  }
  const { resources } = (await line.request('resources/list', {})) as { readonly resources: readonly JsonObject[] }
  const receipts = resources
    .filter((one) => String(one['name']).endsWith(run.execution))
    .map((one) => String(one['uri']))
  expect(receipts.length).toBeGreaterThan(0)
  for (const uri of receipts) await line.request('resources/read', { uri })
  runs.push({ ...run, receipts: receipts.map((uri) => uri.replace('writ://receipts/', '')) })
  return result
}

const runs: (Started & { readonly receipts: readonly string[] })[] = []

/** … and by every way an operator has. */
function showAll(run: (typeof runs)[number]): void {
  cli('executions', 'show', run.execution)
  cli('executions', 'show', run.execution, '--json')
  cli('policy', 'eval', '--execution', run.execution)
  for (const receipt of run.receipts) {
    cli('receipts', 'show', receipt)
    cli('receipts', 'show', receipt, '--jws')
  }
  if (run.approval !== null) cli('approvals', 'show', run.approval)
}

describe('a credential of a run', () => {
  it('is used by an allowed run that gives away all it can reach', async () => {
    const run = await begin('open', 'return')
    expect(await end(run.execution)).toMatchObject({ state: 'succeeded' })
    const result = await readAll(run)
    expect(result['files']).toHaveLength(4)
    // The services saw the values, and the run saw answers: what follows is not true for want of a secret.
    expect(echo.arrived).toEqual(new Set(Object.values(canaries)))
    expect(said.join('')).toMatch(/HEADER \/ 200/)
    // Each spelling came back with the run's placeholder in its place.
    expect(said.join('').match(/writ_ph_/g)?.length).toBeGreaterThan(30)
  }, 150_000)

  it('is used by an approved production run', async () => {
    const run = await begin('guarded', 'return')
    if (run.approval === null) throw new Error('production asks for an approval')
    cli('approvals', 'show', run.approval)
    expect(await place.answer(run.approval, 'approve')).toBe('satisfied')
    expect(await end(run.execution)).toMatchObject({ state: 'succeeded' })
    await readAll(run)
  }, 150_000)

  it('is used by runs that throw it, run out of memory and of time, are cancelled and rejected', async () => {
    const thrown = await begin('open', 'throw')
    expect(await end(thrown.execution)).toMatchObject({ state: 'failed' })
    await readAll(thrown)

    const eaten = await begin('open', 'eat')
    expect(await end(eaten.execution)).toMatchObject({ state: 'failed', reasons: [{ code: 'memory' }] })
    await readAll(eaten)

    const late = await begin('open', 'wait', { time_s: 2 })
    expect(await end(late.execution)).toMatchObject({ state: 'timed_out' })
    await readAll(late)

    const held = echo.held()
    const stopped = await begin('open', 'hold')
    await held
    await line.call('cancel_execution', { execution_id: stopped.execution, reason: 'enough' })
    expect(await end(stopped.execution)).toMatchObject({ state: 'cancelled' })
    echo.release()
    await readAll(stopped)

    const refused = await begin('guarded', 'return')
    if (refused.approval === null) throw new Error('production asks for an approval')
    expect(await place.answer(refused.approval, 'reject')).toBe('rejected')
    expect(await end(refused.execution)).toMatchObject({ state: 'rejected', ran: false })
    await readAll(refused)
  }, 150_000)

  it('is used by runs whose broker, run host and worker are killed in the middle', async () => {
    for (const victim of ['worker', 'run host', 'broker'] as const) {
      const held = echo.held()
      const run = await begin('open', 'hold')
      await held
      const broker = brokerOf(place.configFile)
      if (broker === null) throw new Error('there is no broker')
      const family = familyOf(broker)
      const victims = {
        worker: family.workers,
        'run host': family.host === null ? [] : [family.host],
        broker: [broker],
      }[victim]
      for (const one of victims) kill(one)
      echo.release()
      expect(await end(run.execution)).toMatchObject({ state: victim === 'worker' ? 'failed' : 'unknown', ran: true })
      await until('all that was killed is gone', () => !victims.some(alive))
      await readAll(run)
    }
  }, 150_000)

  it('[G-secret-nowhere] stands, in no spelling, in any file of the data folder, receipt, MCP message, output of a command, process or temp folder', () => {
    for (const command of [
      'status',
      'doctor',
      'executions list',
      'receipts list',
      'approvals list --all',
      'credentials list',
      'targets list',
      'verify',
      'keys',
    ])
      cli(...command.split(' '))
    for (const run of runs.filter((one, at) => at === 0 || one.approval !== null)) showAll(run)
    const files: string[] = []
    const found = [...sweepFolder(place.root, needles, files), ...sweepFolder(temp, needles, files)]
    for (const text of ['ledger.db', 'ledger.db-wal', 'ledger.db-shm', 'broker.log', 'header-token.age'])
      expect(files.map((file) => file.split('/').at(-1))).toContain(text)
    for (const folder of ['/artifacts/', '/output/', '/policy/'])
      expect(files.some((file) => file.includes(folder))).toBe(true)

    for (const name of needles.in(Buffer.from(said.join('')))) found.push(`${name} in the MCP messages`)
    for (const { command, text } of shown)
      for (const name of needles.in(Buffer.from(text))) found.push(`${name} in the output of writ ${command}`)
    for (const [process, bytes] of watch.seen)
      for (const name of needles.in(bytes)) found.push(`${name} in ${process.slice(0, 40)}`)
    // What the broker was started with stays with it: its children get an environment made for them.
    const given = [...watch.seen].filter(([, bytes]) => bytes.includes(Buffer.from(`TMPDIR=${temp}`)))
    const brokers = new Set(
      [...watch.seen.keys()].filter((key) => key.includes('\0serve\0')).map((key) => key.split(' ')[0]),
    )
    expect(given.map(([key]) => key.split(' ')[0]).filter((pid) => !brokers.has(pid))).toEqual([])
    expect(given.length).toBeGreaterThan(0)
    const seen = [...watch.seen.keys()]
    for (const part of ['serve', 'host-main', 'isolate/worker'])
      expect(seen.some((process) => process.includes('cmdline') && process.includes(part))).toBe(true)
    expect(seen.some((process) => process.includes('environ'))).toBe(true)
    expect(said.join('').length).toBeGreaterThan(100_000)
    expect(shown.length).toBeGreaterThan(25)

    // What anyone may write into: only what this test's own processes could have put there since it began.
    for (const folder of ['/tmp', '/var/tmp', '/dev/shm']) {
      for (const name of readdirSync(folder)) {
        const path = join(folder, name)
        try {
          const stat = statSync(path)
          if (stat.isFile() && stat.mtimeMs >= begun && stat.size < 64 << 20)
            for (const which of needles.in(readFileSync(path))) found.push(`${which} in ${path}`)
        } catch {
          // Another program's file that went, or is not ours to read.
        }
      }
    }
    expect(found).toEqual([])
  }, 150_000)

  it('would be found by that sweep where it stood: in a file, the ledger, a message, a spelling, a process', () => {
    const value = canaries.header
    const planted = join(temp, 'planted')
    for (const spelling of [
      value,
      Buffer.from(`x${value}`).toString('base64'),
      Buffer.from(value).toString('hex'),
      JSON.stringify(value),
      encodeURIComponent(value),
      value.slice(0, 24),
    ]) {
      writeFileSync(planted, `before ${spelling} after`)
      expect(sweepFolder(temp, needles)).not.toEqual([])
    }
    writeFileSync(planted, 'before canary after')
    expect(sweepFolder(temp, needles)).toEqual([])
    expect(needles.in(Buffer.from(`{"text":${JSON.stringify(`a ${value}`)}}`))).toContain('half of header')
    const mine = watchProcesses(() => process.pid)
    mine.close()
    expect([...mine.seen.values()].some((bytes) => bytes.includes(Buffer.from('PATH=')))).toBe(true)
  })
})

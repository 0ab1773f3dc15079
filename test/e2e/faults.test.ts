import { spawn, spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { askBroker } from '../../src/control/control.ts'
import type { JsonObject } from '../../src/digest.ts'
import { connectOrStart } from '../../src/start.ts'
import { type Line, openLine, Unanswered } from './crash/line.ts'
import { makePlace, type Place, type PlaceOptions } from './crash/place.ts'
import { alive, brokerOf, familyOf, kill } from './crash/processes.ts'
import { viewsAreTheSteps } from './crash/invariants.ts'

const whyNoDisk = 'mounting a small file system needs root: run this test as root, or in a container with CAP_SYS_ADMIN'

interface Fixture {
  readonly place: Place
  readonly line: Line
}

/** A folder of its own for the tests of one `describe`, taken down however they end. */
function use(options: PlaceOptions): Fixture {
  const fixture: { place?: Place; line?: Line } = {}
  beforeAll(() => {
    fixture.place = makePlace(options)
    fixture.line = openLine(fixture.place)
  })
  afterAll(async () => {
    const { place, line } = fixture
    line?.close()
    if (place === undefined) return
    const broker = brokerOf(place.configFile)
    place.writ(['stop'])
    if (broker !== null) {
      await until(() => !alive(broker)).catch(() => undefined)
      kill(broker)
    }
    rmSync(place.root, { recursive: true, force: true })
  })
  return {
    get place() {
      if (fixture.place === undefined) throw new Error('made before the tests')
      return fixture.place
    },
    get line() {
      if (fixture.line === undefined) throw new Error('made before the tests')
      return fixture.line
    },
  }
}

async function submit(line: Line, content: string, more: JsonObject = {}): Promise<JsonObject> {
  return await line.call('submit_task', {
    project_name: 'faults',
    goal: 'Print a line',
    target_ref: 'sandbox',
    execution_intent: 'run_script',
    inputs: { script: 'main.js' },
    files: [{ path: 'main.js', content }],
    ...more,
  })
}

async function start(line: Line, content: string, more: JsonObject = {}): Promise<JsonObject> {
  const submitted = await submit(line, content, more)
  if (submitted['task_id'] === undefined) return submitted
  return await line.call('start_execution', {
    task_id: submitted['task_id'],
    wait_ms: more['target_ref'] === undefined ? 20_000 : 0,
  })
}

async function final(line: Line, execution: string): Promise<JsonObject> {
  for (const end = performance.now() + 30_000; performance.now() < end;) {
    const status = await line.call('get_status', { execution_id: execution, wait_ms: 2000 })
    if (status['final'] === true) return status
  }
  throw new Error(`${execution} did not end`)
}

/** The whole path once more, and the log from its first entry: nothing was lost and everything works. */
async function works({ place, line }: Fixture): Promise<void> {
  const ran = await start(line, `console.log('works', ${String(Math.random())})`).catch(async (failure: unknown) => {
    if (!(failure instanceof Unanswered)) throw failure
    return await start(line, `console.log('works', ${String(Math.random())})`)
  })
  expect(ran).toMatchObject({ state: 'succeeded' })
  expect(place.writ(['verify'])).toMatchObject({ code: 0, out: expect.stringMatching(/^VALID:LOGGED/) as string })
  expect(viewsAreTheSteps(place.folder.ledger)).toBe(true)
}

async function until(look: () => boolean | Promise<boolean>): Promise<void> {
  for (const end = performance.now() + 10_000; performance.now() < end; await pause(50)) if (await look()) return
  throw new Error('it did not come to be')
}

const status = async (place: Place): Promise<JsonObject> => await askBroker(place.folder.controlSocket, 'status')

async function stopped({ place, line }: Fixture): Promise<void> {
  // A call on a connection that is just ending would have no answer.
  line.close()
  const broker = brokerOf(place.configFile)
  place.writ(['stop'])
  await until(() => broker === null || !alive(broker))
}

function edit(file: string, change: (text: string) => string): () => void {
  const before = readFileSync(file, 'utf8')
  writeFileSync(file, change(before))
  return () => writeFileSync(file, before)
}

describe('files that people edit', () => {
  const fixture = use({ name: 'writ-files-' })

  it('name file, line and nearest key where writ.yaml has an unknown one, and start once it is corrected', async () => {
    const { place, line } = fixture
    const back = edit(place.configFile, (text) => text.replace('policies:', 'polices:'))
    for (const command of [['status'], ['run', 'sandbox', '--intent', 'run_script', 'x.js'], ['mcp'], ['serve']]) {
      const ran = place.writ(command)
      expect(ran.code).toBe(2)
      expect(ran.err).toMatch(/writ\.yaml:1\d:\d+: unknown key "polices".*"policies"/s)
    }
    await expect(connectOrStart(place)).rejects.toMatchObject({
      code: 'broker_unreachable',
      message: expect.stringMatching(/writ\.yaml:1\d:\d+/) as string,
    })
    back()
    await works({ place, line })
  }, 180_000)

  it('leave the earlier configuration in force where an edit of writ.yaml is broken, and say so in the status', async () => {
    const { place, line } = fixture
    await line.call('list_targets', {})
    const back = edit(place.configFile, (text) => `${text}\nlimits: { maxima: { wall_s: never } }\n`)
    await until(async () => JSON.stringify(await status(place)).includes('writ.yaml:'))
    expect(await start(line, 'console.log(1)')).toMatchObject({ state: 'succeeded' })
    back()
    await until(async () => ((await status(place))['configuration'] as JsonObject)['ok'] === true)
    await works(fixture)
  }, 180_000)

  it('keep a broker from starting with a broken catalog, name the place, and start once it is corrected', async () => {
    const { place } = fixture
    await stopped(fixture)
    const back = edit(place.catalogFile, (text) => text.replace('executor: isolate', 'executer: isolate'))
    await expect(connectOrStart(place)).rejects.toMatchObject({
      code: 'broker_unreachable',
      message: expect.stringMatching(/catalog\.yaml:\d+:\d+: .*"executer".*"executor"/s) as string,
    })
    // A client of the relay gets an answer, and the operator the reason.
    const asked = spawnSync(process.execPath, [join(import.meta.dirname, '..', '..', 'bin', 'writ'), 'mcp'], {
      cwd: place.root,
      env: place.env,
      encoding: 'utf8',
      input: `${JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'tools/call', params: { name: 'list_targets', arguments: {}, _meta: { 'io.modelcontextprotocol/protocolVersion': '2026-07-28', 'io.modelcontextprotocol/clientCapabilities': {} } } })}\n`,
    })
    expect(asked.stdout).toContain('broker_unreachable')
    expect(asked.stdout).not.toContain('catalog.yaml')
    expect(asked.stderr).toMatch(/catalog\.yaml:\d+:\d+/)
    back()
    await works(fixture)
  }, 180_000)

  it('leave the earlier catalog in force where an edit is broken', async () => {
    const { place, line } = fixture
    const back = edit(place.catalogFile, (text) => `${text}\ncredentials: [\n`)
    await until(async () => JSON.stringify(await status(place)).includes('catalog.yaml:'))
    expect(await start(line, 'console.log(2)')).toMatchObject({ state: 'succeeded' })
    back()
    await works(fixture)
  }, 180_000)

  it('let a broker with a broken policy answer and refuse everything, and show where in the status', async () => {
    const { place, line } = fixture
    await stopped(fixture)
    const rule = join(place.root, 'policies', 'org', 'broken.rego')
    writeFileSync(rule, 'package writ.pack.org\n\ndeny contains { if\n')
    for (const [tool, args] of [
      ['list_targets', {}],
      ['get_status', {}],
    ] as const) {
      const answer = await line.call(tool, args)
      expect(answer['error']).toMatchObject({
        code: expect.stringMatching(/^(policy_|no_generation$)/) as string,
        remedy: expect.stringMatching(/./) as string,
      })
    }
    expect(await submit(line, 'console.log(3)')).toHaveProperty('error')
    const shown = place.writ(['status'])
    expect(shown.out + shown.err).toMatch(/broken\.rego:3/)
    rmSync(rule)
    await until(async () => (await line.call('list_targets', {}))['error'] === undefined)
    await works(fixture)
  }, 180_000)

  it('leave the earlier generation in force where a policy edit is broken', async () => {
    const { place, line } = fixture
    const before = ((await status(place))['policy'] as JsonObject)['generation']
    const rule = join(place.root, 'policies', 'starter', 'broken.rego')
    writeFileSync(rule, 'package writ.pack.starter\n\ngrant contains x if y\n')
    await until(async () => JSON.stringify(await status(place)).includes('broken.rego'))
    expect(((await status(place))['policy'] as JsonObject)['generation']).toEqual(before)
    expect(place.writ(['status']).out).toMatch(/broken\.rego:3/)
    expect(await start(line, 'console.log(4)')).toMatchObject({ state: 'succeeded' })
    rmSync(rule)
    await until(async () => !JSON.stringify(await status(place)).includes('broken.rego'))
    await works(fixture)
  }, 180_000)

  it('keep a broker from starting whose keys are gone, damaged or open to others, and say what to do', async () => {
    const { place } = fixture
    await stopped(fixture)
    const keys = join(place.root, 'keys')
    const refused = async (): Promise<void> => {
      const failure = await connectOrStart(place).then(
        (socket) => {
          socket.destroy()
          return null
        },
        (reason: unknown) => reason,
      )
      expect(failure).toMatchObject({ code: 'broker_unreachable', message: expect.stringMatching(/key/i) as string })
      expect(place.writ(['serve']).err).toMatch(/writ: .*key.*\n +\S/is)
    }
    renameSync(keys, `${keys}.away`)
    await refused()
    renameSync(`${keys}.away`, keys)
    for (const name of readdirSync(keys).filter((file) => /receipt|keys\.jwt/.test(file))) {
      const back = edit(join(keys, name), () => 'not a key\n')
      await refused()
      back()
    }
    await works(fixture)
  }, 180_000)
})

describe('what a run was decided on', () => {
  const fixture = use({ name: 'writ-between-' })

  it('[G-artifact-bytes] is refused where its bytes are gone or altered in the store: never other bytes', async () => {
    const { place, line } = fixture
    for (const [at, damage] of [
      (file: string) => rmSync(file),
      (file: string) => writeFileSync(file, readFileSync(file, 'utf8').replace('good', 'evil')),
      (file: string) => writeFileSync(file, ''),
    ].entries()) {
      const content = `console.log('good', ${String(at)})`
      const submitted = await submit(line, content)
      const digest = ((submitted['changed'] ?? []) as readonly JsonObject[])[0]?.['sha256']
      const { createHash } = await import('node:crypto')
      const hex = createHash('sha256').update(content).digest('hex')
      expect(digest === undefined || digest === `sha256:${hex}`).toBe(true)
      const file = join(place.folder.artifacts, hex.slice(0, 2), hex)
      expect(existsSync(file)).toBe(true)
      damage(file)
      const started = await line.call('start_execution', { task_id: submitted['task_id'] as string, wait_ms: 20_000 })
      // Refused before a plan is made of it, or ended before anything started.
      if (started['error'] === undefined) expect(started).toMatchObject({ state: 'failed', ran: false })
      expect(JSON.stringify(started)).not.toContain(place.root)
      const log = await line.call('get_status', { task_id: submitted['task_id'] as string })
      expect(JSON.stringify(log)).not.toMatch(/evil|good/)
      // Uploading the file again mends it.
      rmSync(file, { force: true })
      await line.call('upload_artifact', { task_id: submitted['task_id'] as string, remove: ['main.js'] })
      await line.call('upload_artifact', {
        task_id: submitted['task_id'] as string,
        files: [{ path: 'main.js', content }],
      })
      const again = await line.call('start_execution', {
        task_id: submitted['task_id'] as string,
        wait_ms: 20_000,
        again: true,
        idempotency_key: `mended-${String(at)}`,
      })
      expect(again).toMatchObject({ state: 'succeeded' })
    }
    await works(fixture)
  }, 180_000)

  it('[G-superseded] is decided again before it runs: a new rule stops it, a stricter one asks anew, a changed target supersedes it', async () => {
    const { place, line } = fixture
    // Every seat is taken, so that what is approved now waits.
    const holders = await Promise.all(
      [1, 2, 3, 4].map(async (n) => {
        const submitted = await submit(
          line,
          `await new Promise((resolve) => setTimeout(resolve, 50000))\nconsole.log(${String(n)})`,
        )
        return String((await line.call('start_execution', { task_id: submitted['task_id'] as string }))['execution_id'])
      }),
    )
    await until(async () => (await status(place))['running'] === 4)
    edit(
      place.catalogFile,
      (text) =>
        `${text}\n  other:\n    about: Changed later\n    labels: { env: production }\n    executor: isolate\n    intents: [run_script]\n`,
    )
    await until(async () => JSON.stringify(await line.call('list_targets', {})).includes('other'))

    const waiting = async (name: string, target: string, by: 'ada' | 'bob'): Promise<string> => {
      const started = await start(line, `console.log('${name}')`, { target_ref: target, goal: name })
      expect(started).toMatchObject({ state: 'awaiting_approval' })
      expect(await place.answer(String((started['approval'] as JsonObject)['approval_id']), 'approve', by)).toBe(
        'satisfied',
      )
      return String(started['execution_id'])
    }
    const ruled = await waiting('ruled out', 'production', 'ada')
    const stricter = await waiting('asked again', 'production', 'ada')
    const changed = await waiting('changed', 'other', 'ada')
    const bobs = await waiting('approved by bob', 'production', 'bob')
    const kept = await waiting('kept', 'production', 'ada')
    expect(await status(place)).toMatchObject({ running: 4, queued: 5 })

    const generation = ((await status(place))['policy'] as JsonObject)['generation'] as JsonObject
    writeFileSync(
      join(place.root, 'policies', 'org', 'later.rego'),
      `package writ.pack.org

# METADATA
# title: Ruled out later
# custom: { id: T-001, code: ruled_out, remedy: Ask for something else. }
deny contains {"rule": rego.metadata.rule()} if {
	input.phase == "execution"
	input.context.task.goal == "ruled out"
}

# METADATA
# title: Two people from now on
# custom: { id: T-002, code: approval_required, remedy: Wait for two people. }
require_approval contains {
	"rule": rego.metadata.rule(),
	"stages": [{"id": "approver", "roles": ["approver"], "min": 2}],
	"exclude": ["agent"],
	"evidence": ["key", "passkey"],
	"request_ttl_s": 86400,
	"execute_within_s": 3600,
} if {
	input.phase == "execution"
	input.context.task.goal == "asked again"
}
`,
    )
    edit(place.catalogFile, (text) => text.replace('about: Changed later', 'about: Changed now'))
    await until(
      async () =>
        ((((await status(place))['policy'] as JsonObject)['generation'] as JsonObject)['number'] as number) >
        Number(generation['number']),
    )
    await until(async () => JSON.stringify(await line.call('list_targets', {})).includes('Changed now'))
    const two = await start(line, "console.log('both')", { target_ref: 'production', goal: 'asked again' })
    expect(two).toMatchObject({ state: 'awaiting_approval', approval: { stages: [{ needed: 2, have: 0 }] } })
    for (const holder of holders.slice(0, 1)) await line.call('cancel_execution', { execution_id: holder })
    expect(await final(line, ruled)).toMatchObject({ state: 'denied', ran: false, reasons: [{ code: 'ruled_out' }] })
    await until(
      async () => (await line.call('get_status', { execution_id: stricter }))['state'] === 'awaiting_approval',
    )
    expect(await line.call('get_status', { execution_id: stricter })).toMatchObject({
      approval: { stages: [{ needed: 2, have: 0 }] },
      ran: false,
    })
    expect(await final(line, changed)).toMatchObject({
      state: 'superseded',
      ran: false,
      reasons: [{ code: 'catalog_changed' }],
    })
    // What nothing was changed for runs as it was approved.
    expect(await final(line, bobs)).toMatchObject({ state: 'succeeded' })
    expect(await final(line, kept)).toMatchObject({ state: 'succeeded' })
    for (const holder of holders.slice(1)) await line.call('cancel_execution', { execution_id: holder })
    for (const holder of holders) expect(await final(line, holder)).toMatchObject({ state: 'cancelled' })
    await works(fixture)
  }, 180_000)

  it('[G-approval-bound] does not run on the word of an approver who was removed before it began', async () => {
    const { place, line } = fixture
    const holders = await Promise.all(
      [1, 2, 3, 4].map(async (n) => {
        const submitted = await submit(
          line,
          `await new Promise((resolve) => setTimeout(resolve, 50000))\nconsole.log('again', ${String(n)})`,
        )
        return String((await line.call('start_execution', { task_id: submitted['task_id'] as string }))['execution_id'])
      }),
    )
    await until(async () => (await status(place))['running'] === 4)
    const started = await start(line, "console.log('bob said so')", { target_ref: 'production' })
    expect(await place.answer(String((started['approval'] as JsonObject)['approval_id']), 'approve', 'bob')).toBe(
      'satisfied',
    )
    const receipts = Number((await status(place))['receipts'])
    const back = edit(place.configFile, (text) => text.replace(/ {2}- \{ subject: bob,[^\n]*\n/, ''))
    // Each change of who may approve is a receipt.
    await until(async () => Number((await status(place))['receipts']) > receipts)
    for (const holder of holders) await line.call('cancel_execution', { execution_id: holder })
    const execution = String(started['execution_id'])
    await until(async () => (await line.call('get_status', { execution_id: execution }))['state'] !== 'queued')
    // Ada is asked, as if nobody had answered.
    const asked = await line.call('get_status', { execution_id: execution })
    expect(asked).toMatchObject({
      state: 'awaiting_approval',
      ran: false,
      approval: { stages: [{ needed: 1, have: 0 }] },
    })
    expect(await place.answer(String((asked['approval'] as JsonObject)['approval_id']), 'approve', 'ada')).toBe(
      'satisfied',
    )
    expect(await final(line, execution)).toMatchObject({ state: 'succeeded' })
    back()
    await works(fixture)
  }, 180_000)
})

describe('processes', () => {
  const fixture = use({ name: 'writ-processes-' })

  it('[G-one-broker] are one broker, however many are started at once', async () => {
    const { place } = fixture
    const sockets = await Promise.all([1, 2, 3, 4].map(async () => await connectOrStart(place)))
    for (const socket of sockets) socket.destroy()
    const held = place.writ(['serve'])
    expect(held.code).toBe(2)
    expect(held.err).toMatch(/another broker holds this data folder[^]*writ stop/)
    await until(() => brokersOf(place) === 1)
    await works(fixture)
  }, 180_000)

  it('[G-no-loss] end a run unknown, with its receipt, when the run host dies under it, and the next one runs', async () => {
    const { place, line } = fixture
    const submitted = await submit(
      line,
      "console.log('begun')\nawait new Promise((resolve) => setTimeout(resolve, 50000))",
    )
    const started = await line.call('start_execution', { task_id: submitted['task_id'] as string, wait_ms: 500 })
    expect(started).toMatchObject({ state: 'running' })
    const broker = brokerOf(place.configFile)
    const host = broker === null ? null : familyOf(broker).host
    if (host === null) throw new Error('there is no run host')
    await until(async () =>
      JSON.stringify(await line.call('get_status', { execution_id: started['execution_id'] as string })).includes(
        'begun',
      ),
    )
    expect(kill(host)).toBe(true)
    expect(await final(line, String(started['execution_id']))).toMatchObject({
      state: 'unknown',
      ran: true,
      reasons: [{ code: 'run_host_lost' }],
    })
    const result = await line.call('get_result', { execution_id: started['execution_id'] as string })
    expect(result).toMatchObject({
      tail: 'begun\n',
      receipt: { receipt_id: expect.stringMatching(/^rcpt_/) as string },
    })
    await works(fixture)
  }, 180_000)

  it('[G-no-loss] wait for a ledger that another program holds locked, say so, and lose nothing', async () => {
    const { place, line } = fixture
    const submitted = await submit(
      line,
      "await new Promise((resolve) => setTimeout(resolve, 1500))\nconsole.log('kept')",
    )
    const started = await line.call('start_execution', { task_id: submitted['task_id'] as string })
    expect(started).toMatchObject({ state: 'running' })
    const generation = ((await status(place))['policy'] as JsonObject)['generation'] as JsonObject
    const locker = spawn(
      process.execPath,
      [
        '--no-warnings',
        '-e',
        "const { DatabaseSync } = require('node:sqlite'); const db = new DatabaseSync(process.argv[1], { timeout: 5000 }); db.exec('BEGIN IMMEDIATE'); console.log('locked'); setInterval(() => {}, 1000)",
        place.folder.ledger,
      ],
      { stdio: ['ignore', 'pipe', 'inherit'] },
    )
    try {
      await new Promise((resolve) => locker.stdout.once('data', resolve))
      const refused = await submit(line, "console.log('not now')")
      expect(refused['error']).toMatchObject({
        code: 'ledger_unavailable',
        remedy: expect.stringMatching(/operator/) as string,
      })
      // A policy whose receipt cannot be written decides nothing.
      writeFileSync(
        join(place.root, 'policies', 'org', 'locked.rego'),
        'package writ.pack.org\n\n# METADATA\n# title: No secrets in goals\n# custom: { id: T-003, remedy: Say it otherwise. }\ndeny contains {"rule": rego.metadata.rule()} if contains(input.context.task.goal, "secret")\n',
      )
      await until(async () => JSON.stringify(await status(place)).includes('another program holds the ledger locked'))
      expect(((await status(place))['policy'] as JsonObject)['generation']).toEqual(generation)
      // The run ends meanwhile; its outcome waits for the ledger, and is not told before it is written.
      await pause(2500)
      expect(await line.call('get_status', { execution_id: started['execution_id'] as string })).toMatchObject({
        state: 'running',
      })
      expect(readFileSync(place.logFile, 'utf8')).toMatch(/another program holds the ledger locked/)
    } finally {
      locker.kill('SIGKILL')
    }
    expect(await final(line, String(started['execution_id']))).toMatchObject({ state: 'succeeded' })
    expect(await line.call('get_result', { execution_id: started['execution_id'] as string })).toMatchObject({
      tail: 'kept\n',
    })
    await until(
      async () =>
        (((await status(place))['policy'] as JsonObject)['generation'] as JsonObject)['number'] ===
        Number(generation['number']) + 1,
    )
    await works(fixture)
  }, 180_000)
})

function brokersOf(place: Place): number {
  return readdirSync('/proc').filter((name) => {
    try {
      return (
        /^\d+$/.test(name) &&
        /serve\0.*--config\0/.test(readFileSync(`/proc/${name}/cmdline`, 'latin1')) &&
        readFileSync(`/proc/${name}/cmdline`, 'latin1').includes(place.configFile)
      )
    } catch {
      return false
    }
  }).length
}

describe('a data folder whose path is too long for a socket', () => {
  const fixture = use({ name: 'writ-long-', data: `${'a-rather-long-name/'.repeat(8)}data` })

  it('is served all the same, over a private folder elsewhere', async () => {
    const { place } = fixture
    await works(fixture)
    expect(place.folder.mcpSocket.startsWith(place.folder.root)).toBe(false)
    expect(statSync(dirname(place.folder.mcpSocket)).mode & 0o777).toBe(0o700)
    expect(statSync(place.folder.mcpSocket).mode & 0o777).toBe(0o600)
    await stopped(fixture)
    expect(existsSync(place.folder.mcpSocket)).toBe(false)
    await works(fixture)
  }, 180_000)
})

describe('a clock that jumps', () => {
  const fixture = use({ name: 'writ-clock-' })

  it('[G-approval-time] forward, expires what waited for approval; back, leaves the order of the log as it is', async () => {
    const { place, line } = fixture
    const shift = join(place.root, 'shift')
    writeFileSync(shift, '0')
    // The broker's own wall clock, set as an administrator would set the machine's.
    const clock = join(place.root, 'clock.mjs')
    writeFileSync(
      clock,
      `import { readFileSync } from 'node:fs'\nconst now = Date.now.bind(Date)\nDate.now = () => now() + Number(readFileSync(${JSON.stringify(shift)}, 'utf8'))\n`,
    )
    const env = { ...place.env, NODE_OPTIONS: `--import ${clock}` }
    line.close()
    const shifted = openLine({ ...place, env })
    const day = 86_400_000
    try {
      const started = await start(shifted, "console.log('late')", { target_ref: 'production' })
      expect(started).toMatchObject({ state: 'awaiting_approval' })
      const approval = String((started['approval'] as JsonObject)['approval_id'])
      writeFileSync(shift, String(2 * day))
      expect(await final(shifted, String(started['execution_id']))).toMatchObject({
        state: 'expired',
        ran: false,
        reasons: [{ code: 'request_expired' }],
      })
      await expect(place.answer(approval, 'approve')).rejects.toMatchObject({ code: 'approval_refused' })

      writeFileSync(shift, String(-3 * day))
      await expect(place.answer(approval, 'approve')).rejects.toMatchObject({ code: 'approval_refused' })
      expect(await final(shifted, String(started['execution_id']))).toMatchObject({ state: 'expired' })
      const again = await shifted.call('start_execution', { task_id: started['task_id'] as string })
      expect(again).toMatchObject({ state: 'awaiting_approval' })
      expect(again['execution_id']).not.toBe(started['execution_id'])
      writeFileSync(shift, '0')
      await works({ place, line: shifted })
    } finally {
      shifted.close()
    }
  }, 180_000)
})

describe('a full disk', () => {
  const fixture = use({ name: 'writ-disk-', data: 'disk/data' })
  const mounted: string[] = []
  const mount = (path: string, kib: number): boolean => {
    mkdirSync(path, { recursive: true, mode: 0o700 })
    const done = spawnSync('mount', ['-t', 'tmpfs', '-o', `size=${String(kib)}k,mode=0700`, 'tmpfs', path], {
      stdio: 'ignore',
    })
    if (done.status === 0) mounted.push(path)
    return done.status === 0
  }
  const fill = (path: string): string => {
    const file = join(path, 'filler')
    spawnSync('dd', ['if=/dev/zero', `of=${file}`, 'bs=4096'], { stdio: 'ignore' })
    spawnSync('dd', ['if=/dev/zero', `of=${file}`, 'bs=1', 'oflag=append', 'conv=notrunc', 'count=8192'], {
      stdio: 'ignore',
    })
    return file
  }
  afterAll(() => {
    for (const path of mounted.toReversed()) spawnSync('umount', ['-l', path], { stdio: 'ignore' })
  })

  it('[G-room-for-receipts] starts nothing, still accounts for what runs, keeps reading, and goes on when there is room', async (context) => {
    const { place, line } = fixture
    const disk = join(place.root, 'disk')
    if (!mount(disk, 64 << 10)) context.skip(whyNoDisk)
    const submitted = await submit(
      line,
      "await new Promise((resolve) => setTimeout(resolve, 2500))\nconsole.log('accounted for')",
    )
    const ready = await submit(line, "console.log('started later')")
    const started = await line.call('start_execution', { task_id: submitted['task_id'] as string })
    expect(started).toMatchObject({ state: 'running' })
    const filler = fill(disk)

    for (const answer of [
      await submit(line, "console.log('too much')"),
      await line.call('start_execution', { task_id: ready['task_id'] as string }),
    ])
      expect(answer['error']).toMatchObject({ code: 'no_space', remedy: expect.stringMatching(/operator/) as string })
    expect(await status(place)).toMatchObject({ room: 'low' })
    expect(statSync(filler).size).toBeGreaterThan(10 << 20)
    expect(await final(line, String(started['execution_id']))).toMatchObject({ ran: true })
    const result = await line.call('get_result', { execution_id: started['execution_id'] as string })
    expect(result).toMatchObject({ receipt: { receipt_id: expect.stringMatching(/^rcpt_/) as string } })
    expect((await line.call('list_targets', {}))['error']).toBeUndefined()

    // A broker that is killed on the full disk comes back, reads, and still starts nothing.
    const broker = brokerOf(place.configFile)
    if (broker === null) throw new Error('there is no broker')
    kill(broker)
    await line.call('get_status', {}).catch(() => undefined)
    const known = await line.call('get_result', { execution_id: started['execution_id'] as string })
    expect(known['receipt']).toEqual(result['receipt'])

    rmSync(filler)
    const later = await line.call('start_execution', { task_id: ready['task_id'] as string, wait_ms: 20_000 })
    expect(later).toMatchObject({ state: 'succeeded' })
    await works(fixture)
  }, 180_000)

  it('of the outputs alone drops what finds no room, counts it, and still ends the run with its receipt', async (context) => {
    const { place, line } = fixture
    await stopped(fixture)
    if (!mount(join(place.folder.root, 'output'), 256)) context.skip(whyNoDisk)
    const lines =
      "for (let n = 0; n < 8000; n++) console.log('line', n, 'x'.repeat(90))\nwrit.writeFile('/out/kept.txt', 'kept')"
    const ran = await start(line, lines)
    expect(ran).toMatchObject({ state: 'succeeded' })
    const result = await line.call('get_result', { execution_id: ran['execution_id'] as string })
    expect(result).toMatchObject({ state: 'succeeded', files: [{ path: 'kept.txt', text: 'kept' }] })
    const log = (await line.call('get_status', { execution_id: ran['execution_id'] as string, cursor: 'start' }))[
      'log'
    ] as JsonObject
    expect(log['dropped_bytes']).toBeGreaterThan(400_000)
    expect(log['text']).toMatch(/^line 0 /)
    const next = await start(line, "console.log('no room for this either')")
    expect(next).toMatchObject({ state: 'succeeded' })
    await stopped(fixture)
    spawnSync('umount', ['-l', join(place.folder.root, 'output')])
    await works(fixture)
  }, 180_000)
})

import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it, onTestFinished } from 'vitest'
import { askBroker } from '../../src/control/control.ts'
import type { JsonObject } from '../../src/digest.ts'
import { connectOrStart } from '../../src/start.ts'
import { until } from '../wait.ts'
import { final } from './crash/line.ts'
import { edit, put, start, status, stopped, submit, use, works } from './faults/fixture.ts'

describe('files that people edit', () => {
  const fixture = use({ name: 'writ-files-' })

  it('name file, line and nearest key where writ.yaml has an unknown one, and start once it is corrected', async () => {
    const { place, line } = fixture
    const back = edit(place.configFile, (text) => text.replace('policies:', 'polices:'))
    const script = join(import.meta.dirname, '../../docs/examples/sum.js')
    for (const command of [['status'], ['run', 'sandbox', '--intent', 'run_script', script], ['mcp'], ['serve']]) {
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
    await until('the edit is refused', async () => JSON.stringify(await status(place)).includes('writ.yaml:'))
    expect(await start(line, 'console.log(1)')).toMatchObject({ state: 'succeeded' })
    back()
    await until('the correction is in force', async () => (await status(place)).configuration.ok)
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
    await until('the edit is refused', async () => JSON.stringify(await status(place)).includes('catalog.yaml:'))
    expect(await start(line, 'console.log(2)')).toMatchObject({ state: 'succeeded' })
    back()
    await works(fixture)
  }, 180_000)

  it('let a broker with a broken policy answer and refuse everything, and show where in the status', async () => {
    const { place, line } = fixture
    await stopped(fixture)
    const rule = join(place.root, 'policies', 'org', 'broken.rego')
    put(rule, 'package writ.pack.org\n\ndeny contains { if\n')
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
    await until('policy decides again', async () => (await line.call('list_targets', {}))['error'] === undefined)
    await works(fixture)
  }, 180_000)

  it('leave the earlier generation in force where a policy edit is broken', async () => {
    const { place, line } = fixture
    const before = (await status(place)).policy.generation
    const rule = join(place.root, 'policies', 'starter', 'broken.rego')
    put(rule, 'package writ.pack.starter\n\ngrant contains x if y\n')
    await until('the edit is refused', async () => JSON.stringify(await status(place)).includes('broken.rego'))
    expect((await status(place)).policy.generation).toEqual(before)
    expect(place.writ(['status']).out).toMatch(/broken\.rego:3/)
    expect(await start(line, 'console.log(4)')).toMatchObject({ state: 'succeeded' })
    rmSync(rule)
    await until('the correction is in force', async () => !JSON.stringify(await status(place)).includes('broken.rego'))
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
    const back = (): void => {
      if (!existsSync(keys)) renameSync(`${keys}.away`, keys)
    }
    onTestFinished(back)
    renameSync(keys, `${keys}.away`)
    await refused()
    back()
    for (const name of readdirSync(keys).filter((file) => /receipt|keys\.jwt/.test(file))) {
      const mend = edit(join(keys, name), () => 'not a key\n')
      await refused()
      mend()
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
          `await new Promise((resolve) => setTimeout(resolve, 200_000))\nconsole.log(${String(n)})`,
        )
        return String((await line.call('start_execution', { task_id: submitted['task_id'] as string }))['execution_id'])
      }),
    )
    onTestFinished(async () => {
      for (const holder of holders) await line.call('cancel_execution', { execution_id: holder })
    })
    await until('every seat is taken', async () => (await status(place)).running === 4)
    edit(
      place.catalogFile,
      (text) =>
        `${text}\n  other:\n    about: Changed later\n    labels: { env: production }\n    executor: isolate\n    intents: [run_script]\n`,
    )
    await until('there is another target', async () =>
      JSON.stringify(await line.call('list_targets', {})).includes('other'),
    )

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

    const generation = (await status(place)).policy.generation?.number ?? 0
    put(
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
      'the policy is in force',
      async () => ((await status(place)).policy.generation?.number ?? 0) > generation,
    )
    await until('the target is changed', async () =>
      JSON.stringify(await line.call('list_targets', {})).includes('Changed now'),
    )
    const two = await start(line, "console.log('both')", { target_ref: 'production', goal: 'asked again' })
    expect(two).toMatchObject({ state: 'awaiting_approval', approval: { stages: [{ needed: 2, have: 0 }] } })
    for (const holder of holders.slice(0, 1)) await line.call('cancel_execution', { execution_id: holder })
    expect(await final(line, ruled)).toMatchObject({ state: 'denied', ran: false, reasons: [{ code: 'ruled_out' }] })
    await until(
      'it is asked for anew',
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
          `await new Promise((resolve) => setTimeout(resolve, 200_000))\nconsole.log('again', ${String(n)})`,
        )
        return String((await line.call('start_execution', { task_id: submitted['task_id'] as string }))['execution_id'])
      }),
    )
    onTestFinished(async () => {
      for (const holder of holders) await line.call('cancel_execution', { execution_id: holder })
    })
    await until('every seat is taken', async () => (await status(place)).running === 4)
    const started = await start(line, "console.log('bob said so')", { target_ref: 'production' })
    expect(await place.answer(String((started['approval'] as JsonObject)['approval_id']), 'approve', 'bob')).toBe(
      'satisfied',
    )
    const receipts = (await status(place)).receipts
    const back = edit(place.configFile, (text) => text.replace(/ {2}- \{ subject: bob,[^\n]*\n/, ''))
    // Each change of who may approve is a receipt.
    await until('he is out', async () => (await status(place)).receipts > receipts)
    await askBroker(place.folder.controlSocket, 'reload')
    for (const holder of holders) await line.call('cancel_execution', { execution_id: holder })
    const execution = String(started['execution_id'])
    await until(
      'it was taken up',
      async () => (await line.call('get_status', { execution_id: execution }))['state'] !== 'queued',
    )
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

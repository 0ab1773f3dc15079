import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it, vi } from 'vitest'
import type { JsonObject } from '../../src/digest.ts'
import { until } from '../wait.ts'
import { client2 } from './clients/client2.ts'
import type { Driver } from './clients/driver.ts'
import { python, pythonMissing } from './clients/python.ts'
import { sdk1 } from './clients/sdk1.ts'
import { commandsWith, script, useWorld } from './world.ts'

// A key opens in a second of a whole core, as it is meant to; a busy machine takes longer.
vi.setConfig({ testTimeout: 120_000 })

const world = useWorld()
world.enrol()

const job = {
  project_name: 'e2e',
  goal: 'Print a line',
  execution_intent: 'run_script',
}

async function finished(client: Driver, id: string): Promise<JsonObject> {
  for (let tries = 0; tries < 20; tries++) {
    const { structured } = await client.call('get_status', { execution_id: id, wait_ms: 10_000 })
    if (structured['final'] === true) return structured
  }
  throw new Error(`${id} did not end`)
}

/** Pids of the relays that clients of this world have started. */
function relays(): readonly number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => {
      try {
        const command = readFileSync(`/proc/${pid}/cmdline`, 'utf8')
        return command.includes('\u0000mcp\u0000') && command.includes(world.folder)
      } catch {
        return false
      }
    })
    .map(Number)
}

const drivers: readonly (readonly [string, () => Driver, string | null])[] = [
  ['@modelcontextprotocol/client 2, auto', () => client2('auto'), '2026-07-28'],
  ['@modelcontextprotocol/client 2, its default', () => client2('legacy'), null],
  ['@modelcontextprotocol/sdk 1', () => sdk1(), null],
  ['mcp for Python', () => python('auto'), '2026-07-28'],
]

describe('the whole path over stdio', () => {
  for (const [name, make, version] of drivers) {
    it(`is walked by ${name}: task, denial of nothing, approval by a person, result, receipt verified`, async (context) => {
      const missing = name.includes('Python') ? pythonMissing() : null
      if (missing !== null) context.skip(missing)
      const client = await world.client(make())
      if (version !== null) expect(client.negotiatedVersion()).toBe(version)
      expect((await client.listTools()).map((tool) => tool.name).toSorted()).toEqual([
        'cancel_execution',
        'get_result',
        'get_status',
        'list_targets',
        'respond_to_approval',
        'start_execution',
        'submit_task',
        'upload_artifact',
      ])
      const targets = (await client.call('list_targets', {})).structured['targets'] as readonly JsonObject[]
      expect(targets.map((target) => target['target_ref'])).toEqual(['sandbox', 'production'])

      const line = `line of ${name}`
      const submitted = await client.call('submit_task', {
        ...job,
        target_ref: 'production',
        ...script('p.js', `console.log(${JSON.stringify(line)})`),
      })
      expect(submitted.structured).toMatchObject({ state: 'ready', effect: 'pending' })
      const started = await client.call('start_execution', {
        task_id: submitted.structured['task_id'] as string,
        wait_ms: 1000,
      })
      expect(started.structured).toMatchObject({ state: 'awaiting_approval', final: false, ran: false })
      const approval = started.structured['approval'] as JsonObject
      expect(world.approve(String(approval['approval_id']))).toMatchObject({ code: 0 })
      const id = String(started.structured['execution_id'])
      expect(await finished(client, id)).toMatchObject({ state: 'succeeded', ran: true })

      const result = await client.call('get_result', { execution_id: id })
      expect(result.structured['tail']).toBe(`${line}\n`)
      const receipt = result.structured['receipt'] as JsonObject
      const read = await client.readResource(String(receipt['uri']))
      expect(read.text).not.toBeNull()
      expect(result.meta['writ/receipt']).toBe(read.text)
      const verified = world.writ(['verify', '-'], { input: read.text ?? '' })
      expect(verified.out).toContain('VALID:SIGNED')
      expect(verified.code).toBe(0)
    })
  }

  it('[G-log] leaves a receipt log that verifies from its first entry, against the thumbprint got out of band', () => {
    const root = world.writ(['keys', '--fingerprint']).out.trim()
    const verified = world.writ(['verify', '--root', root])
    expect(verified.err).toBe('')
    expect(verified.out).toMatch(/^VALID:LOGGED/)
    expect(verified.code).toBe(0)
    expect(world.writ(['verify', '--root', `${root.slice(0, -1)}${root.endsWith('A') ? 'E' : 'A'}`]).code).not.toBe(0)
  })
})

describe('two clients of one broker', () => {
  it('[G-no-loss] lets the second read the result of a run whose client was killed', async () => {
    const others = new Set(relays())
    const first = await world.client()
    const own = relays().filter((pid) => !others.has(pid))
    expect(own).toHaveLength(1)
    const second = await world.client(client2('auto'))
    const submitted = await first.call('submit_task', {
      ...job,
      target_ref: 'sandbox',
      ...script('slow.js', "await new Promise((resolve) => setTimeout(resolve, 3000))\nconsole.log('still here')"),
    })
    const started = await first.call('start_execution', { task_id: submitted.structured['task_id'] as string })
    const id = String(started.structured['execution_id'])
    expect(started.structured['state']).toBe('running')
    // Without a word: neither the client nor its relay gets to close anything.
    for (const pid of own) process.kill(pid, 'SIGKILL')
    expect(await finished(second, id)).toMatchObject({ state: 'succeeded' })
    expect((await second.call('get_result', { execution_id: id })).structured['tail']).toBe('still here\n')
    await first.close().catch(() => undefined)
  })

  it('[G-no-loss] finds everything again after the broker was killed, and ends what ran as unknown without running it again', async () => {
    const client = await world.client()
    const submitted = await client.call('submit_task', {
      ...job,
      target_ref: 'sandbox',
      ...script('long.js', "console.log('begun')\nawait new Promise((resolve) => setTimeout(resolve, 100_000))"),
    })
    const task = submitted.structured['task_id'] as string
    const started = await client.call('start_execution', { task_id: task, wait_ms: 500 })
    const id = String(started.structured['execution_id'])
    expect(started.structured['state']).toBe('running')
    const pid = world.brokerPid()
    process.kill(pid, 'SIGKILL')

    // The call that finds the broker gone may be told so; the next one is answered by a new broker.
    await client.call('get_status', { execution_id: id }).catch(() => undefined)
    const status = await client.call('get_status', { execution_id: id })
    expect(status.structured).toMatchObject({ state: 'unknown', final: true, ran: true })
    expect(world.brokerPid()).not.toBe(pid)
    const again = await client.call('start_execution', { task_id: task })
    expect(again.structured).toMatchObject({ execution_id: id, existing: true, state: 'unknown' })
    expect(world.writ(['verify']).out).toMatch(/^VALID:LOGGED/)
  })
})

describe('what a small model is given', () => {
  it('is enough in the texts alone to go the whole path', async () => {
    const client = await world.client()
    const texts: string[] = []
    const call = async (tool: string, args: JsonObject): Promise<string> => {
      const { text } = await client.call(tool, args)
      texts.push(text)
      return text
    }
    const pick = (text: string, pattern: RegExp): string =>
      pattern.exec(text)?.[0] ?? `nothing like ${String(pattern)} in: ${text}`
    expect(await call('list_targets', {})).toContain('sandbox')
    const task = pick(
      await call('submit_task', { ...job, target_ref: 'sandbox', ...script('t.js', "console.log('text alone')") }),
      /task_[a-z2-7]{10}/,
    )
    const execution = pick(await call('start_execution', { task_id: task, wait_ms: 20_000 }), /exec_[a-z2-7]{10}/)
    expect(await call('get_status', { execution_id: execution, wait_ms: 20_000 })).toContain('succeeded')
    const result = await call('get_result', { execution_id: execution })
    expect(result).toContain('text alone')
    expect(result).toMatch(/rcpt_[a-z2-7]{10}/)
    for (const text of texts) expect(text).toMatch(/next/i)
  })

  it('is enough in structuredContent alone, and says in each result what to do next', async () => {
    const client = await world.client()
    // What only the model knows: its own words and its files. Everything else is what the last result said.
    const own = { project_name: 'e2e', goal: 'Print a line', ...script('s.js', "console.log('structured alone')") }
    let step: JsonObject = { tool: 'list_targets', arguments: {} }
    let result: JsonObject = {}
    for (let calls = 0; calls < 9 && typeof step['tool'] === 'string'; calls++) {
      const args = step['arguments'] as JsonObject
      result = (await client.call(step['tool'], step['tool'] === 'submit_task' ? { ...own, ...args } : args)).structured
      step = result['next'] as JsonObject
      if (result['tail'] !== undefined) break
    }
    expect(result).toMatchObject({ state: 'succeeded', tail: 'structured alone\n' })
  })

  it('fits a small context: a job of six files takes at most 7 calls and 2,000 tokens beside the upload', async () => {
    const client = await world.client()
    const files = Array.from({ length: 5 }, (_, at) => ({
      path: `lib/part${String(at)}.js`,
      content: `export const part${String(at)} = ${String(at)}\n`,
    }))
    const main = {
      path: 'main.js',
      content: `${files.map((file, at) => `import { part${String(at)} } from './${file.path}'`).join('\n')}\nconsole.log(part0 + part1 + part2 + part3 + part4)\n`,
    }
    let calls = 0
    let bytes = 0
    const call = async (tool: string, args: JsonObject, counted = true): Promise<JsonObject> => {
      const { structured, text } = await client.call(tool, args)
      calls++
      // A client passes the model one of the two; the larger counts, and what was asked counts too.
      bytes += Math.max(text.length, JSON.stringify(structured).length) + (counted ? JSON.stringify(args).length : 0)
      return structured
    }
    await call('list_targets', { target_ref: 'sandbox' })
    const submitted = await call(
      'submit_task',
      { ...job, target_ref: 'sandbox', inputs: { script: 'main.js' }, files: [main, ...files] },
      false,
    )
    const started = await call('start_execution', { task_id: submitted['task_id'] as string, wait_ms: 20_000 })
    const result = await call('get_result', { execution_id: started['execution_id'] as string })
    expect(result).toMatchObject({ state: 'succeeded', tail: '10\n' })
    expect(calls).toBeLessThanOrEqual(7)
    expect(bytes / 4).toBeLessThanOrEqual(2000)
  })

  it('is found again by get_status without arguments when an id was lost', async () => {
    const client = await world.client()
    const { structured } = await client.call('get_status', {})
    const recent = structured['recent'] as readonly JsonObject[]
    expect(recent.length).toBeGreaterThan(3)
    expect(recent[0]?.['execution_id']).toMatch(/^exec_/)
  })
})

describe('one plan', () => {
  it('[G-once] runs once: the same call again returns the execution there is', async () => {
    const client = await world.client()
    const { structured } = await client.call('submit_task', {
      ...job,
      target_ref: 'sandbox',
      ...script('once.js', "console.log('once')"),
    })
    const task = structured['task_id'] as string
    const [one, two] = await Promise.all([
      client.call('start_execution', { task_id: task, wait_ms: 10_000 }),
      client.call('start_execution', { task_id: task, wait_ms: 10_000 }),
    ])
    expect(one.structured['execution_id']).toBe(two.structured['execution_id'])
    const third = await client.call('start_execution', { task_id: task })
    expect(third.structured).toMatchObject({ execution_id: one.structured['execution_id'] as string, existing: true })
    expect((await client.call('start_execution', { task_id: task, again: true })).structured['error']).toMatchObject({
      code: 'invalid_arguments',
    })
    const again = await client.call('start_execution', {
      task_id: task,
      again: true,
      idempotency_key: 'again-1',
      wait_ms: 10_000,
    })
    expect(again.structured['execution_id']).not.toBe(one.structured['execution_id'])
    const repeated = await client.call('start_execution', { task_id: task, again: true, idempotency_key: 'again-1' })
    expect(repeated.structured).toMatchObject({
      execution_id: again.structured['execution_id'] as string,
      existing: true,
    })
    expect(
      (await client.call('start_execution', { task_id: task, idempotency_key: 'again-1' })).structured['error'],
    ).toMatchObject({ code: 'idempotency_conflict' })
  })

  it('is a new one after a file was edited: generate, run, debug, refine is one task with several executions', async () => {
    const client = await world.client()
    const { structured } = await client.call('submit_task', {
      ...job,
      target_ref: 'sandbox',
      ...script('fix.js', 'console.log(1 / 0)\nthrow new Error("wrong")\n'),
    })
    const task = structured['task_id'] as string
    const failed = await client.call('start_execution', { task_id: task, wait_ms: 10_000 })
    expect(failed.structured['state']).toBe('failed')
    const result = await client.call('get_result', { execution_id: failed.structured['execution_id'] as string })
    expect(String(result.structured['tail'])).toContain('wrong')
    const edited = await client.call('upload_artifact', {
      task_id: task,
      files: [{ path: 'fix.js', edits: [{ old: 'throw new Error("wrong")\n', new: '' }] }],
    })
    expect((edited.structured['changed'] as readonly JsonObject[])[0]).toMatchObject({
      path: 'fix.js',
      change: 'edited',
    })
    const fixed = await client.call('start_execution', { task_id: task, wait_ms: 10_000 })
    expect(fixed.structured['state']).toBe('succeeded')
    expect(fixed.structured['execution_id']).not.toBe(failed.structured['execution_id'])
  })
})

describe('a broker that was told to stop', () => {
  it('leaves nothing that runs', async () => {
    await (await world.client()).call('list_targets', {})
    expect(world.writ(['stop']).code).toBe(0)
    // Relays stay with their clients, and start another broker at the next call.
    await until('nothing of it runs', () =>
      commandsWith(world.folder).every((command) => command.includes('\u0000mcp\u0000')),
    )
    expect(existsSync(join(world.folder, '.writ', 'run', 'mcp.sock'))).toBe(false)
  })
})

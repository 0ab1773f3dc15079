import { afterAll, describe, expect, it } from 'vitest'
import type { JsonObject } from '../../src/digest.ts'
import { type Execution, finalStates, isFinal, liveStates } from '../../src/execution/execution.ts'
import type { ExecutionView, Results } from '../../src/execution/result.ts'
import { newId, parseId } from '../../src/id.ts'
import { present } from '../../src/mcp/present.ts'
import { toolListing } from '../../src/mcp/tools.ts'
import { nextAfter } from '../../src/path/next.ts'
import { nextOf } from '../../src/path/view.ts'
import { toolNames } from '../../src/request/call.ts'
import { openWorld } from './world.ts'

const world = await openWorld({
  targets: `  far:
    about: A target this release has no executor for
    labels: { env: far }
    executor: ssh
    intents: [run_script]
`,
})
afterAll(async () => await world.broker.stop())
const executionStates = [...liveStates, ...finalStates]
const me = world.broker.caller
const script = { project_name: 'p', goal: 'g', target_ref: 'sandbox', execution_intent: 'run_script' }
/** Of the arguments, those that are not among the tool's. */
const refusedFields = (name: string, args: JsonObject): readonly string[] => {
  const known = toolListing.find((tool) => tool.name === name)?.inputSchema['properties'] as JsonObject
  return Object.keys(args).filter((field) => !Object.hasOwn(known, field))
}
const file = (path: string, content = ''): { readonly path: string; readonly content: string } => ({ path, content })

describe('what is next', () => {
  it('leads from the list of targets to one that can be run on, and from there to a task for it', async () => {
    const listed = await world.ask(me, 'list_targets', {})
    expect(listed.next).toEqual({ tool: 'list_targets', arguments: { target_ref: listed.targets?.[0]?.target_ref } })
    expect((await world.ask(me, 'list_targets', { target_ref: 'sandbox' })).next).toEqual({
      tool: 'submit_task',
      arguments: { target_ref: 'sandbox', execution_intent: 'run_script' },
    })
    expect((await world.ask(me, 'list_targets', { target_ref: 'far' })).next).toHaveProperty('tell_user')
  })

  it('is another task where inputs are wrong or another target would do, and never an upload that cannot help', async () => {
    const wrong = await world.ask(me, 'submit_task', { ...script, inputs: { srcipt: 'a.js' }, files: [file('a.js')] })
    const again = { tool: 'submit_task', arguments: { ...script } }
    expect(wrong).toMatchObject({ state: 'incomplete', next: again })
    expect(wrong.missing).toEqual([
      { what: expect.stringContaining('script') as string, fix: expect.any(String) as string },
    ])
    const started = await world.ask(me, 'start_execution', { task_id: wrong.task_id ?? '' })
    expect(started).toMatchObject({ error: { code: 'task_incomplete' }, ran: false, final: false, next: again })
    // A question stays a question.
    expect(started.error?.message).toMatch(/did you mean "script"\?$/)
    expect(JSON.stringify(present(wrong).content)).toContain('did you mean \\"script\\"? Fix: ')
    expect(await world.ask(me, 'get_status', { task_id: wrong.task_id })).toMatchObject({
      state: 'incomplete',
      final: false,
      missing: wrong.missing,
      next: again,
    })
    const choose = await world.ask(me, 'submit_task', { ...script, files: [file('a.js'), file('b.js')] })
    expect(choose.next).toEqual(again)
  })

  it('is to tell people where no target would do', async () => {
    const python = await world.ask(me, 'submit_task', { ...script, files: [file('a.py', 'print(1)')] })
    expect(python).toMatchObject({
      state: 'incomplete',
      next: { tell_user: expect.stringContaining('Python') as string },
    })
  })

  it('is an upload where a file is missing, and a start where nothing is', async () => {
    const { task_id = '', next } = await world.ask(me, 'submit_task', script)
    expect(next).toEqual({ tool: 'upload_artifact', arguments: { task_id } })
    expect((await world.ask(me, 'get_status', { task_id })).next).toEqual(next)
    // Whoever follows it to the letter, with nothing to upload, is told so and not that all is well.
    expect(await world.ask(me, 'upload_artifact', { task_id })).toMatchObject({
      error: { code: 'invalid_arguments', message: expect.stringContaining('"files"') as string },
      next,
    })
    await world.ask(me, 'upload_artifact', { task_id, files: [file('a.js')] })
    expect(await world.ask(me, 'get_status', { task_id })).toMatchObject({
      state: 'ready',
      effect: 'allow',
      next: { tool: 'start_execution', arguments: { task_id } },
    })
  })

  it('of a target that is not available is no upload either: target_unavailable, and nothing ran', async () => {
    const {
      task_id = '',
      state,
      next,
    } = await world.ask(me, 'submit_task', {
      ...script,
      target_ref: 'far',
      files: [file('a.js')],
    })
    expect([state, next]).toEqual([
      'incomplete',
      { tool: 'submit_task', arguments: { ...script, inputs: {}, target_ref: 'chat' } },
    ])
    expect(await world.ask(me, 'start_execution', { task_id })).toMatchObject({
      error: { code: 'target_unavailable', message: expect.stringContaining('Nothing ran') as string },
      ran: false,
      final: false,
      next,
    })
  })

  it('stands whole in the text too, however long the inputs are', async () => {
    const inputs = { args: ['x'.repeat(4000), 'y'.repeat(4000)] }
    const far = await world.ask(me, 'submit_task', { ...script, inputs, target_ref: 'far', files: [file('a.js')] })
    expect(far.next).toEqual({ tool: 'submit_task', arguments: { ...script, target_ref: 'chat' } })
    const [content] = present(far).content
    const said = content?.type === 'text' ? /^next: call submit_task (.*)$/m.exec(content.text) : null
    expect(JSON.parse(said?.[1] ?? '')).toEqual({ ...script, target_ref: 'chat' })
  })

  it('of a piece of a file is the next piece, and of the last one none', async () => {
    const task_id = await world.task(me, 'sandbox', "writ.writeFile('/out/f.txt', 'x'.repeat(10))")
    const { execution_id = '' } = await world.ask(me, 'start_execution', { task_id, wait_ms: 20_000 })
    const first = await world.ask(me, 'get_result', { execution_id, file: 'f.txt', max_bytes: 4 })
    expect(first.next).toEqual({
      tool: 'get_result',
      arguments: { execution_id, file: 'f.txt', offset: 4, max_bytes: 4 },
    })
    const last = await world.ask(me, 'get_result', { execution_id, file: 'f.txt', offset: 4, max_bytes: 100 })
    expect(last).toMatchObject({ file: { more: false }, next: { tell_user: 'That is the end of the file.' } })
    expect((await world.ask(me, 'get_result', { execution_id, file: 'g.txt' })).next).toEqual({
      tool: 'get_result',
      arguments: { execution_id },
    })
  })

  it('of a piece of a text is text, wherever its characters end', async () => {
    const text = 'aüü€€\u{1f600}b'
    const task_id = await world.task(me, 'sandbox', `writ.writeFile('/out/f.txt', ${JSON.stringify(text)})`)
    const { execution_id = '' } = await world.ask(me, 'start_execution', { task_id, wait_ms: 20_000 })
    for (const max_bytes of [4, 5, 6, 7]) {
      let read = ''
      for (let args: JsonObject | null = { execution_id, file: 'f.txt', max_bytes }; args !== null;) {
        const { file: piece, next }: Results['get_result'] = await world.ask(me, 'get_result', args as never)
        read += piece?.text ?? '?'
        args = next !== undefined && 'tool' in next ? next.arguments : null
      }
      expect([max_bytes, read]).toEqual([max_bytes, text])
    }
    // Less than a character is no text.
    const half = await world.ask(me, 'get_result', { execution_id, file: 'f.txt', offset: 1, max_bytes: 1 })
    expect(half.file).toMatchObject({ base64: Buffer.from('ü').subarray(0, 1).toString('base64') })
  })

  it('goes on from the output that was given, and leads somewhere from every state', () => {
    const of = (state: (typeof executionStates)[number], cursor?: string): unknown =>
      nextOf(
        { id: newId('exec'), state, reasons: [] } as unknown as Execution,
        { approval: { approval_id: 'apr_a', how: 'Ask.' } } as ExecutionView,
        cursor,
      )
    for (const state of executionStates) {
      const next = of(state) as { readonly tool?: string; readonly tell_user?: string }
      expect([state, typeof (next.tool ?? next.tell_user)]).toEqual([state, 'string'])
      if (next.tool !== undefined) expect(next.tool).toBe(isFinal(state) ? 'get_result' : 'get_status')
    }
    expect(of('awaiting_approval')).toEqual({ tell_user: expect.stringContaining('do not poll') as string })
    expect(of('running', 'c7')).toMatchObject({ arguments: { cursor: 'c7' } })
  })

  it('after an error the caller can correct is the same call, without what was wrong or too long', () => {
    const after = (code: string, name: string, args: JsonObject): unknown =>
      nextAfter({ code, message: 'm', remedy: 'r', ref: 'dec_a' }, { name, arguments: args })
    const long = 'x'.repeat(2000)
    for (const name of toolNames) {
      const args = { execution_id: 'e', approval_id: 'a', cursor: 'c', target_ref: long, goal: long }
      const next = after('invalid_arguments', name, args) as { readonly arguments: JsonObject }
      expect(next).toMatchObject({ tool: name, arguments: expect.any(Object) as JsonObject })
      // What is said again is nothing that the tool refuses.
      expect(refusedFields(name, next.arguments)).toEqual([])
    }
    expect(after('invalid_arguments', 'start_execution', { task_id: 't', cursor: 'c' })).toEqual({
      tool: 'start_execution',
      arguments: { task_id: 't' },
    })
    expect(after('invalid_arguments', 'get_status', { task_id: 't', execution_id: 'e' })).toEqual({
      tool: 'get_status',
      arguments: { task_id: 't' },
    })
    expect(after('invalid_arguments', 'get_result', { execution_id: 'e'.repeat(65) })).toEqual({
      tool: 'get_result',
      arguments: {},
    })
    expect(after('unknown_intent', 'submit_task', { target_ref: 'sandbox', goal: 'g' })).toEqual({
      tool: 'list_targets',
      arguments: { target_ref: 'sandbox' },
    })
    expect(after('deadline', 'get_status', { execution_id: 'e', wait_ms: 5 })).toEqual({
      tool: 'get_status',
      arguments: { execution_id: 'e', wait_ms: 5 },
      after_ms: 1000,
    })
    expect(after('rate_limited', 'submit_task', { target_ref: 't', goal: long })).toEqual({
      tool: 'submit_task',
      arguments: { target_ref: 't' },
      after_ms: 60_000,
    })
    expect(after('not_yours', 'submit_task', {})).toEqual({ tell_user: 'm. r (ref dec_a)' })
    expect(after('invalid_arguments', 'no_such_tool', {})).toHaveProperty('tell_user')
  })
})

describe('list_targets', () => {
  it('foresees whether people are asked, as policy answers now', async () => {
    const approval = async (target_ref: string): Promise<string | undefined> =>
      (await world.ask(me, 'list_targets', { target_ref })).target?.approval
    expect(await approval('sandbox')).toBe('never')
    expect(await approval('production')).toBe('always')
    expect(await approval('chat')).toBe('always')
    expect(await approval('far')).toBe('maybe')
  })
})

describe('get_status', () => {
  it('is asked about one thing at a time', async () => {
    for (const args of [
      { execution_id: 'exec_aaaaaaaaaa', task_id: 'task_aaaaaaaaaa' },
      { task_id: 'task_aaaaaaaaaa', approval_id: 'apr_aaaaaaaaaa' },
    ])
      expect((await world.broker.served.broker.call(me, 'get_status', args, waiting)).error).toMatchObject({
        code: 'invalid_arguments',
        message: expect.stringContaining('do not go together') as string,
      })
  })
})

const waiting = { signal: AbortSignal.timeout(60_000), progress: () => undefined }

describe('cancel_execution', () => {
  it('keeps what was said of it in the reasons of the state and in the ledger, before the run began and after', async () => {
    const said = 'Wrong table, sorry'
    const waits = await world.ask(me, 'start_execution', { task_id: await world.task(me, 'chat') })
    const sleeping = await world.task(me, 'sandbox', 'await new Promise((resolve) => setTimeout(resolve, 60_000))')
    const runs = await world.ask(me, 'start_execution', { task_id: sleeping, wait_ms: 2000 })
    expect([waits.state, runs.state]).toEqual(['awaiting_approval', 'running'])
    for (const { execution_id = '' } of [waits, runs]) {
      await world.ask(me, 'cancel_execution', { execution_id, reason: said })
      const status = await world.ask(me, 'get_status', { execution_id, wait_ms: 20_000 })
      expect(status).toMatchObject({
        state: 'cancelled',
        reasons: [{ message: expect.stringContaining(`: "${said}".`) as string }],
      })
      const state = world.parts.ledger
        .read(parseId('exec', execution_id) ?? newId('exec'))
        .findLast(({ step }) => step.kind === 'state')
      expect(JSON.stringify(state)).toContain(said)
    }
  })
})

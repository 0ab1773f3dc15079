import { join } from 'node:path'
import { PassThrough } from 'node:stream'
import { afterAll, describe, expect, it } from 'vitest'
import { approvalsAnswer } from '../../src/cli/answer.ts'
import { approvalsFile } from '../../src/cli/approvals.ts'
import type { Context } from '../../src/cli/context.ts'
import { digestOf } from '../../src/digest.ts'
import { openWorld } from '../path/world.ts'

const world = await openWorld()
afterAll(async () => await world.broker.stop())

const long = `${'x'.repeat(90)}\n${'a line of the large file\n'.repeat(50_000)}the end\u202e`
const binary = Buffer.from([0x7f, 0x45, 0x4c, 0x46, 0, 1, 2, 0xff, ...Buffer.from('text in it'), 0x1b])

const { caller } = world.broker
const { task_id = '' } = await world.broker.served.broker.call(
  caller,
  'submit_task',
  {
    project_name: 'p',
    goal: 'g',
    target_ref: 'signed',
    execution_intent: 'run_script',
    inputs: { script: 'a.js' },
    files: [
      { path: 'a.js', content: 'run()' },
      { path: 'data/large.txt', content: long },
      { path: 'bin', content_base64: binary.toString('base64') },
      { path: 'empty', content: '' },
    ],
  },
  { signal: AbortSignal.timeout(30_000), progress: () => undefined },
)
const id = (await world.ask(caller, 'start_execution', { task_id })).approval?.approval_id ?? ''

function contextOf(more: Partial<Context> = {}): {
  readonly context: Context
  readonly said: string[]
  readonly data: unknown[]
} {
  const said: string[] = []
  const data: unknown[] = []
  const context: Context = {
    env: {},
    cwd: world.broker.folder,
    version: '0',
    stdin: new PassThrough(),
    configFlag: join(world.broker.folder, 'writ.yaml'),
    json: false,
    tty: false,
    columns: null,
    say: (text) => void said.push(text),
    note: (text) => void said.push(text),
    data: (one) => void data.push(one),
    ...more,
  }
  return { context, said, data }
}

describe('a file of a plan that waits', () => {
  it('[G-approval-shown] is shown whole, also where the payload had no room for it or it is no text', async () => {
    const { context, said } = contextOf()
    expect(await approvalsFile(context, id, 'data/large.txt')).toBe(0)
    const [text = ''] = said
    const lines = text.split('\n')
    expect(lines.slice(0, 4)).toEqual([
      `"data/large.txt": ${String(Buffer.byteLength(long))} bytes`,
      `  ${digestOf(long)}`,
      `  | ${'x'.repeat(72)}`,
      `  |>${'x'.repeat(18)}`,
    ])
    expect(lines).toHaveLength(50_005)
    expect(lines.at(-1)).toBe('  | the end\\u{202e}')

    expect(await approvalsFile(context, id, 'bin')).toBe(0)
    expect(said[1]?.split('\n').slice(2)).toEqual([
      '  | 00000000 7f454c46000102ff7465787420696e20  .ELF....text in ',
      '  | 00000010 69741b                            it.',
    ])
    expect(await approvalsFile(context, id, 'empty')).toBe(0)
    await expect(approvalsFile(context, id, 'no/such')).rejects.toMatchObject({ code: 'not_found' })
    await expect(approvalsFile(context, 'apr_aaaaaaaaaa', 'bin')).rejects.toMatchObject({ code: 'denied' })

    const json = contextOf({ json: true })
    expect(await approvalsFile(json.context, id, 'bin')).toBe(0)
    expect(json.data).toEqual([
      { path: 'bin', size: binary.length, sha256: digestOf(binary), content_base64: binary.toString('base64') },
    ])
  })
})

describe('a verdict', () => {
  it('[G-approval-shown] is not signed on a terminal so narrow that it would wrap what is shown', async () => {
    const { context, said } = contextOf({ columns: 79 })
    const answering = approvalsAnswer(context, id, 'approve', { as: 'ada' })
    await expect(answering).rejects.toMatchObject({ code: 'usage', message: 'This terminal has 79 columns.' })
    expect(said).toEqual([])
  })
})

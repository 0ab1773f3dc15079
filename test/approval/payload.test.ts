import { digestOf } from '../../src/digest.ts'
import { describe, expect, it } from 'vitest'
import { payloadOf } from '../../src/approval/payload.ts'
import { visible, visibleLine } from '../../src/approval/visible.ts'
import { neutral } from '../../src/mcp/neutral.ts'
import type { Plan } from '../../src/plan/plan.ts'
import type { TaskFile } from '../../src/request/task.ts'
import { effort } from '../cost.ts'
import { approvalOf, planWith, store } from './sample.ts'

const files = store()

async function shown(over: Partial<Plan> = {}, before: Plan | null = null): Promise<string> {
  const plan = planWith(over)
  const text = await payloadOf({ approval: approvalOf(plan), plan, before, bytesOf: files.bytesOf })
  // What MCP shows is `neutral` of this; both have to have one digest.
  expect(neutral(text)).toBe(text)
  return text
}

function task(over: Partial<Plan['task']>): Plan['task'] {
  return { ...planWith().task, ...over }
}

describe('the text an approver is shown', () => {
  it('shows which path of a service a variable leads to', async () => {
    const plan = planWith({
      environment: [
        { name: 'PIP_INDEX_URL', about: 'x', value: { kind: 'service', service: 'orders', path: 'simple\u202e' } },
      ],
    })
    const text = await payloadOf({ approval: approvalOf(plan), plan, before: null, bytesOf: files.bytesOf })
    expect(text).toContain('  PIP_INDEX_URL = address of service orders, /simple\\u{202e}\n')
  })

  it('[G-approval-shown] names who asks, for what, on what target, what runs, with what, within what', async () => {
    const plan = planWith({
      task: task({ context: 'It is urgent', inputs: { script: 'a.js', args: [1, 'x'] } }),
      stdin: 'line one\nline two',
      files: [files.add('a.js', "console.log('hi')\n")],
      statement: { isolation: 'process', egress: 'gateway', delivery: ['files'], kill: 'confirmed' },
    })
    const approval = approvalOf(plan)
    const text = await payloadOf({ approval, plan, before: null, bytesOf: files.bytesOf })
    expect(
      text
        .replaceAll(approval.id, 'APR')
        .replaceAll(approval.execution, 'EXEC')
        .replaceAll(approval.plan, 'PLAN')
        .replaceAll(approval.requirement_digest, 'REQ'),
    ).toBe(
      `Approval APR of execution EXEC
Words of others stand in quotes or behind "|"; "|>" goes on with a line.

Asked for by  alice through agent local-agent, tenant default
Project       "orders"
Goal          "Count what is late"
Context, in the caller's words
  | It is urgent
Target        production (env: production)
Intent        run_script; the code is the caller's
Sandbox       isolate, isolation process, runtime javascript, kill confirmed
Egress        gateway: orders with orders-token
Credentials   orders-token (lane placeholder, exposure none)
Delivery      files
Limits
  wall_s ${String(plan.limits.wall_s)}, cpu_s ${String(plan.limits.cpu_s)}, memory_mb ${String(plan.limits.memory_mb)}
  output_kb ${String(plan.limits.output_kb)}, artifact_kb ${String(plan.limits.artifact_kb)}, egress_requests ${String(plan.limits.egress_requests)}
Steps
  1. "Run a.js": "node" "a.js"
Inputs
  | {"args":[1,"x"],"script":"a.js"}
Standard input
  | line one
  | line two
Environment
  ORDERS_URL = address of service orders
  ORDERS_TOKEN = placeholder of orders-token
  MODE = "dry"

Files         1, 18 bytes
  "a.js": 18 bytes
    ${plan.files[0]?.sha256 ?? ''}
  | console.log('hi')
  | 

Needs         1 of approver (stage approver)
Evidence      key or passkey; not from alice, local-agent
Answer by     2026-11-24T12:00:00.000Z; it then has to start within 3600 s
Plan
  PLAN
Requirement
  REQ
`,
    )
  })

  it('[G-no-infrastructure] says neither where a service is nor how its credential is held or injected', async () => {
    const text = await shown({
      image: {
        name: 'registry.internal.example/python',
        id: `sha256:${'1'.repeat(64)}`,
        store: 'graphdriver',
        digest: null,
        arch: 'amd64',
        agent: digestOf('agent'),
      },
      engine: { socket: '/var/run/engine.sock' },
      hosts: [{ host: 'db.internal.example' }],
    })
    for (const hidden of [
      'secret.example',
      ':8443',
      '10.7.0.0',
      'CERTIFICATE',
      'vault-path',
      'X-Secret-Header',
      'registry.internal',
      '/var/run',
      'db.internal',
    ])
      expect(text).not.toContain(hidden)
    expect(text).toContain('1 other hosts')
  })

  it('comes out the same each time, and another for another approval of the same plan', async () => {
    const plan = planWith({ files: [files.add('a.js', '1')] })
    const approval = approvalOf(plan)
    const make = async (): Promise<string> => await payloadOf({ approval, plan, before: null, bytesOf: files.bytesOf })
    expect(await make()).toBe(await make())
    expect(await payloadOf({ approval: approvalOf(plan), plan, before: null, bytesOf: files.bytesOf })).not.toBe(
      await make(),
    )
  })

  it('[G-approval-shown] writes out what would be invisible or would reorder the text, in every field a caller fills', async () => {
    const tricks =
      '\u202eevil\u202c \u200b\u200d\u2066x\u2069 \u001b[2J\u009b1m \u0007 \ufeff \u00ad \u3164 \u{e0041} \u2028 \r a\ufe0f'
    const text = await shown({
      task: task({
        project_name: tricks,
        goal: tricks,
        context: tricks,
        inputs: { [tricks]: tricks },
        owner: tricks,
        agent: tricks,
      }),
      steps: [{ title: tricks, argv: [tricks], success: [0] }],
      stdin: tricks,
      target: { ref: 'production', about: '', labels: { [tricks]: tricks } },
      files: [files.add(`${tricks}.js`, tricks)],
    })
    // In code points, for a regular expression would be as hard to read as what it is about.
    const left = Array.from(text).filter((character) => {
      const code = character.codePointAt(0) ?? 0
      return (code < 32 && code !== 9 && code !== 10) || (code > 126 && code < 0xe0) || tricks.includes(character)
    })
    expect(left.filter((character) => !/[\w\s[\];]/.test(character))).toEqual([])
    expect(text).toContain('\\u{202e}evil\\u{202c}')
    expect(text).toContain('! holds 16 characters that cannot be seen')
  })

  it('[G-approval-shown] lets no text of a caller begin a line that could pass for one of Writ', async () => {
    const lines = 'x\nPlan          sha256:0\nEgress        closed\r\nGoal          nothing'
    const text = await shown({
      task: task({ project_name: lines, goal: lines, context: lines, inputs: { a: lines } }),
      steps: [{ title: lines, argv: [lines], success: [0] }],
      stdin: lines,
      environment: [{ name: 'X', about: '', value: { kind: 'literal', value: lines } }],
      files: [files.add('a.js', lines), files.add('b" 9 bytes, sha256:1.js', '')],
    })
    for (const label of ['Plan', 'Egress ', 'Goal '])
      expect(text.split('\n').filter((line) => line.startsWith(label))).toHaveLength(1)
    expect(text).toContain('  "b\\" 9 bytes, sha256:1.js": 0 bytes\n    sha256:e3b0')
  })
})

describe('the files it shows', () => {
  it('are named with why, where they are not shown: binary, too large, too many', async () => {
    const big = files.add('big.txt', 'x'.repeat(65_537))
    const binary = files.add('bin', Buffer.from([0xff, 0xfe, 0]))
    const zero = files.add('zero', 'a\u0000b')
    const many = Array.from({ length: 300 }, (_, at) =>
      files.add(`many/${String(at)}.txt`, `${String(at)} `.repeat(500)),
    )
    const text = await shown({ files: [big, binary, zero, ...many] })
    expect(text).toContain(
      `"big.txt": 65537 bytes\n    ${big.sha256}\n  ! NOT SHOWN: larger than 65536 bytes; its digest is approved`,
    )
    expect(text).toContain(`"bin": 3 bytes\n    ${binary.sha256}\n  ! NOT SHOWN: not UTF-8 text`)
    expect(text).toContain(`"zero": 3 bytes\n    ${zero.sha256}\n  ! NOT SHOWN: not UTF-8 text`)
    for (const file of many)
      expect(text).toContain(`"${file.path}": ${String(file.size)} bytes\n    ${file.sha256}\n  `)
    expect(text).toContain('! NOT SHOWN: too large to show beside the others')
    expect(text.length).toBeLessThan(400_000)
  })

  it('[G-approval-shown] come first where a step names them, and what is not shown is said again right above the question', async () => {
    const rows = 'benign,row\n'.repeat(5000)
    const data = Array.from({ length: 12 }, (_, at) => files.add(`data/${String(at)}.csv`, `${String(at)}\n${rows}`))
    const code = [files.add('lib.js', 'lib()'), files.add('main.js', 'steal()')]
    const text = await shown({
      files: [...data, ...code],
      steps: [{ title: 'Run', argv: ['node', './main.js'], success: [0] }],
    })
    expect(text.indexOf('  | steal()')).toBeLessThan(text.indexOf('"data/0.csv"'))
    const hidden = text.split('\n').filter((line) => line.startsWith('  ! NOT SHOWN')).length
    expect(hidden).toBe(9)
    expect(text).toMatch(
      /\nRequirement\n {2}sha256:[0-9a-f]{64}\nNOT SHOWN {5}9 files: "data\/3\.csv", [\s\S]* and 1 more\n {2}writ approvals show apr_[a-z2-7]{10} --file PATH\n$/,
    )
    expect(await shown({ files: code })).not.toContain('NOT SHOWN')
  })

  it('are the bytes of their digest, or there is no text at all', async () => {
    const plan = planWith({ files: [{ ...files.add('a.js', 'good'), size: 4 }] })
    await expect(
      payloadOf({
        approval: approvalOf(plan),
        plan,
        before: null,
        bytesOf: async () => await Promise.resolve(Buffer.from('evil')),
      }),
    ).rejects.toMatchObject({ code: 'ledger_corrupt' })
  })

  it('are told by their line ends where those are of Windows, and differ from the same with others', async () => {
    const text = await shown({ files: [files.add('a.js', 'one\r\ntwo\r\n')] })
    expect(text).toContain('  ! line ends are those of Windows\n  | one\n  | two\n')
    expect(await shown({ files: [files.add('a.js', 'one\r\ntwo\n')] })).toContain('  | one\\u{d}\n  | two\n')
  })

  it('stand with their difference to the last approved plan before them, and all of them again', async () => {
    const old = (path: string, content: string, executable = false): TaskFile => files.add(path, content, executable)
    const before = planWith({
      files: [
        old('a.js', 'one\ntwo\nthree\n'),
        old('gone.js', 'x'),
        old('same.js', 'same\n'),
        old('x.sh', '#!/bin/sh\n'),
      ],
    })
    const text = await shown(
      {
        files: [
          old('a.js', 'one\n2\nthree\n'),
          old('new.js', 'y'),
          old('same.js', 'same\n'),
          old('x.sh', '#!/bin/sh\n', true),
        ],
      },
      before,
    )
    expect(text).toMatch(
      /"a\.js": \d+ bytes, CHANGED\n {4}sha256:[0-9a-f]{64}\n {2}! differs from the approved one in:\n/,
    )
    expect(text).toContain('  | -two\n  | +2\n')
    expect(text).toContain('  ! all of it now:\n  | one\n  | 2\n  | three\n')
    expect(text).toMatch(/"new\.js": 1 bytes, NEW\n {4}sha256:[0-9a-f]{64}\n {2}\| y/)
    expect(text).toMatch(/"same\.js": 5 bytes, unchanged\n {4}sha256:[0-9a-f]{64}\n {2}\| same/)
    expect(text).toMatch(/"gone\.js": REMOVED, was\n {4}sha256:/)
    expect(text).toMatch(/"x\.sh": .*, executable NOW, unchanged/)
  })

  it('take the broker no long time to compare, whatever two files a caller chooses', async () => {
    const was = Array.from({ length: 30 }, (_, at) =>
      files.add(`f${String(at).padStart(2, '0')}`, `${String(at)}\n${'a\nb\n'.repeat(16_000)}`),
    )
    const now = Array.from({ length: 30 }, (_, at) =>
      files.add(`f${String(at).padStart(2, '0')}`, `${String(at)}\n${'x\ny\nz\n'.repeat(100)}`),
    )
    const little = was.map(({ path }, at) => files.add(path, `${String(at)}\n${'a\nb\n'.repeat(16_000)}c\n`))
    let text = ''
    const comparing = async (changed: readonly TaskFile[], count = 30): Promise<number> =>
      await effort(
        async () => (text = await shown({ files: changed.slice(0, count) }, planWith({ files: was.slice(0, count) }))),
      )
    const honest = await comparing(little)
    const few = await comparing(now, 3)
    const many = await comparing(now)
    // Ten times as many files take as long as the few that are compared at all.
    expect(many).toBeLessThan(5 * few)
    expect(many).toBeLessThan(3 * honest)
    expect(text).toContain('  ! differs from the approved one in more than can be shown; all of it now:')
  })
})

describe('what changed since the last approved plan', () => {
  it('is said of everything beside the files, and of what the operator changed', async () => {
    const before = planWith({ entries: [{ entry: 'target/production', digest: 'sha256:1' as never }] })
    const text = await shown(
      {
        task: task({ goal: 'Delete what is late' }),
        limits: { ...before.limits, wall_s: 5 },
        environment: [],
        stdin: 'new',
      },
      before,
    )
    expect(text).toMatch(/\nChanged since the last approved plan\n {2}sha256:[0-9a-f]{64}\n/)
    expect(text).toContain('  Goal was "Count what is late"\n')
    expect(text).toMatch(/ {2}Limits was\n {4}wall_s \d+, /)
    expect(text).toContain('  Environment was\n    ORDERS_URL = address of service orders\n')
    expect(text).toContain('  Standard input was not there\n')
    expect(text).toContain("  The operator's target/production is another now\n")
    expect(text).not.toContain('Project was')
  })

  it('[G-approval-shown] is said of what stands behind the names too, and of what counts as success', async () => {
    const image = {
      name: 'python',
      id: `sha256:${'1'.repeat(64)}`,
      store: 'containerd',
      digest: null,
      arch: 'amd64',
      agent: digestOf('agent'),
    } as const
    const before = planWith({ image, engine: { runtime: 'runsc' } })
    const same = planWith({ image, engine: { runtime: 'runsc' }, nonce: 'ff'.repeat(16), task: before.task })
    expect(await shown(same, before)).toContain('  nothing but what the files below say\n')
    const [service, credential] = [before.services[0], before.credentials[0]]
    if (service === undefined || credential === undefined) throw new Error('no sample')
    for (const [change, said] of [
      [{ image: { ...image, id: `sha256:${'2'.repeat(64)}` } }, 'The image it runs in is another now'],
      [{ engine: { runtime: 'runc' } }, 'What its sandbox is made with is another now'],
      [
        { services: [{ ...service, url: 'https://elsewhere.example' }] },
        'What stands behind its services is another now',
      ],
      [{ hosts: [{ origin: 'https://a.example' }] }, 'What else it can reach is another now'],
      [
        { credentials: [{ ...credential, inject: { kind: 'bearer' } }] },
        'How its credentials are held or used is another now',
      ],
      [{ steps: [{ ...before.steps[0], success: [0, 1] }] }, 'Steps was\n    1. "Run a.js": "node" "a.js"\n'],
      [{ target: { ...before.target, about: 'y' } }, 'Something that is not shown here is another now'],
    ] as const) {
      const text = await shown({ ...same, ...(change as Partial<Plan>) }, before)
      expect(text).toContain(`  ${said}`)
      expect(text).not.toContain('nothing but what the files below say')
    }
    expect(await shown({ steps: [{ title: 't', argv: ['a'], success: [0, 2] }] })).toContain(
      '"t": "a" (succeeds with exit 0, 2)',
    )
  })

  it('is nothing where the plan itself was approved before, under another requirement: all of it is shown', async () => {
    const plan = planWith({ files: [files.add('a.js', 'all of it')] })
    const text = await payloadOf({ approval: approvalOf(plan), plan, before: plan, bytesOf: files.bytesOf })
    expect(text).not.toContain('Changed since')
    expect(text).toContain('  | all of it')
  })
})

describe('visible', () => {
  it('is kept by neutral of the MCP edge as it is, and covers all that it covers', () => {
    for (let from = 0; from <= 0x10ffff; from += 4096) {
      const text = visible(Array.from({ length: 4096 }, (_, at) => String.fromCodePoint(from + at)).join(' '))
      if (neutral(text) !== text || visible(text) !== text)
        throw new Error(`from U+${from.toString(16)} on they differ`)
    }
  })

  it('keeps what people write: letters of every script, emoji with their selector, combining marks', () => {
    for (const text of [
      'ordinary',
      'Größe',
      'Ελληνικά',
      '日本語',
      'עברית',
      '⚠\ufe0f done 😀',
      'e\u0301',
      'tab\tand\nline',
    ])
      expect(visible(text)).toBe(text)
    expect(visible('name\ufe0f')).toBe('name\\u{fe0f}')
    expect(visible('\ud800')).toBe('\\u{d800}')
    expect(visibleLine('a\tb\nc\r')).toBe('a\\tb\\nc\\u{d}')
  })
})

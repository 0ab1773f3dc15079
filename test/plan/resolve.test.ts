import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import * as fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { JsonObject } from '../../src/digest.ts'
import { canonical, digestOf } from '../../src/digest.ts'
import { loadCatalog } from '../../src/plan/catalog.ts'
import type { Catalog } from '../../src/plan/catalog.ts'
import { limitNames } from '../../src/plan/limits.ts'
import type { Missing, Plan, Resolution } from '../../src/plan/plan.ts'
import { describeTarget, planDigest, planView, resolve, usedEntriesChanged } from '../../src/plan/resolve.ts'
import type { Task } from '../../src/request/task.ts'
import { taskOf } from './task.ts'

let folder = ''
let catalog: Catalog
const text = `
targets:
  sandbox: { about: Sandbox, executor: isolate, intents: [run_script, install_and_test, build] }
  orders:
    about: Orders
    labels: { env: staging }
    executor: isolate
    intents: [run_script, report]
    services:
      orders: { url: "http://localhost:9/v1", addresses: [127.0.0.0/8], about: Orders API, credential: orders-token }
      stock: { url: "https://stock.internal.example", about: Stock API, credential: orders-token }
    environment:
      ORDERS_URL: { service: orders }
      ORDERS_TOKEN: { placeholder: orders-token }
      REGION: { value: eu-secret-region }
    limits: { wall_s: 120 }
  py: { about: Python, executor: docker, image: registry.example/python, intents: [run_script, install_and_test] }
  far: { about: Far, executor: ssh, runtimes: [shell], intents: [run_script] }
  only-js: { about: JS, executor: isolate, runtimes: [javascript], intents: [run_script, check] }
credentials:
  orders-token: { source: { file: vault-file-name }, inject: { header: X-Token } }
  unused: { source: { env: X }, inject: { bearer: true } }
intents:
  report:
    about: Report
    inputs: { properties: { day: { type: string, maxLength: 40 }, top: { type: integer, default: 5 }, dry: { type: boolean, default: false } }, required: [day] }
    code_origin: operator
    files: [report.ts, lib.ts]
    steps: [{ title: Make the report, argv: [report.ts, "\${inputs.day}", "\${inputs.top}", "\${inputs.dry}"], success: [0, 3] }]
  check:
    about: Check
    inputs: { properties: { script: { type: string } }, required: [script] }
    code_origin: caller
    steps: [{ title: First, argv: ["\${inputs.script}", first] }, { title: Second, argv: ["\${inputs.script}", second] }]
`

function load(changed = text): Catalog {
  writeFileSync(join(folder, 'catalog.yaml'), changed)
  return loadCatalog(join(folder, 'catalog.yaml'))
}

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'writ-resolve-'))
  writeFileSync(join(folder, 'report.ts'), 'import "./lib"')
  writeFileSync(join(folder, 'lib.ts'), '')
  catalog = load()
})
afterAll(() => {
  rmSync(folder, { recursive: true, force: true })
})

const here = new Map([['isolate', { available: true, why: '' }]])
const nonce = '0123456789abcdef0123456789abcdef'

function ask(
  files: Readonly<Record<string, string>>,
  given: Partial<Task> = {},
  more: { visible?: ReadonlySet<string>; availability?: typeof here } = {},
) {
  return resolve({
    task: taskOf(files, given),
    contents: new Map(Object.entries(files)),
    catalog,
    nonce,
    availability: more.availability ?? here,
    ...(more.visible === undefined ? {} : { visible: more.visible }),
  })
}

function planOf(files: Readonly<Record<string, string>>, given: Partial<Task> = {}): Plan {
  const resolution = ask(files, given)
  if (resolution.state !== 'ready') throw new Error(JSON.stringify(resolution.missing))
  return resolution.plan
}

function missingOf(...args: Parameters<typeof ask>): readonly Missing[] {
  const resolution = ask(...args)
  if (resolution.state !== 'incomplete') throw new Error('resolved')
  return resolution.missing
}

describe('resolve', () => {
  test('a lone script on an isolate is a complete plan', () => {
    const plan = planOf(
      { 'main.ts': 'x', 'data.csv': 'y' },
      { inputs: { args: ['a', '--b'], stdin: 'hello' }, constraints: { time_s: 5, memory_mb: 64 } },
    )
    expect(plan).toMatchObject({
      schema: 'writ.plan/v1',
      nonce,
      executor: 'isolate',
      runtime: 'typescript',
      code_origin: 'caller',
      steps: [{ title: 'Run main.ts', argv: ['main.ts', 'a', '--b'], success: [0] }],
      stdin: 'hello',
      services: [],
      credentials: [],
      limits: { wall_s: 5, memory_mb: 64, cpu_s: 30 },
      statement: { isolation: 'process', egress: 'closed', delivery: ['ipc'], kill: 'confirmed' },
    })
    expect(plan.files.map((file) => file.path)).toEqual(['data.csv', 'main.ts'])
    expect(plan.entries.map((entry) => entry.entry)).toEqual(['limits', 'target:sandbox', 'intent:run_script'])
  })

  test('a target with services has a gateway, its credentials by name, and nothing of those it does not use', () => {
    const plan = planOf({ 'a.js': '' }, { target_ref: 'orders' })
    expect(plan.statement.egress).toBe('gateway')
    expect(plan.credentials).toEqual([
      {
        name: 'orders-token',
        source: { kind: 'file', ref: 'vault-file-name' },
        inject: { kind: 'header', header: 'X-Token', prefix: '' },
        lane: 'placeholder',
        exposure: 'none',
      },
    ])
    expect(plan.entries.map((entry) => entry.entry)).toEqual([
      'limits',
      'target:orders',
      'intent:run_script',
      'credential:orders-token',
    ])
    expect(plan.environment.map((one) => one.value)).toEqual([
      { kind: 'service', service: 'orders' },
      { kind: 'placeholder', credential: 'orders-token' },
      { kind: 'literal', value: 'eu-secret-region' },
    ])
  })

  test.each([
    ['inputs.script before all', { 'a.js': '', 'b.js': '' }, { script: 'b.js' }, 'b.js'],
    ['inputs.script with ./', { 'a.js': '', 'b.js': '' }, { script: './b.js' }, 'b.js'],
    ['the only script', { 'deep/x.mjs': '', 'a.json': '' }, {}, 'deep/x.mjs'],
    [
      'main of package.json',
      { 'package.json': '{"main":"./src/go.ts"}', 'src/go.ts': '', 'index.ts': '' },
      {},
      'src/go.ts',
    ],
    ['the only main or index at the root', { 'main.ts': '', 'lib/main.ts': '', 'lib/b.ts': '' }, {}, 'main.ts'],
    ['a script by its first line', { run: '#!/usr/bin/env node', 'a.csv': '' }, {}, 'run'],
    ['types are no script', { 'a.ts': '', 'a.d.ts': '' }, {}, 'a.ts'],
  ])('%s says which script runs', (_what, files, inputs, script) => {
    expect(planOf(files as Record<string, string>, { inputs: inputs }).steps[0]?.argv).toEqual([script])
  })

  test.each([
    ['no files', {}, {}, 'a script: the task has no files', 'upload_artifact'],
    ['no script among them', { 'a.csv': '' }, {}, 'none of the files is one Writ knows', 'inputs.script'],
    ['two scripts', { 'a.js': '', 'b.js': '' }, {}, 'which script to run: there are 2', 'one of "a.js", "b.js"'],
    ['a script that is not there', { 'a.js': '' }, { script: 'b.js' }, 'the file "b.js"', 'upload_artifact'],
    [
      'code instead of a path',
      { 'a.js': '' },
      { script: 'console.log(1)' },
      'is its path, not its text',
      'Submit the task again with the code as a file',
    ],
    [
      'a path out of the project',
      { 'a.js': '' },
      { script: '../../etc/passwd' },
      'the file "../../etc/passwd"',
      'upload_artifact',
    ],
    ['an unknown input', { 'a.js': '' }, { srcipt: 'a.js' }, 'did you mean "script"?', 'Submit the task again'],
    ['JSX', { 'a.tsx': '' }, {}, 'JSX does not run here', '.ts'],
  ])('%s is missing something', (_what, files, inputs, what, fix) => {
    const [first] = missingOf(files, { inputs: inputs })
    expect(first?.what).toContain(what)
    expect(first?.fix).toContain(fix)
  })

  test('another runtime names only targets this catalog has and the caller may see', () => {
    const files = { 'a.py': '' }
    expect(missingOf(files)).toEqual([
      {
        what: 'Python for "a.py": target "sandbox" runs JavaScript and TypeScript',
        fix: 'Target "py" would do, but is not available now; ask the operator of this Writ.',
        by: 'people',
      },
    ])
    expect(missingOf(files, {}, { visible: new Set(['sandbox']) })[0]?.fix).toBe(
      'No target of this Writ would do; ask the operator for one.',
    )
    expect(missingOf({ 'a.ts': '' }, { target_ref: 'only-js' })[0]).toEqual({
      what: 'TypeScript for "a.ts": target "only-js" runs JavaScript',
      fix: 'Submit the task for target "sandbox" or "orders".',
      by: 'task',
      target_ref: 'sandbox',
    })
  })

  test('install_and_test and build say what the project is and what it needs', () => {
    const [python] = missingOf({ 'requirements.txt': 'pytest', 'test_a.py': '' }, { intent: 'install_and_test' })
    expect(python?.what).toBe(
      'a target that installs packages and runs commands: this is a Python project (requirements.txt), which needs python -m pip install -r requirements.txt, then python -m pytest; target "sandbox" runs scripts only',
    )
    expect(python?.fix).toContain('Target "py" would do')
    const node = missingOf({ 'package.json': '{}' }, { intent: 'install_and_test' })
    expect(node[0]).toEqual({
      what: 'tests: package.json has no "test" script',
      fix: 'Add the script and upload package.json again.',
    })
    expect(missingOf({ 'go.mod': '' }, { intent: 'build' })[0]?.what).toContain('go build ./...')
    expect(missingOf({ 'go.mod': '' }, { intent: 'build' })[0]?.fix).toBe(
      'No target of this Writ would do; ask the operator for one.',
    )
    expect(missingOf({ 'package.json': '{' }, { intent: 'build' })[0]?.what).toContain('package.json cannot be parsed')
    expect(missingOf({ 'app/package.json': '{}' }, { intent: 'build' })[0]?.what).toContain(
      '"app/package.json" lies in a folder',
    )
    expect(missingOf({}, { intent: 'build' })[0]?.what).toContain('a project: no package.json')
  })

  test('a target without an executor, here or at all, is missing one, and says nothing of the machine', () => {
    expect(missingOf({ 'a.sh': '' }, { target_ref: 'far' })[0]?.what).toBe(
      'an executor for target "far": this release of Writ has none of its kind',
    )
    expect(missingOf({ 'a.py': '' }, { target_ref: 'py' })[0]?.what).toBe('target "py": it is not available now')
    const why = new Map([['isolate', { available: false, why: 'cannot load /usr/lib/secret/isolated_vm.node' }]])
    const said = missingOf({ 'a.js': '' }, {}, { availability: why })
    expect(said[0]?.what).toBe('target "sandbox": it is not available now')
    expect(JSON.stringify(said)).not.toContain('secret')
    expect(missingOf({ 'a.js': '' }, {}, { availability: new Map() })[0]?.what).toContain('not available now')
  })

  test('unknown targets and intents, hostile names among them, are missing and quoted harmlessly', () => {
    expect(missingOf({ 'a.js': '' }, { target_ref: 'constructor' })[0]?.what).toBe(
      'a target: there is no "constructor"',
    )
    expect(missingOf({ 'a.js': '' }, { target_ref: '__proto__' })[0]?.what).toContain('"__proto__"')
    expect(missingOf({ 'a.js': '' }, { intent: '\u202egpj' })[0]).toEqual({
      what: 'an intent: target "sandbox" has no "\\u{202e}gpj"',
      fix: 'Submit the task again with one of: run_script, install_and_test, build.',
      by: 'catalog',
      target_ref: 'sandbox',
    })
    expect(missingOf({ 'a.js': '' }, { intent: 'report' })[0]?.what).toContain('has no "report"')
  })

  test("an operator's intent brings its files and replaces whole arguments only", () => {
    const plan = planOf(
      { 'rows.json': '[]' },
      { target_ref: 'orders', intent: 'report', inputs: { day: '$(reboot) ${inputs.top} --x', top: 7 } },
    )
    expect(plan).toMatchObject({
      code_origin: 'operator',
      runtime: 'typescript',
      steps: [
        { title: 'Make the report', argv: ['report.ts', '$(reboot) ${inputs.top} --x', '7', 'false'], success: [0, 3] },
      ],
    })
    expect(plan.files.map((file) => file.path)).toEqual(['lib.ts', 'report.ts', 'rows.json'])
    for (const file of plan.files.filter((one) => one.path.endsWith('.ts')))
      expect(catalog.files.has(file.sha256)).toBe(true)
  })

  test.each(['lib.js', 'lib', 'lib.ts', 'LIB.ts', 'other.mjs', 'report', 'report.ts/x.json', 'run.sh', 'Makefile'])(
    "[G-operator-code] beside an operator's intent a task cannot bring %s",
    (path) => {
      expect(
        missingOf({ [path]: '' }, { target_ref: 'orders', intent: 'report', inputs: { day: 'x' } }).length,
      ).toBeGreaterThan(0)
    },
  )

  test("[G-operator-code] beside an operator's intent a task cannot bring an executable file", () => {
    const files = [{ path: 'a.json', sha256: digestOf(''), size: 0, executable: true }]
    expect(missingOf({}, { target_ref: 'orders', intent: 'report', inputs: { day: 'x' }, files })[0]?.what).toContain(
      '"a.json" could be taken for code',
    )
  })

  test('an intent for callers may run their files, step by step', () => {
    const given = { target_ref: 'only-js', intent: 'check' }
    expect(planOf({ 'a.js': '' }, { ...given, inputs: { script: 'a.js' } }).steps.map((step) => step.argv)).toEqual([
      ['a.js', 'first'],
      ['a.js', 'second'],
    ])
    expect(missingOf({ 'a.js': '' }, { ...given, inputs: { script: 'b.js' } })[0]?.what).toBe('the file "b.js"')
    expect(missingOf({ 'a.js': '' }, { ...given, inputs: { script: 'a\0.js' } })[0]?.what).toContain(
      'that can be an argument',
    )
    expect(missingOf({ 'a.js': '' }, given)[0]?.what).toBe('"inputs" lacks "script"')
  })

  test('a constraint below what a run needs to start is missing memory', () => {
    expect(missingOf({ 'a.js': '' }, { constraints: { time_s: null, memory_mb: 4 } })[0]?.what).toContain('at least 16')
  })

  test('the plan is canonical JSON and its digest is that of its content', () => {
    const plan = planOf({ 'a.js': '' }, { target_ref: 'orders', goal: 'ünïcode \u{1f600}' })
    expect(planDigest(JSON.parse(canonical(plan)) as Plan)).toBe(planDigest(plan))
    expect(planDigest({ ...plan, nonce: 'f'.repeat(32) })).not.toBe(planDigest(plan))
    expect(() =>
      resolve({ task: taskOf({ 'a.js': '' }), contents: new Map(), catalog, nonce: 'abc', availability: here }),
    ).toThrow('nonce')
  })

  test('the view for callers has step titles and nothing of the infrastructure', () => {
    const plan = planOf({ 'a.js': '' }, { target_ref: 'orders' })
    expect(planView(plan, planDigest(plan))).toEqual({ digest: planDigest(plan), steps: ['Run a.js'] })
  })

  test('[G-no-infrastructure] a described target has names and meanings, and no URL, value, image or source', () => {
    const seen = JSON.stringify([...catalog.targets.keys()].map((ref) => describeTarget(catalog, ref, here, 'maybe')))
    for (const hidden of [
      'localhost',
      'stock.internal',
      '127.0.0',
      'eu-secret-region',
      'vault-file-name',
      'registry.example',
      folder,
    ])
      expect(seen).not.toContain(hidden)
    expect(describeTarget(catalog, 'orders', here, 'maybe')).toMatchObject({
      available: true,
      environment: [
        { name: 'ORDERS_URL', about: 'Base URL of Orders API' },
        {
          name: 'ORDERS_TOKEN',
          about: 'Stands for the credential of orders, stock; send it there as if it were the value',
        },
        { name: 'REGION', about: 'A setting of the target' },
      ],
      approval: 'maybe',
    })
    expect(describeTarget(catalog, 'py', here, 'maybe')?.available).toBe(false)
    expect(describeTarget(catalog, 'toString', here, 'maybe')).toBeNull()
  })

  test.each([
    ['nothing', (t: string) => `${t}\n# comment`, false],
    ['another target', (t: string) => t.replace('about: Python', 'about: Snake'), false],
    ['a credential it does not use', (t: string) => t.replace('env: X', 'env: Y'), false],
    ['its URL', (t: string) => t.replace('localhost:9', 'localhost:10'), true],
    ['its labels', (t: string) => t.replace('env: staging', 'env: production'), true],
    ['its credential', (t: string) => t.replace('X-Token', 'X-Other'), true],
    ['its target gone', (t: string) => t.replace('  orders:\n', '  orders2:\n'), true],
  ])('[G-superseded] a change of %s is seen or not, as it should', (_what, change, expected) => {
    const plan = planOf({ 'a.js': '' }, { target_ref: 'orders' })
    expect(usedEntriesChanged(plan, load(change(text)))).toBe(expected)
    expect(usedEntriesChanged({ ...plan, entries: [] }, catalog)).toBe(true)
  })

  test('[G-superseded] a changed file of an intent supersedes', () => {
    const plan = planOf({}, { target_ref: 'orders', intent: 'report', inputs: { day: 'x' } })
    writeFileSync(join(folder, 'lib.ts'), 'changed')
    const after = load()
    writeFileSync(join(folder, 'lib.ts'), '')
    expect(usedEntriesChanged(plan, after)).toBe(true)
    expect(usedEntriesChanged(plan, load())).toBe(false)
  })
})

/** A gap in harmless words, or a plan within its target that runs its own files. */
function isSound(resolution: Resolution): boolean {
  if (resolution.state === 'incomplete')
    return (
      resolution.missing.length > 0 &&
      resolution.missing.every(
        ({ what, fix }) =>
          /^[\u0020-\u007e…]+$/.test(what + fix) &&
          !/localhost|internal\.example|registry|vault-file|eu-secret/.test(what + fix),
      )
    )
  const { plan, digest } = resolution
  const limits = catalog.targets.get(plan.target.ref)?.limits
  const paths = new Set(plan.files.map((file) => file.path))
  return (
    limits !== undefined &&
    limitNames.every((name) => plan.limits[name] <= limits[name]) &&
    digest === planDigest(plan) &&
    plan.steps.every((step) => paths.has(step.argv[0] ?? ''))
  )
}

describe('resolve, for any task', () => {
  const path = fc.constantFrom(
    'a.js',
    'b.ts',
    'main.ts',
    'package.json',
    'x.py',
    'run',
    'd/e.mjs',
    'r.json',
    'Cargo.toml',
    'lib',
  )
  const tasks = fc.record({
    files: fc.dictionary(path, fc.oneof(fc.string(), fc.json(), fc.constant('{"main":"a.js","scripts":{"test":"x"}}'))),
    target_ref: fc.constantFrom('sandbox', 'orders', 'py', 'only-js', 'nope', '__proto__'),
    intent: fc.constantFrom('run_script', 'install_and_test', 'build', 'report', 'check', 'constructor'),
    inputs: fc.oneof(
      fc.constant({}),
      fc.record({ script: path }),
      fc.record({ day: fc.string() }),
      fc.dictionary(fc.string(), fc.jsonValue()),
    ),
    time_s: fc.option(fc.integer({ min: 1, max: 10_000 })),
    memory_mb: fc.option(fc.integer({ min: 1, max: 10_000 })),
  })

  const runnable = {
    files: { 'a.js': '1' },
    target_ref: 'sandbox' as const,
    intent: 'run_script' as const,
    inputs: { script: 'a.js' },
    time_s: null,
    memory_mb: null,
  }
  const seen = new Set<string>()

  test('the same question has the same answer, a plan never exceeds its target, and a gap is always named', () => {
    fc.assert(
      fc.property(tasks, ({ files, target_ref, intent, inputs, time_s, memory_mb }) => {
        const given = { target_ref, intent, inputs: inputs as JsonObject, constraints: { time_s, memory_mb } }
        const first = ask(files, given)
        const second = ask(Object.fromEntries(Object.entries(files).reverse()), structuredClone(given))
        expect(canonical(second)).toBe(canonical(first))
        expect(first).toSatisfy(isSound)
        seen.add(first.state)
      }),
      // One that can run is among them for certain; of chance's three hundred there is none now and then.
      { numRuns: 300, examples: [[runnable]] },
    )
    expect([...seen].sort()).toEqual(['incomplete', 'ready'])
  })

  test('an unknown key is refused wherever it stands in the catalog', () => {
    const places = [
      'targets:\n  sandbox: {',
      'orders: { url',
      'ORDERS_URL: {',
      'limits: {',
      'orders-token: { source: {',
      'inject: {',
      'report:\n',
      'steps: [{',
    ]
    fc.assert(
      fc.property(fc.constantFrom(...places), fc.stringMatching(/^[a-z]{3,12}$/), (place, key) => {
        fc.pre(!text.includes(key) && !['image', 'prefix', 'basic', 'runtimes', 'cpu_s', 'env'].includes(key))
        const at = text.indexOf(place) + place.length
        const changed = place.endsWith('\n')
          ? `${text.slice(0, at)}    ${key}: 1\n${text.slice(at)}`
          : place.endsWith('url')
            ? text.replace('orders: { url', `orders: { ${key}: 1, url`)
            : `${text.slice(0, at)} ${key}: 1, ${text.slice(at)}`
        expect(() => load(changed)).toThrow(`unknown key "${key}"`)
      }),
      { numRuns: 60 },
    )
  })
})

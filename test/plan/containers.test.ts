import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Digest } from '../../src/digest.ts'
import { digestOf } from '../../src/digest.ts'
import type { TaskId } from '../../src/id.ts'
import { targetState } from '../../src/plan/available.ts'
import type { Availability } from '../../src/plan/available.ts'
import { loadCatalog } from '../../src/plan/catalog.ts'
import type { Catalog } from '../../src/plan/catalog.ts'
import { containerBody } from '../../src/plan/container.ts'
import { guideOf } from '../../src/plan/guide.ts'
import type { Plan, PlanImage } from '../../src/plan/plan.ts'
import { describeTarget, resolve } from '../../src/plan/resolve.ts'
import { seccompDigest } from '../../src/plan/seccomp.ts'
import { environmentText } from '../../src/plan/value.ts'
import type { Task } from '../../src/request/task.ts'

const agent = `sha256:${'a'.repeat(64)}` as Digest
const image = (name: string): PlanImage => ({
  name,
  id: `sha256:${'1'.repeat(64)}`,
  store: 'graphdriver',
  digest: null,
  arch: 'amd64',
  agent,
})
const here: Availability = new Map([
  ['isolate', { available: true, why: '' }],
  [
    'docker',
    {
      available: true,
      why: '',
      facts: {
        images: new Map(['writ/python', 'writ/node', 'writ/go', 'writ/shell', 'rusty'].map((one) => [one, image(one)])),
        runtimes: new Set(['runc', 'runsc']),
      },
    },
  ],
])

const text = `
targets:
  python: { about: Python, executor: docker, image: writ/python, runtimes: [python, shell], intents: [run_script, install_and_test, build, report, by-hand] }
  node: { about: Node, executor: docker, image: writ/node, runtimes: [javascript], intents: [run_script, install_and_test, build] }
  go: { about: Go, executor: docker, image: writ/go, runtimes: [go], intents: [run_script, install_and_test, build] }
  shell: { about: Shell, executor: docker, image: writ/shell, runtimes: [shell], intents: [run_script, install_and_test, build] }
  rust: { about: Rust, executor: docker, image: rusty, runtimes: [rust], intents: [run_script, install_and_test, build] }
  mirrored:
    about: Everything from mirrors
    executor: docker
    image: writ/python
    container: { oci_runtime: runsc, cpus: 1.5 }
    packages: { pip: pypi/simple, npm: npm, go: modules/proxy }
    intents: [run_script, install_and_test, build]
    services:
      pypi: { url: "https://mirror.example/pypi", about: Python packages, credential: mirror }
      npm: { url: "https://mirror.example/npm", about: npm packages }
      modules: { url: "https://mirror.example", about: Go modules }
      vault: { url: "https://vault.example", about: Vault }
    environment:
      VAULT_ADDR: { service: vault }
      CGO_ENABLED: { value: "1" }
    limits: { memory_mb: 512 }
  kata: { about: Kata, executor: docker, image: writ/python, container: { oci_runtime: kata }, intents: [run_script] }
  bare: { about: Bare, executor: docker, image: nowhere/else, intents: [run_script] }
credentials:
  mirror: { source: { file: mirror }, inject: { bearer: true } }
intents:
  report:
    about: Report
    code_origin: operator
    files: [report.py]
    steps: [{ title: Make the report, argv: [report.py, --fast] }, { title: Pack it, argv: [tar, -cf, /out/report.tar, "-C", /work, tmp] }]
  by-hand:
    about: By hand
    inputs: { properties: { what: { type: string } }, required: [what] }
    code_origin: caller
    steps: [{ title: Run it, argv: [python3, "-m", "\${inputs.what}"] }]
`

let folder = ''
let catalog: Catalog

function load(given: string): Catalog {
  writeFileSync(join(folder, 'catalog.yaml'), given)
  return loadCatalog(join(folder, 'catalog.yaml'))
}

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'writ-containers-'))
  writeFileSync(join(folder, 'report.py'), 'print(1)')
  catalog = load(text)
})
afterAll(() => {
  rmSync(folder, { recursive: true, force: true })
})

type Files = Readonly<Record<string, string>>

function taskOf(files: Files, given: Partial<Task>): Task {
  return {
    id: 'task_aaaaaaaaaa' as TaskId,
    tenant: 'default',
    owner: 'me',
    agent: 'agent',
    project_name: 'p',
    goal: 'g',
    target_ref: 'python',
    intent: 'install_and_test',
    inputs: {},
    context: '',
    constraints: { time_s: null, memory_mb: null },
    files: Object.entries(files)
      .map(([path, content]) => ({ path, sha256: digestOf(content), size: content.length, executable: false }))
      .sort((a, b) => (a.path < b.path ? -1 : 1)),
    revision: 1,
    created_at_ms: 0,
    ...given,
  }
}

function ask(files: Files, given: Partial<Task> = {}, availability = here): ReturnType<typeof resolve> {
  return resolve({
    task: taskOf(files, given),
    contents: new Map(Object.entries(files)),
    catalog,
    nonce: '0123456789abcdef0123456789abcdef',
    availability,
  })
}

function planOf(files: Files, given: Partial<Task> = {}): Plan {
  const resolution = ask(files, given)
  if (resolution.state !== 'ready') throw new Error(JSON.stringify(resolution.missing))
  return resolution.plan
}

function stepsOf(files: Files, given: Partial<Task> = {}): readonly (readonly string[])[] {
  return planOf(files, given).steps.map((step) => step.argv.map((word) => (word.includes('\n') ? 'SCRIPT' : word)))
}

function missingOf(files: Files, given: Partial<Task> = {}, availability = here): string {
  const resolution = ask(files, given, availability)
  if (resolution.state !== 'incomplete') throw new Error('resolved')
  return resolution.missing.map(({ what, fix }) => `${what} | ${fix}`).join('\n')
}

const venv = ['python3', '-m', 'venv', '--system-site-packages', '--without-pip', '/work/venv']
const py = '/work/venv/bin/python'
const offline = ['--no-index', '--no-build-isolation']
const mirrored = { target_ref: 'mirrored' }

describe('a plan for a container', () => {
  test('names the image by its id, the exact create body, the agent and the isolation its runtime gives', () => {
    const plan = planOf({ 'a.py': '' }, { intent: 'run_script' })
    expect(plan.image).toEqual(image('writ/python'))
    expect(plan.engine).toEqual({
      protocol: 'writ-frame/1',
      agent,
      container: { oci_runtime: null, cpus_m: 1000 },
      create: containerBody({
        image: image('writ/python'),
        limits: plan.limits,
        container: { oci_runtime: null, cpus_m: 1000 },
        seccomp: seccompDigest,
      }),
    })
    expect(plan.statement).toEqual({
      isolation: 'container',
      egress: 'closed',
      delivery: ['frames'],
      kill: 'confirmed',
    })
    expect(plan.executor).toBe('docker')
    const guarded = planOf(
      { 'a.py': '' },
      { ...mirrored, intent: 'run_script', constraints: { time_s: 5, memory_mb: 100 } },
    )
    expect(guarded.statement).toMatchObject({ isolation: 'user-kernel', egress: 'gateway' })
    expect(guarded.engine).toMatchObject({ container: { oci_runtime: 'runsc', cpus_m: 1500 } })
    const host = (guarded.engine['create'] as { HostConfig: { Memory: number; Runtime: string } }).HostConfig
    expect([host.Runtime, host.Memory]).toEqual(['runsc', (100 + 96) * 1_048_576])
  })

  test('tells its tools where packages come from, or that there is no such place, and nothing else', () => {
    const env = (plan: Plan): Record<string, string> =>
      Object.fromEntries(plan.environment.map(({ name, value }) => [name, environmentText(value, {})]))
    expect(env(planOf({ 'a.py': '' }, { intent: 'run_script' }))).toEqual({
      TMPDIR: '/work/tmp',
      PYTHONUNBUFFERED: '1',
      PYTHONDONTWRITEBYTECODE: '1',
      PIP_NO_INPUT: '1',
      PIP_NO_CACHE_DIR: '1',
      PIP_DISABLE_PIP_VERSION_CHECK: '1',
      PIP_NO_INDEX: '1',
    })
    expect(env(planOf({ 'a.go': 'x' }, { ...mirrored, intent: 'run_script' }))).toMatchObject({
      PIP_INDEX_URL: 'http://127.0.0.1:3128/pypi/simple',
      npm_config_registry: 'http://127.0.0.1:3128/npm',
      GOPROXY: 'http://127.0.0.1:3128/modules/proxy',
      VAULT_ADDR: 'http://127.0.0.1:3128/vault',
      // What the target says of it goes before what Writ would say.
      CGO_ENABLED: '1',
    })
    expect(env(planOf({ 'a.go': 'x' }, { target_ref: 'go', intent: 'run_script' }))).toMatchObject({
      GOPROXY: 'off',
      GOTOOLCHAIN: 'local',
      CGO_ENABLED: '0',
    })
    expect(env(planOf({ Makefile: 'test:\n' }, { target_ref: 'shell' }))).toMatchObject({
      PIP_NO_INDEX: '1',
      npm_config_offline: 'true',
      GOPROXY: 'off',
    })
    const names = planOf({ 'a.py': '' }, { ...mirrored, intent: 'run_script' }).environment.map((one) => one.name)
    expect(new Set(names).size).toBe(names.length)
  })

  test.each([
    ['a.py', '', ['python3', 'a.py', 'x'], 'mirrored'],
    ['a.mjs', '', ['node', 'a.mjs', 'x'], 'node'],
    ['a.ts', '', ['node', 'a.ts', 'x'], 'mirrored'],
    ['a.go', '', ['go', 'run', 'a.go', 'x'], 'go'],
    ['a.sh', 'echo', ['sh', 'a.sh', 'x'], 'shell'],
    ['a.sh', '#!/usr/bin/env bash\n', ['bash', 'a.sh', 'x'], 'shell'],
    ['a.bash', '', ['bash', 'a.bash', 'x'], 'shell'],
    ['run', '#!/bin/zsh -e\n', ['zsh', 'run', 'x'], 'shell'],
    ['run', '#!/usr/bin/python3\n', ['python3', 'run', 'x'], 'python'],
    ['-c.py', '', ['python3', './-c.py', 'x'], 'python'],
  ])('the script %s beginning %j starts with its interpreter', (path, content, argv, target_ref) => {
    expect(stepsOf({ [path]: content }, { target_ref, intent: 'run_script', inputs: { args: ['x'] } })).toEqual([argv])
  })

  test("an operator's intent starts its files by their interpreter and programs of the image by their name", () => {
    const plan = planOf({ 'data.json': '{}' }, { intent: 'report' })
    expect(plan.code_origin).toBe('operator')
    expect(plan.runtime).toBe('python')
    expect(plan.steps.map((step) => step.argv)).toEqual([
      ['python3', 'report.py', '--fast'],
      ['tar', '-cf', '/out/report.tar', '-C', '/work', 'tmp'],
    ])
    expect(stepsOf({ 'pkg/__init__.py': '' }, { intent: 'by-hand', inputs: { what: 'pkg' } })).toEqual([
      ['python3', '-m', 'pkg'],
    ])
    for (const name of [
      'package.json',
      'pytest.ini',
      'pyproject.toml',
      'a/setup.cfg',
      '.npmrc',
      'x.pth',
      'lib.py',
      'Makefile',
    ])
      expect(missingOf({ [name]: '' }, { intent: 'report' })).toContain("runs the operator's code only")
  })
})

describe('a Python project', () => {
  test('without a mirror installs what the image holds, after a check that names everything it does not', () => {
    expect(stepsOf({ 'requirements.txt': 'requests\npytest\n', 'test_a.py': '' })).toEqual([
      venv,
      [py, '-c', 'SCRIPT', '@requirements.txt'],
      [py, '-m', 'pip', 'install', ...offline, '-r', 'requirements.txt'],
      [py, '-m', 'pytest', '--junitxml=/out/junit.xml'],
    ])
    expect(planOf({ 'requirements.txt': 'requests', 'test_a.py': '' }).steps.map((step) => step.title)).toEqual([
      'Make a virtual environment',
      'Check that the image has every package',
      'Install requirements.txt',
      'Run the tests with pytest, or unittest where there is no pytest',
    ])
  })

  test('installs from vendored wheels, and from a mirror without giving pip another place', () => {
    const files = { 'requirements.txt': 'x', 'wheelhouse/x-1-py3-none-any.whl': '', 'conftest.py': '', 'test_a.py': '' }
    expect(stepsOf(files)[1]).toEqual([
      py,
      '-m',
      'pip',
      'install',
      ...offline,
      '--find-links',
      'wheelhouse',
      '-r',
      'requirements.txt',
    ])
    expect(stepsOf(files, mirrored)[1]).toEqual([
      py,
      '-m',
      'pip',
      'install',
      '--find-links',
      'wheelhouse',
      '-r',
      'requirements.txt',
    ])
    expect(stepsOf({ 'requirements.txt': 'x', 'test_a.py': '' }, mirrored)[1]).toEqual([
      py,
      '-m',
      'pip',
      'install',
      '-r',
      'requirements.txt',
    ])
  })

  test('takes extras, dependency groups and test requirements along, and the versions of a lock file', () => {
    const pyproject = `
[build-system]
requires = ["hatchling"]
[project]
name = "p"
dependencies = ["httpx>=0.27"]
[project.optional-dependencies]
test = ["respx"]
docs = ["sphinx"]
[dependency-groups]
dev = ["pytest>=8", { include-group = "x" }, "--index-url=http://evil.example"]
`
    expect(
      stepsOf(
        {
          'pyproject.toml': pyproject,
          'uv.lock': '',
          'requirements-dev.txt': 'tox',
          'src/p/a.py': '',
          'tests/test_a.py': '',
        },
        mirrored,
      ),
    ).toEqual([
      venv,
      [py, '-c', 'SCRIPT', 'uv.lock', '/work/tmp/pins.txt'],
      [
        py,
        '-m',
        'pip',
        'install',
        '--constraint',
        '/work/tmp/pins.txt',
        '-r',
        'requirements-dev.txt',
        '.[test]',
        'pytest>=8',
      ],
      [py, '-m', 'pytest', '--junitxml=/out/junit.xml'],
    ])
    expect(stepsOf({ 'pyproject.toml': pyproject, 'tests/test_a.py': '' })[1]).toEqual([
      py,
      '-c',
      'SCRIPT',
      'httpx>=0.27',
      'respx',
      'pytest>=8',
    ])
  })

  test('that is no package itself has its dependencies installed by name', () => {
    const uv = '[project]\nname = "p"\ndependencies = ["httpx"]\n'
    expect(stepsOf({ 'pyproject.toml': uv, 'test_a.py': '' }, mirrored)[1]).toEqual([
      py,
      '-m',
      'pip',
      'install',
      'httpx',
    ])
    const poetry =
      '[tool.poetry]\npackage-mode = false\n[tool.poetry.dependencies]\npython = "^3.11"\nhttpx = "^0.27"\n[tool.poetry.group.dev.dependencies]\npytest = "*"\n'
    expect(stepsOf({ 'pyproject.toml': poetry, 'poetry.lock': '', 'test_a.py': '' }, mirrored)[2]).toEqual([
      py,
      '-m',
      'pip',
      'install',
      '--constraint',
      '/work/tmp/pins.txt',
      'httpx',
      'pytest',
    ])
  })

  test('without requirements runs its tests at once, by pytest or by what Python has; arguments come last', () => {
    const [only] = stepsOf({ 'test_a.py': '', 'calc.py': '' }, { inputs: { args: ['-k', 'add'] } })
    expect(only?.slice(0, 2)).toEqual(['sh', '-c'])
    expect(only?.slice(3)).toEqual(['python3', '-k', 'add'])
    expect(stepsOf({ 'requirements.txt': '# nothing\n\n', 'pytest.ini': '', 'tests/a_test.py': '' })).toEqual([
      ['python3', '-m', 'pytest', '--junitxml=/out/junit.xml'],
    ])
    expect(missingOf({ 'requirements.txt': 'x' })).toContain('tests: the Python project shows none')
  })

  test('is built as a wheel into the output folder', () => {
    expect(stepsOf({ 'setup.py': '' }, { intent: 'build' })).toEqual([
      venv,
      [py, '-m', 'pip', 'wheel', '--no-deps', '--wheel-dir', '/out', ...offline, '.'],
    ])
    expect(missingOf({ 'requirements.txt': '' }, { intent: 'build' })).toContain(
      'a build: the Python project shows none',
    )
  })
})

describe('a JavaScript project', () => {
  const node = { target_ref: 'node' }
  test('needs no installing without dependencies or with vendored ones, and says what it lacks a mirror for', () => {
    const plain = { 'package.json': '{"scripts":{"test":"node --test"}}' }
    expect(stepsOf(plain, node)).toEqual([['npm', 'run', 'test']])
    const asking = {
      'package.json':
        '{"scripts":{"test":"node t.js"},"dependencies":{"left-pad":"^1.3.0"},"devDependencies":{"@a/b":"2","here":"file:./here"}}',
    }
    expect(stepsOf({ ...asking, 'node_modules/left-pad/index.js': '' }, node)).toEqual([['npm', 'run', 'test']])
    expect(missingOf(asking, node)).toBe(
      'packages: this target has no mirror to install left-pad@^1.3.0, @a/b@2 from | Upload them in node_modules/, or ask the operator of this Writ for a target with a package mirror.',
    )
    expect(stepsOf({ ...asking, 'package-lock.json': '', 'npm-cache/_cacache/x': '' }, node)[0]).toEqual([
      'npm',
      'ci',
      '--offline',
      '--cache',
      'npm-cache',
    ])
    expect(stepsOf({ ...asking, 'package-lock.json': '' }, mirrored)[0]).toEqual(['node', '-e', 'SCRIPT', 'npm', 'ci'])
    expect(stepsOf(asking, mirrored)[0]).toEqual(['node', '-e', 'SCRIPT', 'npm', 'install'])
    expect(stepsOf({ ...asking, 'pnpm-lock.yaml': '' }, mirrored)).toEqual([
      ['node', '-e', 'SCRIPT', 'pnpm', 'install', '--frozen-lockfile'],
      ['pnpm', 'run', 'test'],
    ])
  })

  test('asks a runner that can write a report for one, and no script of several commands', () => {
    const with_ = (script: string): readonly string[] | undefined =>
      stepsOf(
        { 'package.json': JSON.stringify({ scripts: { test: script } }) },
        { ...node, inputs: { args: ['-t', 'x'] } },
      )[0]
    expect(with_('vitest run')).toEqual([
      'npm',
      'run',
      'test',
      '--',
      '--reporter=default',
      '--reporter=json',
      '--outputFile.json=/out/vitest.json',
      '-t',
      'x',
    ])
    expect(with_('jest --ci')).toEqual(['npm', 'run', 'test', '--', '--json', '--outputFile=/out/jest.json', '-t', 'x'])
    expect(with_('vitest run && rm -rf x')).toEqual(['npm', 'run', 'test', '--', '-t', 'x'])
    expect(with_('mocha')).toEqual(['npm', 'run', 'test', '--', '-t', 'x'])
  })

  test('of lone test files runs under node --test; a build needs its script', () => {
    expect(stepsOf({ 'sum.js': '', 'sum.test.js': '' }, node)).toEqual([['node', '--test', '--test-reporter=tap']])
    expect(stepsOf({ 'package.json': '{}', 'test/a.js': '' }, node)).toEqual([
      ['node', '--test', '--test-reporter=tap'],
    ])
    expect(missingOf({ 'package.json': '{}' }, node)).toContain('package.json has no "test" script')
    expect(missingOf({ 'package.json': '{"scripts":{"test":"x"}}' }, { ...node, intent: 'build' })).toContain(
      'no "build" script',
    )
    expect(
      stepsOf({ 'package.json': '{"scripts":{"build":"tsc"}}', 'tsconfig.json': '' }, { ...node, intent: 'build' }),
    ).toEqual([
      ['npm', 'run', 'build'],
      ['sh', '-c', expect.stringContaining('cp -R') as string, 'sh', 'dist', 'build'],
    ])
    expect(
      stepsOf(
        { 'package.json': '{"scripts":{"build":"x"}}', 'dist/a': '', 'build/b': '' },
        { ...node, intent: 'build' },
      ),
    ).toEqual([['npm', 'run', 'build']])
  })
})

describe('Go, Make, shell and Rust', () => {
  const go = { target_ref: 'go' }
  const asking =
    'module x\n\ngo 1.22\n\nrequire (\n\tgithub.com/a/b v1.2.3 // indirect\n\texample.com/local v0.0.0\n)\n\nreplace example.com/local => ./local\n'
  test('a module is tested with a report on its output, from a mirror, from vendor/, or not at all', () => {
    const files = { 'go.mod': 'module x\n\ngo 1.22\n', 'x_test.go': '' }
    expect(stepsOf(files, go)).toEqual([['go', 'test', '-json', './...']])
    expect(missingOf({ ...files, 'go.mod': asking }, go)).toContain('no mirror to install github.com/a/b@v1.2.3 from')
    expect(missingOf({ ...files, 'go.mod': asking }, go)).not.toContain('example.com/local')
    expect(stepsOf({ ...files, 'go.mod': asking, 'vendor/modules.txt': '' }, go)).toEqual([
      ['go', 'test', '-json', './...'],
    ])
    expect(stepsOf({ ...files, 'go.mod': asking, 'go.sum': '' }, mirrored)).toEqual([
      ['go', 'mod', 'download'],
      ['go', 'test', '-json', './...'],
    ])
    expect(stepsOf({ ...files, 'go.mod': asking }, mirrored)[1]).toEqual(['go', 'test', '-mod=mod', '-json', './...'])
    expect(stepsOf({ 'go.mod': 'module x', 'main.go': '' }, { ...go, intent: 'build' })).toEqual([
      ['go', 'build', '-o', '/out/', '.'],
    ])
    expect(stepsOf({ 'a.go': '', 'a_test.go': '' }, go)).toEqual([['go', 'test', '-json', 'a.go', 'a_test.go']])
    expect(missingOf({ 'go.mod': 'module x' }, go)).toContain('tests: the Go project shows none')
  })

  test('a Makefile runs its own targets, a script that says it tests runs as it is', () => {
    const shell = { target_ref: 'shell' }
    expect(stepsOf({ Makefile: 'test:\n\techo\n' }, shell)).toEqual([['make', 'test']])
    expect(stepsOf({ Makefile: 'all:\n\techo\n' }, { ...shell, intent: 'build' })).toEqual([['make', 'all']])
    expect(stepsOf({ 'test.sh': '', 'a.sh': '' }, shell)).toEqual([['sh', 'test.sh']])
    expect(missingOf({ 'a.sh': '' }, shell)).toContain('tests: the shell project shows none')
  })

  test('Rust is what is missing unless the operator says that the image has it', () => {
    const files = { 'Cargo.toml': '[package]\nname = "x"\n', 'Cargo.lock': '' }
    expect(stepsOf(files, { target_ref: 'rust' })).toEqual([['cargo', 'test', '--locked']])
    expect(missingOf(files)).toContain('this is a Rust project (Cargo.toml)')
    expect(missingOf(files)).toContain('target "python" runs Python and shell | Submit the task for target "rust"')
    expect(missingOf(files, mirrored)).toContain('Rust')
  })

  test('of several kinds in one project the target takes the one it runs', () => {
    const both = { 'package.json': '{"scripts":{"test":"x"}}', 'requirements.txt': '', 'test_a.py': '' }
    expect(planOf(both).runtime).toBe('python')
    expect(planOf(both, { target_ref: 'node' }).runtime).toBe('javascript')
    expect(missingOf(both, { target_ref: 'go' })).toContain('this is a JavaScript project')
  })
})

describe('a target in containers', () => {
  const without = (facts: Partial<{ images: string[]; runtimes: string[] }>): Availability =>
    new Map([
      [
        'docker',
        {
          available: true,
          why: '',
          facts: {
            images: new Map((facts.images ?? []).map((one) => [one, image(one)])),
            runtimes: new Set(facts.runtimes ?? []),
          },
        },
      ],
    ])
  const state = (ref: string, able: Availability): ReturnType<typeof targetState> => {
    const target = catalog.targets.get(ref)
    if (target === undefined) throw new Error('no such target')
    return targetState(target, able)
  }

  test('is available where engine, image and runtime are, and otherwise tells the operator what to do', () => {
    expect(state('python', here)).toMatchObject({ available: true, image: { name: 'writ/python' } })
    expect(state('python', new Map())).toEqual({
      available: false,
      why: 'nothing runs "docker" here',
      fix: '"writ doctor" says what this machine lacks and how to get it.',
    })
    expect(state('python', new Map([['docker', { available: false, why: 'no engine' }]]))).toMatchObject({
      why: 'no engine',
    })
    expect(state('python', without({}))).toMatchObject({ available: false, fix: 'Run "writ images build python".' })
    expect(state('bare', without({}))).toMatchObject({
      fix: 'Build it and see that "writ images verify nowhere/else" is content; docs/images.md shows how.',
    })
    expect(state('kata', here)).toMatchObject({ why: 'the engine knows no OCI runtime "kata"' })
    expect(state('kata', here)).toMatchObject({ fix: expect.stringContaining('--add-runtime kata=PATH') as string })
  })

  test('says no more than that to callers', () => {
    for (const [ref, able] of [
      ['python', without({})],
      ['kata', here],
      ['bare', here],
      ['python', new Map([['docker', { available: false, why: 'dial /var/run/docker.sock: refused' }]])],
    ] as const) {
      const said = missingOf({ 'a.py': '' }, { target_ref: ref, intent: 'run_script' }, able)
      expect(said).toContain(`target "${ref}": it is not available now`)
      expect(said).not.toMatch(/docker|image|kata=|nowhere|sock|runtime/)
      expect(describeTarget(catalog, ref, able)?.available).toBe(false)
    }
  })

  test('has a guide of at most 420 characters that says what is there', () => {
    for (const target of catalog.targets.values()) expect(guideOf(target).length).toBeLessThanOrEqual(420)
    expect(guideOf([...catalog.targets.values()][0]!)).toContain('No network')
    const guide = describeTarget(catalog, 'mirrored', here)?.guide ?? ''
    for (const word of ['$WRIT_OUT', 'node, python3, sh, go', 'pip, npm, go install from a mirror', 'placeholder'])
      expect(guide).toContain(word)
    expect(JSON.stringify(describeTarget(catalog, 'mirrored', here))).not.toMatch(/mirror\.example|writ\/python|runsc/)
  })

  test.each([
    ['{ about: x, executor: docker, intents: [run_script] }', 'needs "image"'],
    ['{ about: x, executor: docker, image: "a b", intents: [run_script] }', 'the name of an image'],
    ['{ about: x, executor: docker, image: --privileged, intents: [run_script] }', 'the name of an image'],
    [
      '{ about: x, executor: isolate, container: { cpus: 1 }, intents: [run_script] }',
      '"container" belongs to the executor "docker"',
    ],
    [
      '{ about: x, executor: ssh, packages: { pip: a }, intents: [run_script] }',
      '"packages" belongs to the executor "docker"',
    ],
    [
      '{ about: x, executor: docker, image: a, packages: { pip: pypi }, intents: [run_script] }',
      'there is no service "pypi"',
    ],
    [
      '{ about: x, executor: docker, image: a, services: { s: { url: "https://a.example", about: y } }, packages: { pip: s/../x }, intents: [run_script] }',
      'a service of this target',
    ],
    [
      '{ about: x, executor: docker, image: a, container: { oci_runtime: "/bin/sh" }, intents: [run_script] }',
      'the engine knows the runtime by',
    ],
    ['{ about: x, executor: docker, image: a, container: { privileged: true }, intents: [run_script] }', 'privileged'],
    ['{ about: x, executor: docker, image: a, limits: { memory_mb: 63 }, intents: [run_script] }', 'less than the 64'],
    [
      '{ about: x, executor: docker, image: a, environment: { PIP_INDEX_URL: { value: x } }, intents: [run_script] }',
      "Writ's own in containers",
    ],
    [
      '{ about: x, executor: docker, image: a, environment: { npm_config_registry: { value: x } }, intents: [run_script] }',
      "Writ's own in containers",
    ],
    [
      '{ about: x, executor: docker, image: a, environment: { goproxy: { value: x } }, intents: [run_script] }',
      "Writ's own in containers",
    ],
    [
      '{ about: x, executor: docker, image: a, environment: { TMPDIR: { value: /tmp } }, intents: [run_script] }',
      "the executor's own",
    ],
  ])('%s is refused', (target, message) => {
    expect(() => load(`targets:\n  t: ${target}\n`)).toThrow(message)
  })

  test('refuses what it could only fail with: too little memory, and files its working folder cannot hold', () => {
    expect(missingOf({ 'a.py': '' }, { intent: 'run_script', constraints: { time_s: null, memory_mb: 32 } })).toContain(
      'constraints.memory_mb of at least 64',
    )
    const task = taskOf({ 'a.py': '' }, { intent: 'run_script' })
    const large = {
      ...task,
      files: [
        ...task.files,
        { path: 'big', sha256: digestOf('b'), size: 60 << 20, executable: false },
        { path: 'big2', sha256: digestOf('b'), size: 60 << 20, executable: false },
      ],
    }
    expect(
      resolve({ task: large, contents: new Map(), catalog, nonce: '0'.repeat(32), availability: here }),
    ).toMatchObject({
      state: 'incomplete',
      missing: [{ what: expect.stringContaining('takes 96 MiB of files') as string }],
    })
  })
})

import { describe, expect, test } from 'vitest'
import { planOf, stepsOf, missingOf, venv, py, offline, mirrored } from './containers.ts'

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

import { appendFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeEach, describe, expect, it, vi } from 'vitest'
import type { JsonObject } from '../../src/digest.ts'
import { engine } from '../servers/engine.ts'
import { startPackageMirror, wheel } from '../servers/packages.ts'
import { useWorld } from './world.ts'

vi.setConfig({ testTimeout: 240_000 })

/** Each kind of project as an agent would submit it, in real containers from the images that "writ images build" makes. */

const images = ['python', 'node', 'go', 'shell'] as const
const there = await engine({ images: images.map((name) => `writ/${name}:latest`) })
const mirror = await startPackageMirror()
afterAll(async () => await mirror.close())
const world = useWorld()
if (!('lacking' in there))
  appendFileSync(join(world.folder, 'writ.yaml'), `\ndocker: { host: "${there.host}", warm: 0 }\n`)
const current =
  'lacking' in there || world.writ(['images', 'verify', ...images.map((name) => `writ/${name}`)]).code === 0
const found = current
  ? there
  : {
      lacking: `the images of Writ at ${there.host} have the agent of another build: bash test/servers/docker.sh images ${there.host} makes them again`,
    }
if (!('lacking' in found)) {
  world.writ(['init', world.folder, '--with', 'docker'])
  const service = (name: string, path: string): string =>
    `      ${name}: { url: "${mirror.url}${path}", about: Packages, addresses: ["127.0.0.1/32"] }\n`
  world.addTarget(
    images
      .map(
        (name) => `  mirrored-${name}:
    about: With package mirrors
    labels: { env: sandbox }
    executor: docker
    image: writ/${name}
    packages: { pip: pypi/simple, npm: npm, go: modules }
    intents: [install_and_test]
    services:
${service('pypi', '/pypi')}${service('npm', '/npm')}${service('modules', '/go')}    limits: { wall_s: 300, cpu_s: 240, memory_mb: 1024 }
`,
      )
      .join(''),
  )
}

interface Ended {
  readonly state: string
  readonly tests: { readonly source: string; readonly passed: number; readonly failed: number } | undefined
  readonly steps: readonly { readonly title: string; readonly exit: number | null }[]
  readonly text: string
}

/** Submits, starts and waits for the end; a submission that lacks something ends there. */
async function run(
  target: string,
  intent: string,
  files: Readonly<Record<string, string | Buffer>>,
  inputs: JsonObject = {},
): Promise<Ended> {
  const client = await world.client()
  const submitted = await client.call('submit_task', {
    project_name: 'project',
    goal: 'see it run',
    target_ref: target,
    execution_intent: intent,
    inputs,
    files: Object.entries(files).map(([path, content]) =>
      typeof content === 'string' ? { path, content } : { path, content_base64: content.toString('base64') },
    ),
  })
  if (submitted.structured['state'] !== 'ready')
    return { state: 'incomplete', tests: undefined, steps: [], text: submitted.text }
  const started = await client.call('start_execution', {
    task_id: submitted.structured['task_id'] ?? '',
    wait_ms: 1000,
  })
  const id = String(started.structured['execution_id'])
  for (let tries = 0; tries < 30; tries++) {
    const { structured } = await client.call('get_status', { execution_id: id, wait_ms: 10_000 })
    if (structured['final'] !== true) continue
    const result = await client.call('get_result', { execution_id: id })
    const { state, tests, steps } = result.structured
    return {
      state: String(state),
      tests: tests as unknown as Ended['tests'],
      steps: steps as unknown as Ended['steps'],
      text: result.text,
    }
  }
  throw new Error(`${id} did not end`)
}

describe('projects in containers', () => {
  beforeEach((context) => {
    if ('lacking' in found) context.skip(found.lacking)
  })

  it('a Python project without a mirror says every package that the image lacks, and runs with what it has', async () => {
    const test = 'import requests\n\ndef test_it():\n    assert requests.__version__\n'
    const lacking = await run('python', 'install_and_test', {
      'requirements.txt':
        'requests>=2\nno-such-thing==1.0  # really\nrequests-of-old>3; python_version > "3"\npytest>=99\n',
      'test_it.py': test,
    })
    expect(lacking).toMatchObject({ state: 'failed', tests: undefined })
    expect(lacking.steps.at(-1)).toMatchObject({ title: 'Check that the image has every package', exit: 1 })
    for (const words of [
      'missing package no-such-thing==1.0: the image has no no-such-thing',
      'the image has no requests-of-old',
      'missing package pytest>=99: the image has pytest ',
    ])
      expect(lacking.text).toContain(words)
    expect(lacking.text).not.toContain('missing package requests>=2')
    expect(
      await run('python', 'install_and_test', { 'requirements.txt': 'requests>=2\npytest\n', 'test_it.py': test }),
    ).toMatchObject({
      state: 'succeeded',
      tests: { source: 'junit', passed: 1, failed: 0 },
    })
  })

  it('a Python package is installed with its lock file’s versions from vendored wheels, tested, and built as a wheel', async () => {
    const files = {
      'pyproject.toml':
        '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n[project]\nname = "mine"\nversion = "0.1"\ndependencies = ["vendored"]\n[tool.setuptools]\npackages = ["mine"]\n',
      'uv.lock':
        'version = 1\n[[package]]\nname = "mine"\nversion = "0.1"\nsource = { editable = "." }\n[[package]]\nname = "vendored"\nversion = "1.0"\nsource = { registry = "x" }\n',
      'mine/__init__.py': 'from vendored import WORD\n',
      'tests/test_mine.py': 'import mine\n\ndef test_word():\n    assert mine.WORD == "old"\n',
      'conftest.py': '',
      'wheelhouse/vendored-1.0-py3-none-any.whl': wheel('vendored', '1.0', 'old'),
      'wheelhouse/vendored-2.0-py3-none-any.whl': wheel('vendored', '2.0', 'new'),
    }
    const tested = await run('python', 'install_and_test', files)
    expect(tested.text).toContain('succeeded')
    expect(tested).toMatchObject({ state: 'succeeded', tests: { source: 'junit', passed: 1 } })
    const built = await run('python', 'build', files)
    expect(built.state).toBe('succeeded')
    expect(built.text).toContain('mine-0.1-py3-none-any.whl')
  })

  it.each([
    [
      'python',
      {
        'requirements.txt': 'mirrored==1.2.3\n',
        'test_it.py': 'import mirrored\n\ndef test_it():\n    assert mirrored.WORD == "from-mirror"\n',
      },
      'junit',
      '/pypi/files/mirrored-1.2.3-py3-none-any.whl',
    ],
    [
      'node',
      {
        'package.json':
          '{"name":"x","version":"1.0.0","scripts":{"test":"node --test --test-reporter=tap"},"dependencies":{"mirrored":"^1.0.0"}}',
        'it.test.js':
          'require("node:test")("it", () => require("node:assert").equal(require("mirrored"), "from-mirror"))',
      },
      'tap',
      '/npm/mirrored/-/mirrored-1.2.3.tgz',
    ],
    [
      'go',
      {
        'go.mod': 'module example.com/x\n\ngo 1.19\n\nrequire mirror.example/mirrored v1.2.3\n',
        'it_test.go':
          'package x\n\nimport (\n\t"mirror.example/mirrored"\n\t"testing"\n)\n\nfunc TestIt(t *testing.T) {\n\tif mirrored.Word != "from-mirror" {\n\t\tt.Fatal(mirrored.Word)\n\t}\n}\n',
      },
      'go',
      '/go/mirror.example/mirrored/@v/v1.2.3.zip',
    ],
  ])('%s installs from the mirror of its target, through the gateway', async (name, files, source, path) => {
    const ended = await run(`mirrored-${name}`, 'install_and_test', files)
    expect(ended).toMatchObject({ state: 'succeeded', tests: { source, passed: 1, failed: 0 } })
    expect(mirror.asked).toContain(path)
    expect(ended.text).not.toContain(mirror.url)
  })

  it('a lock file made with another registry installs from the mirror all the same', async () => {
    const version = '1.2.3'
    const lock = {
      name: 'x',
      version: '1.0.0',
      lockfileVersion: 3,
      packages: {
        '': { name: 'x', version: '1.0.0', dependencies: { mirrored: '^1.0.0' } },
        'node_modules/mirrored': {
          version,
          resolved: `https://elsewhere.example/api/npm/mirrored/-/mirrored-${version}.tgz`,
        },
      },
    }
    const ended = await run('mirrored-node', 'install_and_test', {
      'package.json':
        '{"name":"x","version":"1.0.0","scripts":{"test":"node -e \'console.log(require(\\"mirrored\\"))\'"},"dependencies":{"mirrored":"^1.0.0"}}',
      'package-lock.json': JSON.stringify(lock),
    })
    expect(ended).toMatchObject({ state: 'succeeded' })
    expect(ended.text).toContain('from-mirror')
  })

  it('a package of 20 MB is installed from a mirror like any other', async () => {
    const ended = await run('mirrored-python', 'install_and_test', {
      'requirements.txt': 'large==1.0.0\n',
      'test_it.py':
        'import large, os\n\ndef test_it():\n    data = os.path.join(os.path.dirname(large.__file__), "data.bin")\n    assert os.path.getsize(data) == 20_000_000\n',
    })
    expect(ended).toMatchObject({ state: 'succeeded', tests: { passed: 1, failed: 0 } })
  })

  it('a package that a mirror does not have is named', async () => {
    const python = await run('mirrored-python', 'install_and_test', {
      'requirements.txt': 'not-mirrored==4.5',
      'test_it.py': '',
    })
    expect(python).toMatchObject({ state: 'failed' })
    expect(python.text).toContain('No matching distribution found for not-mirrored==4.5')
    const node = await run('node', 'install_and_test', {
      'package.json': '{"scripts":{"test":"x"},"dependencies":{"left-pad":"1.3.0"}}',
    })
    expect(node).toMatchObject({
      state: 'incomplete',
      text: expect.stringContaining('no mirror to install left-pad@1.3.0 from') as string,
    })
  })

  it('what a build leaves in dist comes back', async () => {
    const built = await run('node', 'build', {
      'package.json': '{"scripts":{"build":"mkdir -p dist/js && echo built > dist/js/app.js"}}',
    })
    expect(built.state).toBe('succeeded')
    expect(built.text).toContain('dist/js/app.js')
  })

  it('scripts, Makefiles and lone tests run with what the image has', async () => {
    expect(
      (
        await run(
          'shell',
          'run_script',
          { 'a.sh': '#!/bin/bash\n[[ $1 == x ]] && cat && jq --version' },
          { args: ['x'], stdin: 'from-stdin\n' },
        )
      ).text,
    ).toMatch(/\| from-stdin\n\| jq-/)
    expect(
      (await run('go', 'run_script', { 'main.go': 'package main\n\nfunc main() { println("from-go") }\n' })).text,
    ).toContain('from-go')
    expect((await run('shell', 'install_and_test', { Makefile: 'test:\n\t@echo made by $$(id -u)\n' })).text).toContain(
      'made by 65532',
    )
    expect(
      await run('node', 'install_and_test', { 'sum.test.js': 'require("node:test")("one", () => {})' }),
    ).toMatchObject({
      state: 'succeeded',
      tests: { source: 'tap', passed: 1 },
    })
    expect(
      await run('python', 'install_and_test', {
        'test_unit.py':
          'import unittest\n\nclass A(unittest.TestCase):\n    def test_a(self):\n        self.assertEqual(1, 2)\n',
      }),
    ).toMatchObject({
      state: 'failed',
      tests: { source: 'junit', failed: 1 },
    })
  })
})

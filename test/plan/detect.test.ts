import * as fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { Digest } from '../../src/digest.ts'
import { detect, manifestPaths, maxManifestBytes, scriptRuntime } from '../../src/plan/detect.ts'

function one(files: Readonly<Record<string, string>>) {
  return detect(Object.keys(files), new Map(Object.entries(files)))[0]
}

const file = (path: string, size = 10) => ({
  path,
  size,
  sha256: `sha256:${'0'.repeat(64)}` as Digest,
  executable: false,
})

describe('detection', () => {
  test.each([
    [
      { 'package.json': '{"scripts":{"test":"vitest","build":"tsc"}}', 'package-lock.json': '' },
      'javascript',
      [['npm', 'ci', '--no-audit', '--no-fund']],
      ['npm', 'run', 'test'],
      ['npm', 'run', 'build'],
    ],
    [{ 'package.json': '{}' }, 'javascript', [['npm', 'install', '--no-audit', '--no-fund']], null, null],
    [
      { 'package.json': '{"scripts":{"test":"echo \\"Error: no test specified\\" && exit 1"}}' },
      'javascript',
      [['npm', 'install', '--no-audit', '--no-fund']],
      null,
      null,
    ],
    [
      { 'package.json': '{"devDependencies":{"typescript":"7"},"scripts":{"test":"x"}}', 'pnpm-lock.yaml': '' },
      'typescript',
      [['pnpm', 'install', '--frozen-lockfile']],
      ['pnpm', 'run', 'test'],
      null,
    ],
    [
      { 'package.json': '{}', 'yarn.lock': '', 'tsconfig.json': '{}' },
      'typescript',
      [['yarn', 'install', '--immutable']],
      null,
      null,
    ],
    [
      { 'package.json': '{"scripts":{"test":"x"}}', 'bun.lock': '' },
      'javascript',
      [['bun', 'install', '--frozen-lockfile']],
      ['bun', 'run', 'test'],
      null,
    ],
    [
      { 'pyproject.toml': '[project]\nname="x"\n[tool.pytest.ini_options]\n' },
      'python',
      [['python', '-m', 'pip', 'install', '.']],
      ['python', '-m', 'pytest'],
      ['python', '-m', 'build'],
    ],
    [
      { 'pyproject.toml': '[project]\nname="x"', 'uv.lock': '', 'tests/test_a.py': '' },
      'python',
      [['uv', 'sync', '--frozen']],
      ['uv', 'run', 'python', '-m', 'unittest', 'discover'],
      ['uv', 'build'],
    ],
    [
      { 'pyproject.toml': '[tool.poetry]\nname="x"\n[build-system]\n', 'poetry.lock': '', 'conftest.py': '' },
      'python',
      [['poetry', 'install', '--no-interaction']],
      ['poetry', 'run', 'python', '-m', 'pytest'],
      ['poetry', 'build'],
    ],
    [
      { 'requirements.txt': 'requests\npytest==8\n', 'a.py': '' },
      'python',
      [['python', '-m', 'pip', 'install', '-r', 'requirements.txt']],
      ['python', '-m', 'pytest'],
      null,
    ],
    [
      { 'setup.py': '', 'a_test.py': '' },
      'python',
      [['python', '-m', 'pip', 'install', '.']],
      ['python', '-m', 'unittest', 'discover'],
      ['python', '-m', 'build'],
    ],
    [
      { 'go.mod': 'module x', 'main.go': '', 'x_test.go': '' },
      'go',
      [['go', 'mod', 'download']],
      ['go', 'test', './...'],
      ['go', 'build', './...'],
    ],
    [
      { 'Cargo.toml': '[package]\nname="x"', 'Cargo.lock': '' },
      'rust',
      [['cargo', 'fetch', '--locked']],
      ['cargo', 'test', '--locked'],
      ['cargo', 'build', '--locked'],
    ],
    [
      { Makefile: 'all: x\ntest:\n\tsh t.sh\nbuild := 3\n', 't.sh': '' },
      'shell',
      [],
      ['make', 'test'],
      ['make', 'all'],
    ],
  ] as const)('knows the project %j', (files, runtime, install, run, build) => {
    const kind = one(files)
    expect(kind).toMatchObject({ runtime, problem: null })
    expect(kind?.install).toEqual(install)
    expect(kind?.test).toEqual(run)
    expect(kind?.build).toEqual(build)
  })

  test('a project in two languages is both, in a fixed order', () => {
    const kinds = detect(['requirements.txt', 'package.json'], new Map([['package.json', '{}']]))
    expect(kinds.map((kind) => kind.runtime)).toEqual(['javascript', 'python'])
  })

  test('a lone script is certain, several of a kind likely, a mixture a guess', () => {
    expect(one({ 'a.py': '' })).toMatchObject({ runtime: 'python', confidence: 'certain', main: 'a.py' })
    expect(one({ 'a.py': '', 'b.py': '' })).toMatchObject({ runtime: 'python', confidence: 'likely', main: null })
    expect(one({ 'a.py': '', 'b.py': '', 'c.sh': '' })).toMatchObject({ runtime: 'python', confidence: 'guess' })
    expect(one({ run: '#!/usr/bin/env -S python3 -u\n', 'data.csv': '' })).toMatchObject({
      runtime: 'python',
      main: 'run',
    })
    expect(one({ 'data.csv': '' })).toBeUndefined()
  })

  test.each([
    ['x.mjs', undefined, 'javascript'],
    ['x.CTS', undefined, 'typescript'],
    ['x.d.ts', undefined, 'typescript'],
    ['.env', undefined, null],
    ['x.txt', '#!/bin/sh', null],
    ['x', '#!/bin/bash -e\n', 'shell'],
    ['x', '#! /usr/bin/env node\r\n', 'javascript'],
    ['x', '#!/usr/bin/env -S FOO=1 deno run\n', 'typescript'],
    ['x', '#!/usr/bin/python3.12\n', 'python'],
    ['x', '#!/usr/bin/perl\n', null],
    ['x', 'echo hi', null],
    ['a.b/x', '#!/bin/sh', 'shell'],
  ])('%s with %j is for %s', (path, content, runtime) => {
    expect(scriptRuntime(path, content)).toBe(runtime)
  })

  test.each([
    ['package.json', '{'],
    ['package.json', '[]'],
    ['package.json', 'null'],
    ['package.json', '['.repeat(200_000)],
    ['Cargo.toml', '[package'],
    ['pyproject.toml', `x = ${'['.repeat(100_000)}`],
  ])('an unreadable %s is said to be that', (name, text) => {
    expect(one({ [name]: text })).toMatchObject({
      because: name,
      confidence: 'likely',
      problem: expect.stringContaining(name) as string,
    })
  })

  test('members that a manifest inherits are not its own', () => {
    expect(
      one({ 'package.json': '{"scripts":{"__proto__":{"test":"x"}},"__proto__":{"main":"a.js"}}', 'a.js': '' }),
    ).toMatchObject({ test: null, main: null })
    expect(one({ 'package.json': '{"scripts":"constructor","main":{"toString":1}}' })).toMatchObject({
      test: null,
      main: null,
    })
  })

  test('a main outside the project is none', () => {
    for (const main of ['../x.js', '/etc/passwd', './gone.js', ''])
      expect(one({ 'package.json': JSON.stringify({ main }), 'a.js': '' })?.main).toBeNull()
    expect(one({ 'package.json': '{"main":"./a.ts"}', 'a.ts': '' })).toMatchObject({
      main: 'a.ts',
      runtime: 'typescript',
    })
  })

  test('only manifests and scripts without a telling name are read, none that is large', () => {
    expect(
      manifestPaths(
        [
          file('package.json'),
          file('Cargo.toml', maxManifestBytes + 1),
          file('sub/package.json'),
          file('a.js'),
          file('run'),
          file('sub/go'),
          file('data.csv'),
        ],
        { script: 'sub/go' },
      ),
    ).toEqual(['package.json', 'run', 'sub/go'])
    expect(
      manifestPaths(
        Array.from({ length: 1000 }, (_, i) => file(`f${i}`)),
        {},
      ).length,
    ).toBeLessThanOrEqual(40)
  })

  test('wants to see the requirements that a recipe reads, and not whatever is named like some', () => {
    const like = Array.from({ length: 26 * 26 }, (_, i) => {
      const word = String.fromCharCode(97 + (i % 26), 97 + Math.floor(i / 26))
      return file(`${word}-requirements.txt`)
    })
    const files = [file('requirements.txt'), file('requirements/test.txt'), file('dev-requirements.txt'), ...like]
    expect(manifestPaths(files, {})).toEqual(['requirements.txt', 'requirements/test.txt', 'dev-requirements.txt'])
  })

  test('never throws and always answers the same, whatever the files hold', () => {
    const name = fc.constantFrom(
      'package.json',
      'pyproject.toml',
      'Cargo.toml',
      'go.mod',
      'Makefile',
      'a.py',
      'run',
      'x/y.ts',
    )
    fc.assert(
      fc.property(fc.dictionary(name, fc.oneof(fc.string(), fc.json())), (files) => {
        const contents = new Map(Object.entries(files))
        expect(detect([...contents.keys()], contents)).toEqual(detect([...contents.keys()], contents))
      }),
    )
  })
})

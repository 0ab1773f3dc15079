import { describe, expect, test } from 'vitest'
import { digestOf } from '../../src/digest.ts'
import { targetState } from '../../src/plan/available.ts'
import { containerBody } from '../../src/plan/container.ts'
import { guideOf } from '../../src/plan/guide.ts'
import { describeTarget, resolve } from '../../src/plan/resolve.ts'
import { seccompDigest } from '../../src/plan/seccomp.ts'
import { environmentText } from '../../src/plan/value.ts'
import type { Availability } from '../../src/plan/available.ts'
import type { Plan } from '../../src/plan/plan.ts'
import { agent, image, here, catalog, load, planOf, stepsOf, missingOf, mirrored } from './containers.ts'
import { taskOf } from './task.ts'

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

  test('may download large archives from package mirrors, and ask them often, unless the catalog says otherwise', () => {
    const services =
      'pypi: { url: "https://a.example", about: y }, npm: { url: "https://b.example", about: y, download_mb: 64 }, api: { url: "https://c.example", about: y }'
    const of = (rest: string) => {
      const target = load(
        `targets:\n  t: { about: x, executor: docker, image: a, intents: [run_script], services: { ${services} }${rest} }\n`,
      ).targets.get('t')
      return [target?.services.map((one) => one.download_mb), target?.limits.egress_requests]
    }
    expect(of('')).toEqual([[undefined, 64, undefined], 100])
    expect(of(', packages: { pip: pypi/simple, npm: npm }')).toEqual([[256, 64, undefined], 2000])
    expect(of(', packages: { pip: pypi }, limits: { egress_requests: 7 }')).toEqual([[256, 64, undefined], 7])
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
      lacks: 'engine',
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
      // It would do, were it there.
      expect(said).not.toContain('No target of this Writ would do')
      expect(describeTarget(catalog, ref, able, 'maybe')?.available).toBe(false)
    }
  })

  test('has a guide of at most 420 characters that says what is there', () => {
    for (const target of catalog.targets.values()) expect(guideOf(target).length).toBeLessThanOrEqual(420)
    expect(guideOf([...catalog.targets.values()][0]!)).toContain('No network')
    const guide = describeTarget(catalog, 'mirrored', here, 'maybe')?.guide ?? ''
    for (const word of ['$WRIT_OUT', 'node, python3, sh, go', 'pip, npm, go install from a mirror', 'placeholder'])
      expect(guide).toContain(word)
    expect(JSON.stringify(describeTarget(catalog, 'mirrored', here, 'maybe'))).not.toMatch(
      /mirror\.example|writ\/python|runsc/,
    )
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
    const task = taskOf({ 'a.py': '' }, { target_ref: 'python' })
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

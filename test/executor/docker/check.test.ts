import { describe, expect, test } from 'vitest'
import type { DockerSettings } from '../../../src/execution/engine.ts'
import { findingsOf, unreachable } from '../../../src/executor/docker/check.ts'
import type { EngineInfo, EngineVersion } from '../../../src/executor/docker/client.ts'

const settings: DockerSettings = { host: 'unix:///run/docker.sock', tls: null, warm: 1, strict: false }
const version = (engine: string, runc: string | null = '1.3.3'): EngineVersion => ({
  Version: engine,
  Components: runc === null ? [] : [{ Name: 'runc', Version: runc }],
})
const info: EngineInfo = {
  KernelVersion: '6.12.0',
  OSType: 'linux',
  MemoryLimit: true,
  SwapLimit: true,
  PidsLimit: true,
  CpuCfsQuota: true,
  DefaultRuntime: 'runc',
  Runtimes: { runc: {}, runsc: {}, 'io.containerd.runc.v2': {} },
  SecurityOptions: ['name=seccomp,profile=builtin', 'name=rootless'],
}
const levels = (of: DockerSettings, engine: EngineVersion, about: EngineInfo): readonly string[] =>
  findingsOf(of, engine, about).map(({ level, what }) => `${level}: ${what}`)

describe('an engine', () => {
  test('with all that is needed is named with its runtimes, and nothing is said against it', () => {
    expect(levels(settings, version('28.5.1'), info)).toEqual([
      'ok: containers run in Docker Engine 28.5.1, with runc, runsc',
    ])
  })

  test.each([
    ['25.0.4', true],
    ['25.0.5', false],
    ['25.0.10', false],
    ['25.1.0', false],
    ['20.10.24+dfsg1', true],
    ['26.0.0-rc3', false],
    ['9.99.99', true],
    ['of no known version', true],
    ['', true],
  ])('of version "%s" is warned of: %s', (engine, warned) => {
    expect(levels(settings, version(engine), info).some((one) => one.startsWith('warning: Docker Engine'))).toBe(warned)
  })

  test.each([
    ['1.1.5+ds1-1+deb12u1', true],
    ['1.2.7', true],
    ['1.2.8', false],
    ['1.2.10', false],
    ['1.3.2', true],
    ['1.3.3', false],
    ['1.4.0-rc.2', true],
    ['1.4.0-rc.3', false],
    ['1.4.0-beta.1', true],
    ['1.4.0', false],
    ['v1.4.0', false],
    ['1.4.1', false],
    ['1.5.0-rc.1', false],
    ['2.0.0', false],
    ['0.9.9', true],
    ['1.2.8x', false],
    ['', true],
    [null, true],
  ])('with runc "%s" is warned of: %s', (runc, warned) => {
    expect(levels(settings, version('28.0.0', runc), info).some((one) => one.startsWith('warning: runc'))).toBe(warned)
  })

  test.each([
    ['1.8.1', true],
    ['1.19', true],
    ['1.20', false],
    ['1.20.1', false],
    ['1.25', false],
    ['2.0', false],
    ['0.99', true],
    ['', true],
    [null, true],
  ])(
    'whose default runtime is crun "%s" is warned of: %s, and not of the runc it lists all the same',
    (crun, warned) => {
      const told = { Version: '28.0.0', Components: crun === null ? [] : [{ Name: 'crun', Version: crun }] }
      const warnings = levels(settings, told, {
        ...info,
        DefaultRuntime: 'crun',
        Runtimes: { runc: {}, crun: {} },
      }).filter((one) => one.startsWith('warning'))
      expect(warnings.map((one) => one.split(' ')[1])).toEqual(warned ? ['crun'] : [])
    },
  )

  test('whose default runtime is none of these is not warned of one that it does not use', () => {
    expect(levels(settings, version('28.0.0', null), { ...info, DefaultRuntime: 'runsc' })).toHaveLength(1)
  })

  test('whose root is root of the machine is warned of; where settings are strict, each of these is a problem', () => {
    const bare = { ...info, SecurityOptions: ['name=seccomp,profile=builtin'] }
    expect(levels(settings, version('28.0.0'), bare)).toContain(
      'warning: root in a container of this engine is root of the machine',
    )
    const strict = levels({ ...settings, strict: true }, version('20.10.24', '1.1.5'), bare)
    expect(strict.filter((one) => one.startsWith('problem: '))).toHaveLength(3)
    expect(strict.filter((one) => one.startsWith('warning: '))).toEqual([])
  })

  test.each(['MemoryLimit', 'SwapLimit', 'PidsLimit', 'CpuCfsQuota'] as const)(
    'that cannot hold %s, or does not say so, is a problem',
    (limit) => {
      for (const value of [false, null, undefined])
        expect(
          levels(settings, version('28.0.0'), { ...info, [limit]: value }).filter((one) => one.startsWith('problem')),
        ).toHaveLength(1)
    },
  )

  test('without a filter of system calls, or not on Linux, is a problem', () => {
    expect(
      levels(settings, version('28.0.0'), { ...info, SecurityOptions: ['name=rootless', 'name=seccompx'] }),
    ).toContain('problem: the container engine has no filter of system calls')
    expect(
      levels(settings, version('28.0.0'), { ...info, OSType: 'windows' }).some((one) => one.startsWith('problem')),
    ).toBe(true)
  })

  test('says what to do with each finding', () => {
    const bad = { ...info, SecurityOptions: [], MemoryLimit: false }
    const findings = findingsOf(settings, version('1.0.0', '1.0.0'), bad)
    expect(findings.filter(({ level, fix }) => level !== 'ok' && (fix ?? '') === '')).toEqual([])
    for (const host of ['unix:///x', 'tcp://h:1', 'ssh://u@h'])
      expect(unreachable({ ...settings, host }).fix).not.toBe('')
  })
})

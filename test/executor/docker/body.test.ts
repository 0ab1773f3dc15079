import * as fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { digestOf } from '../../../src/digest.ts'
import type { Json, JsonObject } from '../../../src/digest.ts'
import { createBody, plannedContainer } from '../../../src/executor/docker/body.ts'
import { containerBody } from '../../../src/plan/container.ts'
import type { Limits, Plan, PlanImage } from '../../../src/plan/plan.ts'
import { seccompDigest, seccompText } from '../../../src/plan/seccomp.ts'
import { prepare } from '../fixture.ts'

const image: PlanImage = {
  name: 'writ/python',
  id: `sha256:${'a'.repeat(64)}`,
  store: 'graphdriver',
  digest: null,
  arch: 'amd64',
  agent: digestOf('agent'),
}
const container = { oci_runtime: 'runsc', cpus_m: 1000 }
const limits: Limits = { wall_s: 60, cpu_s: 30, memory_mb: 256, output_kb: 256, artifact_kb: 4096, egress_requests: 10 }

function planOf(create: Json, rest: Partial<Plan> = {}, engine: JsonObject = {}): Plan {
  const { job } = prepare({ files: {}, argv: [['true']], limits }, 'docker')
  return {
    ...job.plan,
    image,
    engine: { create, agent: image.agent, protocol: 'writ-frame/1', container, ...engine },
    ...rest,
  }
}
const body = containerBody({ image, limits, container, seccomp: seccompDigest })
const host = body['HostConfig'] as JsonObject
const withHost = (members: JsonObject): JsonObject => ({ ...body, HostConfig: { ...host, ...members } })

describe('the run host makes the body of a plan once more, and', () => {
  test('takes the one that it would make itself', () => {
    expect(plannedContainer(planOf(body)).body).toEqual(body)
  })

  const weaker: Readonly<Record<string, JsonObject>> = {
    Privileged: withHost({ Privileged: true }),
    Binds: withHost({ Binds: ['/:/host'] }),
    Mounts: withHost({ Mounts: [{ Type: 'bind', Source: '/', Target: '/host' }] }),
    CapAdd: withHost({ CapAdd: ['SYS_ADMIN'] }),
    'CapDrop without all': withHost({ CapDrop: [] }),
    'PidMode host': withHost({ PidMode: 'host' }),
    'IpcMode host': withHost({ IpcMode: 'host' }),
    'UTSMode host': withHost({ UTSMode: 'host' }),
    'UsernsMode host': withHost({ UsernsMode: 'host' }),
    'CgroupnsMode host': withHost({ CgroupnsMode: 'host' }),
    'NetworkMode of another container': withHost({ NetworkMode: 'container:x' }),
    'NetworkMode host': withHost({ NetworkMode: 'host' }),
    'MaskedPaths empty': withHost({ MaskedPaths: [] }),
    'ReadonlyPaths empty': withHost({ ReadonlyPaths: [] }),
    Devices: withHost({ Devices: [{ PathOnHost: '/dev/mem', PathInContainer: '/dev/mem', CgroupPermissions: 'rwm' }] }),
    Sysctls: withHost({ Sysctls: { 'kernel.shm_rmid_forced': '0' } }),
    VolumesFrom: withHost({ VolumesFrom: ['other'] }),
    'no filter': withHost({ SecurityOpt: ['no-new-privileges:true', 'seccomp=unconfined'] }),
    'a filter by path': withHost({ SecurityOpt: ['no-new-privileges:true', 'seccomp=/profile.json'] }),
    'the filter itself instead of its name': withHost({
      SecurityOpt: ['no-new-privileges:true', `seccomp=${seccompText}`],
    }),
    'new privileges': withHost({ SecurityOpt: [`seccomp=${seccompDigest}`] }),
    'an option misspelt': withHost({ SecurityOpt: ['no-new-privilege:true', `seccomp=${seccompDigest}`] }),
    'more memory': withHost({ Memory: 2 ** 40, MemorySwap: 2 ** 40 }),
    'no limit of swap': withHost({ MemorySwap: -1 }),
    'more processes': withHost({ PidsLimit: 257 }),
    'no limit of processes': withHost({ PidsLimit: 0 }),
    'another runtime': withHost({ Runtime: 'runc' }),
    'programs in /tmp': withHost({ Tmpfs: { ...(host['Tmpfs'] as JsonObject), '/tmp': 'rw,exec,size=8m' } }),
    'one folder more': withHost({ Tmpfs: { ...(host['Tmpfs'] as JsonObject), '/more': 'rw' } }),
    'a log on the machine': withHost({ LogConfig: { Type: 'json-file', Config: {} } }),
    'another user': { ...body, User: '0:0' },
    'another image': { ...body, Image: `sha256:${'b'.repeat(64)}` },
    'another program': { ...body, Entrypoint: ['/bin/sh'] },
    'an argument': { ...body, Cmd: ['x'] },
    'an environment': { ...body, Env: ['TOKEN=x'] },
    'a label': { ...body, Labels: { x: 'y' } },
    'a member nobody knows': { ...body, Unknown: true },
  }
  test.each(Object.entries(weaker))('refuses %s, whoever sent it [G-container-body]', (what, create) => {
    // A lower amount of memory in the run's own limits makes none of it better.
    const lower = { ...limits, memory_mb: 64 }
    if (what !== 'more memory')
      expect(() => plannedContainer(planOf(create, { limits: lower }))).toThrow('does not create')
    if (what === 'more memory') expect(plannedContainer(planOf(create)).body).toEqual(body)
    else expect(() => plannedContainer(planOf(create))).toThrow('does not create')
  })

  test('runs with the limits of the run where they are lower than those of the plan, and never with higher ones [G-container-body]', () => {
    fc.assert(
      fc.property(fc.integer({ min: 16, max: 4096 }), fc.integer({ min: 1, max: 65_536 }), (memory_mb, artifact_kb) => {
        const run = { ...limits, memory_mb, artifact_kb }
        const own = containerBody({ image, limits: run, container, seccomp: seccompDigest })
        const isLower = memory_mb <= limits.memory_mb && artifact_kb <= limits.artifact_kb
        if (isLower) expect(plannedContainer(planOf(body, { limits: run })).body).toEqual(own)
        else if (JSON.stringify(own) !== JSON.stringify(body))
          expect(() => plannedContainer(planOf(body, { limits: run }))).toThrow('does not create')
      }),
    )
  })

  test('refuses a body in which anything at any place is another [G-container-body]', () => {
    const places = paths(body)
    fc.assert(
      fc.property(
        fc.constantFrom(...places),
        fc.constantFrom<Json>(null, true, 0, 'x', [], ['x'], {}, { x: 1 }),
        (path, value) => {
          const changed = put(body, path, value)
          if (JSON.stringify(changed) === JSON.stringify(body)) return
          expect(() => plannedContainer(planOf(changed))).toThrow('does not create')
        },
      ),
    )
  })

  test.each([
    ['no image', { image: null }, {}],
    ["an agent that is not the image's", {}, { agent: digestOf('other') }],
    ['another protocol', {}, { protocol: 'writ-frame/2' }],
    ['settings that are none', {}, { container: null }],
    ['a setting more', {}, { container: { ...container, more: 1 } }],
    ['no processors', {}, { container: { ...container, cpus_m: 0 } }],
  ] as const)('refuses %s', (_what, rest, engine) => {
    expect(() => plannedContainer(planOf(body, rest, engine))).toThrow('does not create')
  })

  test('tells the engine the filter itself and whose container it is, and nothing else that the plan does not say', () => {
    const made = createBody(plannedContainer(planOf(body)), 'owner1')
    expect(made).toEqual({
      ...body,
      Labels: { 'dev.writ.owner': 'owner1' },
      HostConfig: { ...host, SecurityOpt: ['no-new-privileges:true', `seccomp=${seccompText}`] },
    })
  })
})

/** Every place of a value, as the names that lead there. */
function paths(value: Json, at: readonly string[] = []): readonly (readonly string[])[] {
  if (typeof value !== 'object' || value === null) return [at]
  return [
    ...(at.length === 0 ? [] : [at]),
    ...Object.entries(value).flatMap(([name, one]) => paths(one, [...at, name])),
  ]
}

function put(value: Json, path: readonly string[], by: Json): Json {
  const [name, ...rest] = path
  if (name === undefined) return by
  if (Array.isArray(value)) return value.map((one: Json, at) => (String(at) === name ? put(one, rest, by) : one))
  return { ...(value as JsonObject), [name]: put((value as JsonObject)[name] ?? null, rest, by) }
}

import { readFileSync } from 'node:fs'
import { pack } from 'tar-stream'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { TestContext } from 'vitest'
import type { JsonObject } from '../../../src/digest.ts'
import { agentFor } from '../../../src/executor/docker/binary.ts'
import { createBody, plannedContainer } from '../../../src/executor/docker/body.ts'
import { EngineError, openClient } from '../../../src/executor/docker/client.ts'
import type { EngineClient, EngineContainer } from '../../../src/executor/docker/client.ts'
import { difference } from '../../../src/executor/docker/created.ts'
import { containerUser } from '../../../src/plan/container.ts'
import { listen, prepare } from '../fixture.ts'
import { contained, env, newOwner, place } from './place.ts'
import type { Place } from './place.ts'

/*
 * What an engine of the day, which strict settings take, makes of the body that Writ asks for: what it tells of it, and
 * what is so of the processes inside. Its API is fifteen versions past that of the other test engine.
 */

let at: Place | { readonly lacking: string }
let client: EngineClient | null = null
const owner = newOwner()

beforeAll(async () => {
  at = await place({ newer: true })
  if ('lacking' in at) return
  client = await openClient({ host: at.engine.host, tls: null, warm: 0, strict: true }, env)
})

afterAll(async () => {
  if ('lacking' in at) return
  for (const id of await at.containers(owner)) await client?.remove(id)
  client?.close()
})

function real(ctx: TestContext): Place {
  return 'lacking' in at ? ctx.skip(at.lacking) : at
}

function bodyOf(here: Place): JsonObject {
  const { job } = contained(prepare({ files: {}, argv: [['true']] }, 'docker'), here.image)
  return createBody(plannedContainer(job.plan), owner)
}

async function made(body: JsonObject): Promise<EngineContainer> {
  if (client === null) throw new Error('there is no client')
  const id = await client.create(`writ-${owner}-${Math.random().toString(36).slice(2)}`, body)
  try {
    return await client.inspect(id)
  } finally {
    await client.remove(id)
  }
}

const isNothing = (value: unknown): boolean =>
  value === null || value === '' || value === 0 || value === false || (Array.isArray(value) && value.length === 0)

describe('an engine that strict settings take', () => {
  test('makes exactly the container that it is asked for, and tells nothing of its own but harmless defaults [G-container-as-planned]', async (ctx) => {
    const here = real(ctx)
    const body = bodyOf(here)
    const container = await made(body)
    expect(difference(body, container)).toBeNull()
    const asked = body['HostConfig'] as JsonObject
    const own = Object.entries(container.HostConfig).filter(
      ([name, value]) => !Object.hasOwn(asked, name) && !isNothing(value),
    )
    expect(Object.fromEntries(own)).toEqual({
      ConsoleSize: [0, 0],
      MaskedPaths: expect.arrayContaining([
        '/proc/acpi',
        '/proc/asound',
        '/proc/interrupts',
        '/proc/kcore',
        '/proc/keys',
        '/proc/latency_stats',
        '/proc/sched_debug',
        '/proc/scsi',
        '/proc/timer_list',
        '/proc/timer_stats',
        '/sys/devices/virtual/powercap',
        '/sys/firmware',
      ]) as unknown,
      PortBindings: {},
      ReadonlyPaths: ['/proc/bus', '/proc/fs', '/proc/irq', '/proc/sys', '/proc/sysrq-trigger'],
      Runtime: 'runc',
      ShmSize: 67_108_864,
    })
  })

  type Weaken = (host: Record<string, unknown>) => void
  const device = { PathOnHost: '/dev/zero', PathInContainer: '/dev/x', CgroupPermissions: 'rwm' }
  /** By what it is found out; some of it the engine itself refuses where root of a container is nobody on the machine. */
  const weaker: readonly (readonly [string, Weaken])[] = [
    ['refused', (host) => (host['Privileged'] = true)],
    ['refused', (host) => (host['PidMode'] = 'host')],
    ['Mounts', (host) => (host['Binds'] = ['/:/host'])],
    ['HostConfig.CapAdd', (host) => (host['CapAdd'] = ['NET_ADMIN'])],
    ['HostConfig.CapDrop', (host) => (host['CapDrop'] = [])],
    ['HostConfig.IpcMode', (host) => (host['IpcMode'] = 'shareable')],
    ['HostConfig.UsernsMode', (host) => (host['UsernsMode'] = 'host')],
    ['HostConfig.MaskedPaths', (host) => (host['MaskedPaths'] = [])],
    ['HostConfig.SecurityOpt', (host) => (host['SecurityOpt'] = ['no-new-privileges:true', 'seccomp=unconfined'])],
    ['HostConfig.Devices', (host) => (host['Devices'] = [device])],
    ['HostConfig.PidsLimit', (host) => (host['PidsLimit'] = 4096)],
  ]
  test('is found out where it makes a weaker one [G-container-as-planned]', async (ctx) => {
    const here = real(ctx)
    const asked = bodyOf(here)
    for (const [by, weaken] of weaker) {
      const changed = structuredClone(asked) as { HostConfig: Record<string, unknown> }
      weaken(changed.HostConfig)
      const found = await made(changed as unknown as JsonObject).then(
        (container) => difference(asked, container),
        (error: unknown) => (error instanceof EngineError ? error.kind : error),
      )
      expect([found, String(weaken)]).toEqual([by, String(weaken)])
    }
  })

  test('has only images whose agent its own root alone can change, by the numbers that the machine gives their users [G-image-agent]', async (ctx) => {
    const here = real(ctx)
    const executor = here.open({ owner })
    const names = []
    for (const [label, uid, mode] of [
      ['right', 0, 0o555],
      ['owned', containerUser, 0o555],
      ['writable', 0, 0o777],
    ] as const)
      names.push(await imported(here, label, { name: 'writ-agent', uid, mode }))
    try {
      expect([...(await executor.facts(names)).images.keys()]).toEqual([names[0]])
    } finally {
      await executor.close()
      for (const name of names) await here.docker.getImage(name).remove({ force: true })
    }
  })

  test('runs it as a user that is nobody on the machine, without capabilities, new privileges or unfiltered calls', async (ctx) => {
    const here = real(ctx)
    const executor = here.open({ owner, set: { strict: true } })
    const look =
      'cat /proc/self/uid_map; grep -E "^(Uid|CapEff|CapBnd|NoNewPrivs|Seccomp):" /proc/self/status; sleep 60'
    const prepared = contained(prepare({ files: {}, argv: [['sh', '-c', look]] }, 'docker'), here.image)
    const seen = listen(prepared)
    const running = executor.run(prepared.job, seen.io)
    await expect.poll(() => seen.text().trim().split('\n').length).toBe(6)
    const [id = ''] = await here.containers(owner)
    const { State } = await here.docker.getContainer(id).inspect()
    const [, first = ''] = /^Uid:\s+(\d+)/m.exec(readFileSync(`/proc/${State.Pid}/status`, 'utf8')) ?? []
    seen.stop.abort('cancel')
    await running
    await executor.close()
    const lines = seen.text().trim().split('\n')
    expect(lines.map((line) => line.trim().split(/\s+/).join(' '))).toEqual([
      '0 231072 65536',
      `Uid: ${Array(4).fill(containerUser).join(' ')}`,
      'CapEff: 0000000000000000',
      'CapBnd: 0000000000000000',
      'NoNewPrivs: 1',
      'Seccomp: 2',
    ])
    expect(Number(first)).toBe(231_072 + containerUser)
  })
})

/** An image of the agent alone, owned and open as the header says. */
async function imported(
  here: Place,
  tag: string,
  header: { name: string; uid: number; mode: number },
): Promise<string> {
  const archive = pack()
  archive.entry(header, agentFor('amd64').bytes)
  archive.finalize()
  const repo = `writ-test-strict-${process.pid}`
  const options = { repo, tag, platform: 'linux/amd64' } as Record<string, unknown>
  const said = await here.docker.importImage(archive as unknown as NodeJS.ReadableStream, options)
  for await (const _chunk of said as unknown as AsyncIterable<Buffer>);
  return `${repo}:${tag}`
}

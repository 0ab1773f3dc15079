import { randomBytes } from 'node:crypto'
import type { Duplex } from 'node:stream'
import Docker from 'dockerode'
import type { JsonObject } from '../../../src/digest.ts'
import { agentFor } from '../../../src/executor/docker/binary.ts'
import { createBody } from '../../../src/executor/docker/body.ts'
import { openImages } from '../../../src/executor/docker/builds.ts'
import { splitStreams } from '../../../src/executor/docker/streams.ts'
import { containerBody } from '../../../src/plan/container.ts'
import { defaultLimits } from '../../../src/plan/limits.ts'
import type { PlanImage } from '../../../src/plan/plan.ts'
import { seccompDigest } from '../../../src/plan/seccomp.ts'
import type { Engine } from '../../servers/engine.ts'
import { architecture, converse } from './agent.ts'
import type { Agent } from './agent.ts'

/** The agent over a base of the test engine's; remove it when done. */
export async function agentImage(engine: Engine, base: string): Promise<PlanImage & { remove(): Promise<void> }> {
  const name = `writ-test-agent-${randomBytes(6).toString('hex')}:latest`
  const desk = await openImages({ host: engine.host, tls: null, warm: 0, strict: false }, {})
  await desk.build(
    {
      dockerfile: Buffer.from(`FROM ${base}\nCOPY writ-agent /writ-agent\n`),
      tag: name,
      base: null,
      network: null,
    },
    () => undefined,
  )
  desk.close()
  const docker = reach(engine)
  const { Id: id } = await docker.getImage(name).inspect()
  return {
    name,
    id,
    store: 'graphdriver',
    digest: null,
    arch: architecture,
    agent: agentFor(architecture).digest,
    remove: async () => void (await docker.getImage(name).remove({ force: true })),
  }
}

function reach(engine: Engine): Docker {
  return new Docker({ socketPath: engine.host.replace('unix://', '') })
}

export interface Attached {
  /** What goes to the agent is written here; what comes of it goes to `take`. */
  readonly stream: Duplex
  readonly ended: Promise<{ readonly code: number | null }>
  start(take: (bytes: Buffer) => void): Promise<void>
  pid(): Promise<number>
  remove(): Promise<void>
}

/** A container as Writ creates them, of that image and under that runtime, attached and not started; `binds` beside that. */
export async function containerOf(
  engine: Engine,
  image: PlanImage,
  runtime: string | null,
  binds: readonly string[] = [],
): Promise<Attached> {
  const settings = { oci_runtime: runtime, cpus_m: 1000 }
  const limits = { ...defaultLimits, memory_mb: 256 }
  const body = containerBody({ image, limits, container: settings, seccomp: seccompDigest })
  const created = createBody({ image, container: settings, body, key: '' }, `test${randomBytes(4).toString('hex')}`)
  const host = created['HostConfig'] as JsonObject
  const container = await reach(engine).createContainer({
    ...created,
    HostConfig: { ...host, ...(binds.length === 0 ? {} : { Binds: [...binds] }) },
    name: `writ-test-${randomBytes(6).toString('hex')}`,
  })
  const stream: Duplex = Object.assign(
    await container.attach({ stream: true, stdin: true, stdout: true, stderr: true, hijack: true }),
  ) as Duplex
  const ended = container
    .wait({ condition: 'next-exit' })
    .then(({ StatusCode }: { StatusCode: number }) => ({ code: StatusCode }))
  return {
    stream,
    ended,
    async start(take) {
      stream.on(
        'data',
        splitStreams((name, bytes) => {
          if (name === 'stdout') take(bytes)
        }),
      )
      await container.start()
    },
    pid: async () => (await container.inspect()).State.Pid,
    async remove() {
      stream.destroy()
      await container.remove({ force: true, v: true })
    },
  }
}

/** An agent in a container of its own; says `ready` before it resolves. */
export async function agentInContainer(engine: Engine, image: PlanImage, runtime: string | null): Promise<Agent> {
  const container = await containerOf(engine, image, runtime)
  const talk = converse(container.stream, container.ended)
  try {
    await container.start(talk.take)
    await talk.next('ready')
  } catch (error) {
    await container.remove()
    throw error
  }
  return Object.assign(talk, {
    ended: container.ended,
    pid: await container.pid(),
    others: () => [],
    memory: () => 0,
    stop: async () => await container.remove(),
  })
}

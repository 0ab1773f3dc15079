import Docker from 'dockerode'
import { pack } from 'tar-stream'
import type { JsonObject } from '../../../src/digest.ts'
import { agentFor } from '../../../src/executor/docker/binary.ts'
import { createDockerExecutor } from '../../../src/executor/docker/docker.ts'
import type { DockerExecutor, DockerOptions } from '../../../src/executor/docker/docker.ts'
import type { DockerSettings } from '../../../src/execution/engine.ts'
import { containerBody } from '../../../src/plan/container.ts'
import type { ContainerSettings } from '../../../src/plan/container.ts'
import type { PlanImage } from '../../../src/plan/plan.ts'
import { seccompDigest } from '../../../src/plan/seccomp.ts'
import { engine, newerEngine } from '../../servers/engine.ts'
import type { Engine, Lacking } from '../../servers/engine.ts'
import type { Prepared } from '../fixture.ts'

/** A real engine with a small image of python and the agent, made once and kept: it is named by the agent. */
export interface Place {
  readonly engine: Engine
  readonly docker: Docker
  readonly image: PlanImage
  open(options?: Partial<DockerOptions> & { readonly set?: Partial<DockerSettings> }): DockerExecutor
  /** Ids of an owner's containers, running or not. */
  containers(owner: string): Promise<readonly string[]>
}

export const env = { PATH: '/usr/bin:/bin', HOME: '/', LANG: 'C.UTF-8' }

export async function place(
  needs: { readonly runsc?: boolean; readonly newer?: boolean } = {},
): Promise<Place | Lacking> {
  const found = needs.newer === true ? await newerEngine() : await engine({ runsc: needs.runsc === true })
  if ('lacking' in found) return found
  const docker = new Docker({ socketPath: found.host.slice('unix://'.length) })
  const agent = agentFor('amd64')
  // The newer engine builds nothing: it has Writ's own image of Python.
  const name =
    needs.newer === true
      ? 'writ/python:latest'
      : `writ-test-executor:${agent.digest.slice('sha256:'.length, 'sha256:'.length + 16)}`
  if (needs.newer !== true && !found.images.has(name)) await build(docker, name, agent.bytes)
  const { Id } = await docker.getImage(name).inspect()
  return {
    engine: found,
    docker,
    image: { name, id: Id, store: 'graphdriver', digest: null, arch: 'amd64', agent: agent.digest },
    open: ({ set, ...options } = {}) =>
      createDockerExecutor({
        settings: { host: found.host, tls: null, warm: 0, strict: false, ...set },
        env,
        owner: newOwner(),
        ...options,
      }),
    async containers(owner) {
      const filters = { label: [`dev.writ.owner=${owner}`] }
      return (await docker.listContainers({ all: true, filters })).map(({ Id }) => Id)
    },
  }
}

let owners = 0
export function newOwner(): string {
  return `test${process.pid}n${owners++}`
}

/** The plan with what its container would be made of, as the broker plans it. */
export function contained(
  prepared: Prepared,
  image: PlanImage,
  container: ContainerSettings = { oci_runtime: null, cpus_m: 1000 },
  change: (create: JsonObject) => JsonObject = (create) => create,
): Prepared {
  const { plan } = prepared.job
  const create = containerBody({ image, limits: plan.limits, container, seccomp: seccompDigest })
  const engine = { ...plan.engine, create: change(create), agent: image.agent, protocol: 'writ-frame/1' }
  return {
    ...prepared,
    job: { ...prepared.job, plan: { ...plan, image, engine: { ...engine, container: { ...container } } } },
  }
}

async function build(docker: Docker, name: string, agent: Buffer): Promise<void> {
  const context = pack()
  context.entry(
    { name: 'Dockerfile' },
    [
      'FROM base:bookworm',
      'RUN apt-get update && apt-get install -y --no-install-recommends python3 && rm -rf /var/lib/apt/lists/*',
      'COPY writ-agent /writ-agent',
      '',
    ].join('\n'),
  )
  context.entry({ name: 'writ-agent', mode: 0o555 }, agent)
  context.finalize()
  const stream = await docker.buildImage(context as unknown as NodeJS.ReadableStream, { t: name, networkmode: 'host' })
  await new Promise<void>((resolve, reject) => {
    docker.modem.followProgress(stream, (error: Error | null, lines: readonly { readonly error?: string }[]) => {
      const problem = lines.find((line) => line.error !== undefined)?.error
      if (error !== null || problem !== undefined) reject(error ?? new Error(problem))
      else resolve()
    })
  })
}

import { setTimeout as pause } from 'node:timers/promises'
import { startRunHost } from '../../../src/execution/host.ts'
import type { RunEnd, RunHost } from '../../../src/execution/job.ts'
import { digestJson } from '../../../src/digest.ts'
import { containerBody, isolationOf } from '../../../src/plan/container.ts'
import type { Limits, PlanImage } from '../../../src/plan/plan.ts'
import { seccompDigest } from '../../../src/plan/seccomp.ts'
import type { PolicyInput } from '../../../src/policy/policy.ts'
import { prepare } from '../../executor/fixture.ts'
import type { Engine } from '../../servers/engine.ts'

/** A real run host over a real engine, and what it leaves there. */
export interface Place {
  readonly image: PlanImage
  run(project: Run): Promise<Ran>
  /** Containers of this place that run, by what the engine says. */
  running(): Promise<readonly string[]>
  /** Those that are there five seconds later, in whatever state. */
  left(): Promise<readonly string[]>
  readonly host: RunHost
  close(): Promise<void>
}

export interface Run {
  readonly files: Readonly<Record<string, string | Uint8Array>>
  readonly argv: readonly (readonly string[])[]
  readonly limits?: Partial<Limits>
  /** Called with each piece of output and a way to end the run. */
  readonly watch?: (text: string, cancel: () => void) => void
  /** Changes the plan after it was made, as a broker that was taken over would. */
  readonly tamper?: (plan: Record<string, unknown>) => void
}

export interface Ran {
  readonly execution: string
  readonly end: RunEnd
  readonly stdout: string
  readonly stderr: string
  /** Bytes of output that arrived, of both streams. */
  readonly size: number
  readonly files: ReadonlyMap<string, Buffer>
  readonly ms: number
}

export const noLimits: Limits = {
  wall_s: 60,
  cpu_s: 30,
  memory_mb: 128,
  output_kb: 1024,
  artifact_kb: 1024,
  egress_requests: 0,
}
const generation = { number: 1, digest: digestJson([]), packs: [] }
const input = { schema: 'writ.input/v1', phase: 'egress' } as unknown as PolicyInput
const environment = [
  ['HOME', '/work/home'],
  ['TMPDIR', '/work/tmp'],
].map(([name = '', value = '']) => ({ name, about: '', value: { kind: 'literal' as const, value } }))

/** Opens a run host with an owner of its own; `image` has to be one that can be run there. */
export async function openPlace(engine: Engine, runtime: string | null, image: string, owner: string): Promise<Place> {
  const host = startRunHost({ docker: { host: engine.host, tls: null, warm: 0, strict: false }, owner, poolSize: 0 })
  const checked = (await host.check([image])).find((one) => one.executor === 'docker')
  const found = checked?.facts?.images.get(image)
  if (found === undefined) {
    await host.close()
    throw new Error(`the run host does not take ${image}: ${JSON.stringify(checked?.findings)}`)
  }
  const container = { oci_runtime: runtime, cpus_m: 1000 }
  const containers = async (all: boolean): Promise<readonly string[]> => {
    const filters = encodeURIComponent(JSON.stringify({ label: [`dev.writ.owner=${owner}`] }))
    const list = await engine.ask('GET', `/containers/json?all=${String(all)}&filters=${filters}`)
    return (list as readonly { readonly Id: string }[]).map((one) => one.Id)
  }
  return {
    image: found,
    host,
    async run({ files, argv, limits: more, watch, tamper }) {
      const limits = { ...noLimits, ...more }
      const plan = {
        image: found,
        runtime: 'python',
        environment,
        statement: {
          isolation: isolationOf(runtime),
          egress: 'closed' as const,
          delivery: ['frames'],
          kill: 'confirmed' as const,
        },
        engine: {
          protocol: 'writ-frame/1',
          agent: found.agent,
          container,
          create: containerBody({ image: found, limits, container, seccomp: seccompDigest }),
        },
      }
      tamper?.(plan)
      const prepared = prepare({ files, argv, limits, plan }, 'docker')
      const { job } = prepared
      const parts: Record<'stdout' | 'stderr', Buffer[]> = { stdout: [], stderr: [] }
      const out = new Map<string, Buffer>()
      let size = 0
      const begun = performance.now()
      // The broker's own deadline.
      const late = setTimeout(() => host.cancel(job.execution), (limits.wall_s + 20) * 1000)
      const end = await host.run(
        { job, secrets: [], generation, egress_input: input },
        (digest) => {
          const bytes = prepared.bytes.get(digest)
          return bytes === undefined ? Promise.reject(new Error('none')) : Promise.resolve(bytes)
        },
        {
          started: () => undefined,
          output(_step, stream, bytes) {
            size += bytes.length
            if (size < 1 << 20) parts[stream].push(Buffer.from(bytes))
            watch?.(Buffer.from(bytes).toString('utf8'), () => host.cancel(job.execution))
          },
          file(path, bytes) {
            out.set(path, Buffer.from(bytes))
            return Promise.resolve()
          },
        },
      )
      clearTimeout(late)
      return {
        execution: job.execution,
        end,
        stdout: Buffer.concat(parts.stdout).toString('utf8'),
        stderr: Buffer.concat(parts.stderr).toString('utf8'),
        size,
        files: out,
        ms: performance.now() - begun,
      }
    },
    running: async () => await containers(false),
    async left() {
      for (const end = performance.now() + 5000; ; await pause(50)) {
        const left = await containers(true)
        if (left.length === 0 || performance.now() > end) return left
      }
    },
    close: async () => await host.close(),
  }
}

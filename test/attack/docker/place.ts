import { setTimeout as pause } from 'node:timers/promises'
import { startRunHost } from '../../../src/execution/host.ts'
import type { Outcome, RunEnd, RunHost } from '../../../src/execution/job.ts'
import { digestJson } from '../../../src/digest.ts'
import { containerBody, isolationOf } from '../../../src/plan/container.ts'
import type { Limits, PlanImage } from '../../../src/plan/plan.ts'
import { seccompDigest } from '../../../src/plan/seccomp.ts'
import { prepare } from '../../executor/fixture.ts'
import { input } from '../../policy/fixtures/input.ts'
import type { Engine } from '../../servers/engine.ts'
import type { Canary, Found } from './canary.ts'

/** A real run host over a real engine, and what it leaves there. */
export interface Place {
  readonly image: PlanImage
  /** With a canary, its step comes before those of the project, and is left out of what is told of them. */
  run(project: Run): Promise<Ran>
  /** Containers of this place that run, by what the engine says. */
  running(): Promise<readonly string[]>
  /** Those that are there still when they had time to go, in whatever state. */
  left(): Promise<readonly string[]>
  readonly host: RunHost
  close(): Promise<void>
}

export interface Run {
  readonly files: Readonly<Record<string, string | Uint8Array>>
  readonly argv: readonly (readonly string[])[]
  readonly limits?: Partial<Limits>
  /** Without the canary of the place, and so without any service. */
  readonly bare?: boolean
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
  /** What was seen of the canary; null in a place without one. */
  readonly canary: Found | null
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
const environment = [
  ['HOME', '/work/home'],
  ['TMPDIR', '/work/tmp'],
].map(([name = '', value = '']) => ({ name, about: '', value: { kind: 'literal' as const, value } }))

/** Opens a run host with an owner of its own; `image` has to be one that can be run there. */
export async function openPlace(
  engine: Engine,
  runtime: string | null,
  image: string,
  owner: string,
  { canary: ofPlace = null, strict = false }: { readonly canary?: Canary | null; readonly strict?: boolean } = {},
): Promise<Place> {
  const host = startRunHost({ docker: { host: engine.host, tls: null, warm: 0, strict }, owner, poolSize: 0 })
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
    async run({ files, argv, limits: more, bare, watch, tamper }) {
      const canary = bare === true ? null : ofPlace
      const limits = { ...noLimits, ...(canary === null ? {} : { egress_requests: 1 }), ...more }
      const plan = {
        image: found,
        runtime: 'python',
        ...canary?.plan,
        environment: [...environment, ...(canary?.environment ?? [])],
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
      const prepared = prepare(
        {
          files: { ...canary?.step.files, ...files },
          argv: canary === null ? argv : [canary.step.argv, ...argv],
          limits,
          plan,
          placeholders: canary?.placeholders ?? {},
        },
        'docker',
      )
      const { job } = prepared
      const parts: Record<'stdout' | 'stderr', Buffer[]> = { stdout: [], stderr: [] }
      const out = new Map<string, Buffer>()
      let size = 0
      const watching = canary === null ? null : canary.watch(host.pid ?? Number.NaN)
      let looking: Promise<unknown> = Promise.resolve()
      const begun = performance.now()
      // The broker's own deadline.
      const late = setTimeout(() => host.cancel(job.execution), (limits.wall_s + 20) * 1000)
      const end = await host.run(
        {
          job,
          secrets: canary?.secrets ?? [],
          generation: canary?.generation ?? generation,
          egress_input: input({ phase: 'egress' }),
        },
        (digest) => {
          const bytes = prepared.bytes.get(digest)
          return bytes === undefined ? Promise.reject(new Error('none')) : Promise.resolve(bytes)
        },
        {
          started(step) {
            if (watching === null || step !== argv.length) return
            looking = containers(false).then(async (ids) => await Promise.all(ids.map((id) => watching.look(id))))
          },
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
      const ms = performance.now() - begun
      await looking
      const stdout = Buffer.concat(parts.stdout)
      const stderr = Buffer.concat(parts.stderr)
      const names = [...out.keys()].join('\n')
      return {
        execution: job.execution,
        end: canary === null ? end : { ...end, outcome: withoutFirst(end.outcome) },
        stdout: stdout.toString('utf8'),
        stderr: stderr.toString('utf8'),
        size,
        files: out,
        ms,
        canary:
          watching?.end({
            stdout,
            stderr,
            'the end': JSON.stringify(end),
            'a name of a file': names,
            'a file': Buffer.concat([...out.values()]),
          }) ?? null,
      }
    },
    async running() {
      // The list may be behind: what a container is at this moment is told by itself.
      const asked = (await containers(true)).map(async (id) => {
        const { State } = (await engine.ask('GET', `/containers/${id}/json`)) as {
          readonly State: { readonly Running: boolean }
        }
        return State.Running ? [id] : []
      })
      return (await Promise.allSettled(asked)).flatMap((one) => (one.status === 'fulfilled' ? one.value : []))
    },
    async left() {
      for (const end = performance.now() + 15_000; ; await pause(50)) {
        const left = await containers(true)
        if (left.length === 0 || performance.now() > end) return left
      }
    },
    close: async () => await host.close(),
  }
}

function withoutFirst(outcome: Outcome): Outcome {
  return outcome.end === 'not_started' ? outcome : { ...outcome, steps: outcome.steps.slice(1) }
}

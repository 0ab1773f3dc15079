import { digestOf } from '../../src/digest.ts'
import type { Digest } from '../../src/digest.ts'
import type { EgressPort, RunIo } from '../../src/executor/executor.ts'
import type { Job } from '../../src/execution/job.ts'
import { newId } from '../../src/id.ts'
import type { Limits, Plan } from '../../src/plan/plan.ts'

/** A project to run: files by path, one argv per step, and what differs from a plan that allows nothing. */
export interface Project {
  readonly files: Readonly<Record<string, string | Uint8Array>>
  readonly argv: readonly (readonly string[])[]
  readonly plan?: Partial<Omit<Plan, 'limits'>>
  readonly limits?: Partial<Limits>
  readonly placeholders?: Readonly<Record<string, string>>
}

const limits: Limits = { wall_s: 20, cpu_s: 10, memory_mb: 64, output_kb: 256, artifact_kb: 1024, egress_requests: 10 }

export interface Prepared {
  readonly job: Job
  readonly bytes: ReadonlyMap<Digest, Uint8Array>
}

/** A whole plan around a project; the executor's name is filled in by the caller. */
export function prepare(project: Project, executor = 'isolate'): Prepared {
  const bytes = new Map<Digest, Uint8Array>()
  const files = Object.entries(project.files).map(([path, content]) => {
    const data = Buffer.from(content)
    bytes.set(digestOf(data), data)
    return { path, sha256: digestOf(data), size: data.length, executable: false }
  })
  const plan: Plan = {
    schema: 'writ.plan/v1',
    nonce: '00112233445566778899aabbccddeeff',
    tenant: 'default',
    task: {
      id: newId('task'),
      revision: 1,
      owner: 'ana',
      agent: 'test',
      project_name: 'p',
      goal: 'g',
      context: '',
      inputs: {},
    },
    target: { ref: 'sandbox', about: 'a sandbox', labels: {} },
    intent: 'run_script',
    code_origin: 'caller',
    executor,
    engine: {},
    image: null,
    runtime: 'javascript',
    environment: [],
    steps: project.argv.map((argv) => ({ title: argv.join(' '), argv, success: [0] })),
    stdin: null,
    files,
    services: [],
    hosts: [],
    credentials: [],
    statement: { isolation: 'process', egress: 'closed', delivery: [], kill: 'confirmed' },
    entries: [],
    ...project.plan,
    limits: { ...limits, ...project.limits },
  }
  return {
    job: { execution: newId('exec'), plan, plan_digest: digestOf('plan'), placeholders: project.placeholders ?? {} },
    bytes,
  }
}

export interface Seen {
  readonly io: RunIo
  readonly stop: AbortController
  readonly started: number[]
  readonly files: Map<string, Buffer>
  /** Milliseconds after the start at which the first byte of output came. */
  firstOutput(): number | null
  text(stream?: 'stdout' | 'stderr'): string
  readonly size: number
}

const refusing: EgressPort = {
  fetch: () => Promise.resolve({ status: 403, headers: [], body: Buffer.from('refused') }),
}

/** What an executor is given, and what came of it. Output beyond 64 KiB is counted only. */
export function listen(prepared: Prepared, egress: EgressPort = refusing): Seen {
  const stop = new AbortController()
  const begun = performance.now()
  const parts: { stream: 'stdout' | 'stderr'; bytes: Buffer }[] = []
  const started: number[] = []
  const files = new Map<string, Buffer>()
  let size = 0
  let first: number | null = null
  return {
    stop,
    started,
    files,
    io: {
      files: {
        read: (digest) => {
          const found = prepared.bytes.get(digest)
          return found === undefined ? Promise.reject(new Error('no such file')) : Promise.resolve(found)
        },
      },
      output: {
        write(_step, stream, bytes) {
          first ??= performance.now() - begun
          if (size < 65_536) parts.push({ stream, bytes: Buffer.from(bytes) })
          size += bytes.length
        },
        get full() {
          return size > prepared.job.plan.limits.output_kb * 1024
        },
      },
      artifacts: {
        put(path, bytes) {
          files.set(path, Buffer.from(bytes))
          return Promise.resolve()
        },
      },
      egress,
      signal: stop.signal,
      started: (step) => {
        started.push(step)
        return Promise.resolve()
      },
    },
    firstOutput: () => first,
    text: (stream) =>
      Buffer.concat(
        parts.filter((part) => stream === undefined || part.stream === stream).map((part) => part.bytes),
      ).toString('utf8'),
    get size() {
      return size
    },
  }
}

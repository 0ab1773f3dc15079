import type { Duplex } from 'node:stream'
import { z } from 'zod'
import type { JsonObject } from '../../digest.ts'
import type { DockerSettings } from '../../execution/engine.ts'
import { reach } from './reach.ts'

/**
 * Why the engine did not do something. Its own words quote command lines and paths of the machine: they stop here, and what a caller hears is made from the kind alone.
 */
export class EngineError extends Error {
  /** `refused`: it answered no. `missing`: what was named is not there. `silent`: it could not be reached, or did not answer. */
  readonly kind: 'refused' | 'missing' | 'silent'

  constructor(kind: EngineError['kind']) {
    super(`engine ${kind}`)
    this.kind = kind
  }
}

const names = z.array(z.string().max(4096)).nullish()
const version = z.object({
  Version: z.string().max(256),
  Components: z.array(z.object({ Name: z.string().max(256), Version: z.string().max(256) })).nullish(),
})
const info = z.object({
  MemoryLimit: z.boolean().nullish(),
  SwapLimit: z.boolean().nullish(),
  PidsLimit: z.boolean().nullish(),
  CpuCfsQuota: z.boolean().nullish(),
  KernelVersion: z.string().max(256).nullish(),
  OSType: z.string().max(64),
  NCPU: z.int().nullish(),
  DefaultRuntime: z.string().max(256),
  Runtimes: z.record(z.string().max(256), z.unknown()),
  SecurityOptions: names,
  DriverStatus: z.array(z.array(z.string().max(4096))).nullish(),
  DockerRootDir: z.string().max(4096).nullish(),
  SystemTime: z.string().max(64).nullish(),
})
const image = z.object({
  Id: z.string().regex(/^sha256:[0-9a-f]{64}$/),
  RepoDigests: names,
  Architecture: z.string().max(32),
  Os: z.string().max(32),
  Config: z.object({ Env: names, Volumes: z.record(z.string(), z.unknown()).nullish() }).nullish(),
})
const container = z.object({
  State: z.object({ Running: z.boolean(), OOMKilled: z.boolean(), ExitCode: z.int(), Status: z.string() }),
  HostConfig: z.record(z.string(), z.unknown()),
  Config: z.record(z.string(), z.unknown()),
  Mounts: z.array(z.unknown()).nullish(),
  NetworkSettings: z.object({ Networks: z.record(z.string(), z.unknown()).nullish() }).nullish(),
})
const listed = z.array(
  z.object({
    Id: z.string().regex(/^[0-9a-f]{12,64}$/),
    Names: names,
    State: z.string().max(64).nullish(),
    Created: z.number().nullish(),
  }),
)

export type EngineVersion = z.infer<typeof version>
export type EngineInfo = z.infer<typeof info>
export type EngineImage = z.infer<typeof image>
export type EngineContainer = z.infer<typeof container>
export interface ListedContainer {
  readonly id: string
  readonly names: readonly string[]
  /** `created` where it was never started. */
  readonly state: string | null
  /** Seconds of the engine's own clock. */
  readonly created: number | null
}

/** The little of an engine that Writ uses. Each call ends in its own time; each rejects with `EngineError` only. */
export interface EngineClient {
  version(): Promise<EngineVersion>
  info(): Promise<EngineInfo>
  image(name: string): Promise<EngineImage>
  /** The id of a container made from exactly this body. */
  create(name: string, body: JsonObject): Promise<string>
  /** Standard streams of a container, before it is started: the only stream there is must never lack a reader. */
  attach(id: string): Promise<Duplex>
  start(id: string): Promise<void>
  /** Resolves once the container does not run; without a limit of time of its own. */
  stopped(id: string, signal: AbortSignal): Promise<void>
  /** Resolves where it does not run already, too. */
  kill(id: string): Promise<void>
  inspect(id: string, patience?: keyof EngineTimes): Promise<EngineContainer>
  /** Resolves where it is not there any more, too. */
  remove(id: string): Promise<void>
  /** Containers with that label, running or not. */
  list(label: string): Promise<readonly ListedContainer[]>
  /** A tar stream of one path of a container, at most `limit` bytes of it. */
  archive(id: string, path: string, limit: number): Promise<Buffer>
  close(): void
}

/** What is used of dockerode, whose own types know nothing of the signals that most of its calls take. */
interface Dockerode {
  version(options: Signal): Promise<unknown>
  info(options: Signal): Promise<unknown>
  getImage(name: string): { inspect(): Promise<unknown> }
  createContainer(
    options: Signal & { readonly _query: { readonly name: string }; readonly _body: JsonObject },
  ): Promise<{ readonly id: unknown }>
  listContainers(
    options: Signal & { readonly all: true; readonly filters: { readonly label: readonly string[] } },
  ): Promise<unknown>
  getContainer(id: string): {
    attach(
      options: Signal & Readonly<Record<'stream' | 'stdin' | 'stdout' | 'stderr' | 'hijack', true>>,
    ): Promise<Duplex>
    start(options: Signal): Promise<unknown>
    wait(options: Signal & { readonly condition: 'not-running' }): Promise<unknown>
    kill(options: Signal & { readonly signal: 'SIGKILL' }): Promise<unknown>
    inspect(options: Signal): Promise<unknown>
    remove(options: Signal & { readonly force: true; readonly v: true }): Promise<unknown>
    getArchive(options: Signal & { readonly path: string }): Promise<AsyncIterable<Buffer>>
  }
}
interface Signal {
  readonly abortSignal: AbortSignal
}

/** Milliseconds. */
export interface EngineTimes {
  /** For what an engine knows without doing much. */
  readonly quick: number
  /** For what it has to do. */
  readonly long: number
}

const usualTimes: EngineTimes = { quick: 10_000, long: 60_000 }

/** Loads dockerode, dials nothing yet. Null where the settings do not allow the engine to be dialled. */
export async function openClient(
  settings: DockerSettings,
  env: Readonly<Record<string, string>>,
  times: EngineTimes = usualTimes,
): Promise<EngineClient | null> {
  const way = reach(settings, env)
  if ('refused' in way) return null
  const { default: Client } = await import('dockerode')
  const docker = new Client(way.options) as unknown as Dockerode

  /** Runs one call under a limit of time. What it answers is checked like anything of foreign origin. */
  async function ask<T>(ms: number, call: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const stop = new AbortController()
    const { promise: late, reject } = Promise.withResolvers<never>()
    const timer = setTimeout(() => {
      stop.abort()
      reject(new EngineError('silent'))
    }, ms)
    try {
      return await Promise.race([call(stop.signal), late])
    } catch (error) {
      throw asEngineError(error)
    } finally {
      clearTimeout(timer)
    }
  }

  return {
    version: async () =>
      await ask(times.quick, async (abortSignal) => version.parse(await docker.version({ abortSignal }))),
    info: async () => await ask(times.quick, async (abortSignal) => info.parse(await docker.info({ abortSignal }))),
    image: async (name) => await ask(times.quick, async () => image.parse(await docker.getImage(name).inspect())),
    create: async (name, body) =>
      await ask(times.long, async (abortSignal) => {
        const made = await docker.createContainer({ _query: { name }, _body: body, abortSignal })
        return z
          .string()
          .regex(/^[0-9a-f]{64}$/)
          .parse(made.id)
      }),
    attach: async (id) =>
      await ask(times.long, async (abortSignal) => {
        const streams = { stream: true, stdin: true, stdout: true, stderr: true, hijack: true } as const
        return await docker.getContainer(id).attach({ ...streams, abortSignal })
      }),
    start: async (id) =>
      await ask(times.long, async (abortSignal) => void (await docker.getContainer(id).start({ abortSignal }))),
    async stopped(id, abortSignal) {
      try {
        await docker.getContainer(id).wait({ condition: 'not-running', abortSignal })
      } catch (error) {
        const known = asEngineError(error)
        if (known.kind !== 'missing') throw known
      }
    },
    kill: async (id) =>
      await ask(times.quick, async (abortSignal) => {
        try {
          await docker.getContainer(id).kill({ signal: 'SIGKILL', abortSignal })
        } catch (error) {
          // 404: gone; 409: it does not run.
          const status = statusOf(error)
          if (status !== 404 && status !== 409) throw error
        }
      }),
    inspect: async (id, patience = 'quick') =>
      await ask(times[patience], async (abortSignal) =>
        container.parse(await docker.getContainer(id).inspect({ abortSignal })),
      ),
    remove: async (id) =>
      await ask(times.long, async (abortSignal) => {
        try {
          await docker.getContainer(id).remove({ force: true, v: true, abortSignal })
        } catch (error) {
          // 404: gone; 409: somebody removes it already.
          const status = statusOf(error)
          if (status !== 404 && status !== 409) throw error
        }
      }),
    list: async (label) =>
      await ask(times.quick, async (abortSignal) => {
        const found = listed.parse(await docker.listContainers({ all: true, filters: { label: [label] }, abortSignal }))
        return found.map(({ Id, Names, State, Created }) => ({
          id: Id,
          names: (Names ?? []).map((name) => name.replace(/^\//, '')),
          state: State ?? null,
          created: Created ?? null,
        }))
      }),
    archive: async (id, path, limit) =>
      await ask(times.long, async (abortSignal) => {
        const stream = await docker.getContainer(id).getArchive({ path, abortSignal })
        const chunks: Buffer[] = []
        let size = 0
        for await (const chunk of stream) {
          size += chunk.length
          // What is larger is not what was looked for.
          if (size > limit) throw new EngineError('missing')
          chunks.push(chunk)
        }
        return Buffer.concat(chunks)
      }),
    close: () => way.close(),
  }
}

function statusOf(error: unknown): number | null {
  return error instanceof Error && 'statusCode' in error && typeof error.statusCode === 'number'
    ? error.statusCode
    : null
}

function asEngineError(error: unknown): EngineError {
  if (error instanceof EngineError) return error
  const status = statusOf(error)
  if (status === 404) return new EngineError('missing')
  // An answer that is not of the form an engine gives is no answer.
  return new EngineError(status === null ? 'silent' : 'refused')
}

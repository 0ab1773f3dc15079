import { randomBytes } from 'node:crypto'
import { Readable } from 'node:stream'
import { pack } from 'tar-stream'
import { z } from 'zod'
import type { Digest, JsonObject } from '../../digest.ts'
import { WritError } from '../../error.ts'
import type { DockerSettings } from '../../execution/engine.ts'
import { agentDigests, agentFor, architectures } from './binary.ts'
import { EngineError, openClient } from './client.ts'
import { architectureOf, manifestOf, readAgent, storeOf } from './inside.ts'
import { reach } from './reach.ts'

/*
 * What an operator does with images, by hand and never while something runs: the only place where Writ builds one, and
 * where an engine may fetch one (the base).
 */

/** Says for people which agent is in an image; nothing believes it. */
export const agentLabel = 'dev.writ.agent'

/** What an image is, and whether containers of it can be talked to. */
export interface ImageView {
  readonly name: string
  readonly id: string
  readonly store: 'graphdriver' | 'containerd'
  readonly digest: string | null
  readonly arch: string
  readonly size_mb: number
  /** Of `/writ-agent` as it was read out of the image; null where there is none. */
  readonly agent: Digest | null
  /** Whether that agent is one this Writ was built with. */
  readonly match: boolean
}

export interface ImageDesk {
  /** Names of the images that say they have an agent. */
  names(): Promise<readonly string[]>
  /** Null where the engine has no such image. */
  view(name: string): Promise<ImageView | null>
  /** Builds from a Dockerfile and the agent alone. `line` gets what the engine says, line by line. */
  build(order: BuildOrder, line: (text: string) => void): Promise<void>
  close(): void
}

export interface BuildOrder {
  readonly dockerfile: Buffer
  readonly tag: string
  /** The base instead of the one the Dockerfile names. */
  readonly base: string | null
  /** `host` where the engine has no network of its own for builds. */
  readonly network: 'host' | null
}

const maxLine = 64 * 1024

const listed = z.array(z.object({ RepoTags: z.array(z.string().max(1024)).nullish() }))
const inspected = z.object({ Size: z.number().min(0) })
const said = z.object({
  stream: z.string().optional(),
  status: z.string().optional(),
  id: z.string().optional(),
  error: z.string().optional(),
})

/** What is used of dockerode. */
interface Builder {
  listImages(options: { readonly filters: { readonly label: readonly string[] } }): Promise<unknown>
  getImage(name: string): { inspect(): Promise<unknown> }
  version(): Promise<unknown>
  buildImage(context: Readable, options: JsonObject): Promise<Readable>
}

/**
 * @throws WritError `target_unavailable` where the settings do not allow the engine to be reached
 */
export async function openImages(settings: DockerSettings, env: Readonly<Record<string, string>>): Promise<ImageDesk> {
  const way = reach(settings, env)
  if ('refused' in way) throw new WritError('target_unavailable', way.refused, { remedy: way.fix })
  const client = await openClient(settings, env)
  if (client === null) throw unreachable(null)
  const { default: Client } = await import('dockerode')
  const docker = new Client(way.options) as unknown as Builder
  const ask = async <T>(call: () => Promise<T>): Promise<T> => {
    try {
      return await call()
    } catch (error) {
      throw error instanceof WritError ? error : unreachable(error)
    }
  }
  return {
    names: async () =>
      await ask(async () =>
        [
          ...new Set(
            listed
              .parse(await docker.listImages({ filters: { label: [agentLabel] } }))
              .flatMap((one) => one.RepoTags ?? []),
          ),
        ]
          .filter((name) => name !== '<none>:<none>')
          .sort(),
      ),
    async view(name) {
      try {
        const image = await client.image(name)
        const { Size } = inspected.parse(await docker.getImage(name).inspect())
        const hold = { name: `writ-look-${randomBytes(6).toString('hex')}`, release: () => undefined }
        const agent = await readAgent(client, 'by-hand', () => hold, image.Id).catch((error: unknown) => {
          if (error instanceof EngineError && error.kind === 'refused') return null
          throw error
        })
        const arch = architectureOf(image)
        return {
          name,
          id: image.Id,
          store: storeOf(await client.info()),
          digest: manifestOf(image, name),
          arch: image.Architecture,
          size_mb: Math.round(Size / 1_048_576),
          agent,
          match: agent !== null && arch !== null && agentDigests()[arch] === agent,
        }
      } catch (error) {
        if (error instanceof EngineError && error.kind === 'missing') return null
        throw error instanceof WritError ? error : unreachable(error)
      }
    },
    async build(order, line) {
      const arch = await ask(async () => z.object({ Arch: z.string() }).parse(await docker.version()).Arch)
      const known = architectures.find((one) => one === arch)
      if (known === undefined)
        throw new WritError('target_unavailable', `Writ has no sandbox agent for the engine's architecture, ${arch}.`, {
          remedy: `Use an engine on ${architectures.join(' or ')}.`,
        })
      const agent = agentFor(known)
      const context = pack()
      context.entry({ name: 'Dockerfile', mode: 0o644 }, order.dockerfile)
      context.entry({ name: 'writ-agent', mode: 0o555, uid: 0, gid: 0 }, agent.bytes)
      context.finalize()
      const answer = await ask(
        async () =>
          await docker.buildImage(Readable.from(context), {
            t: order.tag,
            version: '1',
            rm: true,
            forcerm: true,
            labels: { [agentLabel]: agent.digest },
            ...(order.base === null ? {} : { buildargs: { BASE: order.base } }),
            ...(order.network === null ? {} : { networkmode: order.network }),
          }),
      )
      await follow(answer, line)
    },
    close() {
      client.close()
      way.close()
    },
  }
}

/** Tells each line and ends where the build does; a build that failed says so in its stream, with an HTTP status of 200. */
async function follow(answer: Readable, line: (text: string) => void): Promise<void> {
  let rest = ''
  let failure: string | null = null
  const tell = (text: string): void => {
    const one = said.safeParse(JSON.parse(text))
    if (!one.success) return
    const { stream, status, id, error } = one.data
    if (error !== undefined) failure = error
    const words = stream ?? (status === undefined ? '' : `${id === undefined ? '' : `${id}: `}${status}`)
    for (const part of words.split('\n')) if (part.trim() !== '') line(part.trimEnd())
  }
  try {
    for await (const chunk of answer) {
      rest += String(chunk)
      if (rest.length > maxLine) throw new Error('a line too long')
      const lines = rest.split('\n')
      rest = lines.pop() ?? ''
      for (const text of lines) if (text.trim() !== '') tell(text)
    }
    if (rest.trim() !== '') tell(rest)
  } catch (error) {
    throw unreachable(error)
  }
  if (failure !== null)
    throw new WritError(
      'target_unavailable',
      `The engine could not build the image: ${(failure as string).slice(0, 500)}`,
      {
        remedy:
          'Read the lines above. A build needs the package registries of the base; where the engine has no network for builds, add --network host.',
      },
    )
}

function unreachable(cause: unknown): WritError {
  return new WritError('target_unavailable', 'The container engine could not be reached, or refused.', {
    remedy: 'Run "writ doctor": it says what keeps Writ from the engine and how to change that.',
    cause,
  })
}

import { extract } from 'tar-stream'
import type { Digest } from '../../digest.ts'
import { digestOf } from '../../digest.ts'
import type { PlanImage } from '../../plan/plan.ts'
import { agentDigests } from './binary.ts'
import { ownerLabel } from './body.ts'
import { EngineError } from './client.ts'
import type { EngineClient, EngineImage, EngineInfo } from './client.ts'

/** Where an image has the agent. */
const agentPath = '/writ-agent'
/** Bytes that are read of an image to find its agent; one has under 3.2 million. */
const mostAgent = 16 * 1024 * 1024
/** Says that a container is only there to be read; whoever made it removes it in seconds, unless it died. */
const lookLabel = 'dev.writ.look'
/** Seconds after which such a container is nobody's. */
const mostLook = 600
const standardPath = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'

/** What is true of an image by its id, so that it is looked up once. */
interface Inside {
  readonly agent: Digest
  /** Where programs are looked for, as the image says. */
  readonly path: string
}

export interface Images {
  /** Null where the engine has none of this name that can be run, or refuses to show it. Nothing is pulled. Rejects `EngineError`. */
  named(client: EngineClient, info: EngineInfo, name: string): Promise<PlanImage | null>
  /** What is inside of an image, or null where it cannot be run. Rejects `EngineError`. */
  inside(client: EngineClient, id: string): Promise<Inside | null>
}

/** A name for a container that is only made to be read, kept from sweeps until it is released. */
type Hold = () => { readonly name: string; readonly release: () => void }

export function lookInside(owner: string, hold: Hold): Images {
  const known = new Map<string, Promise<Inside | null>>()

  async function look(client: EngineClient, id: string): Promise<Inside | null> {
    const image = await client.image(id)
    const arch = architectureOf(image)
    // A volume would be a folder of the machine that a run may write to and that outlives it.
    if (arch === null || Object.keys(image.Config?.Volumes ?? {}).length > 0) return null
    const agent = await readAgent(client, owner, hold, id)
    if (agent === null || agent !== agentDigests()[arch]) return null
    const path = (image.Config?.Env ?? []).find((entry) => entry.startsWith('PATH='))?.slice('PATH='.length)
    return { agent, path: path === undefined || path === '' ? standardPath : path }
  }

  async function inside(client: EngineClient, id: string): Promise<Inside | null> {
    const looking = known.get(id) ?? look(client, id)
    known.set(id, looking)
    looking.catch(() => known.delete(id))
    return await looking
  }

  return {
    inside,
    async named(client, info, name) {
      if (!/^[A-Za-z0-9][\w./:@-]{0,254}$/.test(name) || name.split('/').includes('..')) return null
      try {
        const image = await client.image(name)
        const arch = architectureOf(image)
        const found = await inside(client, image.Id)
        if (arch === null || found === null) return null
        return { name, id: image.Id, store: storeOf(info), digest: manifestOf(image, name), arch, agent: found.agent }
      } catch (error) {
        if (error instanceof EngineError && error.kind !== 'silent') return null
        throw error
      }
    },
  }
}

export function architectureOf(image: EngineImage): 'amd64' | 'arm64' | null {
  if (image.Os !== 'linux') return null
  return image.Architecture === 'amd64' || image.Architecture === 'arm64' ? image.Architecture : null
}

export function storeOf(info: EngineInfo): PlanImage['store'] {
  const driver = (info.DriverStatus ?? []).find(([name]) => name === 'driver-type')?.[1]
  return driver?.startsWith('io.containerd.snapshotter') === true ? 'containerd' : 'graphdriver'
}

/** The digest that the registry knows the image of this name by, or null where it came from none. */
export function manifestOf(image: EngineImage, name: string): string | null {
  const repository = name.replace(/@.*$/, '').replace(/:[\w.-]+$/, '')
  const found = (image.RepoDigests ?? []).find((entry) => entry.startsWith(`${repository}@`))
  const digest = found?.slice(found.indexOf('@') + 1) ?? ''
  return /^sha256:[0-9a-f]{64}$/.test(digest) ? digest : null
}

/**
 * The digest of the agent that an image really has: read out of a container that is made for that and never started. A
 * label could say anything. Null where there is none that root alone could have put there to be run.
 */
export async function readAgent(client: EngineClient, owner: string, hold: Hold, id: string): Promise<Digest | null> {
  const held = hold()
  let container: string | null = null
  try {
    container = await client.create(held.name, {
      Image: id,
      Entrypoint: [agentPath],
      Labels: { [ownerLabel]: owner, [lookLabel]: '' },
      NetworkDisabled: true,
      HostConfig: { NetworkMode: 'none', ReadonlyRootfs: true, LogConfig: { Type: 'none', Config: {} } },
    })
    const roots = rootsOf(await client.info())
    return await fileDigest(await client.archive(container, agentPath, mostAgent), roots)
  } catch (error) {
    // An engine that refuses, as a full one does, has said nothing of the image.
    if (error instanceof EngineError && error.kind === 'missing' && container !== null) return null
    throw error
  } finally {
    if (container !== null) await client.remove(container).catch(() => undefined)
    held.release()
  }
}

/**
 * Who is root in an image, as the engine tells of owners: where its containers' users are other users of the machine
 * (userns-remap), the one that root is there, by whose number the engine names its folder.
 */
function rootsOf(info: EngineInfo): readonly number[] {
  const remapped = (info.SecurityOptions ?? []).some((option) => option.split(',').includes('name=userns'))
  const first = remapped ? /\/(\d{1,10})\.\d{1,10}\/?$/.exec(info.DockerRootDir ?? '')?.[1] : undefined
  return first === undefined ? [0] : [0, Number(first)]
}

/** Removes what was made to be read and left behind: by a command, which no later one is, or by a run host that died. */
export async function sweepLooks(client: EngineClient): Promise<void> {
  const left = (await client.list(lookLabel)).filter(({ state }) => state === 'created')
  if (left.length === 0) return
  const now = Date.parse((await client.info()).SystemTime ?? '') / 1000
  const old = left.filter(({ created }) => created !== null && now - created > mostLook)
  await Promise.all(old.map(async ({ id }) => await client.remove(id)))
}

/** The digest of the one file of the archive; null for a link, a folder, or a file that others than root may write. */
async function fileDigest(archive: Buffer, roots: readonly number[]): Promise<Digest | null> {
  const parser = extract()
  parser.end(archive)
  let found: Digest | null = null
  try {
    for await (const entry of parser) {
      const { type, name, uid, mode, linkname } = entry.header
      const chunks: Buffer[] = []
      for await (const chunk of entry) chunks.push(chunk as Buffer)
      if (found !== null || type !== 'file' || linkname || name !== agentPath.slice(1)) return null
      if (!roots.includes(uid ?? -1) || ((mode ?? 0) & 0o022) !== 0 || ((mode ?? 0) & 0o001) === 0) return null
      found = digestOf(Buffer.concat(chunks))
    }
    return found
  } catch {
    return null
  }
}

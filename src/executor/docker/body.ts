import { canonical } from '../../digest.ts'
import type { Json, JsonObject } from '../../digest.ts'
import { WritError } from '../../error.ts'
import { containerBody } from '../../plan/container.ts'
import type { ContainerSettings } from '../../plan/container.ts'
import type { Plan, PlanImage } from '../../plan/plan.ts'
import { seccompDigest, seccompText } from '../../plan/seccomp.ts'

/** Says whose container it is, and nothing else is said of it: labels are shown to everybody who hears the engine's events. */
export const ownerLabel = 'dev.writ.owner'

/** A container that may be made for a plan. */
export interface Planned {
  readonly image: PlanImage
  readonly container: ContainerSettings
  /** As the plan has it, with the limits of the run. Equal bodies have equal `key`s. */
  readonly body: JsonObject
  readonly key: string
}

/**
 * What a plan asks to be created, made once more from its parts. The dispatched plan may have lower limits than were
 * planned, never higher; any other difference, a member more included, is refused whoever sent it.
 *
 * @throws WritError `internal`
 */
export function plannedContainer(plan: Plan): Planned {
  const { engine, image, limits } = plan
  const container = settingsOf(engine['container'])
  const create = engine['create']
  if (image === null || container === null || create === undefined || engine['protocol'] !== 'writ-frame/1')
    throw refused()
  if (engine['agent'] !== image.agent) throw refused()
  const body = containerBody({ image, limits, container, seccomp: seccompDigest })
  const key = canonical(body)
  if (canonical(lowered(create, body)) !== key) throw refused()
  return { image, container, body, key }
}

/** The body as the engine is given it: the profile instead of its digest, and the one label. */
export function createBody(planned: Planned, owner: string): JsonObject {
  const host = planned.body['HostConfig'] as JsonObject
  const options = host['SecurityOpt'] as readonly string[]
  return {
    ...planned.body,
    Labels: { [ownerLabel]: owner },
    HostConfig: {
      ...host,
      SecurityOpt: options.map((option) => (option === `seccomp=${seccompDigest}` ? `seccomp=${seccompText}` : option)),
    },
  }
}

/** `create` with the limits of `body` where they are lower than its own. */
function lowered(create: Json, body: JsonObject): Json {
  if (!isObject(create) || !isObject(create['HostConfig'])) return null
  const host = create['HostConfig']
  const own = body['HostConfig'] as JsonObject
  const tmpfs = host['Tmpfs']
  const ownTmpfs = own['Tmpfs'] as Readonly<Record<string, string>>
  if (!isObject(tmpfs)) return null
  return {
    ...create,
    HostConfig: {
      ...host,
      Memory: lower(host['Memory'], own['Memory']),
      MemorySwap: lower(host['MemorySwap'], own['MemorySwap']),
      Ulimits: lowerUlimits(host['Ulimits'], own['Ulimits']),
      Tmpfs: Object.fromEntries(
        Object.entries(tmpfs).map(([path, options]) => [path, lowerRoom(options, ownTmpfs[path])]),
      ),
    },
  }
}

function lower(planned: Json | undefined, own: Json | undefined): Json {
  if (typeof planned !== 'number' || typeof own !== 'number') return null
  return own <= planned ? own : planned
}

/** The limits of a process, the size of a file lowered: it alone depends on those of the run. */
function lowerUlimits(planned: Json | undefined, own: Json | undefined): Json {
  if (!Array.isArray(planned) || !Array.isArray(own)) return planned ?? null
  return planned.map((limit: Json, at): Json => {
    const mine = (own as readonly Json[])[at]
    if (!isObject(limit) || !isObject(mine) || limit['Name'] !== 'fsize' || mine['Name'] !== 'fsize') return limit
    return { ...limit, Soft: lower(limit['Soft'], mine['Soft']), Hard: lower(limit['Hard'], mine['Hard']) }
  })
}

const room = /size=(\d+)m,nr_inodes=(\d+)/

/** The options of a folder with the lower of both sizes; everything beside the sizes stays the plan's. */
function lowerRoom(planned: Json | undefined, own: string | undefined): Json {
  if (typeof planned !== 'string' || own === undefined) return planned ?? null
  const [mine, theirs] = [room.exec(own), room.exec(planned)]
  if (mine === null || theirs === null) return planned
  const isLower = Number(mine[1]) <= Number(theirs[1]) && Number(mine[2]) <= Number(theirs[2])
  return isLower ? planned.replace(room, mine[0]) : planned
}

function settingsOf(value: Json | undefined): ContainerSettings | null {
  if (!isObject(value)) return null
  const { oci_runtime, cpus_m } = value as { readonly [key: string]: Json | undefined }
  if (Object.keys(value).length !== 2 || !Number.isSafeInteger(cpus_m) || Number(cpus_m) <= 0) return null
  if (oci_runtime !== null && typeof oci_runtime !== 'string') return null
  return { oci_runtime, cpus_m: Number(cpus_m) }
}

function isObject(value: Json | undefined): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function refused(): WritError {
  return new WritError('internal', 'the plan says a container that this Writ does not create')
}

import type { Target } from './entries.ts'
import type { Facts, PlanImage } from './plan.ts'
import type { ExecutorKind } from './schema.ts'

/** Which executors this machine has now, by kind; a kind that is not in it is not available. */
export type Availability = ReadonlyMap<
  string,
  { readonly available: boolean; readonly why: string; readonly facts?: Facts | null }
>

/** What a target wants for, in a word that anybody may hear. */
export type Lack = 'executor' | 'engine' | 'image' | 'runtime'

/** Whether a target can be run on now. What keeps it from that is the operator's to know; callers learn only that it is so. */
export type TargetState =
  | { readonly available: true; readonly image: PlanImage | null }
  | { readonly available: false; readonly lacks: Lack; readonly why: string; readonly fix: string }

/** True for the executors of this release; the others parse in a catalog and are never available. */
export function runnable(kind: ExecutorKind): boolean {
  switch (kind) {
    case 'isolate':
    case 'docker':
      return true
    case 'ssh':
    case 'kubernetes':
    case 'http':
    case 'process':
      return false
  }
}

/** The images that Writ has Dockerfiles for; `writ images build NAME` makes `writ/NAME`. */
export const imageNames = ['base', 'python', 'node', 'go', 'shell'] as const

/** What the broker's own probes say of a target. */
export function targetState(
  target: Pick<Target, 'executor' | 'image' | 'container'>,
  availability: Availability,
): TargetState {
  if (!runnable(target.executor))
    return {
      available: false,
      lacks: 'executor',
      why: `this release has no executor "${target.executor}"`,
      fix: 'Name another executor in the catalog.',
    }
  const able = availability.get(target.executor)
  if (able?.available !== true)
    return {
      available: false,
      lacks: target.executor === 'docker' ? 'engine' : 'executor',
      why: able === undefined || able.why === '' ? `nothing runs "${target.executor}" here` : able.why,
      fix: '"writ doctor" says what this machine lacks and how to get it.',
    }
  if (target.image === null) return { available: true, image: null }
  const image = able.facts?.images.get(target.image)
  if (image === undefined) {
    const own = imageNames.find((name) => target.image === `writ/${name}` || target.image === `writ/${name}:latest`)
    return {
      available: false,
      lacks: 'image',
      why: `the engine has no image "${target.image}", or no agent of this Writ is in it`,
      fix:
        own === undefined
          ? `Build it and see that "writ images verify ${target.image}" is content; docs/images.md shows how.`
          : `Run "writ images build ${own}".`,
    }
  }
  const runtime = target.container?.oci_runtime ?? null
  if (runtime !== null && able.facts?.runtimes.has(runtime) !== true)
    return {
      available: false,
      lacks: 'runtime',
      why: `the engine knows no OCI runtime "${runtime}"`,
      fix: `Tell the engine of it ("runtimes" of its daemon.json, or --add-runtime ${runtime}=PATH), or remove "oci_runtime" from the target.`,
    }
  return { available: true, image }
}

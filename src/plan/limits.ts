import { WritError } from '../error.ts'
import type { Limits } from './plan.ts'

export type PartialLimits = { readonly [L in keyof Limits]?: number | undefined }

/** What `writ.yaml` says of limits: what a target gets that says nothing, and what none may pass. */
export interface LimitSettings {
  readonly defaults: Limits
  readonly maxima: Limits
}

export const limitNames = [
  'wall_s',
  'cpu_s',
  'memory_mb',
  'output_kb',
  'artifact_kb',
  'egress_requests',
] as const satisfies readonly (keyof Limits)[]

/** Seconds, megabytes, kilobytes and a count, for a target and a `writ.yaml` that say nothing. */
export const defaultLimits: Limits = {
  wall_s: 60,
  cpu_s: 30,
  memory_mb: 256,
  output_kb: 1024,
  artifact_kb: 16_384,
  egress_requests: 100,
}

/** Requests of a target with a package mirror that names no number: a project of a few hundred packages asks twice for each. */
export const mirrorRequests = 2000

/** What a catalog may ask for unless `writ.yaml` sets other maxima. */
export const defaultMaxima: Limits = {
  wall_s: 3600,
  cpu_s: 3600,
  memory_mb: 4096,
  output_kb: 16_384,
  artifact_kb: 65_536,
  egress_requests: 10_000,
}

/** No `writ.yaml` goes beyond these. */
export const ceilings: Limits = {
  wall_s: 86_400,
  cpu_s: 86_400,
  memory_mb: 65_536,
  output_kb: 65_536,
  artifact_kb: 1_048_576,
  egress_requests: 1_000_000,
}

/** Megabytes below which a sandbox of that kind does not start; a lower number would be a run that can only fail. */
export function leastMemoryMb(executor: string): number {
  return executor === 'docker' ? 64 : 16
}

/** The settings with what `writ.yaml` gives filled in; a default never exceeds its maximum. */
export function limitSettings(
  given: { readonly defaults?: PartialLimits; readonly maxima?: PartialLimits } = {},
): LimitSettings {
  const maxima = replace(defaultMaxima, given.maxima ?? {})
  return { maxima, defaults: narrowLimits(replace(defaultLimits, given.defaults ?? {}), maxima) }
}

/** The catalog's numbers for a target: its own where it has some, else the defaults, never beyond the maxima. */
export function targetLimits(settings: LimitSettings, target: PartialLimits): Limits {
  return narrowLimits(replace(settings.defaults, target), settings.maxima)
}

/** The caller's constraints: they can only lower. */
export function constrain(
  limits: Limits,
  constraints: { readonly time_s: number | null; readonly memory_mb: number | null },
): Limits {
  return narrowLimits(limits, {
    ...(constraints.time_s === null ? {} : { wall_s: constraints.time_s }),
    ...(constraints.memory_mb === null ? {} : { memory_mb: constraints.memory_mb }),
  })
}

/**
 * Each limit the lower of the two; an absent one has no opinion. Also applies what a decision lowered.
 * @throws WritError `internal` for a number that is none, so that a bad one never counts as "no limit"
 */
export function narrowLimits(limits: Limits, lower: PartialLimits): Limits {
  const result = { ...limits }
  for (const name of limitNames) {
    const value = lower[name]
    if (value === undefined) continue
    if (!Number.isFinite(value) || value < 0) throw new WritError('internal', `the limit ${name} is not a number`)
    result[name] = Math.min(result[name], Math.floor(value))
  }
  return result
}

function replace(base: Limits, given: PartialLimits): Limits {
  const result = { ...base }
  for (const name of limitNames) result[name] = given[name] ?? result[name]
  return result
}

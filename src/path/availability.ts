import type { Clock } from '../clock.ts'
import type { Checked, RunHost } from '../execution/job.ts'
import { targetState } from '../plan/available.ts'
import type { Availability, Lack } from '../plan/available.ts'
import type { Catalog } from '../plan/catalog.ts'
import type { Facts } from '../plan/plan.ts'

const freshMs = 60_000
/** As long as something is missing that an operator may just be making. */
const soonMs = 5_000

/** What the executors found, in the words of plans. */
export function availabilityOf(checked: readonly Checked[]): Availability {
  const able = new Map<string, { available: boolean; why: string; facts: Facts | null }>()
  for (const { executor, findings, facts } of checked) {
    const problem = findings.find((finding) => finding.level === 'problem')
    able.set(executor, { available: problem === undefined, why: problem?.what ?? '', facts })
  }
  return able
}

/** Images that targets run in, each once. */
export function imagesOf(catalog: Catalog): readonly string[] {
  return [...new Set([...catalog.targets.values()].flatMap((target) => target.image ?? []))]
}

/** A target that cannot be run on now, and what an operator does about it. */
export interface Unavailable {
  readonly target: string
  readonly lacks: Lack
  readonly why: string
  readonly fix: string
}

export function unavailableTargets(catalog: Catalog, able: Availability): readonly Unavailable[] {
  return [...catalog.targets.values()].flatMap((target) => {
    const state = targetState(target, able)
    if (state.available) return []
    const { lacks, why, fix } = state
    return [{ target: target.ref, lacks, why, fix }]
  })
}

/**
 * Which executors this machine has, by their own checks; one question at a time, and its answer holds for a minute, or
 * for seconds where an image was not there, or until the catalog names other images. A run host that dies over the
 * question is followed by another, which is asked once more; a failure is not remembered.
 *
 * @param changed told for the operator's log what cannot be run on and why, at first and whenever that is something else
 */
export function openAvailability(
  host: Pick<RunHost, 'check'>,
  clock: Clock,
  catalog: () => Catalog,
  changed: (unavailable: readonly Unavailable[]) => void,
): () => Promise<Availability> {
  let asked: { readonly until: number; readonly of: string; readonly answer: Promise<Availability> } | null = null
  let told = ''
  const ask = async (of: Catalog, names: readonly string[]): Promise<Availability> => {
    const able = availabilityOf(await host.check(names).catch(() => host.check(names)))
    const unavailable = unavailableTargets(of, able)
    if (JSON.stringify(unavailable) !== told) changed(unavailable)
    told = JSON.stringify(unavailable)
    return able
  }
  return async () => {
    const now = catalog()
    const names = imagesOf(now)
    const of = JSON.stringify(names)
    const at = clock.monotonic()
    if (asked === null || at > asked.until || of !== asked.of) {
      const mine = { until: at + freshMs, of, answer: ask(now, names) }
      asked = mine
      mine.answer.then(
        (able) => {
          if (asked === mine && !names.every((name) => has(able, name)))
            asked = { ...mine, until: Math.min(mine.until, clock.monotonic() + soonMs) }
        },
        () => {
          if (asked === mine) asked = null
        },
      )
    }
    return await asked.answer
  }
}

function has(able: Availability, image: string): boolean {
  return [...able.values()].some((one) => one.facts?.images.has(image) === true)
}

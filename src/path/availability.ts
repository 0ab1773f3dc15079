import type { Clock } from '../clock.ts'
import type { RunHost } from '../execution/job.ts'
import type { Facts } from '../plan/plan.ts'
import type { Availability } from '../plan/available.ts'

const freshMs = 60_000

/**
 * Which executors this machine has, by their own checks; one question at a time, and its answer holds for a minute. A run
 * host that dies over the question is followed by another, which is asked once more; a failure is not remembered.
 */
export function openAvailability(
  host: RunHost,
  clock: Clock,
  images: () => readonly string[],
): () => Promise<Availability> {
  let asked: { readonly at: number; readonly answer: Promise<Availability> } | null = null
  const ask = async (): Promise<Availability> => {
    const able = new Map<string, { available: boolean; why: string; facts: Facts | null }>()
    const names = images()
    for (const { executor, findings, facts } of await host.check(names).catch(() => host.check(names))) {
      const problem = findings.find((finding) => finding.level === 'problem')
      able.set(executor, { available: problem === undefined, why: problem?.what ?? '', facts })
    }
    return able
  }
  return async () => {
    const now = clock.monotonic()
    if (asked === null || now - asked.at > freshMs) {
      const mine = { at: now, answer: ask() }
      asked = mine
      mine.answer.catch(() => {
        if (asked === mine) asked = null
      })
    }
    return await asked.answer
  }
}

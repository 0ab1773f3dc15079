import { setImmediate } from 'node:timers/promises'

/** Work that stops now and then for whoever does it to attend to something else. What it stops for is nothing to it. */
export type Work<T> = Generator<undefined, T, undefined>

/** Milliseconds of work before others have their turn. */
const sliceMs = 10
/** Bytes or characters after which work stops that goes through as many of them. */
export const sliceSize = 65_536

/** For work that is known to be short. */
export function atOnce<T>(work: Work<T>): T {
  for (;;) {
    const step = work.next()
    if (step.done === true) return step.value
  }
}

/** In slices of some milliseconds, between which everything else goes on. */
export async function inSlices<T>(work: Work<T>): Promise<T> {
  for (let begun = performance.now(); ;) {
    const step = work.next()
    if (step.done === true) return step.value
    if (performance.now() - begun < sliceMs) continue
    await setImmediate()
    begun = performance.now()
  }
}

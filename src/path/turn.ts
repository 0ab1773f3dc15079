import type { Caller } from '../request/caller.ts'

const tails = new Map<string, Promise<unknown>>()

/** Runs what has the same name one after the other, in the order it was asked for; a failure does not stop the next. */
export async function inTurn<T>(name: string, work: () => Promise<T>): Promise<T> {
  const before = tails.get(name) ?? Promise.resolve()
  const mine = before.then(work, work)
  const settled = mine.then(
    () => undefined,
    () => undefined,
  )
  tails.set(name, settled)
  try {
    return await mine
  } finally {
    if (tails.get(name) === settled) tails.delete(name)
  }
}

/** One caller's calls with the same idempotency key, whichever tools and tasks they are of; those without one wait for nobody. */
export async function inTurnOfKey<T>(
  { tenant, subject }: Caller,
  key: string | undefined,
  work: () => Promise<T>,
): Promise<T> {
  return key === undefined ? await work() : await inTurn(`key ${JSON.stringify([tenant, subject.id, key])}`, work)
}

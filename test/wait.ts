import { setTimeout as pause } from 'node:timers/promises'

/**
 * Looks until `look` gives something other than false, null or undefined, and resolves with that. Rejects naming `what`
 * after `withinMs`: long, as it is there for broken code and not for slow machines.
 */
export async function until<T>(
  what: string,
  look: () => T | Promise<T>,
  { withinMs = 30_000, everyMs = 20 }: { readonly withinMs?: number; readonly everyMs?: number } = {},
): Promise<Exclude<T, false | null | undefined>> {
  for (const end = performance.now() + withinMs; ; await pause(everyMs)) {
    const seen = await look()
    if (seen !== false && seen !== null && seen !== undefined) return seen as Exclude<T, false | null | undefined>
    if (performance.now() > end) throw new Error(`waited ${String(withinMs)} ms in vain until ${what}`)
  }
}

/** Something that is awaited only later: where the test fails before that, its own failure is the one to be told. */
export function later<T>(promise: Promise<T>): Promise<T> {
  promise.catch(() => undefined)
  return promise
}

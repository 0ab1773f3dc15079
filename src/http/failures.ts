import type { Clock } from '../clock.ts'

/** Tokens refused by address over the last minute. Only figures leave it: no address is ever told. */
export interface Failures {
  note(address: string): void
  /** Refusals of the address that has most of them. */
  worst(): number
  /** Addresses that had any. */
  addresses(): number
}

const windowMs = 60_000
/** More addresses than this count as one: a flood from everywhere costs no memory. */
const maxAddresses = 4096

export function openFailures(clock: Clock): Failures {
  let counts = new Map<string, number>()
  let before: ReadonlyMap<string, number> = new Map()
  let since = clock.monotonic()
  /** Two halves that are thrown away whole: a minute costs no timer and no list of moments. */
  const turn = (): void => {
    const passed = clock.monotonic() - since
    if (passed < windowMs / 2) return
    before = passed < windowMs ? counts : new Map()
    counts = new Map()
    since = clock.monotonic()
  }
  const all = (): ReadonlyMap<string, number> => {
    turn()
    const sum = new Map(before)
    for (const [address, count] of counts) sum.set(address, (sum.get(address) ?? 0) + count)
    return sum
  }
  return {
    note(address) {
      turn()
      const name = counts.has(address) || counts.size < maxAddresses ? address : 'others'
      counts.set(name, (counts.get(name) ?? 0) + 1)
    },
    worst: () => Math.max(0, ...all().values()),
    addresses: () => all().size,
  }
}

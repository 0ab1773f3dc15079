import type { Digest } from '../digest.ts'
import { WritError } from '../error.ts'
import type { Ledger } from '../ledger/ledger.ts'
import { type Holdings, openHoldings } from './holdings.ts'

/** What one tenant may have of Writ at once. */
export interface Quotas {
  /** Megabytes of its files, of what its runs printed, of its records, and of uploads that are still to come. */
  readonly stored_mb: number
  /** One-time URLs that live at once. */
  readonly tickets: number
  /** Uploads and downloads that move at once. */
  readonly transfers: number
  /** Executions that run or wait at once. */
  readonly executions: number
}

/** What a run has stored and no step tells of yet. */
export interface RunShare {
  /** Bytes that were left when it began. */
  readonly left: number
  /** False where the tenant has no room for these bytes; then they count for nothing. */
  take(digest: Digest, size: number): boolean
  /** Its outcome is in the ledger, which counts from now on. */
  end(): void
}

/** Holds each tenant to what it may store. */
export interface Storage {
  readonly holdings: Holdings
  readonly quotas: () => Quotas
  /** Counts bytes that were promised to a tenant and are still to come. */
  count(promised: (tenant: string) => number): void
  /**
   * Throws `quota_exceeded` as soon as the new bytes passed to it are more than the tenant has room for; at once where
   * there is none left for the records of anything.
   * @param arrived bytes that were promised and are about to be counted as what they are
   */
  allowance(tenant: string, arrived?: number): Promise<(digest: Digest, size: number) => void>
  /** Rejects `quota_exceeded` where nothing is left. */
  checkLeft(tenant: string): Promise<void>
  begin(tenant: string): Promise<RunShare>
  /** A text to open the next one with. */
  save(): Promise<string>
}

const megabyte = 1_048_576

export function openStorage(ledger: Pick<Ledger, 'steps'>, quotas: () => Quotas, saved: string | null = null): Storage {
  const holdings = openHoldings(ledger, saved)
  const counters: ((tenant: string) => number)[] = []
  /** Of each tenant, what its live runs took. */
  const running = new Map<string, Set<Map<Digest, number>>>()

  const most = (): number => quotas().stored_mb * megabyte
  const knows = (tenant: string, digest: Digest): boolean =>
    holdings.holds(tenant, digest) || [...(running.get(tenant) ?? [])].some((taken) => taken.has(digest))

  function used(tenant: string): number {
    let sum = holdings.bytesOf(tenant)
    for (const promised of counters) sum += promised(tenant)
    const seen = new Set<Digest>()
    for (const taken of running.get(tenant) ?? [])
      for (const [digest, size] of taken) {
        if (seen.has(digest) || holdings.holds(tenant, digest)) continue
        seen.add(digest)
        sum += size
      }
    return sum
  }

  function full(): WritError {
    return new WritError(
      'quota_exceeded',
      `What Writ keeps for your tenant would be more than its ${quotas().stored_mb} MB.`,
    )
  }

  return {
    holdings,
    quotas,
    count: (promised) => void counters.push(promised),
    async allowance(tenant, arrived = 0) {
      await holdings.refresh()
      if (used(tenant) - arrived >= most()) throw full()
      const fresh = new Set<Digest>()
      let added = 0
      return (digest, size) => {
        if (knows(tenant, digest) || fresh.has(digest)) return
        fresh.add(digest)
        added += size
        if (used(tenant) - arrived + added > most()) throw full()
      }
    },
    async checkLeft(tenant) {
      await holdings.refresh()
      if (used(tenant) >= most()) throw full()
    },
    async begin(tenant) {
      await holdings.refresh()
      const taken = new Map<Digest, number>()
      const shares = running.get(tenant) ?? new Set()
      running.set(tenant, shares.add(taken))
      return {
        left: Math.max(0, most() - used(tenant)),
        take(digest, size) {
          if (knows(tenant, digest)) return true
          if (used(tenant) + size > most()) return false
          taken.set(digest, size)
          return true
        },
        end() {
          shares.delete(taken)
          if (shares.size === 0) running.delete(tenant)
        },
      }
    },
    async save() {
      await holdings.refresh()
      return holdings.save()
    },
  }
}

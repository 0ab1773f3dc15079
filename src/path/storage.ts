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

/** What a call stores: it counts from when it is taken, so that no two calls are given the same room. Ends with the call. */
export interface Allowance extends Disposable {
  /** Throws `quota_exceeded` where the tenant has no room for these bytes. */
  take(digest: Digest, size: number): void
  /** Throws likewise, and takes nothing. */
  check(digest: Digest, size: number): void
}

/** Bytes that were promised and are still to come; less by what is taken of them. */
export interface Promised {
  bytes: number
}

/** Holds each tenant to what it may store. */
export interface Storage {
  readonly holdings: Holdings
  readonly quotas: () => Quotas
  /** Counts bytes that were promised to a tenant and are still to come. */
  count(promised: (tenant: string) => number): void
  /**
   * Rejects `quota_exceeded` where nothing is left for the records of anything.
   * @param promised bytes that have arrived and are about to be counted as what they are
   */
  allowance(tenant: string, promised?: Promised): Promise<Allowance>
  /** Rejects `quota_exceeded` where nothing is left. */
  checkLeft(tenant: string): Promise<void>
  begin(tenant: string): Promise<RunShare>
  /** A text to open the next one with. */
  save(): Promise<string>
}

const megabyte = 1_048_576

/** What the live runs and calls of one tenant took. */
interface Taken {
  readonly files: Map<Digest, { readonly size: number; uses: number }>
  /** Of those that the steps do not tell of. */
  bytes: number
}

export function openStorage(ledger: Pick<Ledger, 'steps'>, quotas: () => Quotas, saved: string | null = null): Storage {
  const read = openHoldings(ledger, saved)
  const holdings: Holdings = { ...read, refresh }
  const counters: ((tenant: string) => number)[] = []
  const tenants = new Map<string, Taken>()
  /** What ended runs and calls took: it counts until the steps were read that tell of it. */
  const ended = new Set<{ readonly tenant: string; readonly digests: ReadonlySet<Digest> }>()

  const most = (): number => quotas().stored_mb * megabyte
  const knows = (tenant: string, digest: Digest): boolean =>
    read.holds(tenant, digest) || tenants.get(tenant)?.files.has(digest) === true

  function used(tenant: string): number {
    let sum = read.bytesOf(tenant) + (tenants.get(tenant)?.bytes ?? 0)
    for (const promised of counters) sum += promised(tenant)
    return sum
  }

  async function refresh(): Promise<void> {
    const over = [...ended]
    await read.refresh()
    for (const one of over) {
      // Another refresh may have been faster.
      if (!ended.delete(one)) continue
      const files = tenants.get(one.tenant)?.files
      for (const digest of one.digests) {
        const file = files?.get(digest)
        if (file !== undefined && --file.uses === 0) files?.delete(digest)
      }
    }
    for (const [tenant, taken] of tenants) {
      taken.bytes = 0
      for (const [digest, { size }] of taken.files) if (!read.holds(tenant, digest)) taken.bytes += size
      if (taken.files.size === 0) tenants.delete(tenant)
    }
  }

  function share(tenant: string): { take(digest: Digest, size: number): void; end(): void } {
    const digests = new Set<Digest>()
    return {
      take(digest, size) {
        if (digests.has(digest)) return
        digests.add(digest)
        const taken = tenants.get(tenant) ?? { files: new Map(), bytes: 0 }
        tenants.set(tenant, taken)
        if (!knows(tenant, digest)) taken.bytes += size
        const file = taken.files.get(digest)
        if (file === undefined) taken.files.set(digest, { size, uses: 1 })
        else file.uses++
      },
      end: () => void ended.add({ tenant, digests }),
    }
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
    async allowance(tenant, promised = { bytes: 0 }) {
      await refresh()
      if (used(tenant) - promised.bytes >= most()) throw full()
      const mine = share(tenant)
      const check = (digest: Digest, size: number): number => {
        if (knows(tenant, digest)) return 0
        if (used(tenant) - promised.bytes + size > most()) throw full()
        return size
      }
      return {
        check: (digest, size) => void check(digest, size),
        take(digest, size) {
          promised.bytes = Math.max(0, promised.bytes - check(digest, size))
          mine.take(digest, size)
        },
        [Symbol.dispose]: () => mine.end(),
      }
    },
    async checkLeft(tenant) {
      await refresh()
      if (used(tenant) >= most()) throw full()
    },
    async begin(tenant) {
      await refresh()
      const mine = share(tenant)
      return {
        left: Math.max(0, most() - used(tenant)),
        take(digest, size) {
          if (!knows(tenant, digest) && used(tenant) + size > most()) return false
          mine.take(digest, size)
          return true
        },
        end: () => mine.end(),
      }
    },
    async save() {
      await refresh()
      return read.save()
    },
  }
}

import type { Ledger } from '../ledger/ledger.ts'

/** A start that is being decided on: no count of the ledger tells of it yet. */
interface Start {
  readonly tenant: string
  /** Whose task it is. */
  readonly owner: string
  /** True where the ledger does not know the execution either. */
  readonly fresh: boolean
}

const starts = new WeakMap<Ledger, Set<Start>>()

/** Counts a start until it is disposed of, which has to be when its steps are written or never will be. */
export function underway(ledger: Ledger, start: Start): Disposable {
  const all = starts.get(ledger) ?? new Set()
  starts.set(ledger, all)
  // A start of its own, whoever gives the same value twice.
  const mine = { ...start }
  all.add(mine)
  return { [Symbol.dispose]: () => void all.delete(mine) }
}

/** How many starts of a tenant, or of one of its people, are being decided on: calls at the same time are not given the same room. */
export function startsOf(
  ledger: Ledger,
  tenant: string,
  owner?: string,
): { readonly fresh: number; readonly all: number } {
  const found = [...(starts.get(ledger) ?? [])].filter(
    (start) => start.tenant === tenant && (owner === undefined || start.owner === owner),
  )
  return { fresh: found.filter(({ fresh }) => fresh).length, all: found.length }
}

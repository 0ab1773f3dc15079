import { WritError } from '../../../src/error.ts'
import type { ErrorCode } from '../../../src/error.ts'
import type { Ledger } from '../../../src/ledger/ledger.ts'
import type { Clock } from '../../../src/clock.ts'

export interface OpenedLedger {
  readonly ledger: Ledger
  /** Closes the ledger and opens the same data again. */
  readonly reopen: () => Ledger
}

/** Gives an empty one, and ends it with the test. */
export type OpenLedger = (clock: Clock) => OpenedLedger

export async function codeOf(work: Promise<unknown>): Promise<ErrorCode | 'done'> {
  try {
    await work
    return 'done'
  } catch (error) {
    if (error instanceof WritError) return error.code
    throw error
  }
}

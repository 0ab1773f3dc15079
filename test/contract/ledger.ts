import { describe } from 'vitest'
import type { OpenLedger } from './ledger/opened.ts'
import { runsContract } from './ledger/runs.ts'
import { stepsContract } from './ledger/steps.ts'
import { viewsContract } from './ledger/views.ts'

/** What every ledger keeps, whatever it stands on. `open` gives an empty one, and ends it with the test. */
export function ledgerContract(name: string, open: OpenLedger): void {
  describe(`the ledger contract over ${name}`, () => {
    stepsContract(open)
    runsContract(open)
    viewsContract(open)
  })
}

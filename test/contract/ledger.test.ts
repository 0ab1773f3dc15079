import { join } from 'node:path'
import { onTestFinished } from 'vitest'
import { openSqliteLedger } from '../../src/ledger/sqlite/sqlite.ts'
import { folder } from '../ledger/folder.ts'
import { testSigner } from '../ledger/sample.ts'
import { ledgerContract } from './ledger.ts'

ledgerContract('SQLite', (clock) => {
  const options = { path: join(folder(), 'ledger.db'), signer: testSigner(), clock, reserveBytes: 4096 }
  let ledger = openSqliteLedger(options)
  onTestFinished(() => ledger.close())
  return {
    ledger,
    reopen() {
      ledger.close()
      ledger = openSqliteLedger(options)
      return ledger
    },
  }
})

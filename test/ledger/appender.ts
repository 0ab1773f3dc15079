import { writeSync } from 'node:fs'
import { systemClock } from '../../src/clock.ts'
import { digestOf } from '../../src/digest.ts'
import type { Entry } from '../../src/ledger/ledger.ts'
import { openSqliteLedger } from '../../src/ledger/sqlite/sqlite.ts'
import { signed, testSigner } from './sample.ts'

/**
 * The process the crash test kills: appends batches of two to five steps, eight in flight, and says so on its standard
 * output once each is acknowledged. A batch's steps carry its name, their number and how many there are.
 */
const [path = '', round = ''] = process.argv.slice(2)
const ledger = openSqliteLedger({ path, signer: testSigner(), clock: systemClock, reserveBytes: 4096 })

async function appender(lane: number): Promise<never> {
  for (let n = 0; ; n++) {
    const name = `${round}.${lane}.${n}`
    const count = 1 + ((n + lane) % 4)
    const steps = Array.from({ length: count }, (_, i): Entry => ({
      kind: 'refused',
      tenant: 't',
      caller: name,
      code: `${i}/${count}`,
      input: digestOf(name),
      at_ms: 0,
    }))
    const { position, receipts } = await ledger.append(...steps, signed('denials', null, { task: name }))
    writeSync(1, `${name} ${position} ${receipts[0]?.index}\n`)
  }
}

writeSync(1, 'ready\n')
await Promise.all(Array.from({ length: 8 }, async (_, lane) => await appender(lane)))

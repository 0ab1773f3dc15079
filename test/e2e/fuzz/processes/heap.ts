import { writeSync } from 'node:fs'
import { held } from '../../../cost.ts'

/**
 * Loaded into a broker before its own code (`--import`): on SIGUSR2 it collects what nothing holds and writes what is left
 * as a line to standard error. Nothing of this is in the product.
 */
process.on('SIGUSR2', () => {
  held()
  // What a finaliser lets go of is collected by the second one.
  setImmediate(() => {
    const { heapUsed, external, rss } = held()
    writeSync(2, `${JSON.stringify({ heap: heapUsed + external, rss })}\n`)
  })
})

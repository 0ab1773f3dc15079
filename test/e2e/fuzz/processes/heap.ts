import { writeSync } from 'node:fs'

/**
 * Loaded into a broker before its own code (`--expose-gc --import`): on SIGUSR2 it collects what nothing holds and writes
 * what is left as a line to standard error. Nothing of this is in the product.
 */
process.on('SIGUSR2', () => {
  globalThis.gc?.()
  // What a finaliser lets go of is collected by the second one.
  setImmediate(() => {
    globalThis.gc?.()
    const { heapUsed, external, rss } = process.memoryUsage()
    writeSync(2, `${JSON.stringify({ heap: heapUsed + external, rss })}\n`)
  })
})

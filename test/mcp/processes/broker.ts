import { listenMcp } from '../../../src/mcp/socket.ts'
import { caller, memoryBroker } from '../memory-broker.ts'

/** A broker's process for the relay's tests: `broker.ts SOCKET LEDGER`. Prints `ready` when it listens. */
const [socket = '', ledger = ''] = process.argv.slice(2)
const log = {
  debug: () => undefined,
  info: () => undefined,
  warn: (fields: object, text: string) => void process.stderr.write(`${text} ${JSON.stringify(fields)}\n`),
}
await listenMcp({ path: socket, broker: memoryBroker({ ledger }), callerOf: () => caller, log })
process.stdout.write('ready\n')

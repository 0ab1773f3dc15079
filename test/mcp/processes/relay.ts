import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { appendFileSync } from 'node:fs'
import { connect } from 'node:net'
import type { Socket } from 'node:net'
import { fileURLToPath } from 'node:url'
import { relay } from '../../../src/relay.ts'

/** What `writ mcp` does, with the tests' broker: `relay.ts SOCKET LEDGER PIDS`. Each broker it starts is noted in PIDS. */
const [socket = '', ledger = '', pids = ''] = process.argv.slice(2)

async function reach(): Promise<Socket> {
  try {
    return await opened()
  } catch {
    const broker = spawn(process.execPath, [fileURLToPath(new URL('broker.ts', import.meta.url)), socket, ledger], {
      detached: true,
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    appendFileSync(pids, `${broker.pid}\n`)
    await once(broker.stdout, 'data')
    broker.stdout.destroy()
    broker.unref()
    return await opened()
  }
}

async function opened(): Promise<Socket> {
  const stream = connect(socket)
  await once(stream, 'connect')
  return stream
}

await relay({ connect: reach, stdin: process.stdin, stdout: process.stdout, report: (error) => console.error(error) })

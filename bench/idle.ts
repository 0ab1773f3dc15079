import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import type { Figure } from './figure.ts'
import { build, end, entryOf, environment, family, makeWorld } from './world.ts'
import type { From } from './world.ts'

/** Milliseconds until nothing of the start goes on any more: workers forked, heaps collected. */
const settleMs = 6_000

interface Seen {
  readonly broker: number
  readonly others: number
  readonly relay: number
}

/**
 * Memory of a broker that waits, with its run host and the spare worker: PSS, in which what processes share counts once.
 * The relay of one connected client is told beside it.
 */
export async function run(): Promise<readonly Figure[]> {
  build()
  const dist = await measure('dist')
  const src = await measure('src')
  const whole = dist.broker + dist.others
  return [
    {
      name: 'idle memory',
      figure: `${whole.toFixed(0)} MB PSS`,
      goal: '220 MB PSS',
      reached: whole <= 220,
      detail: `broker ${dist.broker.toFixed(0)}, run host and spare worker ${dist.others.toFixed(0)}; with the relay of one client ${(whole + dist.relay).toFixed(0)}; from source ${(src.broker + src.others).toFixed(0)}, with a relay ${(src.broker + src.others + src.relay).toFixed(0)}`,
    },
  ]
}

async function measure(from: From): Promise<Seen> {
  const world = makeWorld()
  try {
    const { broker } = await world.serve(from)
    const relay = spawn(process.execPath, [entryOf(from), 'mcp', '--config', world.config], {
      env: environment,
      stdio: ['pipe', 'ignore', 'inherit'],
    })
    try {
      relay.stdin.write('{"jsonrpc":"2.0","method":"notifications/initialized"}\n')
      await new Promise((resolve) => setTimeout(resolve, settleMs))
      const [first = 0, ...others] = family(broker.pid ?? 0)
      return {
        broker: megabytes(first),
        others: others.reduce((sum, pid) => sum + megabytes(pid), 0),
        relay: megabytes(relay.pid ?? 0),
      }
    } finally {
      await end(relay)
      await end(broker)
    }
  } finally {
    world.close()
  }
}

function megabytes(pid: number): number {
  const kilobytes = /^Pss:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${String(pid)}/smaps_rollup`, 'utf8'))?.[1]
  return Number(kilobytes) / 1024
}

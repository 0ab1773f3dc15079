import { readFileSync } from 'node:fs'
import type { Figure } from './figure.ts'
import { quantile } from './figure.ts'
import { hold, load, openMeasured, shot } from './load.ts'
import { build } from './world.ts'

const connections = 8
/** Of the memory after the first tenth: what caches, pools and the heap grow to while they fill. */
const flat = 1.15

/**
 * Memory of the broker under ten minutes of load: calls one after the other, and beside them clients that come to wait and
 * go without a word. Flat means that the last tenth is no larger than the first after the warm-up, but for some per cent.
 */
export async function run(minutes = 10): Promise<readonly Figure[]> {
  build()
  const writ = await openMeasured()
  try {
    const calls = shot(writ.port, 'get_status', { execution_id: writ.execution }, writ.token)
    const overview = shot(writ.port, 'get_status', {}, writ.token)
    const malformed = {
      port: writ.port,
      bytes: Buffer.from(calls.bytes.toString('latin1').replace('"jsonrpc":"2.0"', '"jsonrpc":"2.1"'), 'latin1'),
    }
    const seen: number[] = []
    const slices = Math.round(minutes * 20)
    let answered = 0
    let running: string | null = null
    for (let slice = 0; slice < slices; slice++) {
      // Twenty slices a minute, 3 s each.
      if (slice % 15 === 0) {
        if (running !== null) await writ.cancel(running)
        running = await writ.slow()
      }
      const waiting = shot(writ.port, 'get_status', { execution_id: running ?? '', wait_ms: 50_000 }, writ.token)
      const held = await Promise.all(Array.from({ length: 20 }, async () => await hold(waiting)))
      answered += (await load(calls, connections, 1400)).perSecond * 1.4
      answered += (await load(overview, connections, 800)).perSecond * 0.8
      answered += (await load(malformed, connections, 800)).perSecond * 0.8
      for (const socket of held) socket.destroy()
      seen.push(residentMb(writ.pid))
    }
    const tenth = Math.floor(slices / 10)
    const early = quantile(seen.slice(tenth, 2 * tenth), 0.5)
    const late = quantile(seen.slice(-tenth), 0.5)
    const ratio = late / early
    return [
      {
        name: `memory after ${String(minutes)} minutes of load, against after one`,
        figure: `${ratio.toFixed(2)}x`,
        goal: `${flat.toFixed(2)}x`,
        reached: ratio <= flat,
        detail: `resident memory of the broker: ${early.toFixed(0)} MB in the second minute, ${late.toFixed(0)} MB in the last, at most ${Math.max(...seen).toFixed(0)} MB; about ${answered.toFixed(0)} requests, ${String(slices * 20)} clients that waited and went`,
      },
    ]
  } finally {
    await writ.close()
  }
}

function residentMb(pid: number): number {
  return Number(/VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${String(pid)}/status`, 'utf8'))?.[1]) / 1024
}

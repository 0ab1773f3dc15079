import { quantile } from './figure.ts'
import type { Figure } from './figure.ts'
import { load, openBare, openMeasured, shot } from './load.ts'
import { build } from './world.ts'

const rounds = 5
const roundMs = 2000
const connections = 16

/** Calls of a tool over HTTP, each authenticated and decided, beside a bare SDK server that echoes; in turns, stateless revision. */
export async function run(): Promise<readonly Figure[]> {
  build()
  const writ = await openMeasured()
  const bare = await openBare()
  try {
    const mine = shot(writ.port, 'get_status', { execution_id: writ.execution }, writ.token)
    await load(bare.shot, connections, 1500)
    await load(mine, connections, 1500)
    const echo: number[] = []
    const status: number[] = []
    for (let round = 0; round < rounds; round++) {
      echo.push((await load(bare.shot, connections, roundMs)).perSecond)
      const { perSecond, failed } = await load(mine, connections, roundMs)
      if (failed > 0) throw new Error(`${String(failed)} calls failed`)
      status.push(perSecond)
    }
    const ratio = quantile(status, 0.5) / quantile(echo, 0.5)
    return [
      {
        name: 'HTTP calls with a decision on each, against a bare SDK echo server',
        figure: `${ratio.toFixed(2)}x`,
        goal: '0.6x',
        reached: ratio >= 0.6,
        detail: `${String(connections)} connections: ${quantile(status, 0.5).toFixed(0)} get_status/s, ${quantile(echo, 0.5).toFixed(0)} echo/s, medians of ${String(rounds)} rounds`,
      },
    ]
  } finally {
    await bare.close()
    await writ.close()
  }
}

import { quantile } from './figure.ts'
import type { Figure } from './figure.ts'
import { hold, load, openBare, openMeasured, shot } from './load.ts'
import type { Measured } from './load.ts'
import { build } from './world.ts'

const pollers = 1000
const rounds = 5
const roundMs = 1500
const connections = 16

/**
 * `get_status` over HTTP while 1,000 clients wait for an execution, beside a bare SDK server that echoes, in turns. The
 * waits are renewed before each round, so that all of them are there in all of it.
 */
export async function run(): Promise<readonly Figure[]> {
  build()
  const writ = await openMeasured()
  const bare = await openBare()
  try {
    const mine = shot(writ.port, 'get_status', { execution_id: writ.execution }, writ.token)
    await load(bare.shot, connections, 1500)
    await load(mine, connections, 1500)
    const alone = (await load(mine, connections, roundMs)).perSecond
    const echo: number[] = []
    const status: number[] = []
    for (let round = 0; round < rounds; round++) {
      echo.push((await load(bare.shot, connections, roundMs)).perSecond)
      const release = await wait(writ)
      const { perSecond, failed } = await load(mine, connections, roundMs)
      const waiting = await writ.metric('writ_waits')
      await release()
      if (failed > 0 || waiting < pollers) throw new Error(`${String(failed)} calls failed, ${String(waiting)} waited`)
      status.push(perSecond)
    }
    const ratio = quantile(status, 0.5) / quantile(echo, 0.5)
    return [
      {
        name: `get_status with ${String(pollers)} waiting clients, against a bare SDK echo server`,
        figure: `${ratio.toFixed(2)}x`,
        goal: '0.7x',
        reached: ratio >= 0.7,
        detail: `${String(connections)} connections: ${quantile(status, 0.5).toFixed(0)} get_status/s, ${quantile(echo, 0.5).toFixed(0)} echo/s, medians of ${String(rounds)} rounds; ${alone.toFixed(0)} get_status/s with nobody waiting`,
      },
    ]
  } finally {
    await bare.close()
    await writ.close()
  }
}

/** All pollers waiting for one execution that goes on; what is returned lets them go. */
async function wait(writ: Measured): Promise<() => Promise<void>> {
  const execution = await writ.slow()
  const fired = shot(writ.port, 'get_status', { execution_id: execution, wait_ms: 50_000 }, writ.token)
  const sockets = await Promise.all(Array.from({ length: pollers }, async () => await hold(fired)))
  for (const end = performance.now() + 40_000; (await writ.metric('writ_waits')) < pollers;) {
    if (performance.now() > end) throw new Error(`${String(await writ.metric('writ_waits'))} of them came to wait`)
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
  return async () => {
    for (const socket of sockets) socket.destroy()
    await writ.cancel(execution)
  }
}

import { quantile } from './figure.ts'
import type { Figure } from './figure.ts'
import { build, end, makeWorld } from './world.ts'
import type { From, World } from './world.ts'

const rounds = 11

/**
 * From the making of the broker's process to its first answered MCP call on the socket, with policies that have not
 * changed since it ran last. The goal is for the package as installed; a clone strips its types at every start.
 */
export async function run(): Promise<readonly Figure[]> {
  build()
  const world = makeWorld()
  try {
    const times = { dist: [] as number[], src: [] as number[] }
    const cpu = { dist: [] as number[], src: [] as number[] }
    // The first start of a data folder compiles the policies and makes the genesis receipt.
    for (const from of ['dist', 'src'] as const) await once(world, from)
    for (let round = 0; round < rounds; round++) {
      for (const from of ['dist', 'src'] as const) {
        const seen = await once(world, from)
        times[from].push(seen.ms)
        cpu[from].push(seen.cpuMs)
      }
    }
    const p50 = quantile(times.dist, 0.5)
    return [
      {
        name: 'start to ready',
        figure: `${(p50 / 1000).toFixed(2)} s`,
        goal: '0.5 s',
        reached: p50 <= 500,
        detail: `${rounds} starts with unchanged policies, spawn to first answered MCP call: p50 ${ms(p50)}, best ${ms(quantile(times.dist, 0))}, worst ${ms(quantile(times.dist, 1))}, ${ms(quantile(cpu.dist, 0.5))} of CPU in the broker; from source p50 ${ms(quantile(times.src, 0.5))}, best ${ms(quantile(times.src, 0))}, ${ms(quantile(cpu.src, 0.5))} of CPU`,
      },
    ]
  } finally {
    world.close()
  }
}

async function once(world: World, from: From): Promise<{ readonly ms: number; readonly cpuMs: number }> {
  const { broker, ms, cpuMs } = await world.serve(from)
  await end(broker)
  return { ms, cpuMs }
}

function ms(value: number): string {
  return `${value.toFixed(0)} ms`
}

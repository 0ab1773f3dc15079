import { availableParallelism, cpus, loadavg } from 'node:os'
import type { Figure } from './figure.ts'

type Run = () => Promise<readonly Figure[]>

/** What can be measured, by name; each in a module of its own, loaded when it is asked for. */
const benches: ReadonlyMap<string, () => Promise<{ readonly run: Run }>> = new Map([
  ['policy', async () => await import('./policy.ts')],
  ['isolate', async () => await import('./isolate.ts')],
  ['receipts', async () => await import('./receipts.ts')],
  ['start', async () => await import('./start.ts')],
  ['idle', async () => await import('./idle.ts')],
  ['upload', async () => await import('./upload.ts')],
  ['http', async () => await import('./http.ts')],
  ['status', async () => await import('./status.ts')],
  ['docker', async () => await import('./docker.ts')],
  ['frames', async () => await import('./frames.ts')],
  ['soak', async () => await import('./soak.ts')],
])

/** `npm run bench -- [--json] [NAME…]`: exit 0 when every goal was reached, 1 when one was missed, 2 for a name not known. */
async function main(argv: readonly string[]): Promise<number> {
  const json = argv.includes('--json')
  const names = argv.filter((word) => word !== '--json')
  const unknown = names.find((name) => !benches.has(name))
  if (unknown !== undefined) {
    console.error(`There is no bench "${unknown}". There are: ${[...benches.keys()].join(', ')}.`)
    return 2
  }
  const done: { bench: string; load: number; figures: readonly Figure[] }[] = []
  for (const name of names.length === 0 ? benches.keys() : names) {
    const load = loadavg()[0] ?? 0
    const bench = await benches.get(name)?.()
    if (bench === undefined) continue
    const figures = await bench.run()
    done.push({ bench: name, load, figures })
    if (!json) print(name, load, figures)
  }
  if (json)
    console.log(
      JSON.stringify(
        { cpu: cpus()[0]?.model ?? '', cores: availableParallelism(), node: process.version, benches: done },
        null,
        2,
      ),
    )
  return done.every(({ figures }) => figures.every((figure) => figure.reached)) ? 0 : 1
}

function print(name: string, load: number, figures: readonly Figure[]): void {
  for (const figure of figures)
    console.log(`  ${figure.name}: ${figure.figure} (goal ${figure.goal}); ${figure.detail}`)
  console.log(`  load average when it began: ${load.toFixed(2)} on ${String(availableParallelism())} cores`)
  const all = figures.every((figure) => figure.reached)
  console.log(
    `${name}: ${figures.map((figure) => figure.figure).join(', ')} (goal ${figures.map((figure) => figure.goal).join(', ')}) ${all ? 'reached' : 'missed'}`,
  )
}

process.exitCode = await main(process.argv.slice(2))

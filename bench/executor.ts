import { readFileSync, readdirSync } from 'node:fs'
import ivm from 'isolated-vm'
import { startRunHost } from '../src/execution/host.ts'
import { createIsolateExecutor } from '../src/executor/isolate/isolate.ts'
import { quantile } from './figure.ts'
import type { Figure } from './figure.ts'
import { listen, prepare } from '../test/executor/fixture.ts'

const rounds = 30
const code = 'console.log(1 + 1)'

/**
 * A run by the executor on a waiting worker (dispatch to worker confirmed gone) beside a bare isolate made, run and
 * disposed in a warm process, taken in turns; and what the run host and its waiting worker hold of memory when idle.
 */
export async function run(): Promise<readonly Figure[]> {
  const executor = createIsolateExecutor({
    env: { PATH: '/usr/bin:/bin', HOME: '/', LANG: 'C.UTF-8' },
    owner: `bench${process.pid}`,
  })
  const output: number[] = []
  const whole: number[] = []
  const bare: number[] = []
  for (let round = 0; round < rounds; round++) {
    await settled(() => executor.waiting.length > 0)
    // The goal is for a worker that waits; a fork beside the measurement would measure the fork.
    await pause(400)
    const prepared = prepare({ files: { 'main.js': code }, argv: [['main.js']] })
    const seen = listen(prepared)
    const begun = performance.now()
    await executor.run(prepared.job, seen.io)
    whole.push(performance.now() - begun)
    output.push(seen.firstOutput() ?? Number.POSITIVE_INFINITY)
    bare.push(await bareIsolate())
  }
  await executor.close()
  const [first, full, floor] = [quantile(output, 0.5), quantile(whole, 0.5), quantile(bare, 0.5)]
  const pss = await idle()
  return [
    {
      name: 'executor warm run, dispatch to first output',
      figure: `${first.toFixed(2)} ms`,
      goal: '2 ms',
      reached: first <= 2,
      detail: `median of ${rounds}; bare warm isolate ${floor.toFixed(2)} ms; until the worker is seen gone ${full.toFixed(2)} ms`,
    },
    {
      name: 'run host and one waiting worker, idle',
      figure: `${(pss.reduce((sum, one) => sum + one.kb, 0) / 1024).toFixed(0)} MB`,
      goal: '110 MB',
      reached: pss.length > 1 && pss.reduce((sum, one) => sum + one.kb, 0) <= 110 * 1024,
      detail: `PSS: ${pss.map((one) => `${one.what} ${(one.kb / 1024).toFixed(0)} MB`).join(', ')}`,
    },
  ]
}

async function bareIsolate(): Promise<number> {
  const begun = performance.now()
  const isolate = new ivm.Isolate({ memoryLimit: 64 })
  const context = await isolate.createContext()
  await context.eval('1 + 1')
  isolate.dispose()
  return performance.now() - begun
}

async function idle(): Promise<readonly { readonly what: string; readonly kb: number }[]> {
  const host = startRunHost({ owner: `benchidle${process.pid}` })
  await host.check()
  const pid = host.pid ?? 0
  await settled(() => children(pid).length > 0)
  await pause(2000)
  const result = [
    { what: 'run host', kb: pssOf(pid) },
    ...children(pid).map((child) => ({ what: 'worker', kb: pssOf(child) })),
  ]
  await host.close()
  return result
}

function children(parent: number): readonly number[] {
  return readdirSync('/proc').flatMap((name) => {
    try {
      const stat = readFileSync(`/proc/${name}/stat`, 'utf8')
      const [state, of] = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
      return Number(of) === parent && state !== 'Z' ? [Number(name)] : []
    } catch {
      return []
    }
  })
}

function pssOf(pid: number): number {
  return Number(/^Pss:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8'))?.[1] ?? 0)
}

async function settled(truth: () => boolean): Promise<void> {
  for (let tries = 0; !truth() && tries < 500; tries++) await pause(10)
}

async function pause(ms: number): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, ms))
}

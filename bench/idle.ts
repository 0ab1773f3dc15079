import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import type { Figure } from './figure.ts'
import { build, end, entryOf, family, makeWorld } from './world.ts'
import type { From } from './world.ts'

/** Milliseconds until nothing of the start goes on any more: workers forked, heaps collected. */
const settleMs = 6_000

/** Megabytes by what is mapped: everything private under one name, and each file by its path. */
type Memory = ReadonlyMap<string, number>
const anonymous = ''

interface Seen {
  readonly broker: Memory
  readonly others: readonly Memory[]
  readonly relay: Memory
}

/**
 * Memory of a broker that waits, with its run host and the spare worker: PSS, in which what processes share counts once.
 * The kernel divides a shared page among all that map it, other programs on the same Node included; here a file that
 * several of ours map counts whole and once, as on a machine where nobody else runs Node. The relay of one connected
 * client is told beside it.
 */
export async function run(): Promise<readonly Figure[]> {
  build()
  const dist = await measure('dist')
  const src = await measure('src')
  const whole = together([dist.broker, ...dist.others])
  const own = (all: readonly Memory[]): string =>
    all.reduce((sum, one) => sum + (one.get(anonymous) ?? 0), 0).toFixed(0)
  return [
    {
      name: 'idle memory',
      figure: `${whole.toFixed(0)} MB PSS`,
      goal: '220 MB PSS',
      reached: whole <= 220,
      detail: `private: broker ${own([dist.broker])}, run host and spare worker ${own(dist.others)}, the rest are files they share; with the relay of one client ${together([dist.broker, ...dist.others, dist.relay]).toFixed(0)}; from source ${together([src.broker, ...src.others]).toFixed(0)}, with a relay ${together([src.broker, ...src.others, src.relay]).toFixed(0)}`,
    },
  ]
}

function together(all: readonly Memory[]): number {
  const sum = new Map<string, number>()
  for (const memory of all) {
    for (const [path, megabytes] of memory) {
      const known = sum.get(path) ?? 0
      sum.set(path, path === anonymous ? known + megabytes : Math.max(known, megabytes))
    }
  }
  return [...sum.values()].reduce((a, b) => a + b, 0)
}

async function measure(from: From): Promise<Seen> {
  const world = makeWorld()
  try {
    // The first start of a clone or an installation compiles what later ones find.
    await end((await world.serve(from)).broker)
    const { broker } = await world.serve(from)
    const relay = spawn(process.execPath, [entryOf(from), 'mcp', '--config', world.config], {
      env: world.env,
      stdio: ['pipe', 'ignore', 'inherit'],
    })
    try {
      relay.stdin.write('{"jsonrpc":"2.0","method":"notifications/initialized"}\n')
      await new Promise((resolve) => setTimeout(resolve, settleMs))
      const [first = 0, ...others] = family(broker.pid ?? 0)
      return { broker: memoryOf(first), others: others.map(memoryOf), relay: memoryOf(relay.pid ?? 0) }
    } finally {
      await end(relay)
      await end(broker)
    }
  } finally {
    world.close()
  }
}

/** Private pages by the kernel's count, files by what of them is resident. */
function memoryOf(pid: number): Memory {
  const memory = new Map<string, number>()
  let path = anonymous
  let resident = 0
  const add = (name: string, kilobytes: number): void =>
    void memory.set(name, (memory.get(name) ?? 0) + kilobytes / 1024)
  for (const line of readFileSync(`/proc/${String(pid)}/smaps`, 'utf8').split('\n')) {
    const mapping = /^[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ (\d+)\s*(.*)$/.exec(line)
    if (mapping !== null) {
      path = mapping[1] === '0' ? anonymous : (mapping[2] ?? anonymous)
      continue
    }
    const [, field, text] = /^(Rss|Pss|Anonymous):\s+(\d+) kB$/.exec(line) ?? []
    const kilobytes = Number(text)
    if (field === 'Rss') resident = kilobytes
    else if (field === 'Pss' && path === anonymous) add(anonymous, kilobytes)
    else if (field === 'Anonymous' && path !== anonymous) {
      // Pages of a file that were written to are the process's own.
      add(anonymous, kilobytes)
      add(path, resident - kilobytes)
    }
  }
  return memory
}

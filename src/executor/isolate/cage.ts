import { existsSync, mkdirSync, readFileSync, readdirSync, rmdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { WritError, systemCode } from '../../error.ts'

/** What holds a worker's memory and its count of threads: a control group where one can be made, else resource limits. */
export type CageKind = 'cgroup1' | 'cgroup2' | 'rlimit'

/** The limits around one worker process. */
export interface Cage {
  readonly kind: CageKind
  /** Files the worker writes its own pid to before it becomes Node, so that no byte of it is outside. */
  readonly joins: readonly string[]
  /** Sets the memory of the whole process, in megabytes. */
  limit(memoryMb: number): void
  /** How often the kernel killed in here for want of memory. */
  kills(): number
  /** Most bytes ever held, or null where that is not counted. */
  peak(): number | null
  /** Once nothing runs in it. Resolves when it is gone or has been busy for too long; then the next sweep takes it. */
  remove(): Promise<void>
}

/** Where groups are made; `cage` never fails once this was found, it throws only where the system changed since. */
export interface CageMaker {
  readonly kind: CageKind
  make(name: string): Cage
  /** Kills and removes every group whose name begins so and that `live` does not name. */
  sweep(prefix: string, live: ReadonlySet<string>): number
}

const maxThreads = 64
/** Address space of a worker without a group, beside its guest's memory: Node and an isolate reserve 2.4 GB and use little. */
export const addressSpaceKb = 2_600 * 1024

/** The strongest cage this process may build. `root` is where control groups are mounted. */
export function findCage(options: { readonly root?: string; readonly self?: string } = {}): CageMaker {
  const root = options.root ?? '/sys/fs/cgroup'
  const own = membership(options.self ?? '/proc/self/cgroup')
  for (const parents of candidates(root, own)) {
    const maker = control(parents)
    if (works(maker)) return maker
  }
  return { kind: 'rlimit', make: () => rlimit, sweep: () => 0 }
}

const rlimit: Cage = {
  kind: 'rlimit',
  joins: [],
  limit: () => undefined,
  kills: () => 0,
  peak: () => null,
  remove: () => Promise.resolve(),
}

interface Parents {
  readonly kind: 'cgroup1' | 'cgroup2'
  readonly memory: string
  readonly pids: string
}

function membership(file: string): ReadonlyMap<string, string> {
  const found = new Map<string, string>()
  for (const line of read(file).split('\n')) {
    const [, controllers, path] = /^\d+:([^:]*):(.*)$/.exec(line) ?? []
    for (const controller of (controllers ?? '').split(',')) if (path !== undefined) found.set(controller, path)
  }
  return found
}

/** Version 1 below our own groups; version 2 below our own or, as groups with processes cannot be parents, beside it. */
function candidates(root: string, own: ReadonlyMap<string, string>): readonly Parents[] {
  const list: Parents[] = []
  const [memory, pids, unified] = [own.get('memory'), own.get('pids'), own.get('')]
  if (memory !== undefined && pids !== undefined)
    list.push({ kind: 'cgroup1', memory: join(root, 'memory', memory), pids: join(root, 'pids', pids) })
  if (unified !== undefined)
    for (const path of [unified, join(unified, '..')])
      list.push({ kind: 'cgroup2', memory: join(root, path), pids: join(root, path) })
  return list
}

function works(maker: CageMaker): boolean {
  try {
    const cage = maker.make(`writ-probe-${process.pid}`)
    try {
      cage.limit(64)
      return cage.kills() === 0
    } finally {
      void cage.remove()
    }
  } catch {
    return false
  }
}

function control(parents: Parents): CageMaker {
  const { kind } = parents
  const folders = (name: string): readonly string[] => [
    ...new Set([join(parents.memory, name), join(parents.pids, name)]),
  ]
  const remove = async (name: string): Promise<void> => {
    await Promise.all(folders(name).map(removeFolder))
  }
  return {
    kind,
    make(name) {
      for (const folder of folders(name)) makeGroup(folder)
      const memory = join(parents.memory, name)
      try {
        writeFileSync(join(parents.pids, name, 'pids.max'), String(maxThreads))
        if (kind === 'cgroup1') writeFileSync(join(memory, 'memory.swappiness'), '0')
        else if (read(join(memory, 'memory.swap.max')) !== '') writeFileSync(join(memory, 'memory.swap.max'), '0')
      } catch (error) {
        void remove(name)
        throw error
      }
      return {
        kind,
        joins: folders(name).map((folder) => join(folder, 'cgroup.procs')),
        limit: (memoryMb) =>
          writeFileSync(
            join(memory, kind === 'cgroup1' ? 'memory.limit_in_bytes' : 'memory.max'),
            String(memoryMb * 1024 * 1024),
          ),
        kills: () =>
          Number(
            /^oom_kill (\d+)$/m.exec(
              read(join(memory, kind === 'cgroup1' ? 'memory.oom_control' : 'memory.events')),
            )?.[1] ?? 0,
          ),
        peak: () =>
          Number(read(join(memory, kind === 'cgroup1' ? 'memory.max_usage_in_bytes' : 'memory.peak'))) || null,
        remove: () => remove(name),
      }
    },
    sweep(prefix, live) {
      const names = list(parents.memory).filter((name) => name.startsWith(prefix) && !live.has(name))
      for (const name of names) {
        for (const folder of folders(name))
          for (const pid of read(join(folder, 'cgroup.procs')).split('\n')) if (Number(pid) > 1) kill(Number(pid))
        void remove(name)
      }
      return names.length
    },
  }
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL')
  } catch {
    // Gone already, which is what was wanted.
  }
}

/** A folder that the kernel did not fill is no group: its limits would be text in a file. */
function makeGroup(folder: string): void {
  try {
    mkdirSync(folder, { mode: 0o700 })
  } catch (error) {
    if (systemCode(error) !== 'EEXIST') throw error
  }
  if (existsSync(join(folder, 'cgroup.procs'))) return
  rmdirSync(folder)
  throw new WritError('target_unavailable', 'there are no control groups here')
}

/** The kernel frees a group a moment after its last process. */
async function removeFolder(folder: string): Promise<void> {
  for (let attempt = 0; attempt < 40; attempt++) {
    try {
      return rmdirSync(folder)
    } catch (error) {
      if (systemCode(error) !== 'EBUSY') return
      await new Promise((resolve) => setTimeout(resolve, 5))
    }
  }
}

function read(file: string): string {
  try {
    return readFileSync(file, 'utf8')
  } catch {
    return ''
  }
}

function list(folder: string): readonly string[] {
  try {
    return readdirSync(folder)
  } catch {
    return []
  }
}

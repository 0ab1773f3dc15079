import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'

/** A process as the kernel knows it: the start time tells it from another that got the same pid later. */
export interface Process {
  readonly pid: number
  readonly parent: number
  readonly started: string
  readonly command: string
}

function read(file: string): string {
  try {
    return readFileSync(file, 'utf8')
  } catch {
    return ''
  }
}

export function processOf(pid: number): Process | null {
  const stat = read(`/proc/${String(pid)}/stat`)
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  // A zombie is gone; only its parent has not asked yet.
  if (stat === '' || fields[0] === 'Z') return null
  return {
    pid,
    parent: Number(fields[1]),
    started: fields[19] ?? '',
    command: read(`/proc/${String(pid)}/cmdline`).replaceAll('\0', ' '),
  }
}

function all(): readonly Process[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map((name) => processOf(Number(name)))
    .filter((process) => process !== null)
}

export function alive(process: Process): boolean {
  return processOf(process.pid)?.started === process.started
}

/** The broker of a configuration: the one process that serves it. */
export function brokerOf(configFile: string): Process | null {
  return (
    all().find(
      ({ command }) => / serve (--detached )?--config /.test(command) && command.includes(` ${configFile} `),
    ) ?? null
  )
}

/** Every process below one, run host and workers told apart by what they run. */
export interface Family {
  readonly broker: Process
  readonly host: Process | null
  readonly workers: readonly Process[]
}

export function familyOf(broker: Process): Family {
  const everyone = all()
  const host = everyone.find(({ parent, command }) => parent === broker.pid && command.includes('host-main')) ?? null
  return { broker, host, workers: host === null ? [] : everyone.filter(({ parent }) => parent === host.pid) }
}

/** Control groups of isolate workers whose name begins so. */
export function groupsOf(prefix: string): readonly string[] {
  const found: string[] = []
  const walk = (folder: string, depth: number): void => {
    let names: readonly string[]
    try {
      names = readdirSync(folder, { withFileTypes: true })
        .filter((entry) => entry.isDirectory())
        .map((entry) => entry.name)
    } catch {
      return
    }
    for (const name of names) {
      if (name.startsWith(prefix)) found.push(name)
      else if (depth < 6) walk(join(folder, name), depth + 1)
    }
  }
  walk('/sys/fs/cgroup', 0)
  return [...new Set(found)]
}

export function kill(process: Process): boolean {
  if (!alive(process)) return false
  globalThis.process.kill(process.pid, 'SIGKILL')
  return true
}

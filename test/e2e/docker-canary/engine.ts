import { closeSync, lstatSync, openSync, readdirSync, readFileSync, readSync } from 'node:fs'
import { request } from 'node:http'
import { join } from 'node:path'
import type { Needles } from '../canary/sweep.ts'

/** All that an engine tells of what happens, from now on. */
export interface Events {
  readonly text: () => string
  close(): void
}

export function listenToEvents(host: string): Events {
  const parts: Buffer[] = []
  const asked = request({ socketPath: host.replace(/^unix:\/\//, ''), path: '/v1.41/events' }, (response) => {
    response.on('data', (part: Buffer) => parts.push(part))
    response.on('error', () => undefined)
  })
  asked.on('error', () => undefined)
  asked.end()
  return { text: () => Buffer.concat(parts).toString('utf8'), close: () => asked.destroy() }
}

/** What of the canaries stands in files below a folder that came or changed since then. */
export function sweepSince(folder: string, since: number, needles: Needles, files: string[]): readonly string[] {
  const found: string[] = []
  let entries
  try {
    entries = readdirSync(folder, { withFileTypes: true })
  } catch {
    // A container's folder that went meanwhile.
    return found
  }
  for (const entry of entries) {
    const path = join(folder, entry.name)
    try {
      if (entry.isDirectory()) found.push(...sweepSince(path, since, needles, files))
      else if (entry.isFile()) {
        const stat = lstatSync(path)
        if (stat.ctimeMs < since || stat.size > 64 << 20) continue
        files.push(path)
        for (const name of needles.in(readFileSync(path))) found.push(`${name} in ${path}`)
      }
    } catch {
      // It went meanwhile.
    }
  }
  return found
}

/** Processes of the machine that are in a container, by its control groups; under gVisor those that are its kernel. */
export function processesOf(container: string): readonly number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => {
      try {
        return readFileSync(`/proc/${pid}/cgroup`, 'utf8').includes(container)
      } catch {
        return false
      }
    })
    .map(Number)
}

const page = 4096
const chunk = 1024

/**
 * What root on the machine finds in the memory a process can write to. Only pages that are there are read: a look at one
 * that is not would make it, and what is made counts against the container's memory.
 */
export function sweepMemory(pid: number, look: (bytes: Buffer) => void): number {
  let seen = 0
  const maps = readFileSync(`/proc/${String(pid)}/maps`, 'utf8').split('\n')
  const memory = openSync(`/proc/${String(pid)}/mem`, 'r')
  const table = openSync(`/proc/${String(pid)}/pagemap`, 'r')
  const entries = Buffer.alloc(8 * chunk)
  try {
    for (const line of maps) {
      const [, from = '', to = '', mode = ''] = /^([0-9a-f]+)-([0-9a-f]+) (\S+)/.exec(line) ?? []
      if (!mode.startsWith('rw')) continue
      const last = Number(`0x${to}`) / page
      // A reserve this large is address space only.
      if (last - Number(`0x${from}`) / page > 1 << 22) continue
      for (let at = Number(`0x${from}`) / page; at < last && seen < 1 << 30; at += chunk) {
        const count = Math.min(chunk, last - at)
        if (readSync(table, entries, 0, 8 * count, 8 * at) < 8 * count) break
        let begin = -1
        for (let index = 0; index <= count; index++) {
          const present = index < count && ((entries[8 * index + 7] ?? 0) & 0xc0) !== 0
          if (present && begin < 0) begin = index
          if (present || begin < 0) continue
          const part = Buffer.alloc((index - begin) * page)
          try {
            const read = readSync(memory, part, 0, part.length, (at + begin) * page)
            seen += read
            look(part.subarray(0, read))
          } catch {
            // Unmapped since.
          }
          begin = -1
        }
      }
    }
  } finally {
    closeSync(memory)
    closeSync(table)
  }
  return seen
}

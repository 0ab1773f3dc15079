import { setTimeout as pause } from 'node:timers/promises'
import type { Place } from './place.ts'
import { alive, brokerOf, type Family, familyOf, groupsOf, type Process } from './processes.ts'
import type { Sandbox } from './sandbox.ts'

const orphanMs = 30_000

export function familyNow(place: Place): Family | null {
  const broker = brokerOf(place.configFile)
  return broker === null ? null : familyOf(broker)
}

export function below(family: Family): readonly Process[] {
  return [...(family.host === null ? [] : [family.host]), ...family.workers]
}

/** Control groups carry the owner the run host was given. */
export function ownerOf(place: Place): string | null {
  return /"owner":"([a-z0-9]+)"/.exec(familyNow(place)?.host?.command ?? '')?.[1] ?? null
}

export function groupPrefix(place: Place): string {
  const owner = ownerOf(place)
  if (owner === null) throw new Error('the run host has no owner')
  return `writ-${owner}-`
}

export async function until<T>(look: () => T | null, ms: number): Promise<T | null> {
  const end = performance.now() + ms
  for (;;) {
    const seen = look()
    if (seen !== null || performance.now() > end) return seen
    await pause(20)
  }
}

export async function gone(processes: readonly Process[]): Promise<readonly string[]> {
  const left = await until(() => (processes.some(alive) ? null : []), 5000)
  return left === null
    ? processes.filter(alive).map(({ pid, command }) => `process ${String(pid)} is left: ${command.slice(0, 160)}`)
    : []
}

/** What a killed process had below it is gone, and only groups of the run host that lives are there. */
export async function leftovers(place: Place, dead: readonly Process[], prefix: string): Promise<readonly string[]> {
  const left = await gone(dead)
  const stale = (): readonly string[] => {
    const host = familyNow(place)?.host
    return groupsOf(prefix).filter(
      (name) => host === undefined || host === null || !name.startsWith(`${prefix}${String(host.pid)}-`),
    )
  }
  const clean = await until(() => (stale().length === 0 ? true : null), 5000)
  return clean === null ? [...left, `control groups are left: ${stale().join(' ')}`] : left
}

/** Within 30 s of the restart no container of those that died is left. */
export async function orphansGone(
  place: Place,
  sandbox: Sandbox,
  orphans: readonly string[],
): Promise<readonly string[]> {
  if (orphans.length === 0) return []
  // Where the run host has not been started again yet, the broker's own next call does it.
  for (const end = performance.now() + orphanMs; ; await pause(100)) {
    const owner = ownerOf(place)
    const now = owner === null ? null : new Set(await sandbox.living(owner))
    const left = now === null ? orphans : orphans.filter((id) => now.has(id))
    if (left.length === 0) return []
    if (performance.now() > end) return left.map((id) => `container ${id.slice(0, 12)} is left`)
  }
}

/** … nor any other of that owner once its broker was stopped. */
export async function sandboxesGone(sandbox: Sandbox, owner: string): Promise<readonly string[]> {
  for (const end = performance.now() + orphanMs; ; await pause(100)) {
    const left = await sandbox.living(owner)
    if (left.length === 0) return []
    if (performance.now() > end) return left.map((id) => `container ${id.slice(0, 12)} is left after the stop`)
  }
}

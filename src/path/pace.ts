import type { Clock } from '../clock.ts'

/** Counts what a tenant caused in the last minute, so that a flood is refused before it costs an evaluation and a signature. */
export interface Pace {
  note(tenant: string): void
  room(tenant: string): boolean
}

export function openPace(clock: Clock, perMinute: number): Pace {
  const at = new Map<string, number[]>()
  const recent = (tenant: string): number[] => {
    const since = clock.monotonic() - 60_000
    const kept = (at.get(tenant) ?? []).filter((moment) => moment > since)
    if (kept.length === 0) at.delete(tenant)
    else at.set(tenant, kept)
    return kept
  }
  return {
    note: (tenant) => void at.set(tenant, [...recent(tenant), clock.monotonic()]),
    room: (tenant) => recent(tenant).length < perMinute,
  }
}

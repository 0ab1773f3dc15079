import type { ExecutionId } from '../id.ts'

/** What waits for a place to run. First come, first served within a tenant; between tenants, whoever has least running. */
export interface Queue {
  push(execution: ExecutionId, tenant: string): void
  /**
   * The next one, or null; `running` holds the tenant of each place that is taken.
   * @param room whether there is a place for a tenant that has so many
   */
  next(
    running: Iterable<string>,
    room?: (has: number) => boolean,
  ): { readonly execution: ExecutionId; readonly tenant: string } | null
  readonly length: number
}

/** A tenant that queues a thousand runs makes another wait for one of them, never for all. */
export function openQueue(): Queue {
  // In the order of each tenant's last turn: of two that have as much running, who waited longer for a turn goes first.
  const waiting = new Map<string, ExecutionId[]>()
  let length = 0
  return {
    push(execution, tenant) {
      const line = waiting.get(tenant)
      if (line === undefined) waiting.set(tenant, [execution])
      else line.push(execution)
      length++
    },
    next(running, room = () => true) {
      const taken = new Map<string, number>()
      for (const tenant of running) taken.set(tenant, (taken.get(tenant) ?? 0) + 1)
      let least: string | null = null
      for (const tenant of waiting.keys())
        if (least === null || (taken.get(tenant) ?? 0) < (taken.get(least) ?? 0)) least = tenant
      if (least === null || !room(taken.get(least) ?? 0)) return null
      const line = waiting.get(least) ?? []
      const execution = line.shift()
      waiting.delete(least)
      if (line.length > 0) waiting.set(least, line)
      if (execution === undefined) return null
      length--
      return { execution, tenant: least }
    },
    get length() {
      return length
    },
  }
}

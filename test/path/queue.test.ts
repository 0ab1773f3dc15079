import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { newId } from '../../src/id.ts'
import type { ExecutionId } from '../../src/id.ts'
import { openQueue } from '../../src/path/queue.ts'

describe('the queue of executions', () => {
  it('[G-tenants] lets a tenant wait for one run of another, however many that one has queued', () => {
    const queue = openQueue()
    for (let i = 0; i < 1000; i++) queue.push(newId('exec'), 'greedy')
    const mine = newId('exec')
    queue.push(mine, 'modest')
    expect(queue.next(['greedy', 'greedy', 'greedy'])).toEqual({ execution: mine, tenant: 'modest' })
    expect(queue.length).toBe(1000)
  })

  it('takes turns between tenants with as much running, and keeps the order within one', () => {
    const queue = openQueue()
    const [a1, a2, b1, b2] = [newId('exec'), newId('exec'), newId('exec'), newId('exec')]
    queue.push(a1, 'a')
    queue.push(a2, 'a')
    queue.push(b1, 'b')
    queue.push(b2, 'b')
    expect([1, 2, 3, 4].map(() => queue.next([])?.execution)).toEqual([a1, b1, a2, b2])
    expect(queue.next([])).toBeNull()
    expect(queue.length).toBe(0)
  })

  it('hands out each execution once, none of them late beyond what its tenant runs', () => {
    const tenant = fc.constantFrom('a', 'b', '__proto__')
    fc.assert(
      fc.property(fc.array(tenant, { maxLength: 50 }), fc.array(tenant, { maxLength: 4 }), (tenants, running) => {
        const queue = openQueue()
        const lines = new Map<string, ExecutionId[]>()
        for (const one of tenants) {
          const id = newId('exec')
          queue.push(id, one)
          lines.set(one, [...(lines.get(one) ?? []), id])
        }
        const busy = (one: string): number => running.filter((other) => other === one).length
        for (let left = tenants.length; left > 0; left--) {
          expect(queue.length).toBe(left)
          const next = queue.next(running)
          if (next === null) throw new Error('something waits')
          expect(lines.get(next.tenant)?.shift()).toBe(next.execution)
          for (const [other, line] of lines)
            if (line.length > 0) expect(busy(next.tenant)).toBeLessThanOrEqual(busy(other))
        }
        expect(queue.next(running)).toBeNull()
      }),
    )
  })
})

import * as fc from 'fast-check'
import { expect, it } from 'vitest'
import { rolesSeen, rowFor } from '../../src/http/identity/roles.ts'
import type { SeenRoles } from '../../src/request/token.ts'

const validMs = 1000

/** A token as it was issued: to an agent, at a second, with roles. */
const tokens = fc.uniqueArray(
  fc.record({
    agent: fc.constantFrom('a', 'b', 'c'),
    as_of_ms: fc.integer({ min: 0, max: 5 }),
    roles: fc.subarray(['developer', 'operator', 'approver']),
  }),
  { maxLength: 8, minLength: 1, selector: (one) => JSON.stringify(one) },
)

function write(rows: readonly SeenRoles[], seen: SeenRoles): readonly SeenRoles[] {
  return [...rows.filter((row) => row.agent !== seen.agent), seen]
}

it('[G-roles-now] a role is gone with the newest token that lacks it, no older one brings it back, and showing costs no more rows than there are tokens', () => {
  fc.assert(
    fc.property(tokens, fc.array(fc.nat({ max: 7 }), { maxLength: 60 }), (issued, order) => {
      let rows: readonly SeenRoles[] = []
      let written = 0
      const shown: (typeof issued)[number][] = []
      const taken = new Map<string, number>()
      for (const pick of order) {
        const token = issued[pick % issued.length]
        if (token === undefined) continue
        const before = rolesSeen(rows, 0)
        const isNewest = shown.every((one) => one.as_of_ms <= token.as_of_ms)
        shown.push(token)
        const seen = { tenant: 't', subject: 's', ...token, until_ms: validMs }
        const row = rowFor(rows, seen, 0)
        if (row !== null) {
          rows = write(rows, row)
          written++
        }
        const after = rolesSeen(rows, 0)
        for (const role of before) if (!after.includes(role)) taken.set(role, token.as_of_ms)
        // What the newest token does not say, nobody holds any more.
        if (isNewest) for (const role of after) expect(token.roles).toContain(role)
        for (const agent of ['a', 'b', 'c']) {
          for (const role of rolesSeen(rows, 0, agent)) {
            expect(after).toContain(role)
            expect(shown.some((one) => one.agent === agent && one.roles.includes(role))).toBe(true)
            const since = taken.get(role) ?? 0
            expect(shown.some((one) => one.as_of_ms >= since && one.roles.includes(role))).toBe(true)
          }
          expect(rolesSeen(rows, validMs, agent)).toEqual([])
        }
      }
      expect(written).toBeLessThanOrEqual(issued.length)
    }),
    { numRuns: 5000 },
  )
})

it('a role that the only agent of a person has is kept for as long as tokens with it are shown', () => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 1, max: 400 }), { maxLength: 40 }), (pauses) => {
      let rows: readonly SeenRoles[] = []
      let now = 0
      for (const pause of [0, ...pauses]) {
        now += pause
        const seen = {
          tenant: 't',
          subject: 's',
          agent: 'a',
          roles: ['developer'],
          as_of_ms: now,
          until_ms: now + validMs,
        }
        const row = rowFor(rows, seen, now)
        if (row !== null) rows = write(rows, row)
        expect(rolesSeen(rows, now, 'a')).toEqual(['developer'])
        expect(rolesSeen(rows, now + 499, 'a')).toEqual(['developer'])
      }
    }),
    { numRuns: 300 },
  )
})

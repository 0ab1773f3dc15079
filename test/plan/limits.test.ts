import * as fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  ceilings,
  constrain,
  defaultLimits,
  defaultMaxima,
  limitNames,
  limitSettings,
  narrowLimits,
  targetLimits,
} from '../../src/plan/limits.ts'

describe('limits', () => {
  test('a target sets its own, within the maxima', () => {
    const settings = limitSettings({ maxima: { wall_s: 100 } })
    expect(targetLimits(settings, { wall_s: 90 })).toEqual({ ...defaultLimits, wall_s: 90 })
    expect(targetLimits(settings, { wall_s: 900 }).wall_s).toBe(100)
  })

  test('constraints of a caller lower and never raise', () => {
    expect(constrain(defaultLimits, { time_s: 5, memory_mb: 64 })).toEqual({
      ...defaultLimits,
      wall_s: 5,
      memory_mb: 64,
    })
    expect(constrain(defaultLimits, { time_s: 5000, memory_mb: 9000 })).toEqual(defaultLimits)
    expect(constrain(defaultLimits, { time_s: null, memory_mb: null })).toEqual(defaultLimits)
  })

  test.each([Number.NaN, Number.POSITIVE_INFINITY, -1])('%d never counts as "no limit"', (value) => {
    expect(() => narrowLimits(defaultLimits, { wall_s: value })).toThrow('the limit wall_s is not a number')
  })

  test('the default maxima stay within the ceilings, and the defaults within the maxima', () => {
    for (const limit of limitNames) {
      expect(defaultMaxima[limit]).toBeLessThanOrEqual(ceilings[limit])
      expect(defaultLimits[limit]).toBeLessThanOrEqual(defaultMaxima[limit])
    }
  })

  test('narrowing only lowers, in any order, and twice is once', () => {
    const some = fc.record(Object.fromEntries(limitNames.map((name) => [name, fc.nat({ max: 100_000 })])), {
      requiredKeys: [],
    })
    fc.assert(
      fc.property(some, some, (a, b) => {
        const once = narrowLimits(defaultLimits, a)
        for (const limit of limitNames) expect(once[limit]).toBeLessThanOrEqual(defaultLimits[limit])
        expect(narrowLimits(once, a)).toEqual(once)
        expect(narrowLimits(once, b)).toEqual(narrowLimits(narrowLimits(defaultLimits, b), a))
      }),
    )
  })
})

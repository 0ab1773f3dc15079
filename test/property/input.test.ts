import * as fc from 'fast-check'
import { expect, it } from 'vitest'
import { canonical } from '../../src/digest.ts'
import { checkInput } from '../../src/policy/input.ts'
import { requestInput } from '../policy/fixtures/input.ts'

const value = fc.jsonValue({ maxDepth: 5, noUnicodeString: false })

function holding(argument: unknown): unknown {
  return { ...requestInput(), action: { name: 'x', properties: { arguments: { argument } } } }
}

it('the text that policy evaluates is the RFC 8785 form of the input, whatever a caller sends', () => {
  fc.assert(
    fc.property(value, (argument) => {
      fc.pre(!JSON.stringify(argument).includes('"__proto__"'))
      const checked = checkInput(holding(argument))
      const text = checked.ok ? checked.text : checked.why
      expect(text).toBe(canonical(holding(argument)))
    }),
    { numRuns: 1000 },
  )
})

it('no value whatever makes the check of an input throw', () => {
  fc.assert(
    fc.property(
      fc.anything({
        withBigInt: true,
        withDate: true,
        withMap: true,
        withNullPrototype: true,
        withSparseArray: true,
        withTypedArray: true,
      }),
      (any) => {
        expect([true, false]).toContain(checkInput(holding(any)).ok)
        expect(checkInput(any).ok).toBe(false)
      },
    ),
    { numRuns: 1000 },
  )
})

it('texts and files of a task are written as RFC 8785 writes them, whatever they hold', () => {
  const word = fc.string({ unit: 'grapheme' })
  fc.assert(
    fc.property(
      word,
      word,
      fc.array(fc.record({ path: word, sha256: word, size: fc.nat() }), { maxLength: 5 }),
      (goal, context, files) => {
        const built = requestInput()
        const task = { project_name: 'p', intent: 'i', goal, context, inputs: { [goal]: context }, files }
        fc.pre(goal !== '__proto__')
        const value = { ...built, context: { ...built.context, task } }
        const checked = checkInput(value)
        expect(checked.ok ? checked.text : checked.why).toBe(canonical(value))
      },
    ),
    { numRuns: 500 },
  )
})

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { canonical, type Json } from '../../src/digest.ts'
import { compileModule, openInstance } from '../../src/policy/load.ts'
import { ask } from '../../src/policy/tools-process.ts'
import { type Case, requestOf } from './fixtures/opa-cases.ts'
import { temporaryFolder } from './fixtures/pack.ts'

const root = join(import.meta.dirname, '..', '..')
const cases = JSON.parse(readFileSync(join(root, 'test', 'vectors', 'opa', 'cases.json'), 'utf8')) as readonly Case[]

/** Where a module says other than OPA: numbers that no double and no 64-bit integer holds. docs/policy.md names them. */
const differing: ReadonlyMap<string, readonly Json[] | 'policy_throw'> = new Map<
  string,
  readonly Json[] | 'policy_throw'
>([
  ['jsonbuiltins/unmarshal number beyond the supported exponent is undefined', [{ a: Infinity }]],
  ['jsonbuiltins/unmarshal number with too big an exponent is undefined', [{ a: [Infinity] }]],
  ['strings/format_int: bignum exact (>64-bit integer, all bases + negative)', 'policy_throw'],
])

let folder: Awaited<ReturnType<typeof temporaryFolder>>
const answers = new Map<Case, unknown>()

/** What a module of these cases answers; an evaluation that fails answers its error for each of them. */
async function evaluate(some: readonly Case[], module: string): Promise<void> {
  const compiled = await compileModule(Buffer.from(module, 'base64'))
  const input = new TextEncoder().encode('{}')
  const evaluated = openInstance(compiled).evaluate(input.buffer)
  // An input that another instance has read changes nothing.
  const instance = openInstance(compiled)
  const image = openInstance(compiled).read(input, instance.free + 4096)
  expect(image).not.toBeNull()
  expect(instance.evaluate(input.buffer, image)).toEqual(evaluated)
  for (const [at, one] of some.entries())
    answers.set(one, evaluated.ok ? (evaluated.value as Record<string, unknown>)[`c${at}`] : evaluated.error)
}

beforeAll(async () => {
  folder = await temporaryFolder()
  // One that fails takes those beside it with it.
  const failing = cases.filter(({ note }) => differing.get(note) === 'policy_throw')
  const groups = [cases.filter((one) => !failing.includes(one)), ...failing.map((one) => [one])]
  const built = await ask(groups.map(requestOf), { cacheDir: folder.path, deadlineMs: 100_000 }, false)
  for (const [at, group] of groups.entries()) {
    const answer = built[at]
    if (answer === undefined || !('reply' in answer) || answer.reply.module === undefined)
      throw new Error(JSON.stringify(answer).slice(0, 2000))
    await evaluate(group, answer.reply.module)
  }
}, 180_000)
afterAll(async () => await folder.remove())

/** A set is a list in JSON, in no order that means anything; which lists are sets, the published results do not say. */
function unordered(value: Json): Json {
  if (Array.isArray(value))
    return (value as readonly Json[]).map(unordered).toSorted((a, b) => (canonical(a) < canonical(b) ? -1 : 1))
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(Object.entries(value).map(([key, member]) => [key, unordered(member)]))
}

describe('OPA’s own conformance cases, as modules that Writ loads', () => {
  it('are there, and few that differ', () => {
    expect(cases.length).toBeGreaterThan(400)
    expect(answers.size).toBe(cases.length)
    expect([...differing.keys()].filter((note) => !cases.some((one) => one.note === note))).toEqual([])
  })

  it.each(cases.map((one) => [one.note, one] as const))('%s', (note, one) => {
    const answer = answers.get(one)
    const otherwise = differing.get(note)
    if (otherwise !== undefined) expect(answer).toEqual(otherwise)
    else expect(canonical(unordered(answer as Json))).toBe(canonical(unordered(one.want)))
  })
})

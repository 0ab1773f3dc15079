import type { Json, JsonObject } from '../../digest.ts'
import { parseIJson } from '../../json.ts'
import { openTally } from './report.ts'
import type { Clean, TestReport } from './report.ts'
import type { Work } from './slices.ts'

/** Bytes of a report; a longer one is not read. Less than of XML: this one is in memory as a whole, and parsed at once. */
export const maxJest = 2 * 1024 * 1024

/** Files and cases after which the work stops. */
const moreCases = 4096

/**
 * The report that `jest --json` and vitest's reporter `json` write, or null where it is none. Counts the cases
 * themselves; a file of tests that could not be loaded counts as one that failed. Never throws.
 */
export function* readJest(bytes: Uint8Array, source: 'jest' | 'vitest', clean: Clean): Work<TestReport | null> {
  if (bytes.length > maxJest) return null
  let whole: Json
  try {
    whole = parseIJson(bytes, { maxBytes: maxJest, maxDepth: 32 })
  } catch {
    return null
  }
  const files = list(member(whole, 'testResults'))
  if (files === null) return null
  const tally = openTally(source, clean)
  let seen = 0
  for (const file of files) {
    if (++seen % moreCases === 0) yield
    const cases = list(member(file, 'assertionResults'))
    if (cases === null) return null
    const failedBefore = tally.failed
    for (const one of cases) {
      if (++seen % moreCases === 0) yield
      const state = member(one, 'status')
      const ms = member(one, 'duration')
      if (typeof ms === 'number') tally.took(ms)
      if (state === 'passed') tally.pass()
      else if (state === 'failed') tally.fail(titleOf(one), firstMessage(one))
      else if (state === 'pending' || state === 'skipped' || state === 'todo' || state === 'disabled') tally.skip()
      else return null
    }
    if (member(file, 'status') === 'failed' && tally.failed === failedBefore)
      tally.fail(text(member(file, 'name')), text(member(file, 'message')))
  }
  return yield* tally.report()
}

function titleOf(one: Json): string {
  const full = text(member(one, 'fullName')).trim()
  return full === '' ? text(member(one, 'title')) : full
}

function firstMessage(one: Json): string {
  return text(list(member(one, 'failureMessages'))?.[0])
}

function member(value: Json | undefined, name: string): Json | undefined {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as JsonObject)[name] : undefined
}

function list(value: Json | undefined): readonly Json[] | null {
  return Array.isArray(value) ? (value as readonly Json[]) : null
}

function text(value: Json | undefined): string {
  return typeof value === 'string' ? value : ''
}

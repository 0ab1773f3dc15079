import { execFileSync, spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import type { Case } from './cases/case.ts'
import { verifyCase } from './run-case.ts'
import { corpus } from './write-vectors.ts'
import { removeFolders } from './sample.ts'

const folder = join(import.meta.dirname, '..', 'vectors', 'receipts')
const read = (name: string): unknown => JSON.parse(readFileSync(join(folder, name), 'utf8'))
type Stored = Omit<Case, 'log' | 'trust' | 'verdict' | 'code'> & {
  readonly trust?: Case['trust']
  readonly log?: [number, number][]
}
type Answers = Record<string, { readonly verdict: string; readonly code: string | null }>

afterAll(removeFolders)

describe('the corpus of receipts', () => {
  const entries = read('entries.json') as string[]
  const cases = read('cases.json') as readonly Stored[]
  const usual = read('trust.json') as Case['trust']
  const expected = read('expected.json') as Answers

  it('holds every case the attack suite builds, with the same answer', () => {
    const built = JSON.parse(corpus()['expected.json'] ?? '') as Answers
    expect(expected).toEqual(built)
    expect(cases.map((each) => each.title)).toEqual(Object.keys(built))
  })

  it('gets its expected answers from the verifier', () => {
    const answers = Object.fromEntries(
      cases.map(({ log, title, trust = usual, receipt = '', evidence = {} }) => {
        const given =
          log === undefined ? { receipt } : { log: log.map(([index, at]) => [index, entries[at] ?? ''] as const) }
        const { verdict, code } = verifyCase({ title, trust, evidence, ...given })
        return [title, { verdict, code }]
      }),
    )
    expect(answers).toEqual(expected)
  })

  it('gets the same answers from a second verifier that shares no code [G-independent-verifier]', (ctx) => {
    if (spawnSync('python3', ['-c', 'import sys; sys.exit(sys.version_info < (3, 9))']).status !== 0)
      ctx.skip('python3 (3.9 or later) is missing: install it with the package manager of the system')
    const script = join(import.meta.dirname, 'second-verifier', 'verify.py')
    const output = execFileSync('python3', [script, folder], { encoding: 'utf8', maxBuffer: 16 * 1024 * 1024 })
    expect(JSON.parse(output)).toEqual(expected)
  })
})

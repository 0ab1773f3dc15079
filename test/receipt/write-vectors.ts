import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { buildCases } from './cases/cases.ts'

/**
 * Writes the public corpus: `node test/receipt/write-vectors.ts`. Its keys are made for the occasion and thrown away, so
 * a new corpus has other bytes and the same answers. Log entries stand once in `entries.json`, and cases name them by
 * place; a case without `trust` has that of `trust.json`.
 */
const folder = join(import.meta.dirname, '..', 'vectors', 'receipts')
const entries: string[] = []
const places = new Map<string, number>()

function place(jws: string): number {
  const known = places.get(jws)
  if (known !== undefined) return known
  places.set(jws, entries.length)
  return entries.push(jws) - 1
}

const cases = buildCases()
const usual = cases[0]?.trust
const written = cases.map(({ verdict: _verdict, code: _code, log, trust, ...rest }) => ({
  ...rest,
  ...(trust === usual ? {} : { trust }),
  ...(log === undefined ? {} : { log: log.map(([index, jws]) => [index, place(jws)]) }),
}))
const expected = Object.fromEntries(cases.map(({ title, verdict, code }) => [title, { verdict, code }]))

mkdirSync(folder, { recursive: true })
const lines = (items: readonly unknown[]) => `[\n${items.map((item) => JSON.stringify(item)).join(',\n')}\n]\n`
writeFileSync(join(folder, 'cases.json'), lines(written))
writeFileSync(join(folder, 'entries.json'), lines(entries))
writeFileSync(join(folder, 'trust.json'), `${JSON.stringify(usual)}\n`)
writeFileSync(join(folder, 'expected.json'), `${JSON.stringify(expected, null, 1)}\n`)

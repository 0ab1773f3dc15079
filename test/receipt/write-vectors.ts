import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { buildCases } from './cases/cases.ts'
import { removeFolders } from './sample.ts'

/**
 * The public corpus, file by file. `node test/receipt/write-vectors.ts` writes a new one: its keys are made for the
 * occasion and thrown away, so it has other bytes and the same answers.
 */
export function corpus(): Readonly<Record<string, string>> {
  const entries: string[] = []
  const places = new Map<string, number>()
  const place = (jws: string): number => {
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
  return {
    'cases.json': lines(written),
    'entries.json': lines(entries),
    'trust.json': `${JSON.stringify(usual)}\n`,
    'expected.json': `${JSON.stringify(expected, null, 1)}\n`,
  }
}

function lines(items: readonly unknown[]): string {
  return `[\n${items.map((item) => JSON.stringify(item)).join(',\n')}\n]\n`
}

if (import.meta.main) {
  const folder = join(import.meta.dirname, '..', 'vectors', 'receipts')
  mkdirSync(folder, { recursive: true })
  for (const [name, text] of Object.entries(corpus())) writeFileSync(join(folder, name), text)
  removeFolders()
}

import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { describe, expect, it } from 'vitest'

const root = resolve(import.meta.dirname, '..')

function walk(folder: string): readonly string[] {
  return readdirSync(folder).flatMap((name) => {
    const path = join(folder, name)
    return statSync(path).isDirectory() ? walk(path) : path.endsWith('.ts') ? [path] : []
  })
}

/** `| \`G-id\` | sentence | places |` of SECURITY.md. */
const promised = [
  ...readFileSync(join(root, 'SECURITY.md'), 'utf8').matchAll(/^\| `(G-[a-z-]+)` \| ([^|]+) \| ([^|]+) \|$/gm),
].map((match) => ({ id: match[1] ?? '', sentence: match[2] ?? '', places: match[3] ?? '' }))

/** An id counts where it stands in the title of a test or of a group of tests, not in a comment. */
const cited = new Map<string, string[]>()
for (const path of walk(join(root, 'test')))
  for (const line of readFileSync(path, 'utf8').split('\n'))
    if (!/^\s*(?:\/\/|\*|\/\*)/.test(line))
      for (const [, id = ''] of line.matchAll(/\[(G-[a-z-]+)\]/g)) cited.set(id, [...(cited.get(id) ?? []), path])

describe('the guarantees of SECURITY.md', () => {
  it('are there, each once and with a sentence', () => {
    expect(promised.length).toBeGreaterThanOrEqual(25)
    expect(promised.map(({ id }) => id).toSorted()).toEqual([...new Set(promised.map(({ id }) => id))].toSorted())
    expect(promised.filter(({ sentence }) => !/^[A-Z].+\.$/.test(sentence))).toEqual([])
  })

  it('have a test each that cites them', () => {
    expect(promised.filter(({ id }) => !cited.has(id)).map(({ id }) => id)).toEqual([])
  })

  it('are all that tests cite', () => {
    expect(cited.size).toBeGreaterThanOrEqual(25)
    const known = new Set(promised.map(({ id }) => id))
    expect([...cited].filter(([id]) => !known.has(id))).toEqual([])
  })

  it('are enforced at places that exist', () => {
    const places = promised.map(({ id, places: text }) => ({
      id,
      paths: [...text.matchAll(/`([^`]+)`/g)].map((match) => match[1] ?? ''),
    }))
    expect(places.filter(({ paths }) => paths.length === 0)).toEqual([])
    expect(places.filter(({ paths }) => paths.some((path) => !existsSync(join(root, path))))).toEqual([])
  })
})

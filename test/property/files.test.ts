import * as fc from 'fast-check'
import { expect, test } from 'vitest'
import type { Digest } from '../../src/digest.ts'
import { digestOf } from '../../src/digest.ts'
import { WritError } from '../../src/error.ts'
import type { FileIn } from '../../src/request/call.ts'
import { applyFiles, pathClash, pathProblem } from '../../src/request/files.ts'
import type { AppliedFiles } from '../../src/request/files.ts'
import type { TaskFile } from '../../src/request/task.ts'

const path = fc.oneof(
  fc.constantFrom('a', 'A', 'b/c', 'b', 'B/d', 'x.js', '__proto__', 'ſ', 's', '../e', 'f\u202e'),
  fc.string({ unit: 'binary', maxLength: 8 }),
)
const file: fc.Arbitrary<FileIn> = fc.record(
  {
    path,
    content: fc.option(fc.string({ unit: 'binary', maxLength: 10 }), { nil: undefined, freq: 3 }),
    content_base64: fc.option(fc.base64String({ maxLength: 8 }), { nil: undefined, freq: 1 }),
    edits: fc.option(
      fc.array(fc.record({ old: fc.string({ maxLength: 2 }), new: fc.string({ maxLength: 3 }) }), { maxLength: 2 }),
      { nil: undefined, freq: 1 },
    ),
    executable: fc.boolean(),
    sha256: fc.option(fc.constantFrom(digestOf('a'), 'nonsense'), { nil: undefined, freq: 1 }),
  },
  { requiredKeys: ['path'] },
)
const call = fc.record({ files: fc.array(file, { maxLength: 4 }), remove: fc.array(path, { maxLength: 2 }) })

function isWholeOrRefused(result: unknown): boolean {
  if (result instanceof Error)
    return (
      result instanceof WritError &&
      ['invalid_file', 'too_large'].includes(result.code) &&
      /^[\u0020-\u007e…]+$/.test(result.message)
    )
  const { changed } = result as AppliedFiles
  return new Set(changed.map((one) => one.path)).size === changed.length
}

test('[G-all-or-nothing] any sequence of calls leaves a valid tree: each is applied whole or changes and stores nothing', async () => {
  let applied = 0
  let refused = 0
  await fc.assert(
    fc.asyncProperty(fc.array(call, { maxLength: 5 }), async (calls) => {
      const kept = new Map<Digest, Uint8Array>()
      const bytesOf = (digest: Digest) => Promise.resolve(kept.get(digest) ?? Buffer.alloc(0))
      const put = (bytes: Uint8Array) => {
        kept.set(digestOf(bytes), bytes)
        return Promise.resolve({ sha256: digestOf(bytes), size: bytes.length })
      }
      let files: readonly TaskFile[] = []
      for (const changes of calls) {
        const before = JSON.stringify(files)
        const stored = kept.size
        const apply = async (): Promise<unknown> =>
          await applyFiles(files, changes, bytesOf, put).catch((error: unknown) => error)
        const result = await apply()
        expect(result).toSatisfy(isWholeOrRefused)
        expect(await apply()).toEqual(result)
        if (result instanceof Error) refused++
        else {
          files = (result as AppliedFiles).files
          applied++
        }
        // What a refused call stored or changed would show here.
        expect([
          result instanceof Error && JSON.stringify(files) !== before,
          result instanceof Error && kept.size !== stored,
        ]).toEqual([false, false])
        expect(files.map((one) => pathProblem(one.path))).toEqual(files.map(() => null))
        expect(pathClash(files.map((one) => one.path))).toBeNull()
        expect(files.map((one) => one.path)).toEqual(files.map((one) => one.path).sort())
        for (const one of files) {
          const bytes = kept.get(one.sha256)
          expect(bytes === undefined ? null : [digestOf(bytes), bytes.length]).toEqual([one.sha256, one.size])
        }
      }
    }),
    { numRuns: 300 },
  )
  // A property that only ever sees one of the two says nothing.
  expect(applied).toBeGreaterThan(50)
  expect(refused).toBeGreaterThan(50)
})

test('a clash does not depend on the order of the paths', () => {
  fc.assert(
    fc.property(fc.array(path, { maxLength: 6 }), fc.integer(), (paths, seed) => {
      const shuffled = paths
        .map((one, i) => [one, (i * 2_654_435_761 + seed) % 97] as const)
        .sort((a, b) => a[1] - b[1])
      expect(pathClash(shuffled.map(([one]) => one)) === null).toBe(pathClash(paths) === null)
    }),
  )
})

import * as fc from 'fast-check'
import { expect, it } from 'vitest'
import { digestOf } from '../../src/digest.ts'
import { applyFiles } from '../../src/request/files.ts'
import { placesOf } from '../../src/request/places.ts'
import { effort } from '../cost.ts'

/** Every start, looked at one by one. */
function oneByOne(text: string, part: string): readonly number[] {
  return Array.from({ length: text.length }, (_, at) => at).filter((at) => text.startsWith(part, at))
}

it('finds the places of a part, short or long, as looking at each start does', () => {
  const letters = (minLength: number, maxLength: number): fc.Arbitrary<string> =>
    fc.string({ unit: fc.constantFrom('a', 'b'), minLength, maxLength })
  const part = fc.oneof(letters(1, 4), letters(33, 40), fc.constantFrom('a'.repeat(33), 'ab'.repeat(20)))
  fc.assert(
    fc.property(part, letters(0, 60), letters(0, 60), fc.boolean(), (sought, before, after, twice) => {
      const text = `${before}${sought}${twice ? sought : ''}${after}`
      const all = oneByOne(text, sought)
      expect(placesOf(text, sought, 1000)).toEqual({ first: all[0] ?? -1, count: all.length })
      expect(placesOf(text, sought, 2).count).toBe(Math.min(2, all.length))
      expect(placesOf(after, sought, 2).count).toBe(Math.min(2, oneByOne(after, sought).length))
    }),
  )
})

const nothingStored = async (): Promise<never> => await Promise.reject(new Error('nothing is stored'))

async function editing(
  bytes: Buffer,
  edits: readonly { readonly old: string; readonly new: string }[],
): Promise<unknown> {
  const files = [{ path: 'a', sha256: digestOf(bytes), size: bytes.length, executable: false }]
  return await applyFiles(
    files,
    { files: [{ path: 'a', edits }] },
    async () => await Promise.resolve(bytes),
    nothingStored,
  )
}

it('searches for an edit chosen to be slow in the time of any other', async () => {
  const searching = async (part: string, text: string): Promise<number> =>
    await effort(
      async () =>
        await expect(editing(Buffer.from(text), [{ old: part, new: '' }])).rejects.toMatchObject({
          code: 'invalid_file',
        }),
    )
  const half = 'a'.repeat(50_000)
  const text = `${'a'.repeat(1_500_000)}c`
  const easy = await searching(`${'x'.repeat(50_000)}b${half}`, text)
  expect(await searching(`${half}b${half}`, text)).toBeLessThan(20 * easy)
})

it('lets other work in between the edits of one call, and refuses those that search through too much', async () => {
  let turns = 0
  const ticker = setInterval(() => turns++, 1)
  const edits = Array.from({ length: 40 }, (_, at) => (at % 2 === 0 ? { old: 'q', new: 'z' } : { old: 'z', new: 'q' }))
  const bytes = Buffer.concat([Buffer.from('q'), Buffer.alloc(16 * 1024 * 1024, 'x')])
  await expect(editing(bytes, edits)).rejects.toMatchObject({ code: 'too_large' })
  clearInterval(ticker)
  expect(turns).toBeGreaterThan(10)
}, 60_000)

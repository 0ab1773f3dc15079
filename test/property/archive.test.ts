import { gzipSync } from 'node:zlib'
import * as fc from 'fast-check'
import { pack } from 'tar-stream'
import { expect, test } from 'vitest'
import { unpackArchive } from '../../src/artifact/archive.ts'
import type { ArchivedFile } from '../../src/artifact/archive.ts'
import { WritError } from '../../src/error.ts'
import { pathClash, pathProblem } from '../../src/request/files.ts'

async function tar(files: Readonly<Record<string, Uint8Array>>): Promise<Buffer> {
  const packer = pack()
  for (const [name, bytes] of Object.entries(files)) packer.entry({ name }, Buffer.from(bytes))
  packer.finalize()
  const chunks: Buffer[] = []
  for await (const chunk of packer) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks)
}

/** A small zip of one stored and one deflated file, made by an ordinary packer. */
const zip = Buffer.from(
  'UEsDBBQAAAAAAAAAIQCGphA2BQAAAAUAAAAFAAAAYS50eHRoZWxsb1BLAwQUAAAACAAAACEAUc6yCggAAAD0AQAACAAAAHN1Yi9iLmpzq6gYBSMNAABQSwECFAMUAAAAAAAAACEAhqYQNgUAAAAFAAAABQAAAAAAAAAAAAAAgAEAAAAAYS50eHRQSwECFAMUAAAACAAAACEAUc6yCggAAAD0AQAACAAAAAAAAAAAAAAAgAEoAAAAc3ViL2IuanNQSwUGAAAAAAIAAgBpAAAAVgAAAAAA',
  'base64',
)

function resign(block: Buffer): void {
  if (block.toString('latin1', 257, 262) !== 'ustar') return
  block.write('        ', 148)
  let sum = 0
  for (const byte of block) sum += byte
  block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148)
}

/** Files with clean paths, or a refusal in printable words. */
function isCleanAnswer(outcome: unknown): boolean {
  if (outcome instanceof WritError)
    return ['invalid_archive', 'too_large'].includes(outcome.code) && /^[\u0020-\u007e…]+$/.test(outcome.message)
  if (!Array.isArray(outcome)) return false
  const paths = (outcome as readonly ArchivedFile[]).map((file) => file.path)
  return paths.length > 0 && paths.every((path) => pathProblem(path) === null) && pathClash(paths) === null
}

const part = fc.stringMatching(/^[a-z]{1,6}$/)
const files = fc.dictionary(
  fc.array(part, { minLength: 1, maxLength: 3 }).map((parts) => parts.join('/')),
  fc.uint8Array({ maxLength: 700 }),
  { minKeys: 1, maxKeys: 5 },
)

test('what an ordinary packer packs comes out as it went in', async () => {
  await fc.assert(
    fc.asyncProperty(files, fc.boolean(), async (content, zipped) => {
      fc.pre(pathClash(Object.keys(content)) === null)
      const packed = await tar(content)
      const out = await unpackArchive(zipped ? gzipSync(packed) : packed)
      expect(Object.fromEntries(out.map((file) => [file.path, [...file.bytes]]))).toEqual(
        Object.fromEntries(Object.entries(content).map(([name, bytes]) => [name, [...bytes]])),
      )
    }),
    { numRuns: 60 },
  )
})

test('[G-archive] whatever bytes are changed, the answer is a refusal or files with clean paths', async () => {
  const original = await tar({
    'a.txt': Buffer.from('hello'),
    [`${'d'.repeat(110)}/b.js`]: Buffer.alloc(600, 1),
    c: Buffer.from('x'),
  })
  expect((await unpackArchive(zip)).map((file) => [file.path, file.bytes.length])).toEqual([
    ['a.txt', 5],
    ['sub/b.js', 500],
  ])
  let refused = 0
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom(original, zip),
      fc.array(fc.tuple(fc.nat(), fc.nat({ max: 255 })), { minLength: 1, maxLength: 6 }),
      fc.option(fc.nat(), { freq: 1 }),
      async (base, changes, cut) => {
        const bytes = Buffer.from(base)
        for (const [at, value] of changes) bytes[at % bytes.length] = value
        // Without a right checksum every change of a tar header would end at the checksum.
        if (base === original) for (let at = 0; at < bytes.length; at += 512) resign(bytes.subarray(at, at + 512))
        const whole = cut === null ? bytes : bytes.subarray(0, cut % bytes.length)
        const outcome = await unpackArchive(whole).catch((error: unknown) => error)
        expect(outcome).toSatisfy(isCleanAnswer)
        if (outcome instanceof WritError) refused++
      },
    ),
    { numRuns: 500 },
  )
  expect(refused).toBeGreaterThan(100)
})

import { mkdir, open, readFile, rename, rm } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { z } from 'zod'
import { canonical, digestOf, parseDigest } from '../digest.ts'
import type { Digest } from '../digest.ts'
import { systemCode } from '../error.ts'
import { generationDigest } from './engine.ts'
import type { CompiledPack, Generation } from './policy.ts'

function modulePath(dir: string, digest: Digest): string {
  return join(dir, 'modules', `${digest.slice('sha256:'.length)}.wasm`)
}

function generationPath(dir: string, digest: Digest): string {
  return join(dir, 'generations', `${digest.slice('sha256:'.length)}.json`)
}

/**
 * Written once and durably, before the generation decides anything: a decision whose modules, or whose rules' places, are
 * not there cannot be made again.
 */
export async function keepGeneration(
  dir: string,
  { digest, packs }: Pick<Generation, 'digest' | 'packs'>,
): Promise<void> {
  for (const pack of packs)
    if ((await readModule(dir, pack.digest)) === null) await keep(modulePath(dir, pack.digest), pack.module)
  if ((await readGeneration(dir, digest)) !== null) return
  const listed = packs.map(({ pack, layer, kind, digest: module, rules }) => ({
    pack,
    layer,
    kind,
    digest: module,
    rules,
  }))
  await keep(generationPath(dir, digest), Buffer.from(canonical({ packs: listed })))
}

async function keep(path: string, bytes: Uint8Array): Promise<void> {
  await mkdir(dirname(path), { recursive: true, mode: 0o700 })
  const draft = `${path}.${process.pid}.tmp`
  try {
    const file = await open(draft, 'w', 0o600)
    try {
      await file.writeFile(bytes)
      await file.sync()
    } finally {
      await file.close()
    }
    await rename(draft, path)
  } catch (error) {
    await rm(draft, { force: true })
    throw error
  }
}

const listSchema = z.strictObject({
  packs: z.array(
    z.strictObject({
      pack: z.string(),
      layer: z.enum(['org', 'team']),
      kind: z.enum(['guard', 'grant']),
      digest: z.string().transform((text, context) => {
        const digest = parseDigest(text)
        if (digest === null) context.addIssue('no digest')
        return digest ?? z.NEVER
      }),
      rules: z.record(
        z.string(),
        z.strictObject({ at: z.string(), title: z.string(), code: z.string(), remedy: z.string() }),
      ),
    }),
  ),
})

/** The packs that decided as this generation; null where not all of them are kept as they were. */
export async function readGeneration(dir: string, digest: Digest): Promise<readonly CompiledPack[] | null> {
  const text = await readKept(generationPath(dir, digest))
  if (text === null) return null
  const listed = listSchema.safeParse(jsonOf(text))
  if (!listed.success) return null
  const packs: CompiledPack[] = []
  for (const pack of listed.data.packs) {
    const module = await readModule(dir, pack.digest)
    if (module === null) return null
    packs.push({ ...pack, module })
  }
  return generationDigest(packs) === digest ? packs : null
}

function jsonOf(text: Buffer): unknown {
  try {
    return JSON.parse(text.toString('utf8'))
  } catch (error) {
    if (error instanceof SyntaxError) return null
    throw error
  }
}

async function readKept(path: string): Promise<Buffer | null> {
  try {
    return await readFile(path)
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return null
    throw error
  }
}

/** A module that decided once; null where it is not kept or its bytes are not what the digest names. */
export async function readModule(dir: string, digest: Digest): Promise<Uint8Array | null> {
  const bytes = await readKept(modulePath(dir, digest))
  return bytes !== null && digestOf(bytes) === digest ? bytes : null
}

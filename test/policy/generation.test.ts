import { digestOf } from '../../src/digest.ts'
import { mkdir, readdir, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { openEngine } from '../../src/policy/engine.ts'
import type { Engine } from '../../src/policy/engine.ts'
import { openGenerations, readModule } from '../../src/policy/generation.ts'
import type { Generations, GenerationsOptions } from '../../src/policy/generation.ts'
import type { Attachment, Generation } from '../../src/policy/policy.ts'
import { compilePacks } from '../../src/policy/tools.ts'
import type { PolicyFinding } from '../../src/policy/tools.ts'
import { requestInput } from './fixtures/input.ts'
import { compileRego, rule, temporaryFolder } from './fixtures/pack.ts'

const granting = rule('ST-1', 'grant contains {"rule": rego.metadata.rule()}')
const denying = `${granting}\n${rule('ST-2', 'deny contains {"rule": rego.metadata.rule()} if input.action.name == "list_targets"')}`
const broken = `${granting}\ndeny contains {\n`

/** Compiled once for all tests: what is measured and awaited here is the reload, not the first compilation. */
let cache: Awaited<ReturnType<typeof temporaryFolder>>
let folder: Awaited<ReturnType<typeof temporaryFolder>>
let engine: Engine
let generations: Generations | null = null
let changes: Generation[] = []
let refusals: (readonly PolicyFinding[])[] = []

const cacheDir = (): string => join(cache.path, 'cache')
const packFolder = (): string => join(folder.path, 'starter')
const write = async (rules: string): Promise<void> =>
  await writeFile(join(packFolder(), 'rules.rego'), `package writ.pack.starter\n\n${rules}`)

async function start(more: Partial<GenerationsOptions> = {}): Promise<Generations> {
  const attachment: Attachment = { pack: 'starter', layer: 'team', kind: 'grant', path: packFolder() }
  generations = await openGenerations({
    attachments: () => [attachment],
    cacheDir: cacheDir(),
    engine,
    compile: compilePacks,
    last: null,
    onChange: (generation) => {
      changes.push(generation)
    },
    onRefused: (findings) => {
      refusals.push(findings)
    },
    ...more,
  })
  return generations
}

const effect = async (): Promise<string> => (await engine.decide(requestInput())).effect

beforeAll(async () => {
  cache = await temporaryFolder()
  for (const rules of [granting, denying]) {
    await compileRego(cache.path, [{ pack: 'starter', layer: 'team', kind: 'grant', rules }])
  }
})
afterAll(async () => await cache.remove())
beforeEach(async () => {
  folder = await temporaryFolder()
  await mkdir(packFolder())
  engine = openEngine({ threads: 1, deadlineMs: 2000 })
  changes = []
  refusals = []
})
afterEach(async () => {
  await generations?.close()
  generations = null
  await engine.close()
  await folder.remove()
})

describe('generations', () => {
  it('are numbered on from the last one there was, and put in force', async () => {
    await write(granting)
    const packs = await start({ last: { number: 41, digest: digestOf('another') } })
    expect(packs.status()).toMatchObject({
      generation: { number: 42 },
      refused: [],
      packs: [{ pack: 'starter', kind: 'grant' }],
    })
    expect(changes.map(({ number }) => number)).toEqual([42])
    expect(await effect()).toBe('allow')
  })

  it('[G-policy-reload] come within a second of an edit, what the compiler takes for a new text aside', async () => {
    let compiling = 0
    await write(granting)
    const packs = await start({
      compile: async (attachments, options) => {
        const started = performance.now()
        const compiled = await compilePacks(attachments, options)
        compiling = performance.now() - started
        return compiled
      },
    })
    for (const [number, rules] of [
      denying,
      `${denying}# once more
${rule('ST-3', 'warn contains {"rule": rego.metadata.rule(), "message": "x"}')}`,
    ].entries()) {
      await write(rules)
      const started = performance.now()
      await expect.poll(() => packs.status().generation?.number, { timeout: 8000, interval: 10 }).toBe(number + 2)
      expect(performance.now() - started - compiling).toBeLessThan(1000)
      expect(await effect()).toBe('deny')
    }
  }, 15_000)

  it('[G-policy-reload] stay when an edit is broken, which is told with file and line', async () => {
    await write(granting)
    const packs = await start()
    await write(broken)
    await expect.poll(() => packs.status().refused.length, { timeout: 8000 }).toBeGreaterThan(0)
    const [finding] = packs.status().refused
    expect(finding).toMatchObject({ level: 'error', file: join(packFolder(), 'rules.rego') })
    expect(finding?.line).toBeGreaterThan(0)
    expect(refusals).toEqual([packs.status().refused])
    expect(packs.status().generation?.number).toBe(1)
    expect(await effect()).toBe('allow')

    await write(denying)
    await expect.poll(effect, { timeout: 3000 }).toBe('deny')
    expect(packs.status()).toMatchObject({ generation: { number: 2 }, refused: [] })
  })

  it('are not made anew where nothing changed', async () => {
    await write(granting)
    const packs = await start()
    await write(granting)
    expect(await packs.reload()).toMatchObject({ ok: true, changed: false, generation: { number: 1 } })
    expect(changes).toHaveLength(1)
  })

  it('[G-policy-fail-closed] do not start from nothing: a broken or missing pack denies until it is there', async () => {
    await rm(packFolder(), { recursive: true })
    const packs = await start()
    expect(packs.status()).toMatchObject({ generation: null, refused: [{ level: 'error' }] })
    expect((await engine.decide(requestInput())).error).toBe('no_generation')
    await mkdir(packFolder())
    await write(granting)
    await expect.poll(effect, { timeout: 3000 }).toBe('allow')
  })

  it('follow a folder that was put in the place of another', async () => {
    await write(granting)
    await start()
    const old = `${packFolder()}.old`
    await rename(packFolder(), old)
    await mkdir(packFolder())
    await write(granting)
    await expect.poll(() => generations?.status().refused, { timeout: 3000 }).toEqual([])
    await write(denying)
    await expect.poll(effect, { timeout: 3000 }).toBe('deny')
  })

  it('keep each module that decided, by its digest, for replay', async () => {
    await write(granting)
    const packs = await start()
    await write(denying)
    await packs.reload()
    expect(changes).toHaveLength(2)
    for (const { packs: modules } of changes) {
      for (const { digest, module } of modules)
        expect(await readModule(cacheDir(), digest)).toEqual(Buffer.from(module))
    }
    const [first] = changes[0]?.packs ?? []
    if (first === undefined) throw new Error('no pack')
    const kept = (await readdir(join(cacheDir(), 'modules'))).map((name) => join(cacheDir(), 'modules', name))
    expect(kept.every((name) => name.endsWith('.wasm'))).toBe(true)
    for (const path of kept) await writeFile(path, 'something else')
    expect(await readModule(cacheDir(), first.digest)).toBeNull()
    await rm(join(cacheDir(), 'modules'), { recursive: true })
    expect(await readModule(cacheDir(), first.digest)).toBeNull()
  })

  it('come one after the other, and the last edit wins', async () => {
    await write(granting)
    const packs = await start()
    const first = packs.reload()
    await write(denying)
    const results = await Promise.all([first, packs.reload(), packs.reload()])
    expect(results.every(({ ok }) => ok)).toBe(true)
    expect(await effect()).toBe('deny')
    expect(engine.generation?.number).toBe(2)
  })

  it('are refused when the compiler fails or makes what the engine refuses, in words without its message', async () => {
    await write(granting)
    const packs = await start({
      compile: async (attachments, options) => {
        if (changes.length > 0) throw new Error(`spawn ${cache.path} failed`)
        return await compilePacks(attachments, options)
      },
    })
    expect(await packs.reload()).toMatchObject({ ok: false })
    expect(packs.status().refused).toMatchObject([
      { code: 'not_loaded', message: 'the policies could not be compiled' },
    ])
    expect(await effect()).toBe('allow')
  })

  it('leave nothing running after close', async () => {
    await write(granting)
    const packs = await start()
    await write(denying)
    await packs.close()
    const { generation } = packs.status()
    await new Promise((resolve) => setTimeout(resolve, 400))
    expect(packs.status().generation).toEqual(generation)
    expect(refusals).toEqual([])
  })
})

import { digestOf } from '../../src/digest.ts'
import { mkdir, readdir, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { openEngine } from '../../src/policy/engine.ts'
import type { Engine } from '../../src/policy/engine.ts'
import { openGenerations, readModule } from '../../src/policy/generation.ts'
import type { Generations, GenerationsOptions } from '../../src/policy/generation.ts'
import type { Attachment, Generation } from '../../src/policy/policy.ts'
import { compilePacks } from '../../src/policy/tools.ts'
import type { PolicyFinding } from '../../src/policy/tools.ts'
import { until } from '../wait.ts'
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
  engine = openEngine({ threads: 1, deadlineMs: 20_000 })
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
    const took: number[] = []
    for (const [number, rules] of [
      denying,
      granting,
      `${denying}# once more
${rule('ST-3', 'warn contains {"rule": rego.metadata.rule(), "message": "x"}')}`,
      granting,
      denying,
    ].entries()) {
      await write(rules)
      const started = performance.now()
      await until('the edit is in force', () => packs.status().generation?.number === number + 2, { everyMs: 5 })
      took.push(performance.now() - started - compiling)
      expect(await effect()).toBe(rules === granting ? 'allow' : 'deny')
    }
    // The median: on a busy machine one of them may be late.
    expect(took.toSorted((a, b) => a - b)[2]).toBeLessThan(1000)
  }, 120_000)

  it('[G-policy-reload] stay when an edit is broken, which is told with file and line', async () => {
    await write(granting)
    const packs = await start()
    await write(broken)
    await until('the edit is refused', () => packs.status().refused.length > 0)
    const [finding] = packs.status().refused
    expect(finding).toMatchObject({ level: 'error', file: join(packFolder(), 'rules.rego') })
    expect(finding?.line).toBeGreaterThan(0)
    expect(refusals).toEqual([packs.status().refused])
    expect(packs.status().generation?.number).toBe(1)
    expect(await effect()).toBe('allow')

    await write(denying)
    await until('the edit is in force', async () => (await effect()) === 'deny')
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
    await until('the edit is in force', async () => (await effect()) === 'allow')
  })

  it('follow a folder that was put in the place of another', async () => {
    await write(granting)
    await start()
    const old = `${packFolder()}.old`
    await rename(packFolder(), old)
    await mkdir(packFolder())
    await write(granting)
    await until('nothing is refused', () => generations?.status().refused.length === 0)
    await write(denying)
    await until('the edit is in force', async () => (await effect()) === 'deny')
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

  it('leave nothing running after close: what is under way is given up, and edits are followed no more', async () => {
    await write(granting)
    const signals: (AbortSignal | undefined)[] = []
    const held = Promise.withResolvers<void>()
    const packs = await start({
      compile: async (attachments, options) => {
        signals.push(options.signal)
        if (signals.length > 1) await held.promise
        return await compilePacks(attachments, options)
      },
    })
    await write(denying)
    await until('the edit is compiled', () => signals.length === 2)
    const closing = packs.close()
    expect(signals[1]?.aborted).toBe(true)
    held.resolve()
    await closing
    const { generation } = packs.status()
    await write(broken)
    await pause(400)
    expect(signals).toHaveLength(2)
    expect(packs.status().generation).toEqual(generation)
    expect(refusals).toEqual([])
  })
})

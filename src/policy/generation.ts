import { mkdir, open, readFile, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { digestOf } from '../digest.ts'
import type { Digest } from '../digest.ts'
import { WritError, systemCode } from '../error.ts'
import { generationDigest } from './engine.ts'
import type { Engine } from './engine.ts'
import type { Attachment, CompiledPack, Generation } from './policy.ts'
import type { PolicyFinding, compilePacks } from './tools.ts'
import { followFolders } from './watch.ts'

export interface GenerationsOptions {
  /** As the configuration has them now; asked at every reload. */
  attachments(): readonly Attachment[]
  readonly cacheDir: string
  readonly engine: Engine
  readonly compile: typeof compilePacks
  /** The last generation there was, or null in a new data folder: unchanged packs are that one again. */
  readonly last: { readonly number: number; readonly digest: Digest } | null
  /** After the generation is in force. Where it rejects, `reload` rejects and the generation stays. */
  onChange(generation: Generation): void | Promise<void>
  /** An edit that was refused, with file and line. The generation before stays in force. */
  onRefused(findings: readonly PolicyFinding[]): void
}

export interface GenerationStatus {
  /** What decides, or null: then everything is denied. */
  readonly generation: { readonly number: number; readonly digest: Digest } | null
  readonly packs: readonly Pick<CompiledPack, 'pack' | 'layer' | 'kind' | 'digest'>[]
  /** Why the packs on disk are not what decides; empty when they are. */
  readonly refused: readonly PolicyFinding[]
  /** What the compiler warned about in what decides. */
  readonly warnings: readonly PolicyFinding[]
}

export type Reloaded =
  | { readonly ok: true; readonly generation: Generation; readonly changed: boolean }
  | { readonly ok: false; readonly findings: readonly PolicyFinding[] }

export interface Generations {
  /** Compiles what is attached and puts it in force when it is good. Rejects only where `onChange` or the disk does. */
  reload(): Promise<Reloaded>
  status(): GenerationStatus
  close(): Promise<void>
}

function modulePath(cacheDir: string, digest: Digest): string {
  return join(cacheDir, 'modules', `${digest.slice('sha256:'.length)}.wasm`)
}

/** Written once and durably, before the module decides anything: a decision without its module cannot be replayed. */
async function keepModule(cacheDir: string, pack: CompiledPack): Promise<void> {
  const path = modulePath(cacheDir, pack.digest)
  const kept = await readModule(cacheDir, pack.digest)
  if (kept !== null) return
  const folder = join(cacheDir, 'modules')
  await mkdir(folder, { recursive: true, mode: 0o700 })
  const draft = `${path}.${process.pid}.tmp`
  try {
    const file = await open(draft, 'w', 0o600)
    try {
      await file.writeFile(pack.module)
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

/** A module that decided once, for replay; null where it is not kept or its bytes are not what the digest names. */
export async function readModule(cacheDir: string, digest: Digest): Promise<Uint8Array | null> {
  try {
    const bytes = await readFile(modulePath(cacheDir, digest))
    return digestOf(bytes) === digest ? bytes : null
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return null
    throw error
  }
}

const notLoaded = 'not_loaded'
const retryMs = 2000

function fault(error: unknown): PolicyFinding {
  const message = error instanceof WritError ? error.message : 'the policies could not be compiled'
  return { file: '', line: 0, column: 0, level: 'error', code: notLoaded, message }
}

/** Compiles and loads the attached packs, then follows their folders: an edit is in force within a second. */
export async function openGenerations(options: GenerationsOptions): Promise<Generations> {
  const stop = new AbortController()
  let number = options.last?.number ?? 0
  let current: Generation | null = null
  let refused: readonly PolicyFinding[] = []
  let warnings: readonly PolicyFinding[] = []
  let running: Promise<Reloaded> | null = null
  let queued: Promise<Reloaded> | null = null
  let again: NodeJS.Timeout | undefined

  const refuse = (findings: readonly PolicyFinding[]): Reloaded => {
    const known = JSON.stringify(refused)
    refused = findings
    if (stop.signal.aborted) return { ok: false, findings }
    if (JSON.stringify(findings) !== known) options.onRefused(findings)
    // Nobody edits a file because a disk was full: what failed by no fault of the packs is tried again.
    clearTimeout(again)
    if (findings.some((finding) => finding.code === notLoaded)) again = setTimeout(() => void follow(), retryMs).unref()
    return { ok: false, findings }
  }

  const attempt = async (): Promise<Reloaded> => {
    let compiled: Awaited<ReturnType<typeof compilePacks>>
    try {
      compiled = await options.compile(options.attachments(), { cacheDir: options.cacheDir, signal: stop.signal })
    } catch (error) {
      return refuse([fault(error)])
    }
    if (!compiled.ok) return refuse(compiled.findings)
    const { packs } = compiled
    const digest = generationDigest(packs)
    if (current?.digest === digest) {
      refused = []
      warnings = compiled.warnings
      return { ok: true, generation: current, changed: false }
    }
    const same = current === null && options.last?.digest === digest
    const generation: Generation = { number: same ? number : number + 1, digest, packs }
    try {
      for (const pack of packs) await keepModule(options.cacheDir, pack)
      await options.engine.load(generation)
    } catch (error) {
      return refuse([fault(error)])
    }
    try {
      await options.onChange(generation)
    } catch (error) {
      // No receipt names it, so it decides nothing: the earlier one goes on.
      if (current !== null) await options.engine.load(current)
      throw error
    }
    number = generation.number
    current = generation
    refused = []
    warnings = compiled.warnings
    return { ok: true, generation, changed: true }
  }

  /** One at a time; whoever asks while one runs gets the one after, which has read what they wrote. */
  const reload = async (): Promise<Reloaded> => {
    if (running === null) {
      running = attempt().finally(() => {
        running = null
      })
      return await running
    }
    const before = running
    queued ??= before
      .catch(() => null)
      .then(async () => {
        queued = null
        return await reload()
      })
    return await queued
  }

  const follow = async (): Promise<void> => {
    try {
      await reload()
    } catch (error) {
      refuse([fault(error)])
    }
  }

  // Before the first compilation reads the folders, so that no edit falls between the two.
  const followed = await followFolders(() => options.attachments().map(({ path }) => path), follow)

  try {
    await reload()
  } catch (error) {
    stop.abort()
    await followed.close()
    throw error
  }

  return {
    reload,
    status: () => ({
      generation: current === null ? null : { number: current.number, digest: current.digest },
      packs: (current?.packs ?? []).map(({ pack, layer, kind, digest }) => ({ pack, layer, kind, digest })),
      refused,
      warnings,
    }),
    async close() {
      stop.abort()
      clearTimeout(again)
      await followed.close()
      await Promise.allSettled([running, queued])
    },
  }
}

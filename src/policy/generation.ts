import type { Digest } from '../digest.ts'
import { WritError } from '../error.ts'
import { follow } from '../watch.ts'
import { generationDigest } from './engine.ts'
import type { Engine, Prepared } from './engine.ts'
import { keepGeneration, readGeneration } from './kept.ts'
import { packSignature } from './pack.ts'
import type { Attachment, CompiledPack, Generation } from './policy.ts'
import type { Compiled, PolicyFinding, compilePacks } from './tools.ts'

export interface GenerationsOptions {
  /** As the configuration has them now; asked at every reload. */
  attachments(): readonly Attachment[]
  /** Of the compiler's output, and in `modules/` and `generations/` of all that ever decided, for replay. */
  readonly cacheDir: string
  readonly engine: Engine
  readonly compile: typeof compilePacks
  /** The last generation there was, or null in a new data folder: unchanged packs are that one again. */
  readonly last: { readonly number: number; readonly digest: Digest } | null
  /** Before the generation decides anything: accounts for it, durably. Where it rejects, so does `reload`, and the one before goes on. */
  onChange(generation: Generation): void | Promise<void>
  /** An edit that was refused, with file and line: what decided before goes on in its place. */
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
  /**
   * Compiles what is attached and puts it in force when it is good. A team's pack that is broken goes on as it was, and the
   * rest comes into force: a team cannot hold back what the organisation tightens. Rejects only where `onChange` does.
   */
  reload(): Promise<Reloaded>
  /** `reload` for who only heard of a change: what failed by no fault of the packs is tried again. */
  refresh(): Promise<void>
  status(): GenerationStatus
  close(): Promise<void>
}

const notLoaded = 'not_loaded'
const retryMs = 2000

function fault(error: unknown): PolicyFinding {
  const message = error instanceof WritError ? error.message : 'the policies could not be compiled'
  return { file: '', line: 0, column: 0, level: 'error', code: notLoaded, message }
}

/**
 * The attached packs with each broken one as it decided last; null where one is the organisation's, or did not decide in
 * the same place.
 */
function withHeld(
  attached: readonly Attachment[],
  { good, broken }: Extract<Compiled, { ok: false }>,
  last: readonly CompiledPack[],
): readonly CompiledPack[] | null {
  const packs: CompiledPack[] = []
  for (const attachment of attached) {
    const isSame = ({ pack, layer, kind }: CompiledPack): boolean =>
      pack === attachment.pack && layer === attachment.layer && kind === attachment.kind
    if (broken.includes(attachment) && attachment.layer === 'org') return null
    const from = broken.includes(attachment) ? last : good
    const found = from.find(isSame)
    if (found === undefined) return null
    packs.push(found)
  }
  return packs
}

/** Compiles and loads the attached packs, then follows their folders: an edit is in force within a second. */
export async function openGenerations(options: GenerationsOptions): Promise<Generations> {
  const stop = new AbortController()
  let number = options.last?.number ?? 0
  let current: Generation | null = null
  /** The generation of this number that failed to be accounted for: it may stand in a receipt all the same. */
  let doubtful: Digest | null = null
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
    if (findings.some((finding) => finding.code === notLoaded))
      again = setTimeout(() => void refresh(), retryMs).unref()
    return { ok: false, findings }
  }

  /** What decided last: now, or before this start. */
  const lastPacks = async (): Promise<readonly CompiledPack[]> => {
    if (current !== null || options.last === null) return current?.packs ?? []
    return (await readGeneration(options.cacheDir, options.last.digest)) ?? []
  }

  const attempt = async (): Promise<Reloaded> => {
    const attached = options.attachments()
    let compiled: Compiled
    let packs: readonly CompiledPack[] | null
    try {
      compiled = await options.compile(attached, { cacheDir: options.cacheDir, signal: stop.signal })
      packs = compiled.ok ? compiled.packs : withHeld(attached, compiled, await lastPacks())
    } catch (error) {
      return refuse([fault(error)])
    }
    if (packs === null) return refuse(compiled.ok ? [] : compiled.findings)
    const settled = (generation: Generation, changed: boolean): Reloaded => {
      if (!compiled.ok) return refuse(compiled.findings)
      refused = []
      warnings = compiled.warnings
      return { ok: true, generation, changed }
    }
    const digest = generationDigest(packs)
    if (current?.digest === digest) return settled(current, false)
    const same = doubtful === null ? current === null && options.last?.digest === digest : doubtful === digest
    const generation: Generation = { number: same ? number : number + 1, digest, packs }
    let ready: Prepared
    try {
      await keepGeneration(options.cacheDir, generation)
      ready = await options.engine.prepare(generation)
    } catch (error) {
      return refuse([fault(error)])
    }
    try {
      await options.onChange(generation)
    } catch (error) {
      // No receipt names it that is known to be there, so it decides nothing; nor does another under its number.
      ready.drop()
      number = generation.number
      doubtful = digest
      throw error
    }
    ready.enforce()
    number = generation.number
    doubtful = null
    current = generation
    return settled(generation, true)
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

  const refresh = async (): Promise<void> => {
    try {
      await reload()
    } catch (error) {
      refuse([fault(error)])
    }
  }

  // Before the first compilation reads the folders, so that no edit falls between the two.
  const followed = await follow({
    paths: () => options.attachments().map(({ path }) => path),
    state: async () =>
      JSON.stringify(await Promise.all(options.attachments().map(async (one) => [one, await packSignature(one.path)]))),
    changed: refresh,
  })

  try {
    await reload()
  } catch (error) {
    stop.abort()
    await followed.close()
    throw error
  }

  return {
    reload,
    refresh,
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

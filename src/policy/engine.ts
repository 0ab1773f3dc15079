import { systemClock } from '../clock.ts'
import type { Clock } from '../clock.ts'
import { canonical, digestJson, digestOf } from '../digest.ts'
import type { Digest } from '../digest.ts'
import { WritError } from '../error.ts'
import { newId } from '../id.ts'
import { failed, makeDecision } from './decision.ts'
import type { Merged } from './decision.ts'
import { checkInput } from './input.ts'
import { compileModule } from './load.ts'
import { merge } from './merge.ts'
import { openPool } from './pool.ts'
import type { Pool } from './pool.ts'
import type { CompiledPack, Decision, Generation, Phase, Policy, PolicyInput } from './policy.ts'

export interface EngineOptions {
  /** Worker threads: how many decisions are evaluated at once, at most. */
  readonly threads: number
  /** Milliseconds an evaluation may take before its worker is ended and the decision is `error: deadline`. */
  readonly deadlineMs?: number
  readonly clock?: Clock
}

/** Evaluates the packs of one generation for every phase. Used by the broker and, for phase `egress`, by the run host. */
export interface Engine extends Policy {
  /**
   * Makes a generation ready: nothing is decided by it before `enforce`. Rejects `invalid_policy` where a module is refused
   * or a digest does not hold.
   */
  prepare(generation: Generation): Promise<Prepared>
  /** Prepares a generation and puts it in force. */
  load(generation: Generation): Promise<void>
  /** Never rejects. */
  decide(input: PolicyInput): Promise<Decision>
  close(): Promise<void>
}

/** A generation that is ready. One of the two is called, once. */
export interface Prepared {
  /** Puts it in force; decisions asked for before keep theirs. */
  enforce(): void
  drop(): void
}

/** A generation whose modules the workers hold under the number `set`. */
interface Loaded {
  readonly generation: Generation
  readonly set: number
  /** Decisions not answered yet; the set is dropped when it is out of force and has none. */
  pending: number
}

/** What names a generation beside its number: the canonical list of its packs, with where their rules stand and what they say. */
export function generationDigest(
  packs: readonly Pick<CompiledPack, 'pack' | 'layer' | 'kind' | 'digest' | 'rules'>[],
): Digest {
  return digestJson(
    packs.map(({ pack, layer, kind, digest, rules }) => ({ pack, layer, kind, digest, rules: digestJson(rules) })),
  )
}

function checkGeneration({ packs, digest }: Generation): void {
  if (generationDigest(packs) !== digest)
    throw new WritError('invalid_policy', 'the digest of the generation does not hold')
  const names = new Set<string>()
  for (const pack of packs) {
    if (digestOf(pack.module) !== pack.digest) {
      throw new WritError('invalid_policy', `the digest of pack ${pack.pack} does not hold`)
    }
    if (names.has(pack.pack)) throw new WritError('invalid_policy', `two packs are named ${pack.pack}`)
    names.add(pack.pack)
  }
}

async function compile(pack: CompiledPack): Promise<WebAssembly.Module> {
  try {
    return await compileModule(pack.module)
  } catch (error) {
    if (error instanceof WritError)
      throw new WritError('invalid_policy', `pack ${pack.pack}: ${error.message}`, { cause: error })
    throw error
  }
}

/** The digest of an input that was refused: of what could be read of it. */
function refusedDigest(input: unknown): Digest {
  try {
    return digestJson(input)
  } catch {
    return digestOf(canonical(null))
  }
}

const phases: readonly Phase[] = ['request', 'execution', 'approval', 'egress']

function phaseOf(input: unknown): Phase {
  const named = typeof input === 'object' && input !== null && 'phase' in input ? input.phase : null
  return phases.find((phase) => phase === named) ?? 'request'
}

/** Starts the workers; without a generation every decision is `error: no_generation`. */
export function openEngine(options: EngineOptions): Engine {
  const clock = options.clock ?? systemClock
  const pool: Pool = openPool({ threads: options.threads, deadlineMs: options.deadlineMs ?? 100 })
  let current: Loaded | null = null
  let sets = 0
  let loading: Promise<void> = Promise.resolve()

  const release = (loaded: Loaded): void => {
    if (loaded !== current && loaded.pending === 0) pool.drop(loaded.set)
  }

  const prepare = async (generation: Generation): Promise<Prepared> => {
    if (current?.generation.digest === generation.digest && current.generation.number === generation.number)
      return { enforce: () => undefined, drop: () => undefined }
    checkGeneration(generation)
    const modules = await Promise.all(generation.packs.map(compile))
    const set = ++sets
    const fault = await pool.load(set, modules)
    if (fault !== null) {
      const pack = generation.packs[fault.pack]?.pack
      throw new WritError('invalid_policy', pack === undefined ? fault.message : `pack ${pack}: ${fault.message}`)
    }
    return {
      enforce() {
        const before = current
        current = { generation, set, pending: 0 }
        if (before !== null) release(before)
      },
      drop: () => pool.drop(set),
    }
  }

  const evaluate = async (loaded: Loaded, text: string, input: PolicyInput): Promise<Merged> => {
    loaded.pending++
    try {
      const answer = await pool.decide(loaded.set, text)
      if (!answer.ok) return failed(answer.error)
      const { packs } = loaded.generation
      if (answer.results.length !== packs.length) return failed('policy_throw')
      return merge(
        packs.map((attachment, at) => ({ attachment, result: answer.results[at] ?? { error: 'policy_throw' } })),
        input,
      )
    } catch {
      // The interface promises an answer; what is not understood is an error, which counts as deny.
      return failed('policy_throw')
    } finally {
      loaded.pending--
      release(loaded)
    }
  }

  return {
    get generation() {
      return current?.generation ?? null
    },
    prepare,
    async load(generation) {
      const mine = loading.then(async () => {
        const ready = await prepare(generation)
        ready.enforce()
      })
      loading = mine.catch(() => undefined)
      await mine
    },
    async decide(input) {
      const loaded = current
      const particularsOf = () => ({ id: newId('dec'), atMs: clock.now(), generation: loaded?.generation ?? null })
      let checked: ReturnType<typeof checkInput>
      try {
        checked = checkInput(input)
      } catch {
        checked = { ok: false, why: 'the input cannot be read' }
      }
      if (!checked.ok) {
        const phase = phaseOf(input)
        return makeDecision({
          ...particularsOf(),
          phase,
          merged: failed('input_rejected', checked.why),
          inputDigest: refusedDigest(input),
        })
      }
      const asked = loaded === null ? failed('no_generation') : evaluate(loaded, checked.text, checked.input)
      // While the worker evaluates.
      const particulars = { ...particularsOf(), inputDigest: digestOf(checked.text) }
      return makeDecision({ ...particulars, phase: checked.input.phase, merged: await asked })
    },
    async close() {
      await pool.close()
    },
  }
}

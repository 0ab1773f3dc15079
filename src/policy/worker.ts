import { parentPort } from 'node:worker_threads'
import { WritError } from '../error.ts'
import { openInstance } from './load.ts'
import type { Evaluation, Instance } from './load.ts'
import { maxAnswer, parseOutput } from './output.ts'
import type { DecisionErrorCode, PackOutput } from './policy.ts'

/** What one pack answered. */
export type PackResult = { readonly ok: PackOutput } | { readonly error: DecisionErrorCode }

/** To the worker. Modules are compiled; `set` names the modules of one generation. */
export type Request =
  | { readonly kind: 'load'; readonly set: number; readonly modules: readonly WebAssembly.Module[] }
  | { readonly kind: 'decide'; readonly set: number; readonly input: string }
  | { readonly kind: 'drop'; readonly set: number }

/** From the worker: one for `ready`, one per `load` (`fault` is for the operator) and one per `decide`. */
export type Reply =
  | { readonly kind: 'ready' }
  | {
      readonly kind: 'loaded'
      readonly set: number
      readonly fault: { readonly pack: number; readonly message: string } | null
    }
  /** JSON of one `PackResult` for each module: one text crosses threads at half the cost of its objects. */
  | { readonly kind: 'decided'; readonly results: string }

interface Loaded {
  readonly module: WebAssembly.Module
  instance: Instance | null
}

const encoder = new TextEncoder()
const sets = new Map<number, readonly Loaded[]>()

function open(module: WebAssembly.Module): Instance | string {
  try {
    return openInstance(module)
  } catch (error) {
    return error instanceof WritError ? error.message : 'the module does not start'
  }
}

function load(set: number, modules: readonly WebAssembly.Module[]): Extract<Reply, { kind: 'loaded' }>['fault'] {
  const packs: Loaded[] = []
  for (const [pack, module] of modules.entries()) {
    const instance = open(module)
    if (typeof instance === 'string') return { pack, message: instance }
    packs.push({ module, instance })
  }
  sets.set(set, packs)
  return null
}

function evaluate(pack: Loaded, input: ArrayBuffer): PackResult {
  const instance = pack.instance ?? open(pack.module)
  if (typeof instance === 'string') return { error: 'policy_throw' }
  pack.instance = instance
  const answer: Evaluation = instance.evaluate(input)
  if (!answer.ok) {
    if (answer.discard) pack.instance = null
    return { error: answer.error }
  }
  const output = parseOutput(answer.value)
  return output === null ? { error: 'output_schema' } : { ok: output }
}

/** JSON of one result for each module. One that says too much is taken for wrong here, where it costs nobody else time. */
function decide(packs: readonly Loaded[], text: string): string {
  const bytes = encoder.encode(text)
  const results = packs.map((pack) => {
    const result = JSON.stringify(evaluate(pack, bytes.buffer))
    return result.length <= maxAnswer ? result : JSON.stringify({ error: 'output_schema' } satisfies PackResult)
  })
  return `[${results.join(',')}]`
}

const port = parentPort
if (port === null) throw new WritError('internal', 'the policy worker was not started as a worker')

port.on('message', (request: Request) => {
  switch (request.kind) {
    case 'load':
      port.postMessage({ kind: 'loaded', set: request.set, fault: load(request.set, request.modules) } satisfies Reply)
      return
    case 'decide': {
      const packs = sets.get(request.set) ?? []
      port.postMessage({ kind: 'decided', results: decide(packs, request.input) } satisfies Reply)
      // After the answer is out, so that the next decision finds every instance warm.
      for (const pack of packs) {
        if (pack.instance !== null) continue
        const instance = open(pack.module)
        if (typeof instance !== 'string') pack.instance = instance
      }
      return
    }
    case 'drop':
      sets.delete(request.set)
  }
})
port.postMessage({ kind: 'ready' } satisfies Reply)

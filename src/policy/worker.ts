import { parentPort, receiveMessageOnPort } from 'node:worker_threads'
import { WritError } from '../error.ts'
import { mayShare, openInstance } from './load.ts'
import type { Evaluation, Image, Instance } from './load.ts'
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

interface Packs {
  readonly packs: readonly Loaded[]
  /** Reads inputs for all packs and evaluates nothing; none for a single pack, which reads its own. */
  readonly reader: Loaded | null
  /** An address that is free in every memory of the set. */
  readonly at: number
}

const encoder = new TextEncoder()
const sets = new Map<number, Packs>()
const noPacks: Packs = { packs: [], reader: null, at: 0 }

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
  const [first, second] = packs
  const reader = first === undefined || second === undefined ? null : { module: first.module, instance: null }
  if (reader !== null) reopen(reader)
  const free = Math.max(0, ...packs.map(({ instance }) => instance?.free ?? 0))
  // As an allocator would place it.
  sets.set(set, { packs, reader, at: 16 * Math.ceil(free / 16) })
  return null
}

function reopen(pack: Loaded): void {
  if (pack.instance !== null) return
  const instance = open(pack.module)
  if (typeof instance !== 'string') pack.instance = instance
}

function read({ reader, at }: Packs, text: string, input: Uint8Array): Image | null {
  if (reader === null || reader.instance === null || !mayShare(text)) return null
  const image = reader.instance.read(input, at)
  // What it could not read may have left it as no reader should be.
  if (image === null) reader.instance = null
  return image
}

function evaluate(pack: Loaded, input: ArrayBuffer, image: Image | null): PackResult {
  const instance = pack.instance ?? open(pack.module)
  if (typeof instance === 'string') return { error: 'policy_throw' }
  pack.instance = instance
  const answer: Evaluation = instance.evaluate(input, image)
  if (!answer.ok) {
    if (answer.discard) pack.instance = null
    return { error: answer.error }
  }
  const output = parseOutput(answer.value)
  return output === null ? { error: 'output_schema' } : { ok: output }
}

/** JSON of one result for each module. One that says too much is taken for wrong here, where it costs nobody else time. */
function decide(set: Packs, text: string): string {
  const bytes = encoder.encode(text)
  const image = read(set, text, bytes)
  const results = set.packs.map((pack) => {
    const result = JSON.stringify(evaluate(pack, bytes.buffer, image))
    return result.length <= maxAnswer ? result : JSON.stringify({ error: 'output_schema' } satisfies PackResult)
  })
  return `[${results.join(',')}]`
}

const port = parentPort
if (port === null) throw new WritError('internal', 'the policy worker was not started as a worker')

function answer(request: Request): void {
  switch (request.kind) {
    case 'load':
      port?.postMessage({ kind: 'loaded', set: request.set, fault: load(request.set, request.modules) } satisfies Reply)
      return
    case 'decide': {
      const set = sets.get(request.set) ?? noPacks
      port?.postMessage({ kind: 'decided', results: decide(set, request.input) } satisfies Reply)
      // After the answer is out, so that the next decision finds every instance warm.
      for (const pack of set.packs) reopen(pack)
      if (set.reader !== null) reopen(set.reader)
      return
    }
    case 'drop':
      sets.delete(request.set)
  }
}

/** Milliseconds that the next question is waited for awake, as long as the last one came that soon: waking costs a third of a decision. */
const awakeMs = 0.15

function soon(): Request | null {
  for (const until = performance.now() + awakeMs; performance.now() < until;) {
    const next = port === null ? undefined : receiveMessageOnPort(port)
    if (next !== undefined) return next.message as Request
  }
  return null
}

let answeredAt = 0
port.on('message', (request: Request) => {
  for (let next: Request | null = request; next !== null;) {
    const close = performance.now() - answeredAt < awakeMs
    answer(next)
    answeredAt = performance.now()
    next = close ? soon() : null
  }
})
port.postMessage({ kind: 'ready' } satisfies Reply)

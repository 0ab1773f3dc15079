import { createRequire } from 'node:module'
import type * as Sdk from '@open-policy-agent/opa-wasm'
import type { Json } from '../digest.ts'
import { WritError } from '../error.ts'
import { hostBuiltins } from './builtins.ts'
import type { Builtins } from './builtins.ts'
import type { DecisionErrorCode } from './policy.ts'

// The package's ESM entry leaves LoadedPolicy out, which takes an instance made elsewhere: made here, so that no name from
// a module is ever looked up in the SDK's plain objects and nothing is printed.
const { LoadedPolicy } = createRequire(import.meta.url)('@open-policy-agent/opa-wasm') as typeof Sdk

export const entrypoint = 'writ/main'
const page = 64 * 1024
/** 4 MiB at first (untouched pages cost nothing), 32 MiB at most: 15 times the largest input and its answer. */
export const memoryPages = { initial: 64, maximum: 512 } as const

const allowedImports: ReadonlyMap<string, string> = new Map([
  ['memory', 'memory'],
  ...['opa_abort', 'opa_println', 'opa_builtin0', 'opa_builtin1', 'opa_builtin2', 'opa_builtin3', 'opa_builtin4'].map(
    (name) => [name, 'function'] as const,
  ),
])

const memorySection = 5

export type Evaluation =
  | { readonly ok: true; readonly value: unknown }
  | { readonly ok: false; readonly error: DecisionErrorCode; readonly discard: boolean }

/** An input as it lies in a memory in which it was read: values that point to one another, at addresses from `at` on. */
export interface Image {
  readonly at: number
  readonly bytes: Uint8Array
  /** Address of the input itself. */
  readonly root: number
}

/** One sandboxed module with a memory of its own. Single-threaded; used for one evaluation at a time. */
export interface Instance {
  /** First address that is free for an input. */
  readonly free: number
  /**
   * `input` is canonical JSON that Writ made: anything else is evaluated as if there were no input. `image` is the same
   * input where another instance has read it. Never throws. Where `discard` is set the instance has leaked stack and must
   * not be used again.
   */
  evaluate(input: ArrayBuffer, image?: Image | null): Evaluation
  /**
   * The input, which `mayShare`, as it lies at `at` until the next call; null where it takes too much room there, or is no
   * JSON. Never throws. An instance that reads for others evaluates nothing, so no pack has a hand in what another is shown.
   */
  read(input: Uint8Array, at: number): Image | null
}

/** Bytes of an input that is read once for all; a larger one is read by each module, which makes room for it. */
const maxShared = 128 * 1024
/** Bytes of the first memory that an evaluation finds free beside an input that was read elsewhere. */
const roomBeside = 1024 * 1024

/**
 * True where the input means the same in the memory of every module. All that is read lies in the heap (wasm/src/json.c),
 * but for booleans: the compiler gives each module two of its own (`replaceBooleanFunc` of internal/compiler/wasm).
 */
export function mayShare(text: string): boolean {
  return text.length <= maxShared && !text.includes('true') && !text.includes('false')
}

function refuse(message: string, cause?: unknown): never {
  throw new WritError('invalid_policy', message, cause === undefined ? {} : { cause })
}

/** Ids of the sections of a binary module. V8 has validated the bytes before this is asked. */
function sections(bytes: Uint8Array): readonly number[] {
  const found: number[] = []
  let at = 8
  while (at < bytes.length) {
    found.push(bytes[at++] ?? 0)
    let size = 0
    for (let shift = 0; ; shift += 7) {
      const byte = bytes[at++]
      if (byte === undefined || shift > 28) refuse('the module is cut short')
      size += (byte & 0x7f) * 2 ** shift
      if ((byte & 0x80) === 0) break
    }
    at += size
  }
  return found
}

/**
 * Compiles a pack's module without running any of it, and checks what it may reach: only `env.memory` (which the host caps)
 * and the OPA functions. Rejects `invalid_policy`. The signature of the source is the compiler's digest, because
 * third-party modules are not accepted.
 */
export async function compileModule(bytes: Uint8Array): Promise<WebAssembly.Module> {
  let module: WebAssembly.Module
  try {
    module = await WebAssembly.compile(new Uint8Array(bytes))
  } catch (error) {
    refuse('the module is not WebAssembly', error)
  }
  const imports = WebAssembly.Module.imports(module)
  for (const { module: from, name, kind } of imports) {
    if (from !== 'env' || allowedImports.get(name) !== kind) refuse(`the module imports ${kind} ${from}.${name}`)
  }
  if (!imports.some(({ kind }) => kind === 'memory')) refuse('the module does not import its memory')
  // A memory of its own would have no maximum that the host set.
  if (sections(bytes).includes(memorySection)) refuse('the module brings a memory of its own')
  return module
}

type Exported = (...args: number[]) => number

function exported(instance: WebAssembly.Instance, name: string): Exported {
  const found = instance.exports[name]
  return typeof found === 'function' ? (found as Exported) : refuse(`the module lacks ${name}`)
}

function abiVersion(instance: WebAssembly.Instance): number {
  const read = (name: string): unknown => {
    const found = instance.exports[name]
    return found instanceof WebAssembly.Global ? found.value : null
  }
  const major = read('opa_wasm_abi_version')
  const minor = read('opa_wasm_abi_minor_version')
  // Before 1.2 the heap is not reset between evaluations; after 1.3 nothing is known.
  if (major !== 1 || (minor !== 2 && minor !== 3)) refuse('the module has another ABI than 1.2 or 1.3')
  return minor
}

/** The JSON at a C string of the module. Bounded by its memory, unlike the SDK's reader, which runs past the end. */
function readJson(memory: WebAssembly.Memory, address: number): Json {
  const bytes = new Uint8Array(memory.buffer)
  const end = bytes.indexOf(0, address)
  if (address < 0 || end < 0) throw new RangeError('no string at this address')
  return JSON.parse(new TextDecoder().decode(bytes.subarray(address, end))) as Json
}

function table(value: Json, what: string): ReadonlyMap<string, number> {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    refuse(`the module does not list its ${what}`)
  return new Map(
    Object.entries(value).map(([name, id]) =>
      typeof id === 'number' ? [name, id] : refuse(`the module does not list its ${what}`),
    ),
  )
}

const halves = [
  'opa_value_parse',
  'opa_heap_ptr_set',
  'opa_eval_ctx_new',
  'opa_eval_ctx_set_input',
  'opa_eval_ctx_set_data',
  'opa_eval_ctx_set_entrypoint',
  'opa_eval_ctx_get_result',
  'eval',
] as const

/** Both throw what the module throws. */
interface SharedReading {
  read(input: Uint8Array, at: number): Image | null
  evaluate(image: Image): Json
}

/**
 * The two halves of `opa_eval` (wasm/src/context.c), for an input that is read in one memory and evaluated in others. Null
 * where the module does not have them apart.
 */
function sharedReading(
  instance: WebAssembly.Instance,
  memory: WebAssembly.Memory,
  entry: number,
): SharedReading | null {
  if (!halves.every((name) => typeof instance.exports[name] === 'function')) return null
  const [parse, setHeap, newContext, setInput, setData, setEntry, resultOf, evaluate] = halves.map((name) =>
    exported(instance, name),
  ) as unknown as readonly [Exported, Exported, Exported, Exported, Exported, Exported, Exported, Exported]
  const [heap, dump] = [exported(instance, 'opa_heap_ptr_get'), exported(instance, 'opa_json_dump')]
  const put = (bytes: Uint8Array, at: number): void => new Uint8Array(memory.buffer).set(bytes, at)
  const nothing = new TextEncoder().encode('{}')
  const address = exported(instance, 'opa_malloc')(nothing.length)
  put(nothing, address)
  const data = parse(address, nothing.length)
  return {
    read(input, at) {
      put(input, at)
      const from = at + input.length
      setHeap(from)
      const root = parse(at, input.length)
      const end = heap()
      if (root === 0 || end + roomBeside > memoryPages.initial * page) return null
      return { at: from, bytes: new Uint8Array(memory.buffer, from, end - from), root }
    },
    evaluate({ at, bytes, root }) {
      put(bytes, at)
      setHeap(at + bytes.length)
      const context = newContext()
      setInput(context, root)
      setData(context, data)
      setEntry(context, entry)
      if (evaluate(context) !== 0) throw new RangeError('the module gave no answer')
      return readJson(memory, dump(resultOf(context)))
    },
  }
}

/**
 * Instantiates a compiled module and checks, in this order: ABI, the built-ins it asks for, its one entry point. Runs code
 * of the module: only ever called where a deadline ends it. Throws `invalid_policy`.
 */
export function openInstance(module: WebAssembly.Module, builtins: Builtins = hostBuiltins): Instance {
  const memory = new WebAssembly.Memory(memoryPages)
  const names = new Map<number, string>()
  const state: { builtinFailed: boolean; exports: { dump: Exported; malloc: Exported; parse: Exported } | null } = {
    builtinFailed: false,
    exports: null,
  }

  /** Never throws: an exception through the module leaks its stack. The flag turns the whole evaluation into an error. */
  const call = (id: number, ...args: readonly number[]): number => {
    try {
      const implementation = builtins.get(names.get(id) ?? '')
      if (implementation === undefined || state.exports === null) throw new TypeError('no such built-in')
      const { dump, malloc, parse } = state.exports
      const result = implementation(...args.map((address) => readJson(memory, dump(address))))
      if (result === undefined) return 0
      if (typeof result === 'object' && result !== null && 'then' in result && typeof result['then'] === 'function') {
        throw new TypeError('an asynchronous built-in')
      }
      const bytes = new TextEncoder().encode(JSON.stringify(result))
      const address = malloc(bytes.length)
      new Uint8Array(memory.buffer).set(bytes, address)
      const value = parse(address, bytes.length)
      if (value === 0) throw new TypeError('a built-in returned what is not JSON')
      return value
    } catch {
      state.builtinFailed = true
      return 0
    }
  }

  const instance = new WebAssembly.Instance(module, {
    env: {
      memory,
      opa_abort: (): never => {
        throw new WritError('invalid_policy', 'the module aborted')
      },
      opa_println: () => undefined,
      opa_builtin0: (id: number) => call(id),
      opa_builtin1: (id: number, _context: number, a: number) => call(id, a),
      opa_builtin2: (id: number, _context: number, a: number, b: number) => call(id, a, b),
      opa_builtin3: (id: number, _context: number, a: number, b: number, c: number) => call(id, a, b, c),
      opa_builtin4: (id: number, _context: number, a: number, b: number, c: number, d: number) => call(id, a, b, c, d),
    },
  })

  const minor = abiVersion(instance)
  const dump = exported(instance, 'opa_json_dump')
  state.exports = { dump, malloc: exported(instance, 'opa_malloc'), parse: exported(instance, 'opa_json_parse') }
  for (const name of ['opa_eval', 'opa_heap_ptr_get']) exported(instance, name)

  for (const [name, id] of table(readJson(memory, dump(exported(instance, 'builtins')())), 'built-ins')) {
    if (!builtins.has(name)) refuse(`the module asks for the built-in ${name}`)
    names.set(id, name)
  }
  const entries = table(readJson(memory, dump(exported(instance, 'entrypoints')())), 'entry points')
  const id = entries.get(entrypoint)
  if (id === undefined || entries.size !== 1) refuse(`the module has other entry points than ${entrypoint}`)

  const shared = sharedReading(instance, memory, id)
  const policy = new LoadedPolicy({ instance, module }, memory, minor)
  return {
    free: exported(instance, 'opa_heap_ptr_get')(),
    read(input, at) {
      try {
        return shared?.read(input, at) ?? null
      } catch {
        return null
      }
    },
    evaluate(input, image = null) {
      // The SDK grows the memory for its input and would read a length past the maximum as a crash of its own.
      if (input.byteLength > memoryPages.maximum * page) return { ok: false, error: 'input_rejected', discard: false }
      state.builtinFailed = false
      try {
        const results: unknown = image === null || shared === null ? policy.evaluate(input, id) : shared.evaluate(image)
        if (state.builtinFailed) return { ok: false, error: 'builtin_error', discard: true }
        if (!Array.isArray(results) || results.length !== 1) {
          return { ok: false, error: 'policy_undefined', discard: false }
        }
        const first = results[0] as { result?: unknown } | null
        return { ok: true, value: first?.result }
      } catch {
        return { ok: false, error: state.builtinFailed ? 'builtin_error' : 'policy_throw', discard: true }
      }
    },
  }
}

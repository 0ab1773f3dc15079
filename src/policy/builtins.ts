import { WritError } from '../error.ts'
import type { Json } from '../digest.ts'

/** A function a module may call in the host. Pure and synchronous: a promise would reach the policy as `{}`, which is true. */
export type Builtin = (...args: readonly Json[]) => Json | undefined

export type Builtins = ReadonlyMap<string, Builtin>

/**
 * The table a module's `builtins()` is held against; a `Map`, so that `constructor` and `__proto__` name nothing. Throws
 * `internal` for an asynchronous function.
 */
export function registerBuiltins(entries: readonly (readonly [string, Builtin])[]): Builtins {
  const table = new Map<string, Builtin>()
  for (const [name, implementation] of entries) {
    const kind = Object.prototype.toString.call(implementation)
    if (kind !== '[object Function]') throw new WritError('internal', `the policy built-in ${name} is not synchronous`)
    table.set(name, implementation)
  }
  return table
}

/**
 * None: every built-in of the capabilities that packs are compiled with is native in the module, so a module
 * that asks the host for one was not made by Writ's compiler.
 */
export const hostBuiltins: Builtins = registerBuiltins([])

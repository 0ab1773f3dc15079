import type { Executor } from './executor.ts'
import { createIsolateExecutor } from './isolate/isolate.ts'

export interface ExecutorOptions {
  readonly poolSize: number
  readonly env: Readonly<Record<string, string>>
  readonly owner: string
}

/** Every kind of sandbox this Writ has. A new one: its folder, an import and a line here. */
export function openExecutors(options: ExecutorOptions): ReadonlyMap<string, Executor> {
  const list: readonly Executor[] = [createIsolateExecutor(options)]
  return new Map(list.map((executor) => [executor.kind, executor]))
}

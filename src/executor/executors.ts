import type { DockerSettings } from '../execution/engine.ts'
import type { Executor } from './executor.ts'
import { createIsolateExecutor } from './isolate/isolate.ts'

export interface ExecutorOptions {
  readonly poolSize: number
  readonly env: Readonly<Record<string, string>>
  readonly owner: string
  readonly docker: DockerSettings | null
}

/** Every kind of sandbox this Writ has. A new one: its folder, an import and a line here. */
export async function openExecutors(options: ExecutorOptions): Promise<ReadonlyMap<string, Executor>> {
  const { docker, ...rest } = options
  const list: Executor[] = [createIsolateExecutor(rest)]
  // Loaded only where it is used: what talks to an engine is larger than all the rest of the run host.
  if (docker !== null)
    list.push((await import('./docker/docker.ts')).createDockerExecutor({ ...rest, settings: docker }))
  return new Map(list.map((executor) => [executor.kind, executor]))
}

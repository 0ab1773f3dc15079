import type { Config } from '../config.ts'
import { startRunHost } from '../execution/host.ts'
import type { Checked } from '../execution/job.ts'
import { availabilityOf, imagesOf, unavailableTargets } from '../path/availability.ts'
import type { Catalog } from '../plan/catalog.ts'

/**
 * What the executors say of this machine, by a run host of this command's own. The engine is asked only where a target
 * runs in containers: a machine without Docker lacks nothing as long as nobody wants it.
 */
export async function probe(
  config: Config | null,
  catalog: Catalog | null,
): Promise<{
  readonly checked: readonly Checked[]
  readonly missing: ReturnType<typeof unavailableTargets>
}> {
  const containers = [...(catalog?.targets.values() ?? [])].some((target) => target.executor === 'docker')
  const host = startRunHost({ poolSize: 0, docker: containers && config !== null ? config.docker : null })
  try {
    const checked = await host.check(catalog === null ? [] : imagesOf(catalog))
    return { checked, missing: catalog === null ? [] : unavailableTargets(catalog, availabilityOf(checked)) }
  } finally {
    await host.close()
  }
}

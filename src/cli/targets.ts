import { loadCatalog } from '../plan/catalog.ts'
import { type Context, configOf, yes } from './context.ts'
import { show, table } from './print.ts'
import { probe } from './probe.ts'

/** The targets of the catalog and whether each can be run on now; what keeps one from that is told here and to no caller. */
export async function targetsList(context: Context): Promise<number> {
  const config = configOf(context)
  const catalog = loadCatalog(config.catalog, config.limits)
  const { missing } = await probe(config, catalog)
  const targets = [...catalog.targets.values()].map((target) => {
    const lack = missing.find((one) => one.target === target.ref)
    return {
      target_ref: target.ref,
      about: target.about,
      executor: target.executor,
      image: target.image,
      available: lack === undefined,
      ...(lack === undefined ? {} : { why: lack.why, fix: lack.fix }),
      labels: target.labels,
      intents: target.intents,
      services: target.services.map((service) => service.name),
    }
  })
  show(context, { targets }, () =>
    [
      table(
        ['target', 'available', 'executor', 'labels', 'intents', 'services', 'about'],
        targets.map((t) => [
          t.target_ref,
          t.available ? 'yes' : 'no',
          t.executor,
          Object.entries(t.labels)
            .map(([k, v]) => `${k}=${v}`)
            .join(','),
          t.intents.join(','),
          t.services.join(','),
          t.about,
        ]),
      ),
      ...missing.flatMap(({ target, why, fix }) => [`${target}: ${why}.`, `  ${fix}`]),
    ].join('\n'),
  )
  return yes
}

import { loadCatalog } from '../plan/catalog.ts'
import { type Context, configOf, yes } from './context.ts'
import { show, table } from './print.ts'

export function targetsList(context: Context): number {
  const config = configOf(context)
  const catalog = loadCatalog(config.catalog, config.limits)
  const targets = [...catalog.targets.values()].map((target) => ({
    target_ref: target.ref,
    about: target.about,
    executor: target.executor,
    labels: target.labels,
    intents: target.intents,
    services: target.services.map((service) => service.name),
  }))
  show(context, { targets }, () =>
    table(
      ['target', 'executor', 'labels', 'intents', 'services', 'about'],
      targets.map((t) => [
        t.target_ref,
        t.executor,
        Object.entries(t.labels)
          .map(([k, v]) => `${k}=${v}`)
          .join(','),
        t.intents.join(','),
        t.services.join(','),
        t.about,
      ]),
    ),
  )
  return yes
}

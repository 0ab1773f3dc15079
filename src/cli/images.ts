import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Config } from '../config.ts'
import { WritError } from '../error.ts'
import { openImages } from '../executor/docker/builds.ts'
import type { ImageDesk, ImageView } from '../executor/docker/builds.ts'
import { imageNames } from '../plan/available.ts'
import { loadCatalog } from '../plan/catalog.ts'
import { type Context, configOf, no, yes } from './context.ts'
import { packageRoot } from './init.ts'
import { show, table } from './print.ts'

export interface ImageOptions {
  readonly base?: string
  readonly tag?: string
  readonly network?: string
}

type Name = (typeof imageNames)[number]

const reference = /^[a-z0-9][A-Za-z0-9._:/@-]{0,254}$/

/** Builds each, one after the other; what the engine says goes to standard error. */
export async function imagesBuild(context: Context, names: readonly string[], options: ImageOptions): Promise<number> {
  const config = configOf(context)
  const chosen = namesOf(names, config)
  for (const [option, value] of [
    ['--base', options.base],
    ['--tag', options.tag],
  ] as const)
    if (value !== undefined && !reference.test(value)) throw new WritError('usage', `${option} has to name an image.`)
  if (options.tag !== undefined && chosen.length !== 1)
    throw new WritError('usage', '--tag names one image; name the one to build.')
  if (options.network !== undefined && options.network !== 'host')
    throw new WritError('usage', '--network can only be "host".')
  return await withDesk(context, config, async (desk) => {
    const built: ImageView[] = []
    for (const name of chosen) {
      const tag = options.tag ?? `writ/${name}`
      context.note(`Building ${tag}`)
      const dockerfile = readFileSync(join(packageRoot, 'sandbox-images', name, 'Dockerfile'))
      const order = {
        dockerfile,
        tag,
        base: options.base ?? null,
        network: options.network === 'host' ? 'host' : null,
      } as const
      await desk.build(order, (line) => context.note(`  ${line}`))
      const view = await desk.view(tag)
      if (view?.match !== true)
        throw new WritError(
          'target_unavailable',
          `The engine built ${tag}, but the agent in it is not what was sent.`,
          {
            remedy: 'Let nothing else build or change images of that name meanwhile, and build it again.',
          },
        )
      built.push(view)
    }
    show(context, { images: built }, () => rows(built))
    return yes
  })
}

/** What the engine has of the images that the catalog names and of those that say they have an agent. */
export async function imagesList(context: Context): Promise<number> {
  const config = configOf(context)
  const { views, absent } = await withDesk(context, config, async (desk) => await look(desk, await known(desk, config)))
  show(context, { images: views, absent }, () =>
    [
      views.length === 0 ? 'The engine has no image with an agent of Writ.' : rows(views),
      ...absent.map((name) => `${name} is named in the catalog and not there.`),
    ].join('\n'),
  )
  return yes
}

/** Exit 1 where an image is not there, or the agent in it is not the one of this Writ. */
export async function imagesVerify(context: Context, names: readonly string[]): Promise<number> {
  const config = configOf(context)
  const { views, absent } = await withDesk(
    context,
    config,
    async (desk) => await look(desk, names.length > 0 ? names : await known(desk, config)),
  )
  const wrong = views.filter((view) => !view.match)
  show(context, { images: views, absent, ok: wrong.length + absent.length === 0 }, () =>
    [
      ...views.map((view) => `${view.match ? 'ok    ' : 'WRONG '}  ${view.name}  ${agentOf(view)}`),
      ...absent.map((name) => `ABSENT  ${name}  the engine has no image of that name`),
      ...(wrong.length + absent.length > 0
        ? ['Build them again: writ images build; docs/images.md says how with your own.']
        : []),
      ...(views.length + absent.length === 0 ? ['There is no image to look at.'] : []),
    ].join('\n'),
  )
  return wrong.length + absent.length === 0 && views.length > 0 ? yes : no
}

async function known(desk: ImageDesk, config: Config): Promise<readonly string[]> {
  const named = catalogImages(config)
  const labelled = (await desk.names()).map((name) => name.replace(/:latest$/, ''))
  return [...new Set([...named, ...labelled])]
}

async function look(
  desk: ImageDesk,
  names: readonly string[],
): Promise<{ readonly views: readonly ImageView[]; readonly absent: readonly string[] }> {
  const views: ImageView[] = []
  const absent: string[] = []
  for (const name of names) {
    const view = reference.test(name) ? await desk.view(name) : null
    if (view === null) absent.push(name)
    else views.push(view)
  }
  return { views, absent }
}

function catalogImages(config: Config): readonly string[] {
  return [...loadCatalog(config.catalog, config.limits).targets.values()].flatMap((target) =>
    target.executor === 'docker' ? (target.image ?? []) : [],
  )
}

/** Those asked for, else those of Writ that the catalog uses, else all. */
function namesOf(asked: readonly string[], config: Config): readonly Name[] {
  const wanted = asked.map((name) => {
    const one = imageNames.find((known) => known === name || `writ/${known}` === name)
    if (one === undefined)
      throw new WritError('usage', `Writ has no image "${name}"; it has ${imageNames.join(', ')}.`, {
        remedy: 'Your own image: writ images build base --base IMAGE --tag NAME; docs/images.md says more.',
      })
    return one
  })
  if (wanted.length > 0) return [...new Set(wanted)]
  const named = new Set(catalogImages(config).map((name) => name.replace(/:latest$/, '')))
  const used = imageNames.filter((name) => named.has(`writ/${name}`))
  return used.length > 0 ? used : imageNames
}

async function withDesk<T>(context: Context, config: Config, use: (desk: ImageDesk) => Promise<T>): Promise<T> {
  const env: Record<string, string> = {}
  for (const name of ['PATH', 'HOME', 'SSH_AUTH_SOCK']) {
    const value = context.env[name]
    if (value !== undefined) env[name] = value
  }
  const desk = await openImages(config.docker, env)
  try {
    return await use(desk)
  } finally {
    desk.close()
  }
}

function agentOf(view: ImageView): string {
  if (view.agent === null) return 'no agent that could be read, owned by root with mode 0555'
  return `${view.match ? 'agent' : 'another agent'} ${view.agent.slice(0, 'sha256:'.length + 12)}`
}

function rows(views: readonly ImageView[]): string {
  return table(
    ['image', 'id', 'store', 'digest', 'arch', 'size', 'agent'],
    views.map((view) => [
      view.name,
      view.id.slice('sha256:'.length, 'sha256:'.length + 12),
      view.store,
      view.digest === null ? '-' : view.digest.slice('sha256:'.length, 'sha256:'.length + 12),
      view.arch,
      `${String(view.size_mb)} MB`,
      view.match ? 'matches' : view.agent === null ? 'none' : 'differs',
    ]),
  )
}

import type { Command } from 'commander'
import type { ImageOptions } from './images.ts'
import type { Action, Leaf } from './leaf.ts'

/** The commands of `writ images`. */
export function declareImages(program: Command, leaf: Leaf, action: Action): void {
  const group = program.command('images').description('what containers are made of')
  leaf(
    group,
    'build [names...]',
    'build images of Writ: base, python, node, go, shell; without names, those that the catalog uses',
  )
    .option('--base <image>', 'build on this image instead of Debian; what it has of a language goes before Debian’s')
    .option('--tag <name>', 'name of the image, where one is built (else writ/NAME)')
    .option('--network <mode>', '"host" where the engine has no network of its own for builds')
    .action(
      action(async (names: string[], options: ImageOptions) => {
        const { imagesBuild } = await import('./images.ts')
        return async (context) => await imagesBuild(context, names, options)
      }),
    )
  leaf(
    group,
    'list',
    'the images of the catalog and of Writ that the engine has, and whether their agent is right',
  ).action(action(async () => (await import('./images.ts')).imagesList))
  leaf(
    group,
    'verify [names...]',
    'read the agent out of images and compare it with that of this Writ; exit 1 where one differs',
  ).action(
    action(async (names: string[]) => {
      const { imagesVerify } = await import('./images.ts')
      return async (context) => await imagesVerify(context, names)
    }),
  )
}

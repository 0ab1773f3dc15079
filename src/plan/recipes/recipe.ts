import { showPath } from '../../request/files.ts'
import type { Detected } from '../detect.ts'
import type { Packages } from '../environment.ts'
import type { Missing, PlanStep } from '../plan.ts'

/*
 * Steps for a project in a container. Commands are argv in the project's folder; a shell stands only where what is in the
 * image decides, which nobody can know beforehand. Recipes are pure, and what they read is names and manifests.
 */

/** What a recipe is written from. */
export interface Project {
  readonly kind: Detected
  readonly intent: 'install_and_test' | 'build'
  readonly paths: readonly string[]
  readonly contents: ReadonlyMap<string, string>
  /** Further arguments of the test or build command. */
  readonly args: readonly string[]
  readonly packages: Packages
}

export type Recipe = { readonly steps: readonly PlanStep[] } | { readonly missing: readonly Missing[] }

export function step(title: string, ...argv: readonly string[]): PlanStep {
  return { title, argv, success: [0] }
}

/** A path as an argument: never taken for an option. */
export function asPath(path: string): string {
  return path.startsWith('-') ? `./${path}` : path
}

export function inRoot(paths: readonly string[], name: string): boolean {
  return paths.includes(name)
}

/** The first of these folders at the root that holds a file whose name the pattern matches. */
export function folderWith(paths: readonly string[], folders: readonly string[], name: RegExp): string | null {
  return (
    folders.find((folder) =>
      paths.some((path) => path.startsWith(`${folder}/`) && name.test(path.slice(folder.length + 1))),
    ) ?? null
  )
}

export function noTests(what: string): Recipe {
  return {
    missing: [{ what: `tests: the ${what} project shows none`, fix: 'Add tests and upload them.' }],
  }
}

export function noBuild(what: string): Recipe {
  return {
    missing: [
      {
        what: `a build: the ${what} project shows none`,
        fix: 'Add what describes the build, or submit the task with another intent.',
      },
    ],
  }
}

/** Where neither a mirror nor the project has what it asks for, and no image could. */
export function lackingPackages(names: readonly string[], folder: string): Recipe {
  const shown = names.slice(0, 10).map(visible).join(', ')
  return {
    missing: [
      {
        what: `packages: this target has no mirror to install ${shown}${names.length > 10 ? ` and ${names.length - 10} more` : ''} from`,
        fix: `Upload them in ${folder}, or ask the operator of this Writ for a target with a package mirror.`,
      },
    ],
  }
}

/** Names of packages are the caller's text. */
function visible(name: string): string {
  return showPath(name).slice(1, -1).slice(0, 100)
}

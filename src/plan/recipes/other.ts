import { asPath, noBuild, noTests, step } from './recipe.ts'
import type { Project, Recipe } from './recipe.ts'

const testScripts = [
  'test.sh',
  'tests.sh',
  'run-tests.sh',
  'run_tests.sh',
  'test/run.sh',
  'tests/run.sh',
  'test/test.sh',
]

/** A Makefile's own targets, or a script whose name says that it runs the tests. */
export function shellRecipe({ kind, intent, paths, args }: Project): Recipe {
  if (kind.tool === 'make') {
    const argv = intent === 'build' ? kind.build : kind.test
    if (argv !== null) return { steps: [step(`Run ${argv.join(' ')}`, ...argv, ...args)] }
    return intent === 'build' ? noBuild('Makefile') : noTests('Makefile')
  }
  if (intent === 'build') return noBuild('shell')
  const script = testScripts.find((name) => paths.includes(name))
  return script === undefined
    ? noTests('shell')
    : { steps: [step(`Run the tests with ${script}`, 'sh', asPath(script), ...args)] }
}

/** Only where the operator says that the image has Rust. */
export function rustRecipe({ kind, intent, paths, args }: Project): Recipe {
  const offline = paths.some((path) => path.startsWith('vendor/')) ? ['--offline'] : []
  const argv = intent === 'build' ? kind.build : kind.test
  if (argv === null) return intent === 'build' ? noBuild('Rust') : noTests('Rust')
  return { steps: [step(`Run ${argv.join(' ')}`, ...argv, ...offline, ...args)] }
}

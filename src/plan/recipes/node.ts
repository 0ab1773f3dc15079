import { member, readJson } from '../detect.ts'
import type { PlanStep } from '../plan.ts'
import type { Project, Recipe } from './recipe.ts'
import { folderWith, inRoot, noTests, step } from './recipe.ts'

const testName = /(?:^|\/)(?:[^/]+[._-]test|test-[^/]+|test)\.[cm]?[jt]s$|(?:^|\/)test\/(?:.*\/)?[^/]+\.[cm]?[jt]s$/

/** Installing and testing, or building, a project with a package.json, or lone test files. */
export function nodeRecipe(project: Project): Recipe {
  const { kind, intent, paths, contents, args } = project
  const manifest = readJson(contents, 'package.json')
  if (kind.because !== 'package.json')
    return intent === 'build' || !paths.some((path) => testName.test(path))
      ? noTests('JavaScript')
      : { steps: [runner(args)] }
  const scripts = member(manifest, 'scripts')
  const script = scripts[intent === 'build' ? 'build' : 'test']
  const install = installSteps(project)
  if (typeof script === 'string' && !script.includes('no test specified'))
    return { steps: [...install, intent === 'build' ? buildStep(project) : testStep(project, script)] }
  if (intent === 'install_and_test' && paths.some((path) => testName.test(path)))
    return { steps: [...install, runner(args)] }
  const what = intent === 'build' ? 'a build' : 'tests'
  return {
    missing: [
      {
        what: `${what}: package.json has no "${intent === 'build' ? 'build' : 'test'}" script`,
        fix: 'Add the script and upload package.json again.',
      },
    ],
  }
}

function runner(args: readonly string[]): PlanStep {
  return step('Run the tests with node --test', 'node', '--test', '--test-reporter=tap', ...args)
}

function buildStep({ kind, args }: Project): PlanStep {
  const tool = kind.tool ?? 'npm'
  return step(`Build with ${tool}`, tool, 'run', 'build', ...(args.length === 0 ? [] : ['--', ...args]))
}

/** A lone runner that can write a report is asked for one; of other scripts only the output is known. */
function testStep({ kind, args }: Project, script: string): PlanStep {
  const tool = kind.tool ?? 'npm'
  const plain = !/[&|;<>$`(){}\\"'*?\n]/.test(script)
  const report =
    plain && /^(?:npx )?vitest(?: run)?(?: |$)/.test(script)
      ? ['--reporter=default', '--reporter=json', '--outputFile.json=/out/vitest.json']
      : plain && /^(?:npx )?jest(?: |$)/.test(script)
        ? ['--json', '--outputFile=/out/jest.json']
        : []
  const more = [...report, ...args]
  return step(`Run the tests with ${tool} test`, tool, 'run', 'test', ...(more.length === 0 ? [] : ['--', ...more]))
}

/** Vendored modules need no installing; an offline cache in the project serves like a mirror. */
function installSteps({ kind, paths, contents, packages }: Project): readonly PlanStep[] {
  const manifest = readJson(contents, 'package.json')
  const asked = ['dependencies', 'devDependencies', 'optionalDependencies'].some(
    (name) => Object.keys(member(manifest, name)).length > 0,
  )
  const workspaces = manifest !== null && Object.hasOwn(manifest, 'workspaces')
  if ((manifest !== null && !asked && !workspaces) || paths.some((path) => path.startsWith('node_modules/'))) return []
  const tool = kind.tool ?? 'npm'
  if (tool !== 'npm') {
    const [argv] = kind.install
    return argv === undefined ? [] : [step(`Install dependencies with ${tool}`, ...argv)]
  }
  const cache = folderWith(paths, ['npm-cache', '.npm-cache'], /^_cacache\//)
  const locked = inRoot(paths, 'package-lock.json') || inRoot(paths, 'npm-shrinkwrap.json')
  return [
    step(
      'Install dependencies with npm',
      'npm',
      locked ? 'ci' : 'install',
      ...(cache === null ? [] : ['--cache', cache, packages.npm === null ? '--offline' : '--prefer-offline']),
    ),
  ]
}

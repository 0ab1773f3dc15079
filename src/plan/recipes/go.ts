import type { PlanStep } from '../plan.ts'
import type { Project, Recipe } from './recipe.ts'
import { asPath, inRoot, lackingPackages, noBuild, noTests, step } from './recipe.ts'

/** Testing or building a Go module, or testing lone Go files. */
export function goRecipe(project: Project): Recipe {
  const { intent, paths, contents, args, packages } = project
  const tests = paths.some((path) => path.endsWith('_test.go'))
  if (!inRoot(paths, 'go.mod')) {
    const files = paths.filter((path) => path.endsWith('.go') && !path.includes('/')).map(asPath)
    if (intent === 'build') return noBuild('Go')
    return files.some((path) => path.endsWith('_test.go'))
      ? { steps: [step('Run the tests with go test', 'go', 'test', '-json', ...files, ...args)] }
      : noTests('Go')
  }
  if (intent === 'install_and_test' && !tests) return noTests('Go')
  const asked = required(contents.get('go.mod') ?? '')
  const vendored = paths.includes('vendor/modules.txt')
  if (asked.length > 0 && !vendored && packages.go === null) return lackingPackages(asked, 'vendor/ ("go mod vendor")')
  // Without go.sum the mirror is believed: nobody said which bytes are right.
  const loose = asked.length > 0 && !vendored && !inRoot(paths, 'go.sum') ? ['-mod=mod'] : []
  const install: readonly PlanStep[] =
    asked.length > 0 && !vendored ? [step('Download the modules of go.mod', 'go', 'mod', 'download')] : []
  const command =
    intent === 'install_and_test'
      ? step('Run the tests with go test', 'go', 'test', ...loose, '-json', ...args, './...')
      : inRoot(paths, 'main.go')
        ? step('Build with go build', 'go', 'build', ...loose, '-o', '/out/', ...args, '.')
        : step('Build with go build', 'go', 'build', ...loose, ...args, './...')
  return { steps: [...install, command] }
}

/** Modules that a go.mod requires, as `path@version`; those of a replacement within the project count too, but are few. */
function required(text: string): readonly string[] {
  const lines = text.replaceAll(/\/\/[^\n]*/g, '').split('\n')
  const local = new Set(
    lines.flatMap((line) => /^\s*(?:replace\s+)?(\S+)(?:\s+v\S+)?\s+=>\s+\.{1,2}\//.exec(line)?.[1] ?? []),
  )
  return lines.flatMap((line) => {
    const [, path, version] = /^\s*(?:require\s+)?([^\s()=]+\.[^\s()=]+)\s+(v\d\S*)\s*$/.exec(line) ?? []
    return path === undefined || version === undefined || local.has(path) ? [] : [`${path}@${version}`]
  })
}

import type { PlanStep } from '../plan.ts'
import type { Project, Recipe } from './recipe.ts'
import { asPath, inRoot, noBuild, noTests, step } from './recipe.ts'

/** Testing or building a Go module, or testing lone Go files. */
export function goRecipe(project: Project): Recipe {
  const { intent, paths, contents, args } = project
  const tests = paths.some((path) => path.endsWith('_test.go'))
  if (!inRoot(paths, 'go.mod')) {
    const files = paths.filter((path) => path.endsWith('.go') && !path.includes('/')).map(asPath)
    if (intent === 'build') return noBuild('Go')
    return files.some((path) => path.endsWith('_test.go'))
      ? { steps: [step('Run the tests with go test', 'go', 'test', '-json', ...files, ...args)] }
      : noTests('Go')
  }
  if (intent === 'install_and_test' && !tests) return noTests('Go')
  const text = contents.get('go.mod')
  const asks = text === undefined || /^[ \t]*(?:require\b|[^\s()/]+\.[^\s()/]+\/?\S* v\d)/m.test(text)
  const vendored = paths.includes('vendor/modules.txt')
  const install: readonly PlanStep[] =
    asks && !vendored ? [step('Download the modules of go.mod', 'go', 'mod', 'download')] : []
  return {
    steps: [
      ...install,
      intent === 'build'
        ? paths.some((path) => path === 'main.go')
          ? step('Build with go build', 'go', 'build', '-o', '/out/', ...args, '.')
          : step('Build with go build', 'go', 'build', ...args, './...')
        : step('Run the tests with go test', 'go', 'test', '-json', ...args, './...'),
    ],
  }
}

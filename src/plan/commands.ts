import type { Target } from './entries.ts'
import type { Detected } from './detect.ts'
import { goRecipe } from './recipes/go.ts'
import { nodeRecipe } from './recipes/node.ts'
import { rustRecipe, shellRecipe } from './recipes/other.ts'
import { pythonRecipe } from './recipes/python.ts'
import { asPath } from './recipes/recipe.ts'
import type { Project, Recipe } from './recipes/recipe.ts'
import type { Runtime } from './schema.ts'

/** The steps of a project's own kind. */
export function recipeOf(project: Project): Recipe {
  switch (project.kind.runtime) {
    case 'python':
      return pythonRecipe(project)
    case 'javascript':
    case 'typescript':
      return nodeRecipe(project)
    case 'go':
      return goRecipe(project)
    case 'rust':
      return rustRecipe(project)
    case 'shell':
      return shellRecipe(project)
  }
}

/** Whether a target runs projects of a kind: those in TypeScript are JavaScript's tools at work. */
export function runsKind(target: Target, kind: Detected): boolean {
  const { runtime } = kind
  return (
    target.runtimes.includes(runtime) ||
    (runtime === 'typescript' && target.runtimes.includes('javascript')) ||
    (runtime === 'javascript' && target.runtimes.includes('typescript'))
  )
}

/** What starts a script in a container; a shell script by the shell its first line names. */
export function interpreter(runtime: Runtime, path: string, content: string | undefined): readonly string[] | null {
  const script = asPath(path)
  switch (runtime) {
    case 'python':
      return ['python3', script]
    case 'javascript':
    case 'typescript':
      return ['node', script]
    case 'go':
      return ['go', 'run', script]
    case 'shell':
      return [shellOf(path, content), script]
    case 'rust':
      return null
  }
}

function shellOf(path: string, content: string | undefined): string {
  const named = /^#![^\n\r]*?\b(bash|dash|zsh|ksh|ash|sh)\b/.exec((content ?? '').slice(0, 200))?.[1]
  return named ?? (path.endsWith('.bash') ? 'bash' : 'sh')
}

/** The runtime a program of an image belongs to, as far as its name tells. */
export function programRuntime(program: string): Runtime {
  const name = program.slice(program.lastIndexOf('/') + 1)
  if (/^(?:python[0-9.]*|pip[0-9.]*|pytest|uv|poetry)$/.test(name)) return 'python'
  if (/^(?:node|nodejs|npm|npx|pnpm|yarn)$/.test(name)) return 'javascript'
  if (name === 'go') return 'go'
  return name === 'cargo' || name === 'rustc' ? 'rust' : 'shell'
}

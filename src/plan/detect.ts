import type { JsonObject } from '../digest.ts'
import type { TaskFile } from '../request/task.ts'
import { asJson, asToml, member, parsed } from './manifest.ts'
import type { Runtime } from './schema.ts'

/** What a project is, as far as names and manifests tell; commands are argv. */
export interface Detected {
  readonly runtime: Runtime
  readonly confidence: 'certain' | 'likely' | 'guess'
  /** The file that told. */
  readonly because: string
  /** What installs and runs it (`npm`, `uv` …), or null for a lone script. */
  readonly tool: string | null
  /** The script the project names as its own, or null. */
  readonly main: string | null
  readonly install: readonly (readonly string[])[]
  /** Null where the project has no tests that show. */
  readonly test: readonly string[] | null
  readonly build: readonly string[] | null
  /** What is wrong with the manifest, or null. */
  readonly problem: string | null
}

export const maxManifestBytes = 256 * 1024

/** What a Python project may ask for beside `requirements.txt`, to be tested. */
export const testRequirements = [
  'requirements-test.txt',
  'requirements-tests.txt',
  'requirements-dev.txt',
  'requirements_test.txt',
  'requirements_dev.txt',
  'test-requirements.txt',
  'dev-requirements.txt',
  'requirements/test.txt',
  'requirements/tests.txt',
  'requirements/dev.txt',
]

const manifests = new Set([
  'package.json',
  'pyproject.toml',
  'Cargo.toml',
  'go.mod',
  'Makefile',
  'requirements.txt',
  ...testRequirements,
])

const byExtension: ReadonlyMap<string, Runtime> = new Map([
  ['js', 'javascript'],
  ['mjs', 'javascript'],
  ['cjs', 'javascript'],
  ['jsx', 'javascript'],
  ['ts', 'typescript'],
  ['mts', 'typescript'],
  ['cts', 'typescript'],
  ['tsx', 'typescript'],
  ['py', 'python'],
  ['pyw', 'python'],
  ['sh', 'shell'],
  ['bash', 'shell'],
  ['go', 'go'],
  ['rs', 'rust'],
])

/**
 * The files whose text `detect` and `resolve` want to see: manifests, and scripts without a telling name. By whole names, so
 * that no task has more of them than a few: the broker holds the text of all at once.
 */
export function manifestPaths(files: readonly TaskFile[], inputs: JsonObject): readonly string[] {
  const wanted: string[] = []
  for (const file of files) {
    if (file.size > maxManifestBytes) continue
    const root = !file.path.includes('/')
    if (manifests.has(file.path)) wanted.push(file.path)
    else if (
      (root || file.path === inputs['script']) &&
      [null, 'sh', 'bash'].includes(extension(file.path)) &&
      wanted.length < 32
    )
      wanted.push(file.path)
  }
  return wanted
}

/** The runtime a script is for, by its ending, else by its first line; null where neither tells. */
export function scriptRuntime(path: string, content: string | undefined): Runtime | null {
  const ending = extension(path)
  if (ending !== null) return byExtension.get(ending) ?? null
  const line = /^#!\s*(\S+)([^\n\r]{0,200})/.exec(content ?? '')
  if (line === null) return null
  const direct = lastPart(line[1] ?? '')
  const word = (line[2] ?? '')
    .trim()
    .split(/\s+/)
    .find((word) => !word.startsWith('-') && !word.includes('='))
  const program = (direct === 'env' ? lastPart(word ?? '') : direct).replace(/[0-9.]+$/, '')
  if (['node', 'nodejs', 'bun'].includes(program)) return 'javascript'
  if (['deno', 'tsx', 'ts-node'].includes(program)) return 'typescript'
  if (['python', 'pypy'].includes(program)) return 'python'
  return ['sh', 'bash', 'dash', 'zsh', 'ksh', 'ash'].includes(program) ? 'shell' : null
}

/**
 * The kinds of project these files can be, the surest first. Pure: looks at names and at the given texts only
 * (at most 256 KiB each; longer ones count as not given).
 */
export function detect(paths: readonly string[], contents: ReadonlyMap<string, string>): readonly Detected[] {
  const root = new Set(paths.filter((path) => !path.includes('/')))
  const text = (name: string): string | null => {
    const content = contents.get(name)
    return content === undefined || content.length > maxManifestBytes ? null : content
  }
  const found: Detected[] = []
  if (root.has('package.json')) found.push(node(paths, root, text('package.json')))
  if (root.has('go.mod')) found.push(go(paths))
  if (root.has('Cargo.toml')) found.push(rust(root, text('Cargo.toml')))
  const pythonFile = [
    'uv.lock',
    'poetry.lock',
    'pyproject.toml',
    'setup.py',
    'setup.cfg',
    'requirements.txt',
    'Pipfile',
    'tox.ini',
  ].find((name) => root.has(name))
  if (pythonFile !== undefined) found.push(python(paths, root, pythonFile, text))
  const make = text('Makefile')
  if (make !== null && found.length === 0) found.push(makefile(make))
  if (found.length > 0) return found
  return loose(paths, contents)
}

const nothing = { tool: null, main: null, install: [], test: null, build: null, problem: null } as const

function node(paths: readonly string[], root: ReadonlySet<string>, text: string | null): Detected {
  const [manifest, problem] = parsed(text, 'package.json', asJson)
  const scripts = member(manifest, 'scripts')
  const dependencies = { ...member(manifest, 'dependencies'), ...member(manifest, 'devDependencies') }
  const tool = root.has('pnpm-lock.yaml')
    ? 'pnpm'
    : root.has('yarn.lock')
      ? 'yarn'
      : root.has('bun.lock') || root.has('bun.lockb')
        ? 'bun'
        : 'npm'
  const locked = tool !== 'npm' || root.has('package-lock.json') || root.has('npm-shrinkwrap.json')
  const declared = manifest !== null && Object.hasOwn(manifest, 'main') ? manifest['main'] : undefined
  const main = typeof declared === 'string' ? existing(declared, paths) : null
  const typed =
    main !== null
      ? scriptRuntime(main, undefined) === 'typescript'
      : root.has('tsconfig.json') || Object.hasOwn(dependencies, 'typescript')
  const test = typeof scripts['test'] === 'string' && !scripts['test'].includes('no test specified')
  return {
    runtime: typed ? 'typescript' : 'javascript',
    confidence: problem === null ? 'certain' : 'likely',
    because: 'package.json',
    tool,
    main,
    install: [
      tool === 'npm'
        ? ['npm', locked ? 'ci' : 'install', '--no-audit', '--no-fund']
        : [tool, 'install', tool === 'yarn' ? '--immutable' : '--frozen-lockfile'],
    ],
    test: test ? [tool, 'run', 'test'] : null,
    build: typeof scripts['build'] === 'string' ? [tool, 'run', 'build'] : null,
    problem,
  }
}

function python(
  paths: readonly string[],
  root: ReadonlySet<string>,
  because: string,
  text: (name: string) => string | null,
): Detected {
  const [project, problem] = root.has('pyproject.toml')
    ? parsed(text('pyproject.toml'), 'pyproject.toml', asToml)
    : [null, null]
  const tool = root.has('uv.lock') ? 'uv' : root.has('poetry.lock') ? 'poetry' : 'pip'
  const run = tool === 'pip' ? ['python'] : [tool, 'run', 'python']
  const pytest =
    Object.hasOwn(member(project, 'tool'), 'pytest') ||
    root.has('pytest.ini') ||
    root.has('conftest.py') ||
    /^pytest\b/m.test(text('requirements.txt') ?? '') ||
    /["']pytest\b/.test(text('pyproject.toml') ?? '')
  const tests = paths.some((path) => /(?:^|\/)(?:test_[^/]*|[^/]*_test)\.py$/.test(path))
  const packaged =
    root.has('setup.py') || Object.hasOwn(project ?? {}, 'build-system') || Object.hasOwn(project ?? {}, 'project')
  const install =
    tool === 'uv'
      ? [['uv', 'sync', '--frozen']]
      : tool === 'poetry'
        ? [['poetry', 'install', '--no-interaction']]
        : [
            ...(root.has('requirements.txt') ? [['python', '-m', 'pip', 'install', '-r', 'requirements.txt']] : []),
            ...(packaged ? [['python', '-m', 'pip', 'install', '.']] : []),
          ]
  return {
    runtime: 'python',
    confidence: problem === null ? 'certain' : 'likely',
    because,
    tool,
    main: ['main.py', '__main__.py', 'app.py'].find((name) => root.has(name)) ?? null,
    install,
    test: pytest ? [...run, '-m', 'pytest'] : tests ? [...run, '-m', 'unittest', 'discover'] : null,
    build: !packaged ? null : tool === 'pip' ? ['python', '-m', 'build'] : [tool, 'build'],
    problem,
  }
}

function go(paths: readonly string[]): Detected {
  return {
    ...nothing,
    runtime: 'go',
    confidence: 'certain',
    because: 'go.mod',
    tool: 'go',
    main: existing('main.go', paths),
    install: [['go', 'mod', 'download']],
    test: paths.some((path) => path.endsWith('_test.go')) ? ['go', 'test', './...'] : null,
    build: ['go', 'build', './...'],
  }
}

function rust(root: ReadonlySet<string>, text: string | null): Detected {
  const [, problem] = parsed(text, 'Cargo.toml', asToml)
  const locked = root.has('Cargo.lock') ? ['--locked'] : []
  return {
    ...nothing,
    runtime: 'rust',
    confidence: problem === null ? 'certain' : 'likely',
    because: 'Cargo.toml',
    tool: 'cargo',
    install: [['cargo', 'fetch', ...locked]],
    test: ['cargo', 'test', ...locked],
    build: ['cargo', 'build', ...locked],
    problem,
  }
}

function makefile(text: string): Detected {
  const has = (name: string): boolean => new RegExp(`^${name}[ \\t]*:(?!=)`, 'm').test(text)
  return {
    ...nothing,
    runtime: 'shell',
    confidence: 'likely',
    because: 'Makefile',
    tool: 'make',
    test: has('test') ? ['make', 'test'] : has('check') ? ['make', 'check'] : null,
    build: has('build') ? ['make', 'build'] : has('all') ? ['make', 'all'] : null,
  }
}

/** Scripts without a manifest: certain for a lone one, otherwise each kind is a guess, the most frequent first. */
function loose(paths: readonly string[], contents: ReadonlyMap<string, string>): readonly Detected[] {
  const scripts = new Map<Runtime, string[]>()
  for (const path of paths) {
    const runtime = scriptRuntime(path, contents.get(path))
    if (runtime !== null) scripts.set(runtime, [...(scripts.get(runtime) ?? []), path])
  }
  const kinds = [...scripts].sort(([, a], [, b]) => b.length - a.length)
  const total = kinds.reduce((sum, [, of]) => sum + of.length, 0)
  return kinds.map(([runtime, of]) => ({
    ...nothing,
    runtime,
    confidence: total === 1 ? 'certain' : kinds.length === 1 ? 'likely' : 'guess',
    because: of[0] ?? '',
    main: of.length === 1 ? (of[0] ?? null) : null,
  }))
}

/** Lower-case ending of the last part, or null; `.env` is a name, not an ending. */
function extension(path: string): string | null {
  return /[^/.][^/]*\.([A-Za-z0-9]{1,8})$/.exec(lastPart(path))?.[1]?.toLowerCase() ?? null
}

function lastPart(path: string): string {
  return path.slice(path.lastIndexOf('/') + 1)
}

function existing(path: string, paths: readonly string[]): string | null {
  const plain = path.replace(/^(?:\.\/)+/, '')
  return paths.find((one) => one === plain) ?? null
}

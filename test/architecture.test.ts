import { readdirSync, readFileSync, statSync } from 'node:fs'
import { dirname, join, relative, resolve } from 'node:path'
import { describe, expect, it } from 'vitest'

const root = resolve(import.meta.dirname, '..')
const source = join(root, 'src')

/** Folders in the order a request travels. A file imports from its own folder, from upstream, and from the base files. */
const order = [
  'request',
  'artifact',
  'plan',
  'policy',
  'approval',
  'credential',
  'egress',
  'execution',
  'executor',
  'receipt',
  'ledger',
  'path',
]
const edges = ['mcp', 'http', 'control', 'cli']
const base = new Set([
  'error.ts',
  'id.ts',
  'clock.ts',
  'digest.ts',
  'module.ts',
  'json.ts',
  'jws.ts',
  'yaml.ts',
  'watch.ts',
])
const composition = new Set([
  'main.ts',
  'config.ts',
  'broker.ts',
  'recover.ts',
  'serve.ts',
  'clockwork.ts',
  'live.ts',
  'operate.ts',
  'web.ts',
  'start.ts',
  'folder.ts',
  'initial.ts',
  'relay.ts',
])

/** Each built-in that reaches out of the process or runs code, each third-party package, and the only places that may import it. */
const homes: Readonly<Record<string, readonly string[]>> = {
  'node:child_process': ['start.ts', 'policy/tools-process.ts', 'execution/child.ts', 'executor/docker/'],
  'node:net': ['start.ts', 'mcp/', 'control/', 'execution/', 'egress/', 'http/', 'approval/agent.ts'],
  'node:http': ['egress/', 'http/', 'executor/docker/'],
  'node:https': ['egress/', 'http/', 'executor/docker/'],
  'node:tls': ['http/', 'cli/remote.ts'],
  'node:tty': ['cli/terminal.ts'],
  'node:dns': ['egress/'],
  'node:sqlite': ['ledger/sqlite/'],
  'node:worker_threads': ['policy/'],
  'node:vm': [],
  'node:cluster': [],
  'node:inspector': [],
  // Files: whoever keeps something on disk, and the edges of the operator's own machine.
  'node:fs': [
    'artifact/',
    'plan/',
    'policy/',
    'approval/',
    'credential/file/',
    'execution/',
    'executor/',
    'receipt/keys.ts',
    'ledger/sqlite/',
    'mcp/socket.ts',
    'http/',
    'control/',
    'cli/',
    'main.ts',
    'config.ts',
    'folder.ts',
    'live.ts',
    'start.ts',
    'watch.ts',
  ],
  'node:os': ['egress/', 'cli/', 'folder.ts', 'main.ts'],
  'node:zlib': ['request/', 'artifact/', 'policy/', 'egress/', 'executor/'],
  // `createRequire` for packages that are slow to load and rarely needed, the compile cache, and what V8 is told.
  'node:module': ['plan/intents.ts', 'policy/load.ts', 'approval/files.ts', 'execution/', 'executor/', 'main.ts'],
  'isolated-vm': ['executor/isolate/'],
  dockerode: ['executor/docker/'],
  '@open-policy-agent/opa-wasm': ['policy/'],
  '@modelcontextprotocol/server': ['mcp/'],
  '@modelcontextprotocol/client': ['cli/'],
  'age-encryption': ['credential/file/', 'approval/keyfile.ts'],
  'tar-stream': ['artifact/', 'executor/docker/'],
  yauzl: ['artifact/'],
  diff: ['approval/'],
  yaml: ['yaml.ts', 'cli/'],
  ajv: ['plan/'],
  'smol-toml': ['plan/'],
  commander: ['cli/'],
  hono: ['http/'],
  'prom-client': ['http/'],
  jose: ['http/identity/'],
  canonicalize: ['digest.ts'],
  // Schemas of what comes from outside, where it comes in.
  zod: [
    'plan/',
    'policy/',
    'approval/',
    'execution/',
    'executor/',
    'receipt/',
    'mcp/',
    'http/',
    'control/',
    'config.ts',
    'yaml.ts',
  ],
  pino: ['path/parts.ts', 'http/', 'main.ts', 'live.ts', 'serve.ts'],
}

/** Built-ins that compute, and reach nothing. */
const anywhere = new Set([
  'node:buffer',
  'node:crypto',
  'node:events',
  'node:path',
  'node:perf_hooks',
  'node:stream',
  'node:timers',
  'node:url',
  'node:util',
])

interface File {
  readonly path: string
  readonly imports: readonly string[]
  readonly text: string
}

function walk(folder: string): string[] {
  return readdirSync(folder).flatMap((name) => {
    const path = join(folder, name)
    return statSync(path).isDirectory() ? walk(path) : path.endsWith('.ts') ? [path] : []
  })
}

/** Every way to name another module, as the formatter writes them: statements at the start of a line, calls anywhere. */
const importing =
  /^(?:import|export)\b(?: [^'"\n]*\bfrom)? '([^'\n]+)'$|^\} from '([^'\n]+)'$|\bimport\(\s*'([^'\n]+)'\s*\)|\bcreateRequire\([^()]*\)\('([^'\n]+)'\)|\brequire\('([^'\n]+)'\)/gm

const files: readonly File[] = walk(source).map((path) => {
  const text = readFileSync(path, 'utf8')
  const imports = [...text.matchAll(importing)].flatMap(
    (match) => match.slice(1).find((one) => one !== undefined) ?? [],
  )
  return { path: relative(source, path), imports: [...new Set(imports)], text }
})

function folderOf(path: string): string {
  return path.includes('/') ? (path.split('/')[0] ?? '') : ''
}

function mayImport(from: string, to: string): boolean {
  if (base.has(to)) return true
  const own = folderOf(from)
  const other = folderOf(to)
  if (own !== '' && own === other) return true
  if (composition.has(from)) return true
  if (edges.includes(own))
    return other === '' ? composition.has(to) : order.includes(other) || (own === 'cli' && other === 'control')
  if (own === 'path') return to === 'broker.ts' || order.includes(other)
  if (own === '') return false
  return order.includes(other) && order.indexOf(other) < order.indexOf(own)
}

function relativeImports(file: File): readonly string[] {
  return file.imports
    .filter((specifier) => specifier.startsWith('.'))
    .map((specifier) => relative(source, resolve(source, dirname(file.path), specifier)))
}

/** Files that reach one another, each group once (Tarjan's strongly connected components), imports of types included. */
function cycles(imports: ReadonlyMap<string, readonly string[]>): readonly (readonly string[])[] {
  const found: string[][] = []
  const seen = new Map<string, { readonly index: number; low: number; open: boolean }>()
  const stack: string[] = []
  const visit = (file: string): { readonly index: number; low: number; open: boolean } => {
    const here = { index: seen.size, low: seen.size, open: true }
    seen.set(file, here)
    stack.push(file)
    for (const next of imports.get(file) ?? []) {
      if (!imports.has(next)) continue
      const known = seen.get(next)
      if (known === undefined) here.low = Math.min(here.low, visit(next).low)
      else if (known.open) here.low = Math.min(here.low, known.index)
    }
    if (here.low !== here.index) return here
    const group = stack.splice(stack.indexOf(file))
    for (const one of group) {
      const member = seen.get(one)
      if (member !== undefined) member.open = false
    }
    if (group.length > 1 || imports.get(file)?.includes(file) === true) found.push(group.toSorted())
    return here
  }
  for (const file of imports.keys()) if (!seen.has(file)) visit(file)
  return found.toSorted(([a = ''], [b = '']) => (a < b ? -1 : 1))
}

/** `node:fs` of `node:fs/promises`, `@a/b` of `@a/b/c`. */
function rootOf(specifier: string): string {
  return specifier
    .split('/')
    .slice(0, specifier.startsWith('@') ? 2 : 1)
    .join('/')
}

describe('the architecture', () => {
  it('was read: at least one file in every folder, and no folder that has no place in the order', () => {
    for (const folder of [...order, ...edges]) expect(files.map((file) => folderOf(file.path))).toContain(folder)
    const known = new Set([...order, ...edges, ''])
    expect(files.map((file) => folderOf(file.path)).filter((folder) => !known.has(folder))).toEqual([])
    expect(
      files
        .filter((file) => folderOf(file.path) === '')
        .map((file) => file.path)
        .filter((path) => !base.has(path) && !composition.has(path)),
    ).toEqual([])
    expect(files.flatMap((file) => file.imports).length).toBeGreaterThan(200)
  })

  it('has imports that point upstream only', () => {
    const wrong = files.flatMap((file) =>
      relativeImports(file)
        .filter((target) => !target.startsWith('..') && !mayImport(file.path, target))
        .map((target) => `${file.path} imports ${target}`),
    )
    expect(wrong).toEqual([])
  })

  it('has no two files that need each other, directly or through others', () => {
    expect(cycles(new Map(files.map((file) => [file.path, relativeImports(file)])))).toEqual([])
    // The finder finds.
    const made = new Map([
      ['a', ['b', 'c']],
      ['b', ['c']],
      ['c', ['d']],
      ['d', ['b']],
      ['e', ['e']],
    ])
    expect(cycles(made)).toEqual([['b', 'c', 'd'], ['e']])
  })

  it('gives each dangerous built-in and each package a home, and has none that nobody thought about', () => {
    const outside = files.flatMap((file) =>
      file.imports.filter((specifier) => !specifier.startsWith('.')).map((specifier) => ({ file, specifier })),
    )
    const wrong = outside.filter(({ file, specifier }) => {
      if (anywhere.has(rootOf(specifier))) return false
      const own = homes[rootOf(specifier)]
      return own === undefined || !own.some((home) => file.path === home || file.path.startsWith(home))
    })
    expect(wrong.map(({ file, specifier }) => `${file.path} imports ${specifier}`)).toEqual([])
    // A home that nobody lives in is one that something may move into unseen.
    const empty = Object.entries(homes).flatMap(([name, own]) =>
      own
        .filter(
          (home) => !outside.some(({ file, specifier }) => rootOf(specifier) === name && file.path.startsWith(home)),
        )
        .map((home) => `${home} does not import ${name}`),
    )
    expect(empty).toEqual([])
    const unused = [...anywhere].filter((name) => !outside.some(({ specifier }) => rootOf(specifier) === name))
    expect(unused).toEqual([])
  })

  it('has a home for each package that package.json installs, and installs each that has one', () => {
    const { dependencies } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as {
      readonly dependencies: Readonly<Record<string, string>>
    }
    const housed = Object.keys(homes).filter((name) => !name.includes(':'))
    expect(housed.toSorted()).toEqual(Object.keys(dependencies).toSorted())
  })

  it('reads the environment in main.ts only', () => {
    expect(files.filter((file) => /\bprocess\.env\b/.test(file.text)).map((file) => file.path)).toEqual(['main.ts'])
  })

  it('keeps every file under 500 lines, and has no folder for what belongs nowhere', () => {
    const long = ['src', 'test', 'bench', 'examples']
      .flatMap((folder) => walk(join(root, folder)))
      .filter((path) => readFileSync(path, 'utf8').split('\n').length > 500)
    expect(long.map((path) => relative(root, path))).toEqual([])
    expect(
      files
        .filter((file) => /(^|\/)(utils?|helpers?|common|shared|manager|handler)(\.ts|\/)/.test(file.path))
        .map((file) => file.path),
    ).toEqual([])
  })
})

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
  'live.ts',
  'operate.ts',
  'web.ts',
  'start.ts',
  'folder.ts',
  'initial.ts',
  'relay.ts',
])

/** Each dangerous built-in and each third-party package, and the only places that may import it. */
const homes: Readonly<Record<string, readonly string[]>> = {
  'node:child_process': ['start.ts', 'policy/tools-process.ts', 'execution/child.ts', 'executor/', 'cli/'],
  'node:net': [
    'start.ts',
    'mcp/',
    'control/',
    'execution/',
    'executor/',
    'egress/',
    'plan/',
    'http/',
    'approval/agent.ts',
  ],
  'node:http': ['egress/', 'http/', 'executor/docker/'],
  'node:https': ['egress/', 'http/', 'executor/docker/'],
  'node:dns': ['egress/'],
  'node:sqlite': ['ledger/sqlite/'],
  'node:worker_threads': ['policy/'],
  'node:vm': [],
  'node:cluster': [],
  'node:inspector': [],
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
  jose: ['http/identity/', 'receipt/'],
  canonicalize: ['digest.ts'],
}

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

const files: readonly File[] = walk(source).map((path) => {
  const text = readFileSync(path, 'utf8')
  const imports = [
    ...text.matchAll(
      /(?:^|\n)\s*(?:import|export)\b[^'"\n;]*?(?:\bfrom\s*)?['"]([^'"\n]+)['"]|import\(\s*['"]([^'"\n]+)['"]\s*\)|\}\s*from\s*['"]([^'"\n]+)['"]/g,
    ),
  ].map((match) => match[1] ?? match[2] ?? match[3] ?? '')
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
      file.imports
        .filter((specifier) => specifier.startsWith('.'))
        .map((specifier) => relative(source, resolve(source, dirname(file.path), specifier)))
        .filter((target) => !target.startsWith('..') && !mayImport(file.path, target))
        .map((target) => `${file.path} imports ${target}`),
    )
    expect(wrong).toEqual([])
  })

  it('gives each dangerous built-in and each package one home', () => {
    const wrong = files.flatMap((file) =>
      file.imports
        .filter((specifier) => !specifier.startsWith('.'))
        .filter((specifier) => {
          const name = Object.keys(homes).find((home) => specifier === home || specifier.startsWith(`${home}/`))
          return (
            name !== undefined && !(homes[name] ?? []).some((home) => file.path === home || file.path.startsWith(home))
          )
        })
        .map((specifier) => `${file.path} imports ${specifier}`),
    )
    expect(wrong).toEqual([])
  })

  it('reads the environment in main.ts only', () => {
    expect(files.filter((file) => /\bprocess\.env\b/.test(file.text)).map((file) => file.path)).toEqual(['main.ts'])
  })

  it('keeps every file under 500 lines, and has no folder for what belongs nowhere', () => {
    expect(files.filter((file) => file.text.split('\n').length > 500).map((file) => file.path)).toEqual([])
    expect(
      files
        .filter((file) => /(^|\/)(utils?|helpers?|common|shared|manager|handler)(\.ts|\/)/.test(file.path))
        .map((file) => file.path),
    ).toEqual([])
  })
})

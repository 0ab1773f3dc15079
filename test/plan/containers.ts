import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll } from 'vitest'
import type { Digest } from '../../src/digest.ts'
import type { Availability } from '../../src/plan/available.ts'
import { loadCatalog } from '../../src/plan/catalog.ts'
import type { Catalog } from '../../src/plan/catalog.ts'
import type { Plan, PlanImage } from '../../src/plan/plan.ts'
import { resolve } from '../../src/plan/resolve.ts'
import type { Task } from '../../src/request/task.ts'
import { taskOf } from './task.ts'
import type { Files } from './task.ts'

/** Targets in containers, and an engine that has their images. */

export const agent = `sha256:${'a'.repeat(64)}` as Digest
export const image = (name: string): PlanImage => ({
  name,
  id: `sha256:${'1'.repeat(64)}`,
  store: 'graphdriver',
  digest: null,
  arch: 'amd64',
  agent,
})
export const here: Availability = new Map([
  ['isolate', { available: true, why: '' }],
  [
    'docker',
    {
      available: true,
      why: '',
      facts: {
        images: new Map(['writ/python', 'writ/node', 'writ/go', 'writ/shell', 'rusty'].map((one) => [one, image(one)])),
        runtimes: new Set(['runc', 'runsc']),
      },
    },
  ],
])

export const text = `
targets:
  python: { about: Python, executor: docker, image: writ/python, runtimes: [python, shell], intents: [run_script, install_and_test, build, report, by-hand] }
  node: { about: Node, executor: docker, image: writ/node, runtimes: [javascript], intents: [run_script, install_and_test, build] }
  go: { about: Go, executor: docker, image: writ/go, runtimes: [go], intents: [run_script, install_and_test, build] }
  shell: { about: Shell, executor: docker, image: writ/shell, runtimes: [shell], intents: [run_script, install_and_test, build] }
  rust: { about: Rust, executor: docker, image: rusty, runtimes: [rust], intents: [run_script, install_and_test, build] }
  mirrored:
    about: Everything from mirrors
    executor: docker
    image: writ/python
    container: { oci_runtime: runsc, cpus: 1.5 }
    packages: { pip: pypi/simple, npm: npm, go: modules/proxy }
    intents: [run_script, install_and_test, build]
    services:
      pypi: { url: "https://mirror.example/pypi", about: Python packages, credential: mirror }
      npm: { url: "https://mirror.example/npm", about: npm packages }
      modules: { url: "https://mirror.example", about: Go modules }
      vault: { url: "https://vault.example", about: Vault }
    environment:
      VAULT_ADDR: { service: vault }
      CGO_ENABLED: { value: "1" }
    limits: { memory_mb: 512 }
  kata: { about: Kata, executor: docker, image: writ/python, container: { oci_runtime: kata }, intents: [run_script] }
  bare: { about: Bare, executor: docker, image: nowhere/else, intents: [run_script] }
credentials:
  mirror: { source: { file: mirror }, inject: { bearer: true } }
intents:
  report:
    about: Report
    code_origin: operator
    files: [report.py]
    steps: [{ title: Make the report, argv: [report.py, --fast] }, { title: Pack it, argv: [tar, -cf, /out/report.tar, "-C", /work, tmp] }]
  by-hand:
    about: By hand
    inputs: { properties: { what: { type: string } }, required: [what] }
    code_origin: caller
    steps: [{ title: Run it, argv: [python3, "-m", "\${inputs.what}"] }]
`

let folder = ''
export let catalog: Catalog

export function load(given: string): Catalog {
  writeFileSync(join(folder, 'catalog.yaml'), given)
  return loadCatalog(join(folder, 'catalog.yaml'))
}

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'writ-containers-'))
  writeFileSync(join(folder, 'report.py'), 'print(1)')
  catalog = load(text)
})
afterAll(() => {
  rmSync(folder, { recursive: true, force: true })
})

export function ask(files: Files, given: Partial<Task> = {}, availability = here): ReturnType<typeof resolve> {
  return resolve({
    task: taskOf(files, { target_ref: 'python', intent: 'install_and_test', ...given }),
    contents: new Map(Object.entries(files)),
    catalog,
    nonce: '0123456789abcdef0123456789abcdef',
    availability,
  })
}

export function planOf(files: Files, given: Partial<Task> = {}): Plan {
  const resolution = ask(files, given)
  if (resolution.state !== 'ready') throw new Error(JSON.stringify(resolution.missing))
  return resolution.plan
}

export function stepsOf(files: Files, given: Partial<Task> = {}): readonly (readonly string[])[] {
  return planOf(files, given).steps.map((step) => step.argv.map((word) => (word.includes('\n') ? 'SCRIPT' : word)))
}

export function missingOf(files: Files, given: Partial<Task> = {}, availability = here): string {
  const resolution = ask(files, given, availability)
  if (resolution.state !== 'incomplete') throw new Error('resolved')
  return resolution.missing.map(({ what, fix }) => `${what} | ${fix}`).join('\n')
}

export const venv = ['python3', '-m', 'venv', '--system-site-packages', '--without-pip', '/work/venv']
export const py = '/work/venv/bin/python'
export const offline = ['--no-index', '--no-build-isolation']
export const mirrored = { target_ref: 'mirrored' }

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { PassThrough } from 'node:stream'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { Context } from '../../src/cli/context.ts'
import { init } from '../../src/cli/init.ts'
import { dockerTargets } from '../../src/initial.ts'
import { loadCatalog } from '../../src/plan/catalog.ts'

let folder = ''
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'writ-init-'))
})
afterEach(() => rmSync(folder, { recursive: true, force: true }))

const said: unknown[] = []
const context = (): Context => ({
  env: {},
  cwd: folder,
  version: '0',
  stdin: new PassThrough(),
  configFlag: undefined,
  json: true,
  tty: false,
  columns: null,
  say: () => undefined,
  note: () => undefined,
  data: (data) => void said.push(data),
})
const catalog = (): string => readFileSync(join(folder, 'catalog.yaml'), 'utf8')
const withDocker = async (): Promise<unknown> => {
  await init(context(), undefined, { with: ['docker'] })
  return said.at(-1)
}

it('writ init names the folder in a way that a shell takes as one word', async () => {
  const texts: string[] = []
  for (const dir of ['plain-1', 'my folder', "it's", '$HOME;ls', '.'])
    await init({ ...context(), json: false, say: (text) => void texts.push(text) }, dir)
  expect(texts.map((text) => /^ {2}(cd .*)$/m.exec(text)?.[1])).toEqual([
    'cd plain-1',
    "cd 'my folder'",
    String.raw`cd 'it'\''s'`,
    "cd '$HOME;ls'",
    // It is there already.
    undefined,
  ])
})

describe('writ init --with docker', () => {
  it('writes targets for each image of Writ, whose catalog loads, and only where it is asked', async () => {
    await init(context(), undefined)
    expect([...loadCatalog(join(folder, 'catalog.yaml')).targets.keys()]).toEqual(['sandbox', 'production'])
    rmSync(join(folder, 'catalog.yaml'))
    await withDocker()
    const { targets } = loadCatalog(join(folder, 'catalog.yaml'))
    expect([...targets.keys()]).toEqual(['sandbox', 'production', ...dockerTargets.keys()])
    for (const name of dockerTargets.keys())
      expect(targets.get(name)).toMatchObject({ executor: 'docker', image: `writ/${name}`, labels: { env: 'sandbox' } })
  })

  it('adds to a catalog that is there, at the depth it is written in, and changes no other byte', async () => {
    const own = `# Ours.
targets:
    python: # keeps its own settings
        about: Our Python
        executor: docker
        image: ours
        intents: [run_script]

    last: { about: x, executor: isolate, intents: [run_script] } # the last one

# What follows stays.
credentials:
    token: { source: { env: X }, inject: { bearer: true } }
`
    writeFileSync(join(folder, 'catalog.yaml'), own)
    expect(await withDocker()).toMatchObject({ added: ['node', 'go', 'shell'] })
    const { targets, credentials } = loadCatalog(join(folder, 'catalog.yaml'))
    expect([...targets.keys()]).toEqual(['python', 'last', 'node', 'go', 'shell'])
    expect(targets.get('python')?.image).toBe('ours')
    expect([...credentials.keys()]).toEqual(['token'])
    const kept = own.split('\n').filter((line) => line !== '')
    expect(
      catalog()
        .split('\n')
        .filter((line) => kept.includes(line)),
    ).toEqual(kept)
    const after = catalog()
    expect(await withDocker()).toMatchObject({ added: [] })
    expect(catalog()).toBe(after)
  })

  it('leaves a catalog it cannot add to as it is, and says how to', async () => {
    const flow = 'targets: { a: { about: x, executor: isolate, intents: [run_script] } }\n'
    writeFileSync(join(folder, 'catalog.yaml'), flow)
    await expect(withDocker()).rejects.toMatchObject({
      code: 'usage',
      message: expect.stringContaining('added to') as string,
    })
    expect(catalog()).toBe(flow)
    writeFileSync(join(folder, 'catalog.yaml'), 'targets: [\n')
    await expect(withDocker()).rejects.toMatchObject({ code: 'invalid_catalog' })
    await expect(init(context(), undefined, { with: ['podman'] })).rejects.toMatchObject({ code: 'usage' })
  })
})

import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { findConfig, loadConfig } from '../src/config.ts'
import { initialFiles } from '../src/initial.ts'
import { WritError } from '../src/error.ts'
import { loadCatalog } from '../src/plan/catalog.ts'

let folder = ''
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'writ-config-'))
})
afterEach(() => {
  rmSync(folder, { recursive: true, force: true })
})

const local = 'local: { subject: me, roles: [developer] }\n'

function load(text: string | Uint8Array) {
  writeFileSync(join(folder, 'writ.yaml'), text)
  return loadConfig(join(folder, 'writ.yaml'))
}

function refusal(text: string | Uint8Array): string {
  try {
    load(text)
  } catch (error) {
    if (error instanceof WritError && error.code === 'invalid_config') return error.message
    throw error
  }
  throw new Error('the configuration was taken')
}

describe('writ.yaml', () => {
  test('a fresh init is valid, and its catalog too', () => {
    for (const [name, text] of initialFiles()) writeFileSync(join(folder, name), text)
    const config = loadConfig(join(folder, 'writ.yaml'))
    expect(config.local).toEqual({ subject: 'local-user', roles: ['developer', 'operator'], agent: 'local-agent' })
    expect(config.policies).toEqual([
      { pack: 'org', layer: 'org', kind: 'guard', path: join(folder, 'policies/org') },
      { pack: 'starter', layer: 'team', kind: 'grant', path: join(folder, 'policies/starter') },
    ])
    const catalog = loadCatalog(config.catalog, config.limits)
    expect([...catalog.targets.keys()]).toEqual(['sandbox', 'production'])
    expect(catalog.targets.get('production')?.labels).toEqual({ env: 'production' })
    expect(catalog.targets.get('sandbox')?.executor).toBe('isolate')
  })

  test('has defaults, and paths are relative to its folder', () => {
    const config = load(local)
    expect(config).toMatchObject({
      catalog: join(folder, 'catalog.yaml'),
      data: join(folder, '.writ'),
      keys: join(folder, 'keys'),
      credentials: join(folder, 'credentials'),
      policies: [],
      approvers: [],
      issuer: null,
      idle_stop_s: 600,
    })
    expect(config.limits.defaults).toEqual({
      wall_s: 60,
      cpu_s: 30,
      memory_mb: 256,
      output_kb: 1024,
      artifact_kb: 16_384,
      egress_requests: 100,
    })
    expect(load(`${local}data: ../elsewhere\nkeys: /srv/keys\n`)).toMatchObject({
      data: join(folder, '../elsewhere'),
      keys: '/srv/keys',
    })
  })

  test('limits lower and raise within what Writ allows', () => {
    const { limits } = load(`${local}limits: { defaults: { wall_s: 5 }, maxima: { wall_s: 10, memory_mb: 128 } }`)
    expect(limits.defaults).toMatchObject({ wall_s: 5, memory_mb: 128, cpu_s: 30 })
    expect(limits.maxima).toMatchObject({ wall_s: 10, memory_mb: 128, cpu_s: 3600 })
  })

  const key = Buffer.alloc(32, 7).toString('base64url')
  const approver = (subject: string, k = key) => `{ subject: ${subject}, roles: [approver], key: ${k} }`

  test.each([
    ['an unknown key', `${local}polices: []`, 'writ.yaml:2:1: unknown key "polices"; did you mean "policies"?'],
    ['a reserved unsafe key', `${local}unsafe_open_egress: true`, '"unsafe_open_egress" is reserved'],
    [
      'a reserved unsafe key inside',
      'local: { subject: me, roles: [], unsafe_x: 1 }',
      '"unsafe_x" in local is reserved',
    ],
    ['no local subject', 'catalog: c.yaml', 'the file lacks "local"'],
    ['a subject with a line end', 'local: { subject: "a\\nb", roles: [] }', 'local.subject: printable'],
    ['a subject with a bidi character', 'local: { subject: "a\\u202Eb", roles: [] }', 'local.subject: printable'],
    ['a role in capitals', 'local: { subject: a, roles: [Developer] }', 'local.roles.0: '],
    ['an unknown layer', `${local}policies: [{ pack: a, layer: user, kind: grant, path: p }]`, 'policies.0.layer: '],
    [
      'a pack attached twice',
      `${local}policies:\n  - { pack: a, layer: org, kind: guard, path: p }\n  - { pack: a, layer: team, kind: grant, path: q }`,
      'writ.yaml:4:13: the pack "a" is attached twice',
    ],
    [
      'a pack name that is no Rego name',
      `${local}policies: [{ pack: a-b, layer: org, kind: guard, path: p }]`,
      'policies.0.pack: ',
    ],
    ['a plain http issuer', `${local}issuer: http://writ.example`, 'has to be an https URL'],
    ['an issuer with a password', `${local}issuer: "https://a:b@writ.example"`, 'has to be an https URL'],
    ['an issuer with a query', `${local}issuer: "https://writ.example/?x=1"`, 'has to be an https URL'],
    ['a short approver key', `${local}approvers: [${approver('bob', 'AAAA')}]`, 'Ed25519'],
    ['an approver key with slack bits', `${local}approvers: [${approver('bob', `${'A'.repeat(42)}B`)}]`, 'Ed25519'],
    [
      'an approver named twice',
      `${local}approvers: [${approver('bob')}, ${approver('bob', Buffer.alloc(32, 8).toString('base64url'))}]`,
      'is named twice',
    ],
    [
      'one key for two approvers',
      `${local}approvers: [${approver('bob')}, ${approver('eve')}]`,
      "is another approver's too",
    ],
    [
      'an approver without a role',
      `${local}approvers: [{ subject: bob, roles: [], key: ${key} }]`,
      'name at least one role',
    ],
    [
      'a limit beyond the ceiling',
      `${local}limits: { maxima: { wall_s: 86401 } }`,
      '"wall_s" is more than Writ allows',
    ],
    [
      'a default beyond its maximum',
      `${local}limits: { defaults: { wall_s: 100 }, maxima: { wall_s: 10 } }`,
      '"wall_s" is more than its maximum 10',
    ],
    ['a limit of zero', `${local}limits: { defaults: { wall_s: 0 } }`, 'limits.defaults.wall_s: '],
    ['a limit that is a fraction', `${local}limits: { defaults: { wall_s: 1.5 } }`, 'limits.defaults.wall_s: '],
    ['an unknown limit', `${local}limits: { defaults: { walls: 5 } }`, 'did you mean "wall_s"?'],
    ['a negative idle stop', `${local}idle_stop_s: -1`, 'idle_stop_s: '],
    ['keys in the data folder itself', `${local}keys: .writ`, '"keys" names the same folder'],
    ['NUL in a path', `${local}data: "a\\0b"`, 'data: no NUL'],
  ])('refuses %s', (_what, text, message) => {
    expect(refusal(text)).toContain(message)
  })

  test('refuses bytes that are not UTF-8, and a folder in the place of the file', () => {
    expect(refusal(Buffer.from([0x61, 0xff, 0x62]))).toBe('writ.yaml:1:1: the file is not UTF-8')
    mkdirSync(join(folder, 'd'))
    expect(() => loadConfig(join(folder, 'd'))).toThrow('not a regular file')
  })

  test('a missing file is "no_config"', () => {
    expect(() => loadConfig(join(folder, 'absent.yaml'))).toThrow(expect.objectContaining({ code: 'no_config' }))
  })
})

describe('which configuration is meant', () => {
  test('the flag goes before WRIT_CONFIG, and that before the nearest file upward', () => {
    const deep = join(folder, 'a/b')
    mkdirSync(deep, { recursive: true })
    writeFileSync(join(folder, 'writ.yaml'), local)
    expect(findConfig({ env: {}, cwd: deep })).toBe(join(folder, 'writ.yaml'))
    writeFileSync(join(folder, 'a/writ.yaml'), local)
    expect(findConfig({ env: {}, cwd: deep })).toBe(join(folder, 'a/writ.yaml'))
    expect(findConfig({ env: { WRIT_CONFIG: '/x/y.yaml' }, cwd: deep })).toBe('/x/y.yaml')
    expect(findConfig({ flag: 'z.yaml', env: { WRIT_CONFIG: '/x/y.yaml' }, cwd: deep })).toBe(join(deep, 'z.yaml'))
  })

  test('an empty WRIT_CONFIG is none, and a named folder means the file in it', () => {
    writeFileSync(join(folder, 'writ.yaml'), local)
    expect(findConfig({ env: { WRIT_CONFIG: '' }, cwd: folder })).toBe(join(folder, 'writ.yaml'))
    expect(findConfig({ flag: folder, env: {}, cwd: '/' })).toBe(join(folder, 'writ.yaml'))
  })

  test('there may be none', () => {
    expect(findConfig({ env: {}, cwd: join(folder, 'nowhere') })).toBeNull()
  })
})

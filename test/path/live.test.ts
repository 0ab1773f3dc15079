import { spawnSync } from 'node:child_process'
import { mkdirSync, renameSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { pino } from 'pino'
import { afterAll, describe, expect, it } from 'vitest'
import { loadConfig } from '../../src/config.ts'
import { digestOf } from '../../src/digest.ts'
import type { JsonObject } from '../../src/digest.ts'
import { WritError } from '../../src/error.ts'
import type { Ledger } from '../../src/ledger/ledger.ts'
import { serve } from '../../src/serve.ts'
import { initialised, openTestBroker } from '../transfer/broker.ts'
import { until } from '../wait.ts'
import { edit, openWorld } from './world.ts'

const world = await openWorld()
afterAll(async () => await world.broker.stop())
const { folder, served, caller } = world.broker
const configFile = join(folder, 'writ.yaml')
const { ledger, policy } = world.parts

const attached = (): readonly string[] =>
  (policy.generation?.packs ?? []).map(({ pack, layer, kind }) => `${pack} ${layer} ${kind}`)

describe('an edit of writ.yaml', () => {
  it('[G-policy-reload] that attaches a pack as another kind, in another layer or not at all is in force', async () => {
    const start = attached()
    expect(start).toContain('starter team grant')
    edit(configFile, (text) => text.replace('pack: starter, layer: team', 'pack: starter, layer: org'))
    await until('the pack is one of the organisation', () => attached().includes('starter org grant'))
    const status = (await served.status())['policy'] as JsonObject
    expect(status['refused']).toEqual([])
    edit(configFile, (text) => text.replace(/ {2}- \{ pack: extra.*\n/, ''))
    await until('a pack is attached no more', () => !attached().some((one) => one.startsWith('extra ')))
    edit(configFile, (text) =>
      text
        .replace('pack: starter, layer: org', 'pack: starter, layer: team')
        .replace('policies:\n', 'policies:\n  - { pack: extra, layer: org, kind: guard, path: policies/extra }\n'),
    )
    await until('all is as it was', () => attached().toSorted().join() === start.toSorted().join())
  })

  it('is in force where the file is a link to one elsewhere', async () => {
    const linked = initialised()
    mkdirSync(join(linked, 'elsewhere'))
    renameSync(join(linked, 'writ.yaml'), join(linked, 'elsewhere', 'writ.yaml'))
    symlinkSync(join('elsewhere', 'writ.yaml'), join(linked, 'writ.yaml'))
    const broker = await openTestBroker({ folder: linked })
    try {
      edit(join(linked, 'elsewhere', 'writ.yaml'), (text) =>
        text.replace('roles: [developer, operator]', 'roles: [auditor]'),
      )
      const { parts } = broker.served
      await until(
        'the edit is in force',
        () => parts.rolesOf('default', broker.caller.subject.id, broker.caller.agent.id).join() === 'auditor',
      )
    } finally {
      await broker.stop()
    }
  })
})

describe('an edit of writ.yaml while a broker starts', () => {
  it('is in force when the broker answers', async () => {
    const starting = initialised()
    const read = loadConfig(join(starting, 'writ.yaml'))
    edit(join(starting, 'writ.yaml'), (text) => text.replace('roles: [developer, operator]', 'roles: [auditor]'))
    const started = await serve(read, {
      log: pino({ level: 'silent' }),
      env: new Map(),
      version: '0.0.0',
      idle: false,
      httpImplied: false,
    })
    try {
      expect(started.parts.rolesOf('default', read.local.subject, read.local.agent)).toEqual(['auditor'])
    } finally {
      await started.stop()
    }
  })
})

describe('a file that the catalog names', () => {
  const intent = (file: string): string => `intents:
  report:
    about: The daily report
    code_origin: operator
    files: [${file}]
    steps:
      - { title: Make the report, argv: [${file}] }
`
  const digest = (): string => digestOf(Buffer.from('console.log(2)'))
  const named = (): string | undefined => world.parts.catalog().intents.get('report')?.files[0]?.sha256

  it('is read again when it was edited, as the catalog itself is', async () => {
    writeFileSync(join(folder, 'main.js'), 'console.log(1)')
    edit(join(folder, 'catalog.yaml'), (text) => `${text}${intent('main.js')}`)
    await until('the intent is there', () => named() !== undefined)
    expect(named()).not.toBe(digest())
    writeFileSync(join(folder, 'main.js'), 'console.log(2)')
    await until('the new file is what would run', () => named() === digest())
  })

  it('puts a refused catalog in force when it comes after it', async () => {
    edit(join(folder, 'catalog.yaml'), (text) => text.replaceAll('main.js', 'later.js'))
    const configuration = async (): Promise<string> => JSON.stringify((await served.status())['configuration'])
    await until('the edit was refused', async () => (await configuration()).includes('later.js'))
    writeFileSync(join(folder, 'later.js'), 'console.log(3)')
    await until('the catalog is in force', async () => (await configuration()) === '{"ok":true}')
    expect(world.parts.catalog().intents.get('report')?.files[0]?.path).toBe('later.js')
  })
})

describe('a policy whose receipt finds no room', () => {
  it('[G-generation-receipt] decides nothing, what decided before goes on, and the log verifies', async () => {
    const append = ledger.append.bind(ledger)
    const held = ledger as { append: Ledger['append'] }
    held.append = async (...entries) => {
      if (entries.some(({ kind }) => kind === 'generation')) throw new WritError('no_space', 'the disk is full')
      return await append(...entries)
    }
    const before = policy.generation?.digest
    edit(join(folder, 'policies', 'extra', 'extra.rego'), (text) => text.replaceAll('asked by the test', 'asked again'))
    const refused = async (): Promise<boolean> =>
      JSON.stringify((await served.status())['policy']).includes('not_loaded')
    const starting = async (): Promise<unknown> =>
      (await world.ask(caller, 'start_execution', { task_id: await world.task(caller, 'signed') })).execution_id
    const ids = [await starting()]
    await until('the edit was refused', refused)
    ids.push(await starting())
    expect(policy.generation?.digest).toBe(before)
    held.append = append
    await until('it is in force once there is room', () => policy.generation?.digest !== before)
    expect(ledger.views.generation()?.digest).toBe(policy.generation?.digest)
    ids.push(await starting())
    for (const id of ids) expect(id).toMatch(/^exec_/)

    const bin = join(import.meta.dirname, '..', '..', 'bin', 'writ')
    const verified = spawnSync(process.execPath, [bin, 'verify', '--config', configFile], {
      encoding: 'utf8',
      env: { PATH: process.env['PATH'] ?? '', HOME: folder },
    })
    expect(verified.stdout).toContain('VALID:LOGGED')
    expect(verified.status).toBe(0)
  })
})

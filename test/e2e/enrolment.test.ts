import { copyFileSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it, vi } from 'vitest'
import { until } from '../wait.ts'
import { passphrase, useWorld } from './world.ts'

// Each key is made under a passphrase, which takes as long as it is meant to.
vi.setConfig({ testTimeout: 120_000 })

const world = useWorld()
const configPath = join(world.folder, 'writ.yaml')
// The list of approvers is a block once somebody stands in it.
world.enrol()

function editConfig(change: (text: string) => string): void {
  writeFileSync(configPath, change(readFileSync(configPath, 'utf8')))
}

describe('enrolment', () => {
  it('[G-approver-receipt] keeps the comments of writ.yaml, and a running broker takes it over with a receipt', async () => {
    await world.client()
    const receipts = (): readonly string[] =>
      (world.json(['receipts', 'list', '--limit', '500']) as { receipts: { id: string }[] }).receipts.map(
        ({ id }) => id,
      )
    const before = new Set(receipts())
    editConfig((text) => `${text}# The last line is a comment.\n`)
    const text = readFileSync(configPath, 'utf8')
    enrolAs('dora')
    const after = readFileSync(configPath, 'utf8')
    const lines = after.split('\n')
    const added = lines.findIndex((line) => line.includes('"dora"'))
    expect(lines.toSpliced(added, 1).join('\n')).toBe(text)
    const about = (): readonly string[] =>
      receipts()
        .filter((id) => !before.has(id))
        .map((id) => JSON.stringify(world.json(['receipts', 'show', id])))
        .filter((text) => text.includes('dora'))
    await until('there is a receipt', () => about().length > 0)
    expect(about()).toHaveLength(1)
  })

  it('overwrites nothing, takes no weak passphrase and no name that is none, and leaves all as it was', () => {
    const before = readFileSync(configPath, 'utf8')
    const tries: readonly (readonly [readonly string[], string, number])[] = [
      [['dora'], passphrase, 2],
      [['eve'], 'short', 2],
      [['eve'], 'aaaaaaaaaaaaaaaaaa', 2],
      [['two words'], passphrase, 2],
      [['eve', '--role', 'Not A Role'], passphrase, 2],
      [[''], passphrase, 2],
    ]
    for (const [args, secret, code] of tries)
      expect(
        world.writ(['approvals', 'enroll', ...args, '--passphrase-fd', '3'], { passphrase: secret }),
      ).toMatchObject({ code, out: '' })
    expect(readFileSync(configPath, 'utf8')).toBe(before)
    // A key file of somebody who was taken out of writ.yaml is not overwritten either.
    const keys = join(world.folder, 'keys', 'approvers')
    copyFileSync(join(keys, 'dora.age'), join(keys, 'eve.age'))
    expect(world.writ(['approvals', 'enroll', 'eve', '--passphrase-fd', '3'], { passphrase })).toMatchObject({
      code: 2,
      err: expect.stringContaining('has a key file already') as string,
    })
    expect(readFileSync(join(keys, 'eve.age'))).toEqual(readFileSync(join(keys, 'dora.age')))
  })
})

function enrolAs(name: string): void {
  const ran = world.writ(['approvals', 'enroll', name, '--passphrase-fd', '3'], { passphrase })
  if (ran.code !== 0) throw new Error(ran.err)
}

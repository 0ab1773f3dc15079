import { readdirSync, readFileSync } from 'node:fs'
import { Ajv2020 } from 'ajv/dist/2020.js'
import { parse } from 'yaml'
import { expect, test } from 'vitest'
import { schemas } from '../src/config.ts'
import { initialFiles } from '../src/initial.ts'

const folder = new URL('../docs/schema/', import.meta.url)

test('docs/schema holds the JSON Schemas of this source, and nothing else of their names', () => {
  for (const [name, schema] of schemas())
    expect(
      readFileSync(new URL(name, folder), 'utf8'),
      `docs/schema/${name} is out of date: write schemas() there`,
    ).toBe(`${JSON.stringify(schema, null, 2)}\n`)
  expect(readdirSync(folder)).toEqual(expect.arrayContaining([...schemas().keys()]))
})

test('an editor that uses them takes what init writes, and marks an unknown key', () => {
  const ajv = new Ajv2020({ strict: false })
  for (const [name, text] of [...initialFiles(), ...initialFiles(true)]) {
    const schema = schemas().get(name.replace('.yaml', '.json'))
    const validate = ajv.compile(schema ?? false)
    const value = parse(text) as object
    expect([validate(value), validate.errors]).toEqual([true, null])
    expect(validate({ ...value, unknown: 1 })).toBe(false)
  }
})

test('every key of both files is in the documentation', () => {
  for (const [name, schema] of schemas()) {
    const page = readFileSync(
      new URL(`../docs/${name === 'writ.json' ? 'config' : 'catalog'}.md`, import.meta.url),
      'utf8',
    )
    const keys = new Set<string>()
    collect(schema, keys)
    expect(keys.size).toBeGreaterThan(10)
    for (const key of keys) expect(page, `docs page for ${name} lacks ${key}`).toContain(`\`${key}`)
  }
})

function collect(schema: unknown, keys: Set<string>): void {
  if (typeof schema !== 'object' || schema === null) return
  for (const [name, value] of Object.entries(schema)) {
    if (name === 'properties') for (const key of Object.keys(value as object)) keys.add(key)
    collect(value, keys)
  }
}

import { describe, expect, test } from 'vitest'
import { z } from 'zod'
import { WritError } from '../src/error.ts'
import { loadYaml, nearest } from '../src/yaml.ts'
import { effort } from './cost.ts'

const schema = z.strictObject({
  name: z.string().optional(),
  count: z.int().min(1).optional(),
  table: z.record(z.string(), z.strictObject({ about: z.string(), image: z.string().optional() })).optional(),
  list: z.array(z.union([z.string(), z.number(), z.boolean(), z.null()])).optional(),
})

function load(text: string): z.output<typeof schema> {
  return loadYaml(text, 'some.yaml', schema, 'invalid_config')
}

function refusal(text: string): string {
  try {
    load(text)
  } catch (error) {
    if (error instanceof WritError && error.code === 'invalid_config') return error.message
    throw error
  }
  throw new Error('the text was taken')
}

describe('strict YAML', () => {
  test('reads YAML 1.2 core: yes and no are text, octal needs 0o', () => {
    expect(load('list: [yes, no, on, 0o17, 017, 1e2, true, ~, "x"]')).toEqual({
      list: ['yes', 'no', 'on', 15, 17, 100, true, null, 'x'],
    })
  })

  test('takes comments, quotes, block text, flow and CRLF', () => {
    expect(load('# c\r\nname: >-\r\n  a\r\n  b\r\ncount: 3 # x\r\n')).toEqual({ name: 'a b', count: 3 })
    expect(load(`name: "&a *b !c %d"`)).toEqual({ name: '&a *b !c %d' })
    expect(load('name: it *is* & that !important')).toEqual({ name: 'it *is* & that !important' })
  })

  test('names file, line, column and the nearest known key of an unknown one', () => {
    expect(refusal('count: 1\ntable:\n  a:\n    about: x\n    imge: y\n')).toBe(
      'some.yaml:5:5: unknown key "imge" in table.a; did you mean "image"?',
    )
    expect(refusal('zzzzzz: 1')).toBe('some.yaml:1:1: unknown key "zzzzzz"; known keys: name, count, table, list')
  })

  test('names what an object lacks and where a value is wrong', () => {
    expect(refusal('table:\n  a:\n    image: x\n')).toBe('some.yaml:2:3: table.a lacks "about"')
    expect(refusal('name: x\ncount: many\n')).toBe('some.yaml:2:8: count: expected number, received string')
    expect(refusal('list:\n  - a\n  - b: 1\n')).toMatch(/^some\.yaml:3:\d+: list\.1: /)
  })

  test('never quotes a value, which may be a secret put in the wrong place', () => {
    for (const text of [
      'count: hunter2hunter2',
      'name: [hunter2hunter2]',
      'table: hunter2hunter2',
      'list: {a: hunter2hunter2}',
    ])
      expect(refusal(text)).not.toContain('hunter2')
  })

  test('shows a hostile key escaped and cut', () => {
    const message = refusal(`"\\u202Eevil\\n${'x'.repeat(500)}": 1`)
    expect(message).toContain('\\u{202e}evil\\n')
    expect(message).not.toContain('\u202e')
    expect(message.length).toBeLessThan(250)
  })

  test.each([
    ['an alias bomb', 'a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\n', 'anchors and aliases are not taken'],
    ['a lone anchor', 'name: &x y', 'anchors and aliases are not taken'],
    ['a merge key with an alias', 'table: { <<: *x }', 'anchors and aliases are not taken'],
    ['a core tag', 'name: !!str 1', 'tags are not taken'],
    ['a local tag', 'list: !include other.yaml', 'tags are not taken'],
    ['a binary tag', 'name: !!binary aGk=', 'tags are not taken'],
    ['a version directive', '%YAML 1.1\n---\nname: x', 'directives are not taken'],
    ['a tag directive', '%TAG ! tag:x,2000:\n---\nname: x', 'directives are not taken'],
    ['two documents', 'name: x\n---\nname: y', 'not valid YAML (multiple docs)'],
    ['a duplicate key', 'name: x\ncount: 1\nname: y', 'some.yaml:3:1: the key "name" stands here for the second time'],
    ['a duplicate key in other quotes', 'name: x\n"na\\u006de": y', 'for the second time'],
    ['a key that is a list', '? [a]\n: 1', 'not valid YAML (non string key)'],
    ['__proto__ at the root', '__proto__: { name: x }', 'a key cannot be named "__proto__"'],
    ['__proto__ deeper', 'table:\n  __proto__: { about: x }', 'some.yaml:2:3: a key cannot be named "__proto__"'],
    ['deep flow nesting', '['.repeat(100_000), 'nesting deeper than 32'],
    ['deep compact nesting', '- '.repeat(100_000), 'nesting deeper than 32'],
    [
      'deep block nesting',
      Array.from({ length: 200 }, (_, i) => `${' '.repeat(i)}a:`).join('\n'),
      'nesting deeper than 32',
    ],
    ['not a number', 'count: .nan', 'a number beyond 2^53-1'],
    ['infinity', 'count: .inf', 'a number beyond 2^53-1'],
    ['a number JSON cannot hold', 'count: 12345678901234567890', 'a number beyond 2^53-1'],
    ['a lone surrogate', 'name: "\\uD800"', 'not well-formed Unicode'],
    ['a lone surrogate as a key', '"\\uD800": 1', 'not well-formed Unicode'],
    ['an unclosed flow', 'list: [a, b', 'not valid YAML'],
    ['a tab as indent', 'table:\n\ta: 1', 'not valid YAML'],
    ['nothing', '', 'the file is empty'],
    ['comments only', '# a\n# b\n', 'the file is empty'],
    ['a scalar', 'hello', 'expected object'],
    ['more than 1 MiB', `name: ${'x'.repeat(1024 * 1024)}`, 'longer than 1 MiB'],
  ])('refuses %s', (_what, text, message) => {
    const said = refusal(text)
    expect(said).toContain(message)
    expect(said).toMatch(/^some\.yaml:\d+:\d+: /)
  })

  test('names from outside are never inherited members', () => {
    expect(refusal('constructor: 1')).toContain('unknown key "constructor"')
    expect(refusal('toString: 1')).toContain('unknown key "toString"')
    const { table } = load('table: { constructor: { about: x }, toString: { about: y } }')
    expect(Object.keys(table ?? {})).toEqual(['constructor', 'toString'])
  })

  test('thousands of keys are read in time that grows with their number', async () => {
    const reading = async (keys: number): Promise<number> => {
      const text = `table:\n${Array.from({ length: keys }, (_, i) => `  k${i}: {}`).join('\n')}`
      return await effort(() => expect(refusal(text)).toContain('lacks "about"'))
    }
    await reading(100)
    // 16 times as many take 256 times as long where the time is quadratic.
    expect(await reading(8000)).toBeLessThan((await reading(500)) * 40)
  })
})

describe('nearest', () => {
  test('finds a slip and stays silent about anything else', () => {
    expect(nearest('executr', ['image', 'executor'])).toBe('executor')
    expect(nearest('IMAGE', ['image', 'executor'])).toBe('image')
    expect(nearest('completely-other', ['image', 'executor'])).toBeNull()
    expect(nearest('x', [])).toBeNull()
  })
})

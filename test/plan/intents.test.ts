import { describe, expect, test } from 'vitest'
import type { JsonObject } from '../../src/digest.ts'
import { argumentProblem, builtinIntents, filledInputs, inputProblem, inputSchema } from '../../src/plan/intents.ts'
import type { Intent } from '../../src/plan/intents.ts'

function builtin(name: string): Intent {
  const intent = builtinIntents.get(name)
  if (intent === undefined) throw new Error(`no intent ${name}`)
  return intent
}

function own(schema: JsonObject): Intent {
  const made = inputSchema(schema)
  if ('problem' in made) throw new Error(made.problem)
  return { name: 'own', about: 'x', inputs: made.schema, code_origin: 'caller', steps: [], files: [] }
}

describe('inputs of an intent', () => {
  test('run_script takes a script, arguments and standard input, each optional', () => {
    expect(inputProblem(builtin('run_script'), {})).toBeNull()
    expect(inputProblem(builtin('run_script'), { script: 'a.js', args: ['1'], stdin: 'x' })).toBeNull()
    expect(inputProblem(builtin('build'), { args: [] })).toBeNull()
  })

  test.each([
    [{ scirpt: 'a.js' }, '"inputs" has an unknown member "scirpt"; did you mean "script"?'],
    [{ zzz: 1 }, '"inputs" has an unknown member "zzz"; it takes script, args, stdin'],
    [{ script: 5 }, '"inputs.script" must be string'],
    [{ script: '' }, '"inputs.script" must NOT have fewer than 1 characters'],
    [{ args: 'x' }, '"inputs.args" must be array'],
    [{ args: ['a', 5] }, '"inputs.args.1" must be string'],
    [{ args: Array.from({ length: 101 }, () => 'a') }, '"inputs.args" must NOT have more than 100 items'],
    [{ constructor: 1 }, '"inputs" has an unknown member "constructor"; it takes script, args, stdin'],
    [
      JSON.parse('{"__proto__": 1}') as JsonObject,
      '"inputs" has an unknown member "__proto__"; it takes script, args, stdin',
    ],
    [{ '\u202e"\n': 1 }, '"inputs" has an unknown member "?\\"\\n"; it takes script, args, stdin'],
  ])('%j is refused, naming the field', (inputs, message) => {
    expect(inputProblem(builtin('run_script'), inputs)).toBe(message)
  })

  test('a value is never quoted', () => {
    expect(inputProblem(own({ properties: { a: { type: 'string', enum: ['x', 'y'] } } }), { a: 'hunter2' })).toBe(
      '"inputs.a" has to be one of "x", "y"',
    )
    expect(
      inputProblem(own({ properties: { a: { type: 'string', maxLength: 3, pattern: '^a$' } } }), { a: 'hun' }),
    ).not.toContain('hun')
  })

  test('an object without a prototype and inherited names count as they should', () => {
    const intent = own({
      properties: { constructor: { type: 'string' } },
      required: ['constructor'],
    })
    expect(inputProblem(intent, {})).toBe('"inputs" lacks "constructor"')
    expect(
      inputProblem(intent, Object.assign(Object.create(null) as object, { constructor: 'x' }) as JsonObject),
    ).toBeNull()
    expect(filledInputs(own({ properties: { toString: { type: 'string' } } }), {}).size).toBe(0)
  })

  test('defaults fill what the caller left out, and only that', () => {
    const intent = own({ properties: { a: { type: 'integer', default: 3 }, b: { type: 'string' } } })
    expect([...filledInputs(intent, {})]).toEqual([['a', 3]])
    expect([...filledInputs(intent, { a: 0, b: 'x' })]).toEqual([
      ['a', 0],
      ['b', 'x'],
    ])
  })

  test('a schema is closed even where its author left it open', () => {
    expect(inputProblem(own({ properties: { a: { type: 'string' } } }), { b: 1 })).toContain('unknown member "b"')
    expect(inputProblem(own({}), { b: 1 })).toContain('unknown member "b"')
  })

  test.each(['(a+)+', '(a*)*b', '(a|b*)+', '((a)+b)+', '(?:a+)*', '(a)\\1', '(a{1,9}){1,9}'])(
    'the pattern %s is refused',
    (pattern) => {
      expect(inputSchema({ properties: { a: { type: 'string', maxLength: 50, pattern } } })).toHaveProperty('problem')
    },
  )

  test.each(['^[a-z]+$', '^\\d{4}-\\d{2}$', '^(dev|prod)$', '^[a-z]+(-[a-z]+)?$'])(
    'the pattern %s is taken',
    (pattern) => {
      expect(inputSchema({ properties: { a: { type: 'string', maxLength: 50, pattern } } })).toHaveProperty('schema')
    },
  )

  test('an argument is a literal or one whole input', () => {
    const schema: JsonObject = { properties: { n: { type: 'integer', default: 1 } } }
    expect(argumentProblem('${inputs.n}', schema)).toBeNull()
    expect(argumentProblem('$inputs.n', schema)).toBeNull()
    for (const argument of [
      '${inputs.n} ',
      '${inputs.n}${inputs.n}',
      '${ inputs.n }',
      '${inputs.n',
      '${inputs["n"]}',
      '${inputs.__proto__}',
      '${inputs.n.x}',
    ])
      expect(argumentProblem(argument, schema)).not.toBeNull()
  })
})

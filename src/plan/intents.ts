import { createRequire } from 'node:module'
import type { Ajv, ErrorObject, Options, ValidateFunction } from 'ajv'
import type { Json, JsonObject } from '../digest.ts'
import type { TaskFile } from '../request/task.ts'
import { nearest } from '../yaml.ts'

/** A step as a recipe writes it: `${inputs.NAME}` as a whole argument is replaced, nothing else is. */
interface StepTemplate {
  readonly title: string
  readonly argv: readonly string[]
  readonly success: readonly number[]
}

/** A named recipe with a JSON Schema for its inputs. */
export interface Intent {
  readonly name: string
  readonly about: string
  /** JSON Schema (draft-07) of an object that takes no other members. */
  readonly inputs: JsonObject
  /** `operator`: only code of the catalog runs, a task brings data. */
  readonly code_origin: 'caller' | 'operator'
  /** Null where Writ itself knows the steps from the kind of project. */
  readonly steps: readonly StepTemplate[] | null
  /** Files of the catalog that each run gets. */
  readonly files: readonly TaskFile[]
}

const builtinNames = ['run_script', 'install_and_test', 'build'] as const
export type BuiltinName = (typeof builtinNames)[number]

const strings: JsonObject = { type: 'array', maxItems: 100, items: { type: 'string', maxLength: 4096 } }

const builtin = (name: BuiltinName, about: string, properties: JsonObject): Intent => ({
  name,
  about,
  inputs: { type: 'object', properties, additionalProperties: false },
  code_origin: 'caller',
  steps: null,
  files: [],
})

/** The intents every catalog has; an operator's cannot take their names. */
export const builtinIntents: ReadonlyMap<string, Intent> = new Map(
  [
    builtin(
      'run_script',
      'Run one script of the project; its output, and what it writes to the output folder, come back.',
      {
        script: {
          type: 'string',
          minLength: 1,
          maxLength: 1024,
          description: 'Path of the script among the files of the task; not needed where there is only one',
        },
        args: { ...strings, description: 'Arguments of the script' },
        stdin: { type: 'string', maxLength: 65_536, description: 'Text for standard input' },
      },
    ),
    builtin('install_and_test', 'Install the dependencies of the project and run its tests.', {
      args: { ...strings, description: 'Further arguments of the test command' },
    }),
    builtin('build', 'Install the dependencies of the project and build it.', {
      args: { ...strings, description: 'Further arguments of the build command' },
    }),
  ].map((intent) => [intent.name, intent]),
)

const options: Options = {
  strict: true,
  strictTypes: true,
  strictTuples: true,
  strictRequired: true,
  // A name such as "constructor" is required or known only where the object itself has it.
  ownProperties: true,
  allErrors: false,
  logger: false,
  addUsedSchema: false,
}

let loaded: Ajv | null = null

/** Loaded when there is something to validate, for a start need not wait for it. */
function ajv(): Ajv {
  if (loaded !== null) return loaded
  const { Ajv: Made } = createRequire(import.meta.url)('ajv') as { readonly Ajv: typeof Ajv }
  return (loaded = new Made(options))
}

const validators = new WeakMap<JsonObject, ValidateFunction>()

function validatorOf(schema: JsonObject): ValidateFunction {
  const known = validators.get(schema)
  if (known !== undefined) return known
  const made = ajv().compile(schema)
  validators.set(schema, made)
  return made
}

/** What is wrong with a caller's inputs, naming the field, or null. Values are never quoted. */
export function inputProblem(intent: Intent, inputs: JsonObject): string | null {
  const validate = validatorOf(intent.inputs)
  if (validate(inputs)) return null
  const error = validate.errors?.[0]
  return error === undefined
    ? '"inputs" does not fit the intent'
    : describe(error, Object.keys(propertiesOf(intent.inputs)))
}

/** The inputs with the schema's defaults where the caller gave nothing. */
export function filledInputs(intent: Intent, inputs: JsonObject): ReadonlyMap<string, Json> {
  const filled = new Map<string, Json>()
  for (const [name, property] of Object.entries(propertiesOf(intent.inputs))) {
    const given = Object.hasOwn(inputs, name) ? inputs[name] : undefined
    const value = given ?? (isObject(property) ? property['default'] : undefined)
    if (value !== undefined) filled.set(name, value)
  }
  return filled
}

/**
 * What an operator's schema for inputs has to be, closed against other members, or what is wrong with it. Patterns run
 * in the broker on callers' text, so only bounded ones without repeated repetition are taken.
 */
export function inputSchema(given: JsonObject): { readonly schema: JsonObject } | { readonly problem: string } {
  if (given['type'] !== undefined && given['type'] !== 'object') return { problem: 'has to have "type: object"' }
  if (given['additionalProperties'] !== undefined && given['additionalProperties'] !== false)
    return { problem: '"additionalProperties" can only be false' }
  const pattern = patternProblem(given)
  if (pattern !== null) return { problem: pattern }
  const schema: JsonObject = { ...given, type: 'object', properties: propertiesOf(given), additionalProperties: false }
  try {
    validatorOf(schema)
  } catch (error) {
    return {
      problem: `not a JSON Schema Writ takes: ${error instanceof Error ? error.message.slice(0, 200) : 'unknown'}`,
    }
  }
  return { schema }
}

const reference = /^\$\{inputs\.([A-Za-z_][A-Za-z0-9_]{0,62})\}$/

/** The input a whole argument stands for, or null where it is a literal. */
export function referencedInput(argument: string): string | null {
  return reference.exec(argument)?.[1] ?? null
}

/** What is wrong with an argument of an operator's step, or null. */
export function argumentProblem(argument: string, schema: JsonObject): string | null {
  if (!argument.includes('${')) return null
  const name = referencedInput(argument)
  if (name === null) return '"${…}" has to be the whole argument, as "${inputs.NAME}"'
  const properties = propertiesOf(schema)
  const property = Object.hasOwn(properties, name) ? properties[name] : undefined
  if (!isObject(property)) return `"inputs" declares no "${name}"`
  if (typeof property['type'] !== 'string' || !['string', 'integer', 'number', 'boolean'].includes(property['type']))
    return `the input "${name}" has to be a string, integer, number or boolean to be an argument`
  const required = Array.isArray(schema['required']) && schema['required'].includes(name)
  if (!required && property['default'] === undefined) return `the input "${name}" has to be required or have a default`
  return null
}

function propertiesOf(schema: JsonObject): JsonObject {
  return isObject(schema['properties']) ? schema['properties'] : {}
}

function isObject(value: Json | undefined): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function describe(error: ErrorObject, known: readonly string[]): string {
  const field = ['inputs', ...error.instancePath.split('/').slice(1)].join('.').slice(0, 120)
  if (error.keyword === 'additionalProperties') {
    const name = String((error.params as { additionalProperty?: unknown }).additionalProperty).slice(0, 60)
    const shown = JSON.stringify(name).replaceAll(/[^\u0020-\u007e]/g, '?')
    const guess = error.instancePath === '' ? nearest(name, known) : null
    const hint = guess === null ? `it takes ${known.join(', ') || 'nothing'}` : `did you mean "${guess}"?`
    return `"${field}" has an unknown member ${shown}; ${hint}`
  }
  if (error.keyword === 'required')
    return `"${field}" lacks "${String((error.params as { missingProperty?: unknown }).missingProperty)}"`
  if (error.keyword === 'enum') {
    const allowed = (error.params as { allowedValues?: readonly unknown[] }).allowedValues ?? []
    return `"${field}" has to be one of ${allowed
      .map((value) => JSON.stringify(value))
      .join(', ')
      .slice(0, 300)}`
  }
  return `"${field}" ${error.message ?? 'does not fit'}`
}

function patternProblem(schema: Json): string | null {
  if (Array.isArray(schema)) {
    for (const item of schema as readonly Json[]) {
      const problem = patternProblem(item)
      if (problem !== null) return problem
    }
    return null
  }
  if (!isObject(schema)) return null
  if (Object.hasOwn(schema, 'patternProperties')) return '"patternProperties" is not taken'
  if (typeof schema['pattern'] === 'string') {
    if (typeof schema['maxLength'] !== 'number' || schema['maxLength'] > 1024)
      return 'a "pattern" needs a "maxLength" of at most 1024 beside it'
    if (/\([^()]*[*+}][^()]*\)[*+{]|\([^)]*\([^]*\)[*+{]|\\[1-9k]/.test(schema['pattern']))
      return 'a "pattern" must not repeat a group that repeats, nor refer back'
  }
  for (const member of Object.values(schema)) {
    const problem = patternProblem(member)
    if (problem !== null) return problem
  }
  return null
}

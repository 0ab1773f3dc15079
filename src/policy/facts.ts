import { z } from 'zod'

const place = { file: z.string(), row: z.number(), col: z.number() }
const spot = z.object(place)
const named = z.object({ ...place, name: z.string() })

const rule = z.object({
  ...place,
  name: z.string(),
  ref: z.string(),
  form: z.enum(['set', 'object', 'complete', 'function', 'default']),
  else: z.boolean(),
  annotations: z.array(z.object({ ...place, title: z.string(), custom: z.record(z.string(), z.unknown()).nullable() })),
  keys: z.array(named).nullable(),
  bare_input: z.array(named),
  named: z.boolean(),
  phases: z.array(z.string()),
  unknown_phases: z.array(named),
})

/** What the Rego tools saw in a pack; what may be there is decided here. */
export const factsSchema = z.object({
  files: z.array(
    z.object({
      path: z.string(),
      test: z.boolean(),
      package: named,
      imports: z.array(named),
      withs: z.array(spot),
      data_refs: z.array(named),
      schemas: z.array(spot),
    }),
  ),
  rules: z.array(rule),
  unused: z.array(named),
  suspects: z.array(
    z.object({
      ...place,
      kind: z.enum(['field', 'word']),
      path: z.string(),
      word: z.string(),
      words: z.array(z.string()),
      phases: z.array(z.string()),
    }),
  ),
})

export const problemSchema = z.object({ ...place, code: z.string(), message: z.string() })

export type Facts = z.infer<typeof factsSchema>
export type Rule = z.infer<typeof rule>
export type Problem = z.infer<typeof problemSchema>
export type Place = z.infer<typeof spot>

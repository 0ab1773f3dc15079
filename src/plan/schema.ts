import { z } from 'zod'
import { limitNames } from './limits.ts'
import type { Limits } from './plan.ts'

/** Executors there are and will be. Only those of `runnableKinds` run in this release. */
const executorKinds = ['isolate', 'docker', 'ssh', 'kubernetes', 'http', 'process'] as const
export type ExecutorKind = (typeof executorKinds)[number]

export const runtimes = ['javascript', 'typescript', 'python', 'shell', 'go', 'rust'] as const
export type Runtime = (typeof runtimes)[number]

const printable = /^[^\p{Cc}\p{Cf}\p{Zl}\p{Zp}]*$/u
const text = (max: number) =>
  z
    .string()
    .min(1, 'must not be empty')
    .max(max, `at most ${max} characters`)
    .regex(printable, 'one line of printable text')
const name = z
  .string()
  .regex(
    /^[a-z][a-z0-9_-]{0,62}$/,
    'a name is a-z, 0-9, "-" and "_", begins with a letter and has at most 63 characters',
  )
const variable = z.string().regex(/^[A-Za-z_][A-Za-z0-9_]{0,127}$/, 'the name of an environment variable')
const about = text(500)

const exactlyOne = <T extends z.ZodRawShape>(shape: T, keys: readonly (keyof T & string)[]) =>
  z
    .strictObject(shape)
    .refine((value) => keys.filter((key) => (value as Record<string, unknown>)[key] !== undefined).length === 1, {
      message: `give exactly one of ${keys.join(', ')}`,
    })
    .meta({ oneOf: keys.map((key) => ({ required: [key] })) })

const limitShape = Object.fromEntries(limitNames.map((limit) => [limit, z.int().min(1).optional()])) as {
  readonly [L in keyof Limits]: z.ZodOptional<z.ZodInt>
}

/** Limits as they stand in files: whole numbers from 1, each optional. */
export const limitsSchema = z.strictObject(limitShape)

const headerName = z.string().regex(/^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}$/, 'not the name of an HTTP header')

const inject = exactlyOne(
  {
    header: headerName.optional().describe('Name of the header that carries the value'),
    prefix: z
      .string()
      .regex(/^[\u0020-\u007e]{0,64}$/, 'printable ASCII, at most 64 characters')
      .optional()
      .describe('Put before the value; only beside "header"'),
    bearer: z.literal(true).optional().describe('Authorization: Bearer VALUE'),
    basic: z
      .strictObject({
        username: z.string().regex(/^[\u0021-\u0039\u003b-\u007e]{1,128}$/, 'printable ASCII without ":"'),
      })
      .optional()
      .describe('Authorization: Basic, the value being the password'),
  },
  ['header', 'bearer', 'basic'],
).refine((value) => value.prefix === undefined || value.header !== undefined, '"prefix" belongs beside "header"')

const credential = z.strictObject({
  source: exactlyOne(
    {
      file: z
        .string()
        .regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/, 'a file name without folders')
        .optional()
        .describe('A file of the credentials folder, set with "writ credentials set"'),
      env: variable.optional().describe("A variable of the broker's environment"),
    },
    ['file', 'env'],
  ).describe('Where the value comes from'),
  inject: inject.describe('How the value enters a request to the service it is bound to'),
})

const service = z.strictObject({
  url: z.string().describe('https, or http where every range of "addresses" is loopback'),
  about,
  credential: name.optional().describe('Injected by the gateway, never seen by the run'),
  addresses: z.array(z.string()).max(16).optional().describe('CIDR ranges beside globally routable addresses'),
  ca: z.string().max(255).optional().describe('PEM file beside the catalog to trust instead of the system roots'),
  download_mb: z
    .int()
    .min(8)
    .max(4096)
    .optional()
    .describe('Largest archive a container may download from it; 256 for a package mirror, 8 for others unless told'),
})

const environment = exactlyOne(
  {
    service: name.optional().describe('The base URL of this service inside the run'),
    placeholder: name.optional().describe('A placeholder the gateway swaps for this credential'),
    value: z
      .string()
      .max(4096)
      .regex(/^[^\p{Cc}]*$/u, 'one line')
      .optional()
      .describe('Text as it stands; never a secret'),
    about: about.optional().describe('What callers are told of it'),
  },
  ['service', 'placeholder', 'value'],
)

const mirror = z
  .string()
  .max(255, 'at most 255 characters')
  .regex(
    /^[a-z][a-z0-9_-]{0,62}(?:\/[A-Za-z0-9_~+-][A-Za-z0-9._~+-]*)*$/,
    'a service of this target, and after a slash the path of the index in it, such as pypi/simple',
  )

const packages = z
  .strictObject({
    pip: mirror.optional().describe('Index of Python packages; the service, then the path of its simple index'),
    npm: mirror.optional().describe('Registry of npm packages'),
    go: mirror.optional().describe('Proxy of Go modules'),
  })
  .describe('Package mirrors among the services of this target')

const container = z
  .strictObject({
    oci_runtime: z
      .string()
      .regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/, 'the name the engine knows the runtime by')
      .optional()
      .describe("An OCI runtime such as runsc, by the engine's name for it; the engine's default unless told"),
    cpus: z.number().min(0.1).max(64).optional().describe('Processors; 1 unless told'),
  })
  .describe('Settings of containers')

const target = z.strictObject({
  about,
  labels: z
    .record(name, z.string().max(200).regex(printable, 'one line of printable text'))
    .optional()
    .describe('For policies'),
  executor: z.enum(executorKinds),
  image: z
    .string()
    .max(255, 'at most 255 characters')
    .regex(/^[a-z0-9][A-Za-z0-9._:/@-]*$/, 'the name of an image, such as writ/python')
    .optional()
    .describe('The image of its containers, by the name the engine has it under; never pulled'),
  container: container.optional(),
  packages: packages.optional(),
  runtimes: z.array(z.enum(runtimes)).min(1).optional().describe('Fewer than the executor has'),
  intents: z.array(name).min(1, 'name at least one intent').max(32),
  services: z.record(name, service).optional(),
  environment: z.record(variable, environment).optional(),
  limits: limitsSchema.optional(),
})

const intent = z.strictObject({
  about,
  inputs: z.record(z.string(), z.json()).optional().describe('JSON Schema of an object; no other members are taken'),
  code_origin: z.enum(['operator', 'caller']).describe('Whose code runs: only yours, or also files of the task'),
  steps: z
    .array(
      z.strictObject({
        title: text(120),
        argv: z
          .array(
            z
              .string()
              .max(4096)
              .regex(/^[^\0]*$/, 'no NUL'),
          )
          .min(1)
          .max(64)
          .describe('On an isolate the first is the script; "${inputs.NAME}" as a whole argument is replaced'),
        success: z
          .array(z.int().min(0).max(255))
          .min(1)
          .optional()
          .describe('Exit codes that count as success; [0] unless told'),
      }),
    )
    .min(1)
    .max(16),
  files: z.array(z.string().max(1024)).max(64).optional().describe('Files beside the catalog that each run gets'),
})

/** catalog.yaml. */
export const catalogSchema = z.strictObject({
  targets: z.record(name, target),
  credentials: z.record(name, credential).optional(),
  intents: z.record(name, intent).optional(),
})

export type CatalogFile = z.output<typeof catalogSchema>
export type TargetFile = z.output<typeof target>
export type IntentFile = z.output<typeof intent>
export type CredentialFile = z.output<typeof credential>

import { z } from 'zod'
import { parseDigest } from '../digest.ts'
import type { Digest } from '../digest.ts'
import { errorCodes, WritError } from '../error.ts'
import { parseId } from '../id.ts'
import type { ExecutionId } from '../id.ts'
import { visible, visibleLine } from '../approval/visible.ts'
import { isolationLevels } from '../plan/plan.ts'
import type { Plan, PlanStep } from '../plan/plan.ts'
import type { CompiledPack, PolicyInput } from '../policy/policy.ts'
import { pathProblem } from '../request/files.ts'
import type { DockerSettings } from './engine.ts'
import { exitReasons } from './job.ts'
import type { Outcome } from './job.ts'
import { maxCases, maxDuration, maxFailures, maxMessage, maxName, reportSources } from './report/report.ts'
import type { TestReport } from './report/report.ts'

/*
 * The frames between broker and run host. The run host takes work from nowhere else; what it says is data of foreign
 * origin to the broker, so sizes are capped here and sums where a run is known.
 */

/** Bytes. */
export const maxHeader = 16 * 1024 * 1024
/** Bytes. */
export const maxPayload = 128 * 1024 * 1024

/** The run host's one argument, as JSON. Nothing in it is a secret: arguments are seen by every process. */
export interface HostSettings {
  readonly threads: number
  readonly poolSize: number
  readonly owner: string
  /** Null where no target runs in containers. */
  readonly docker: DockerSettings | null
  /** The whole environment of what it starts. */
  readonly env: Readonly<Record<string, string>>
}

const file = z.string().min(1)
const settings = z.strictObject({
  threads: z.int().min(1),
  poolSize: z.int().min(0),
  // It begins the names of what a sweep takes away.
  owner: z.string().regex(/^[A-Za-z0-9-]{1,64}$/),
  docker: z
    .strictObject({
      host: z.string().min(1),
      tls: z.strictObject({ ca: file, cert: file, key: file }).nullable(),
      warm: z.int().min(0),
      strict: z.boolean(),
    })
    .nullable(),
  env: z.record(z.string(), z.string()),
}) satisfies z.ZodType<HostSettings>

/** The settings in the run host's argument. Throws where they are none: a run host without them does nothing. */
export function readSettings(argument: string): HostSettings {
  return settings.parse(JSON.parse(argument))
}

const count = z.int().min(0).max(Number.MAX_SAFE_INTEGER)
const execution = z.custom<ExecutionId>((value) => typeof value === 'string' && parseId('exec', value) !== null)
const digest = z.custom<Digest>((value) => typeof value === 'string' && parseDigest(value) !== null)
const record = (value: unknown): boolean => typeof value === 'object' && value !== null && !Array.isArray(value)
const stream = z.enum(['stdout', 'stderr'])

const plan = z.custom<Plan>((value) => record(value) && (value as { schema?: unknown }).schema === 'writ.plan/v1')
const input = z.custom<PolicyInput>(
  (value) => record(value) && (value as { schema?: unknown }).schema === 'writ.input/v1',
)
const image = z.strictObject({
  name: z.string().max(255),
  id: z.string().regex(/^sha256:[0-9a-f]{64}$/),
  store: z.enum(['graphdriver', 'containerd']),
  digest: z
    .string()
    .regex(/^sha256:[0-9a-f]{64}$/)
    .nullable(),
  arch: z.string().max(32),
  agent: digest,
})
const packHead = z.strictObject({
  pack: z.string(),
  layer: z.enum(['org', 'team']),
  kind: z.enum(['guard', 'grant']),
  digest,
  rules: z.custom<CompiledPack['rules']>(record),
  size: count,
})

const toHost = z.discriminatedUnion('t', [
  /** The modules of a generation, one after the other; sent before the first dispatch that names it. */
  z.strictObject({ t: z.literal('generation'), number: count, digest, packs: z.array(packHead) }),
  /** The leased values, one after the other. */
  z.strictObject({
    t: z.literal('dispatch'),
    job: z.strictObject({ execution, plan, plan_digest: digest, placeholders: z.record(z.string(), z.string()) }),
    generation: digest,
    egress_input: input,
    secrets: z.array(z.strictObject({ name: z.string(), size: count })),
  }),
  z.strictObject({ t: z.literal('bytes'), id: count, ok: z.boolean() }),
  z.strictObject({ t: z.literal('stored'), id: count, ok: z.boolean() }),
  z.strictObject({ t: z.literal('cancel'), execution }),
  /** Asks what there is, these images included. */
  z.strictObject({ t: z.literal('check'), id: count, images: z.array(z.string().max(255)).max(1000) }),
  z.strictObject({ t: z.literal('unpack'), id: count }),
])
export type ToHost = z.infer<typeof toHost>

const steps = z.array(z.strictObject({ title: z.string(), exit: z.int().nullable(), ms: count })).max(1000)
const wireOutcome = z.discriminatedUnion('end', [
  z.strictObject({
    end: z.literal('not_started'),
    code: z.enum(errorCodes as [(typeof errorCodes)[number]]),
    message: z.string().max(2000),
  }),
  z.strictObject({ end: z.literal('exited'), steps, reason: z.enum(exitReasons).nullable() }),
  z.strictObject({ end: z.literal('stopped'), by: z.enum(['time', 'memory', 'output', 'cancel']), steps }),
  z.strictObject({ end: z.literal('unknown'), steps }),
])
const text = z.string().max(2000)

const cases = z.int().min(0).max(maxCases)
const tests = z
  .strictObject({
    source: z.enum(reportSources),
    asserted: z.literal(true),
    total: cases,
    passed: cases,
    failed: cases,
    skipped: cases,
    duration_ms: z.int().min(0).max(maxDuration).nullable(),
    failures: z
      .array(
        z.strictObject({
          name: z
            .string()
            .max(maxName)
            .refine((name) => visibleLine(name) === name),
          message: z
            .string()
            .max(maxMessage)
            .refine((message) => visible(message) === message),
        }),
      )
      .max(maxFailures),
    truncated: z.boolean(),
  })
  .refine(
    ({ total, passed, failed, skipped, failures }) => total === passed + failed + skipped && failures.length <= failed,
  ) satisfies z.ZodType<TestReport>

const fromHost = z.discriminatedUnion('t', [
  z.strictObject({ t: z.literal('started'), execution, step: count }),
  z.strictObject({ t: z.literal('output'), execution, step: count, stream }),
  z.strictObject({
    t: z.literal('file'),
    execution,
    id: count,
    path: z
      .string()
      .max(1024)
      .refine((path) => pathProblem(path) === null),
  }),
  z.strictObject({ t: z.literal('read'), execution, id: count, digest }),
  /** A cancel arrived; the end it leads to comes later. */
  z.strictObject({ t: z.literal('heard'), execution }),
  z.strictObject({
    t: z.literal('ended'),
    execution,
    outcome: wireOutcome,
    counts: z.strictObject({
      egress: z.strictObject({
        allowed: count,
        blocked: count,
        refusals: z.array(z.strictObject({ code: z.string().max(256), service: z.string().max(256), count })).max(1000),
      }),
      isolation_applied: z.enum(isolationLevels).nullable(),
      withheld_files: count,
      redactions: count,
      dropped_bytes: count,
    }),
    tests: tests.nullable(),
  }),
  z.strictObject({
    t: z.literal('checked'),
    id: count,
    results: z.array(
      z.strictObject({
        executor: text,
        findings: z.array(
          z.strictObject({ level: z.enum(['ok', 'warning', 'problem']), what: text, fix: text.nullable() }),
        ),
        facts: z
          .strictObject({ images: z.array(image).max(1000), runtimes: z.array(z.string().max(255)).max(100) })
          .nullable(),
      }),
    ),
  }),
  z.strictObject({
    t: z.literal('unpacked'),
    id: count,
    entries: z.array(z.strictObject({ path: z.string(), size: count, executable: z.boolean() })),
  }),
  z.strictObject({
    t: z.literal('failed'),
    id: count,
    code: z.enum(errorCodes as [(typeof errorCodes)[number]]),
    message: z.string().max(2000),
  }),
])
export type FromHost = z.infer<typeof fromHost>
export type WireOutcome = z.infer<typeof wireOutcome>

/** A frame of the broker, or null. */
export function checkToHost(header: unknown): ToHost | null {
  const parsed = toHost.safeParse(header)
  return parsed.success ? parsed.data : null
}

/** A frame of the run host, or null. */
export function checkFromHost(header: unknown): FromHost | null {
  const parsed = fromHost.safeParse(header)
  return parsed.success ? parsed.data : null
}

/**
 * What the run host says of an end, as far as it can be so: what began has begun, in a sandbox that was seen, and the
 * steps are the plan's. Throws `internal` for an end of what never began and for more steps than there are.
 */
export function believed(
  { outcome, counts }: Pick<FromHost & { t: 'ended' }, 'outcome' | 'counts'>,
  planned: readonly PlanStep[],
  started: boolean,
): Outcome {
  if (outcome.end === 'not_started')
    return started
      ? { end: 'unknown', steps: [] }
      : { end: 'not_started', error: new WritError(outcome.code, outcome.message) }
  if (outcome.steps.length > planned.length) throw new WritError('internal', 'more steps than the plan has')
  const ended = outcome.end === 'exited' || outcome.end === 'stopped'
  if (ended && !started && !(outcome.end === 'stopped' && outcome.by === 'cancel'))
    throw new WritError('internal', 'an end of what never began')
  if (ended && started && counts.isolation_applied === null)
    throw new WritError('internal', 'an end in no sandbox that was seen')
  return { ...outcome, steps: outcome.steps.map((step, at) => ({ ...step, title: planned[at]?.title ?? '' })) }
}

/** Cuts a payload into the parts whose sizes its header names; null where they do not add up. */
export function cut(payload: Buffer, sizes: readonly number[]): readonly Buffer[] | null {
  let at = 0
  const parts = sizes.map((size) => payload.subarray(at, (at += size)))
  return at === payload.length ? parts : null
}

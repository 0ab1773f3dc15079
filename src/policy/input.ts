import { z } from 'zod'
import { canonical, digestOf } from '../digest.ts'
import type { Digest, JsonObject } from '../digest.ts'
import { egressModes, isolationLevels } from '../plan/plan.ts'
import type { Plan } from '../plan/plan.ts'
import type { Caller } from '../request/caller.ts'
import type { Task } from '../request/task.ts'
import type { Phase, PolicyInput } from './policy.ts'
import { WritError } from '../error.ts'

export const maxDepth = 64
export const maxBytes = 256 * 1024
/** Bytes of canonical text above which `arguments` and `inputs` are handed to policy as digest and excerpt. */
export const maxFreeBytes = 48 * 1024
const excerptLength = 1024
/** `input.action.properties.arguments` is the fourth level, `input.context.task.inputs` too. */
const freeDepth = maxDepth - 3
/** Levels that are still digested. */
const maxFreeDepth = 1000
const tooDeep = 'too many levels'

/** Obligations the broker carries out. Any other denies. */
export const supportedObligations: readonly string[] = []

const weekdays = ['sun', 'mon', 'tue', 'wed', 'thu', 'fri', 'sat'] as const

class NotJson extends Error {}

const plainText = /^[ !#-[\]-~]*$/

function quoted(text: string, what: string): string {
  if (plainText.test(text)) return `"${text}"`
  if (!text.isWellFormed()) throw new NotJson(`${what} with a lone surrogate`)
  return JSON.stringify(text)
}

/**
 * RFC 8785 text of `value`, in the one pass that also makes sure that it is I-JSON of at most `depth` levels and made of
 * plain arrays and objects. Throws NotJson and never recurses deeper than `depth`.
 */
function write(value: unknown, depth: number): string {
  switch (typeof value) {
    case 'string':
      return quoted(value, 'a string')
    case 'number':
      if (!Number.isFinite(value)) throw new NotJson('a number that JSON does not have')
      return JSON.stringify(value)
    case 'boolean':
      return value ? 'true' : 'false'
    case 'object':
      break
    case 'undefined':
    case 'function':
    case 'symbol':
    case 'bigint':
      throw new NotJson('a value that JSON does not have')
  }
  if (value === null) return 'null'
  if (depth === 0) throw new NotJson(tooDeep)
  if (Array.isArray(value)) {
    let text = '['
    // An index loop meets the holes of a sparse array, which `map` would step over.
    for (let at = 0; at < value.length; at++) text += `${at === 0 ? '' : ','}${write(value[at], depth - 1)}`
    return `${text}]`
  }
  const prototype: unknown = Object.getPrototypeOf(value)
  if (prototype !== Object.prototype && prototype !== null) throw new NotJson('an object that is not plain')
  let text = '{'
  for (const key of Object.keys(value).sort()) {
    if (key === '__proto__') throw new NotJson('a key named __proto__')
    const member = write((value as Record<string, unknown>)[key], depth - 1)
    text += `${text === '{' ? '' : ','}${quoted(key, 'a key')}:${member}`
  }
  return `${text}}`
}

type Written = { readonly ok: true; readonly text: string } | { readonly ok: false; readonly why: string }

function written(value: unknown, depth: number): Written {
  try {
    return { ok: true, text: write(value, depth) }
  } catch (error) {
    if (error instanceof NotJson) return { ok: false, why: error.message }
    throw error
  }
}

const count = z.number().int().nonnegative()
const texts = z.array(z.string())
/** Checked as I-JSON before; kept as it is, because a copy may lose members. */
const object = z.custom<JsonObject>((value) => typeof value === 'object' && value !== null && !Array.isArray(value))
const evidence = z.enum(['passkey', 'key', 'bearer'])
const verdict = z.enum(['approve', 'reject'])

const schema = z.strictObject({
  schema: z.literal('writ.input/v1'),
  phase: z.enum(['request', 'execution', 'approval', 'egress']),
  subject: z.strictObject({
    type: z.enum(['user', 'service']),
    id: z.string().min(1),
    properties: z.strictObject({
      tenant: z.string().min(1),
      roles: texts,
      auth: z.strictObject({ method: z.enum(['socket', 'token', 'oauth']), age_s: count }),
      agent: z.strictObject({
        id: z.string().min(1),
        asserted: z.strictObject({ client: z.string(), version: z.string() }),
      }),
    }),
  }),
  action: z.strictObject({ name: z.string().min(1), properties: z.strictObject({ arguments: object }) }),
  resource: z.strictObject({
    type: z.enum(['target', 'task', 'execution', 'approval', 'artifact', 'receipt', 'service', 'none']),
    id: z.string(),
    properties: z.strictObject({
      owner: z.string().nullable(),
      tenant: z.string().nullable(),
      labels: z.record(z.string(), z.string()),
    }),
  }),
  context: z.strictObject({
    time: z.strictObject({
      rfc3339: z.string().regex(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/),
      unix_s: count,
      weekday: z.enum(weekdays),
      minute_of_day: count.max(1439),
    }),
    counters: z.strictObject({ executions_60m: count, denied_10m: count, running: count }),
    task: z
      .strictObject({
        project_name: z.string(),
        intent: z.string(),
        goal: z.string(),
        context: z.string(),
        inputs: object,
        files: z.array(z.strictObject({ path: z.string(), sha256: z.string(), size: count })),
      })
      .nullable(),
    plan: z
      .strictObject({
        digest: z.string(),
        executor: z.string(),
        isolation: z.enum(isolationLevels),
        egress: z.enum(egressModes),
        delivery: texts,
        kill: z.enum(['confirmed', 'best_effort']),
        image: object.nullable(),
        runtime: z.string(),
        code_origin: z.enum(['caller', 'operator']),
        steps: z.array(z.strictObject({ title: z.string(), argv: texts })),
        services: texts,
        hosts: texts,
        credentials: z.array(z.strictObject({ name: z.string(), lane: z.string(), exposure: z.string() })),
        limits: z.strictObject({
          wall_s: z.number(),
          cpu_s: z.number(),
          memory_mb: z.number(),
          output_kb: z.number(),
          artifact_kb: z.number(),
          egress_requests: z.number(),
        }),
      })
      .nullable(),
    approvals: z.array(
      z.strictObject({
        id: z.string(),
        stage: z.string(),
        verdict,
        by: z.string().min(1),
        roles: texts,
        evidence,
        at_s: count,
        until_s: count,
      }),
    ),
    verdict: z
      .strictObject({ approval_id: z.string(), stage: z.string(), verdict, evidence, requirement: z.string() })
      .nullable(),
    call: z
      .strictObject({
        service: z.string(),
        host: z.string(),
        port: z.number().int().min(0).max(65535),
        method: z.string(),
        path: z.string(),
        size: count,
        credential: z.string().nullable(),
      })
      .nullable(),
    supported_obligations: texts,
  }),
})

export type CheckedInput =
  /** `text` is the RFC 8785 form: what is evaluated, digested and kept for replay, so all three see one document. */
  | { readonly ok: true; readonly input: PolicyInput; readonly text: string; readonly digest: Digest }
  | { readonly ok: false; readonly why: string }

/**
 * The only way into the engine. Takes an object, never bytes: a module evaluates bytes that are not JSON as if there were
 * no input, and a lone surrogate destroys an instance (reference/policy.md §0.1, §0.2).
 */
export function checkInput(value: unknown): CheckedInput {
  const canonicalForm = written(value, maxDepth)
  if (!canonicalForm.ok) return canonicalForm
  const { text } = canonicalForm
  if (Buffer.byteLength(text) > maxBytes) return { ok: false, why: `larger than ${maxBytes} bytes` }
  const parsed = schema.safeParse(value)
  if (!parsed.success) {
    const issue = parsed.error.issues[0]
    return { ok: false, why: `${issue?.path.join('.') ?? ''}: ${issue?.code ?? 'invalid'}` }
  }
  return { ok: true, input: parsed.data, text, digest: digestOf(text) }
}

/** The value, or `{truncated, digest, excerpt}` where it is too large or too deep to be evaluated whole. */
function bounded(value: JsonObject): JsonObject {
  const whole = written(value, freeDepth)
  if (whole.ok && Buffer.byteLength(whole.text) <= maxFreeBytes) return value
  const any = whole.ok ? whole : written(value, maxFreeDepth)
  // What has no canonical form cannot even be digested.
  if (!any.ok) throw new WritError('malformed_message', `the request holds ${any.why}`)
  let excerpt = any.text.slice(0, excerptLength)
  if (!excerpt.isWellFormed()) excerpt = excerpt.slice(0, -1)
  return { truncated: true, digest: digestOf(any.text), excerpt }
}

function frozenTime(nowMs: number): PolicyInput['context']['time'] {
  const unix = Math.floor(nowMs / 1000)
  const date = new Date(unix * 1000)
  return {
    rfc3339: `${date.toISOString().slice(0, 19)}Z`,
    unix_s: unix,
    weekday: weekdays[date.getUTCDay()] ?? 'sun',
    minute_of_day: date.getUTCHours() * 60 + date.getUTCMinutes(),
  }
}

function planFacts(plan: Plan, digest: Digest): PolicyInput['context']['plan'] {
  return {
    digest,
    executor: plan.executor,
    isolation: plan.statement.isolation,
    egress: plan.statement.egress,
    delivery: plan.statement.delivery,
    kill: plan.statement.kill,
    image: plan.image,
    runtime: plan.runtime,
    code_origin: plan.code_origin,
    steps: plan.steps.map((step) => ({ title: step.title, argv: step.argv })),
    services: plan.services.map((service) => service.name),
    // A host without an origin is still shown: a rule that counts or refuses hosts must not miss one.
    hosts: plan.hosts.map((host) => (typeof host['origin'] === 'string' ? host['origin'] : canonical(host))),
    credentials: plan.credentials.map(({ name, lane, exposure }) => ({ name, lane, exposure })),
    limits: plan.limits,
  }
}

export interface InputParts {
  readonly phase: Phase
  readonly caller: Caller
  /** `arguments` without the contents of files: the caller of this function drops them. */
  readonly action: { readonly name: string; readonly arguments: JsonObject }
  readonly resource: PolicyInput['resource']
  /** Wall-clock milliseconds; policy sees whole seconds. */
  readonly nowMs: number
  readonly counters: PolicyInput['context']['counters']
  readonly task?: Task | null
  readonly plan?: { readonly plan: Plan; readonly digest: Digest } | null
  readonly approvals?: PolicyInput['context']['approvals']
  readonly verdict?: PolicyInput['context']['verdict']
  readonly call?: PolicyInput['context']['call']
}

/**
 * The complete `writ.input/v1` of one decision: every field present, null or empty where there is nothing. Names of
 * credentials only, no service URL, no bytes of artifacts. Throws `malformed_message` where the free parts hold a lone
 * surrogate, which the edges refuse before.
 */
export function buildInput(parts: InputParts): PolicyInput {
  const { caller, task, plan } = parts
  return {
    schema: 'writ.input/v1',
    phase: parts.phase,
    subject: {
      type: caller.subject.type,
      id: caller.subject.id,
      properties: {
        tenant: caller.tenant,
        roles: caller.roles,
        auth: {
          method: caller.auth.method,
          age_s: Math.max(0, Math.floor((parts.nowMs - caller.auth.atMs) / 1000)),
        },
        agent: {
          id: caller.agent.id,
          asserted: { client: caller.agent.asserted.client, version: caller.agent.asserted.version },
        },
      },
    },
    action: { name: parts.action.name, properties: { arguments: bounded(parts.action.arguments) } },
    resource: parts.resource,
    context: {
      time: frozenTime(parts.nowMs),
      counters: parts.counters,
      task:
        task == null
          ? null
          : {
              project_name: task.project_name,
              intent: task.intent,
              goal: task.goal,
              context: task.context,
              inputs: bounded(task.inputs),
              files: task.files.map(({ path, sha256, size }) => ({ path, sha256, size })),
            },
      plan: plan == null ? null : planFacts(plan.plan, plan.digest),
      approvals: parts.approvals ?? [],
      verdict: parts.verdict ?? null,
      call: parts.call ?? null,
      supported_obligations: supportedObligations,
    },
  }
}

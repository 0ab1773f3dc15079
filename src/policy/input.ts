import { canonical, digestOf } from '../digest.ts'
import type { Digest, JsonObject } from '../digest.ts'
import { egressModes, isolationLevels } from '../plan/plan.ts'
import type { Plan } from '../plan/plan.ts'
import type { Caller } from '../request/caller.ts'
import type { Task } from '../request/task.ts'
import type { Phase, PolicyInput } from './policy.ts'
import { WritError } from '../error.ts'
import {
  count,
  free,
  list,
  name,
  NotInForm,
  nullable,
  number,
  object,
  pattern,
  text,
  texts,
  word,
  write,
} from './form.ts'

export const maxDepth = 64
export const maxBytes = 256 * 1024
/** Kept free for what an input gets later: the approvals of the decision before the run, the call of phase `egress`. */
const reservedBytes = 32 * 1024
const excerptLength = 1024
/** `input.action.properties.arguments` is the fourth level, `input.context.task.inputs` too. */
const freeDepth = maxDepth - 3
/** Levels that are still digested. */
const maxFreeDepth = 1000

/** Obligations the broker carries out. Any other denies. */
export const supportedObligations: readonly string[] = []

const weekdays = ['sun', 'mon', 'tue', 'wed', 'thu', 'fri', 'sat'] as const

type Written = { readonly ok: true; readonly text: string } | { readonly ok: false; readonly why: string }

function written(value: unknown, depth: number): Written {
  try {
    return { ok: true, text: write(value, depth) }
  } catch (error) {
    if (error instanceof NotInForm) return { ok: false, why: error.message }
    throw error
  }
}

const evidence = word('passkey', 'key', 'bearer')
const verdict = word('approve', 'reject')

/** The members of `writ.input/v1`; `PolicyInput` is their type. */
const form = object({
  schema: word('writ.input/v1'),
  phase: word('request', 'execution', 'approval', 'egress'),
  subject: object({
    type: word('user', 'service'),
    id: name,
    properties: object({
      tenant: name,
      roles: list(text),
      auth: object({ method: word('socket', 'token', 'oauth'), age_s: count() }),
      agent: object({ id: name, asserted: object({ client: text, version: text }) }),
    }),
  }),
  action: object({ name, properties: object({ arguments: free(freeDepth) }) }),
  resource: object({
    type: word('target', 'task', 'execution', 'approval', 'artifact', 'receipt', 'service', 'none'),
    id: text,
    properties: object({ owner: nullable(text), tenant: nullable(text), labels: texts }),
  }),
  context: object({
    time: object({
      rfc3339: pattern(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/),
      unix_s: count(),
      weekday: word(...weekdays),
      minute_of_day: count(1439),
    }),
    counters: object({ executions_60m: count(), denied_10m: count(), running: count() }),
    task: nullable(
      object({
        project_name: text,
        intent: text,
        goal: text,
        context: text,
        inputs: free(freeDepth),
        files: list(object({ path: text, sha256: text, size: count() })),
      }),
    ),
    plan: nullable(
      object({
        digest: text,
        executor: text,
        isolation: word(...isolationLevels),
        egress: word(...egressModes),
        delivery: list(text),
        kill: word('confirmed', 'best_effort'),
        image: nullable(free(freeDepth)),
        runtime: text,
        code_origin: word('caller', 'operator'),
        steps: list(object({ title: text, argv: list(text) })),
        services: list(text),
        hosts: list(text),
        credentials: list(object({ name: text, lane: text, exposure: text })),
        limits: object({
          wall_s: number,
          cpu_s: number,
          memory_mb: number,
          output_kb: number,
          artifact_kb: number,
          egress_requests: number,
        }),
      }),
    ),
    approvals: list(
      object({
        id: text,
        stage: text,
        verdict,
        by: name,
        roles: list(text),
        evidence,
        at_s: count(),
        until_s: count(),
      }),
    ),
    verdict: nullable(object({ approval_id: text, stage: text, verdict, evidence, requirement: text })),
    call: nullable(
      object({
        service: text,
        host: text,
        port: count(65_535),
        method: text,
        path: text,
        size: count(),
        credential: nullable(text),
      }),
    ),
    supported_obligations: list(text),
    truncated: list(word('arguments', 'task.files')),
  }),
})

export type CheckedInput =
  /** `text` is the RFC 8785 form: what is evaluated, digested and kept for replay, so all three see one document. */
  | { readonly ok: true; readonly input: PolicyInput; readonly text: string }
  | { readonly ok: false; readonly why: string }

/**
 * The only way into the engine. Takes an object, never bytes: a module evaluates bytes that are not JSON as if there were
 * no input, and a lone surrogate destroys an instance.
 */
export function checkInput(value: unknown): CheckedInput {
  try {
    const written = form(value, '')
    // A UTF-16 unit is 3 bytes at most: counting is needed near the limit only.
    if (written.length * 3 > maxBytes && Buffer.byteLength(written) > maxBytes)
      return { ok: false, why: `larger than ${maxBytes} bytes` }
    return { ok: true, input: value as PolicyInput, text: written }
  } catch (error) {
    if (error instanceof NotInForm) return { ok: false, why: error.message }
    throw error
  }
}

type Truncated = PolicyInput['context']['truncated'][number]

/** What stands for arguments that are not shown whole. */
function excerptOf(text: string): JsonObject {
  let excerpt = text.slice(0, excerptLength)
  if (!excerpt.isWellFormed()) excerpt = excerpt.slice(0, -1)
  return { truncated: true, digest: digestOf(text), excerpt }
}

/** Throws where a free part has no canonical form: what cannot even be digested is nothing policy could be told of. */
function canonicalText(value: JsonObject): string {
  const any = written(value, maxFreeDepth)
  if (!any.ok) throw new WritError('malformed_message', `the request holds ${any.why}`)
  return any.text
}

function bytesOf(value: unknown): number {
  return Buffer.byteLength(JSON.stringify(value))
}

/** The first of the files, as many as there is room for. */
function filesWithin<File>(files: readonly File[], room: number): readonly File[] {
  let left = room
  const end = files.findIndex((file) => (left -= bytesOf(file) + 1) < 0)
  return end < 0 ? files : files.slice(0, end)
}

/** `input.context.time` of a decision made then: whole seconds of UTC. */
export function frozenTime(nowMs: number): PolicyInput['context']['time'] {
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
 * credentials only, no service URL, no bytes of artifacts. What a task may hold is never left out but for files: of them,
 * and of the arguments of a message, only what there is room for is shown, and `context.truncated` says so, outside of
 * what a caller writes. Throws `malformed_message` where the free parts hold a lone surrogate, which the edges refuse
 * before.
 */
export function buildInput(parts: InputParts): PolicyInput {
  const shallow = written(parts.action.arguments, freeDepth)
  const text = shallow.ok ? shallow.text : canonicalText(parts.action.arguments)
  if (parts.task != null) canonicalText(parts.task.inputs)
  const whole = assembled(parts, shallow.ok ? {} : { arguments: excerptOf(text), truncated: ['arguments'] })
  // A UTF-16 unit is 3 bytes at most: counting is needed near the limit only.
  if (JSON.stringify(whole).length * 3 <= maxBytes - reservedBytes) return whole

  const truncated: Truncated[] = [...whole.context.truncated]
  const { task } = whole.context
  const bare = assembled({ ...parts, approvals: [], call: null }, { arguments: {}, files: [] })
  let room = maxBytes - reservedBytes - bytesOf(bare)
  let args = whole.action.properties.arguments
  if (shallow.ok && Buffer.byteLength(text) > room) {
    args = excerptOf(text)
    truncated.push('arguments')
  }
  room -= bytesOf(args)
  const files = filesWithin(task?.files ?? [], room)
  if (files.length < (task?.files.length ?? 0)) truncated.push('task.files')
  return truncated.length === 0 ? whole : assembled(parts, { arguments: args, files, truncated })
}

/** An input of these parts, with what is given in the place of what they hold. */
function assembled(
  parts: InputParts,
  instead: {
    readonly arguments?: JsonObject
    readonly files?: NonNullable<PolicyInput['context']['task']>['files']
    readonly truncated?: readonly Truncated[]
  },
): PolicyInput {
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
    action: { name: parts.action.name, properties: { arguments: instead.arguments ?? parts.action.arguments } },
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
              inputs: task.inputs,
              files: instead.files ?? task.files.map(({ path, sha256, size }) => ({ path, sha256, size })),
            },
      plan: plan == null ? null : planFacts(plan.plan, plan.digest),
      approvals: parts.approvals ?? [],
      verdict: parts.verdict ?? null,
      call: parts.call ?? null,
      supported_obligations: supportedObligations,
      truncated: instead.truncated ?? [],
    },
  }
}

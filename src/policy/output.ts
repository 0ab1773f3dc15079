import { egressModes, isolationLevels } from '../plan/plan.ts'
import type { Limits } from '../plan/plan.ts'
import type { Json } from '../digest.ts'
import type { Evidence, PackOutput, RuleRef, Stage } from './policy.ts'

/** A pack that says more than this in one set is refused whole: it would bury what matters in the decision. */
const maxElements = 200
const maxText = 2000
/** What people may be asked: rules of `require_approval` that speak at once, stages of one, roles and people of a stage. */
const maxDemands = 16
const maxStages = 16
const maxRoles = 32
const maxQuorum = 100
/** Characters of the name of a stage: as many as a signed statement has room for. */
const maxStageName = 128
/** Seconds people may be given, ten years: what a date and whole milliseconds still hold. */
const maxSeconds = 315_360_000
/** Characters of JSON one pack may answer: the broker, which has one thread for everybody, reads no more. */
export const maxAnswer = 256 * 1024

export const limitNames = [
  'wall_s',
  'cpu_s',
  'memory_mb',
  'output_kb',
  'artifact_kb',
  'egress_requests',
] as const satisfies readonly (keyof Limits)[]
export const lanes = ['placeholder', 'exposed'] as const
export const exposures = ['none', 'workload'] as const
const exclusions = ['agent', 'subject'] as const
const evidences = ['passkey', 'key', 'bearer'] as const satisfies readonly Evidence[]

class Refused extends Error {}

function refuse(): never {
  throw new Refused()
}

/** An object with exactly these own keys; one more or one less refuses the output. */
function fields(value: unknown, keys: readonly string[], optional: readonly string[] = []): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) refuse()
  const own = Object.keys(value)
  if (!keys.every((key) => own.includes(key))) refuse()
  if (!own.every((key) => keys.includes(key) || optional.includes(key))) refuse()
  return value as Record<string, unknown>
}

function text(value: unknown): string {
  if (typeof value !== 'string' || value.length > maxText || !value.isWellFormed()) refuse()
  return value
}

function name(value: unknown): string {
  const word = text(value)
  return word === '' ? refuse() : word
}

function orNull<T>(value: unknown, parse: (value: unknown) => T): T | null {
  return value === null ? null : parse(value)
}

function word<const T extends string>(words: readonly T[]): (value: unknown) => T {
  return (value) => words.find((known) => known === value) ?? refuse()
}

function list<T>(value: unknown, parse: (value: unknown) => T, most = maxElements): readonly T[] {
  if (!Array.isArray(value) || value.length > most) refuse()
  return value.map((element) => parse(element))
}

function some<T>(value: unknown, parse: (value: unknown) => T, most = maxElements): readonly T[] {
  const all = list(value, parse, most)
  return all.length === 0 ? refuse() : all
}

/** Counts and seconds: a whole number from 1, so that no arithmetic downstream meets a fraction, a sign or a NaN. */
function amount(value: unknown): number {
  return Number.isSafeInteger(value) && (value as number) > 0 ? (value as number) : refuse()
}

function atMost(value: number, most: number): number {
  return value > most ? refuse() : value
}

function rule(value: unknown): RuleRef {
  const raw = fields(value, ['id', 'title', 'code', 'remedy'])
  return { id: name(raw['id']), title: text(raw['title']), code: text(raw['code']), remedy: text(raw['remedy']) }
}

function stage(value: unknown): Stage {
  const raw = fields(value, ['id', 'roles', 'min'])
  const id = name(raw['id'])
  if (id.length > maxStageName) refuse()
  return { id, roles: some(raw['roles'], name, maxRoles), min: atMost(amount(raw['min']), maxQuorum) }
}

function grant(value: unknown): PackOutput['grant'][number] {
  return { rule: rule(fields(value, ['rule'])['rule']) }
}

function deny(value: unknown): PackOutput['deny'][number] {
  const raw = fields(value, ['rule', 'message'])
  return { rule: rule(raw['rule']), message: orNull(raw['message'], text) }
}

function requireApproval(value: unknown): PackOutput['require_approval'][number] {
  const raw = fields(value, ['rule', 'stages', 'exclude', 'evidence', 'request_ttl_s', 'execute_within_s', 'message'])
  const stages = some(raw['stages'], stage, maxStages)
  if (new Set(stages.map(({ id }) => id)).size < stages.length) refuse()
  return {
    rule: rule(raw['rule']),
    stages,
    exclude: list(raw['exclude'], word(exclusions)),
    evidence: some(raw['evidence'], word(evidences)),
    request_ttl_s: atMost(amount(raw['request_ttl_s']), maxSeconds),
    execute_within_s: atMost(amount(raw['execute_within_s']), maxSeconds),
    message: orNull(raw['message'], text),
  }
}

/** One number at least: a rule that limits nothing is a misspelt one. */
function limit(value: unknown): PackOutput['limit'][number] {
  const raw = fields(value, ['rule'], limitNames)
  const numbers: { -readonly [L in keyof Limits]?: number } = {}
  for (const key of limitNames) {
    const given = raw[key]
    if (given !== undefined && given !== null) numbers[key] = amount(given)
  }
  if (Object.keys(numbers).length === 0) refuse()
  return { rule: rule(raw['rule']), ...numbers }
}

function credential(value: unknown): PackOutput['credential'][number] {
  const raw = fields(value, ['rule', 'name', 'lane', 'exposure'])
  return {
    rule: rule(raw['rule']),
    name: name(raw['name']),
    lane: orNull(raw['lane'], word(lanes)),
    exposure: orNull(raw['exposure'], word(exposures)),
  }
}

function sandbox(value: unknown): PackOutput['sandbox'][number] {
  const raw = fields(value, ['rule', 'isolation', 'egress'])
  const isolation = orNull(raw['isolation'], word(isolationLevels))
  const egress = orNull(raw['egress'], word(egressModes))
  if (isolation === null && egress === null) refuse()
  return { rule: rule(raw['rule']), isolation, egress }
}

function json(value: unknown, depth: number): Json {
  if (depth === 0) refuse()
  if (value === null || typeof value === 'boolean') return value
  if (typeof value === 'number') return Number.isFinite(value) ? value : refuse()
  if (typeof value === 'string') return text(value)
  if (Array.isArray(value)) return list(value, (element) => json(element, depth - 1))
  if (typeof value !== 'object') refuse()
  const members = Object.entries(value)
  if (members.length > maxElements) refuse()
  return Object.fromEntries(members.map(([key, member]) => [text(key), json(member, depth - 1)]))
}

function obligation(value: unknown): PackOutput['obligation'][number] {
  const raw = fields(value, ['rule', 'type', 'properties'])
  return { rule: rule(raw['rule']), type: name(raw['type']), properties: json(raw['properties'], 8) }
}

function warn(value: unknown): PackOutput['warn'][number] {
  const raw = fields(value, ['rule', 'message'])
  return { rule: rule(raw['rule']), message: text(raw['message']) }
}

const sets = ['grant', 'deny', 'require_approval', 'limit', 'credential', 'sandbox', 'obligation', 'warn'] as const

/**
 * What a pack's `writ/main` returned, or null where it lacks a set, has one more, or holds a value of the wrong type or
 * range (docs/policy.md "A rule"). Null is decided as `output_schema`.
 */
export function parseOutput(value: unknown): PackOutput | null {
  try {
    const raw = fields(value, sets)
    return {
      grant: list(raw['grant'], grant),
      deny: list(raw['deny'], deny),
      require_approval: list(raw['require_approval'], requireApproval, maxDemands),
      limit: list(raw['limit'], limit),
      credential: list(raw['credential'], credential),
      sandbox: list(raw['sandbox'], sandbox),
      obligation: list(raw['obligation'], obligation),
      warn: list(raw['warn'], warn),
    }
  } catch (error) {
    if (error instanceof Refused) return null
    throw error
  }
}

import { z } from 'zod'
import type { Approval, Verdict } from '../approval/approval.ts'
import { statementShape } from '../approval/statement.ts'
import { type Digest, parseDigest } from '../digest.ts'
import { type ApprovalId, type ExecutionId, parseId } from '../id.ts'

/*
 * What the command line may ask of a running broker, and what it is answered. Each end reads what the other says through
 * these schemas: the two may be of different versions.
 */

const nothing = z.strictObject({})
const approvalId = z.custom<ApprovalId>((value) => typeof value === 'string' && parseId('apr', value) !== null)
const executionId = z.custom<ExecutionId>((value) => typeof value === 'string' && parseId('exec', value) !== null)
const digest = z.custom<Digest>((value) => typeof value === 'string' && parseDigest(value) !== null)
const texts = z.array(z.string()).readonly()
const evidence = z.enum(['passkey', 'key', 'bearer'])
const state = z.enum(['open', 'satisfied', 'rejected', 'expired', 'superseded'])

const verdict = z.object({
  statement: statementShape,
  by: z.string(),
  roles: texts,
  evidence,
  jws: z.string().nullable(),
  at_ms: z.number(),
}) satisfies z.ZodType<Verdict>

const approval = z.object({
  id: approvalId,
  execution: executionId,
  tenant: z.string(),
  plan: digest,
  requirement: z.object({
    stages: z.array(z.object({ id: z.string(), roles: texts, min: z.number() })).readonly(),
    exclude: z.array(z.enum(['agent', 'subject'])).readonly(),
    evidence: z.array(evidence).readonly(),
    request_ttl_s: z.number(),
    execute_within_s: z.number(),
  }),
  requirement_digest: digest,
  excluded: z.object({ subjects: texts, agents: texts }),
  nonce: z.string(),
  opened_at_ms: z.number(),
  expires_at_ms: z.number(),
  execute_by_ms: z.number().nullable(),
  state,
  verdicts: z.array(verdict).readonly(),
}) satisfies z.ZodType<Approval>

const stages = z.array(z.object({ id: z.string(), roles: texts, needed: z.number(), have: z.number() })).readonly()

const finding = z.object({
  file: z.string(),
  line: z.number(),
  column: z.number(),
  level: z.enum(['error', 'warning']),
  code: z.string(),
  message: z.string(),
})
const findings = z.array(finding).readonly()

const status = z.object({
  version: z.string(),
  pid: z.int().min(1),
  started: z.string(),
  running: z.number(),
  queued: z.number(),
  awaiting_approval: z.number(),
  connections: z.number(),
  /** Where it serves HTTP. */
  http: z.string().optional(),
  receipts: z.number(),
  room: z.enum(['ok', 'low']),
  /** Seconds by which the newest record is ahead of the clock, where that is more than clocks differ by. */
  ahead_s: z.number().optional(),
  recovered: z.object({ unknown: z.number(), queued: z.number(), leases: z.number() }),
  policy: z.object({
    generation: z.object({ number: z.number(), digest }).nullable(),
    packs: z
      .array(z.object({ pack: z.string(), layer: z.enum(['org', 'team']), kind: z.enum(['guard', 'grant']), digest }))
      .readonly(),
    refused: findings,
    warnings: findings,
  }),
  configuration: z.union([z.object({ ok: z.literal(true) }), z.object({ ok: z.literal(false), problem: z.string() })]),
})

/** Everything of a token but the token. Times are RFC 3339. */
const tokenRow = z.object({
  token_id: z.string(),
  tenant: z.string(),
  subject: z.string(),
  type: z.enum(['user', 'service']),
  agent: z.string(),
  roles: texts,
  created: z.string(),
  expires: z.string(),
  revoked: z.string().nullable(),
})

const schemas = {
  status: { asked: nothing, answered: status },
  /** Answered before the broker stops. */
  stop: { asked: nothing, answered: z.object({ pid: z.int().min(1) }) },
  /** Reads policy, catalog and configuration again. */
  reload: { asked: nothing, answered: status },
  /** The approval, and the text that is shown and signed for. */
  approval: {
    asked: z.strictObject({ approval_id: z.string() }),
    answered: z.object({ approval, payload: z.string(), origin: z.string(), stages }),
  },
  /** A piece of a file of the plan that waits, from a byte on. `bytes` is base64; `sha256` is of the whole file. */
  approval_file: {
    asked: z.strictObject({ approval_id: z.string(), path: z.string(), from: z.int().min(0) }),
    answered: z.object({ size: z.int().min(0), sha256: digest, bytes: z.base64() }),
  },
  /** A signed statement. */
  answer: {
    asked: z.strictObject({ jws: z.string() }),
    answered: z.object({ approval_id: approvalId, state, execution_id: executionId, stages }),
  },
  /** An empty reason is none. Answered as `cancel_execution` is. */
  cancel: {
    asked: z.strictObject({ execution_id: z.string(), reason: z.string().max(1000) }),
    answered: z.looseObject({ state: z.string(), final: z.boolean() }),
  },
  /** The answer is the only place the token ever stands. */
  token_create: {
    asked: z.strictObject({
      tenant: z.string(),
      subject: z.strictObject({ type: z.enum(['user', 'service']), id: z.string() }),
      agent: z.string(),
      roles: texts,
      valid_ms: z.number(),
    }),
    answered: tokenRow.extend({ token: z.string() }),
  },
  token_list: { asked: nothing, answered: z.object({ tokens: z.array(tokenRow).readonly() }) },
  token_revoke: { asked: z.strictObject({ token_id: z.string() }), answered: tokenRow },
} as const

export type Method = keyof typeof schemas
export type Asked<M extends Method> = z.output<(typeof schemas)[M]['asked']>
export type Answered<M extends Method> = z.output<(typeof schemas)[M]['answered']>

export const protocol: {
  readonly [M in Method]: { readonly asked: z.ZodType<Asked<M>>; readonly answered: z.ZodType<Answered<M>> }
} = schemas

export function isMethod(name: unknown): name is Method {
  return typeof name === 'string' && Object.hasOwn(protocol, name)
}

/** The broker's side. */
export type ControlMethods = { readonly [M in Method]: (asked: Asked<M>) => Promise<Answered<M>> }

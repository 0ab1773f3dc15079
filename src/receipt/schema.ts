import * as z from 'zod'

/**
 * The members a receipt may have, kind by kind (docs/receipts.md). A member that is not listed is refused: what a
 * client claimed could otherwise stand beside what the broker saw.
 */

export const statementType = 'https://in-toto.io/Statement/v1'
export const predicateType = 'urn:writ:receipt:v1'
export const audience = 'urn:writ:aud:receipt'

/** What the plan is called among the subjects of a receipt. */
export const planSubject = 'plan'

const index = z.int().min(0)
const digest = z.string().regex(/^sha256:[0-9a-f]{64}$/)
const hash = z.string().regex(/^[A-Za-z0-9_-]{43}$/)
const code = z.string().regex(/^[a-z][a-z0-9_.-]{0,63}$/)
/** What stands for something too long to stand in a receipt. */
const manifest = z.strictObject({ digest, count: index })
const name = z.union([z.string().max(256), manifest])
const reference = z.strictObject({ digest, index })

function list<T extends z.ZodType>(item: T) {
  return z.union([z.array(item).max(8), manifest])
}

const isolation = z.enum(['host', 'process', 'namespaces', 'container', 'user-kernel', 'vm'])
const head = z.strictObject({ origin: z.string(), size: index, root: z.string().regex(/^[A-Za-z0-9+/]{43}=$/) })
const common = {
  log: head,
  asserted: z
    .record(z.string().max(64), z.union([z.string().max(256), z.int(), z.boolean(), z.null(), manifest]))
    .optional(),
  _sd: z.array(hash).min(1).max(16).optional(),
}

const decisionPredicate = z.strictObject({
  ...common,
  kind: z.literal('decision'),
  invocationId: z.string().max(64),
  result: z.enum(['allow', 'deny', 'pending', 'error']),
  decision: z.string().max(64),
  target_ref: name,
  intent: name,
  isolation,
  lanes: list(z.string().max(32)),
  generation: index,
  policy: digest,
  input: digest,
  requirement: digest.nullable(),
  approvals: list(reference),
})

const approvalPredicate = z.strictObject({
  ...common,
  kind: z.literal('approval'),
  invocationId: z.string().max(64),
  verdict: z.enum(['approve', 'reject']),
  stage: name,
  evidence: z.enum(['passkey', 'key', 'bearer']),
  statement: digest,
  requirement: digest,
})

const outcomePredicate = z.strictObject({
  ...common,
  kind: z.literal('outcome'),
  invocationId: z.string().max(64),
  decisionRef: reference,
  status: z.enum([
    'denied',
    'rejected',
    'expired',
    'superseded',
    'succeeded',
    'failed',
    'timed_out',
    'cancelled',
    'unknown',
  ]),
  effect: z.enum(['observed', 'dispatched', 'none']),
  exits: list(z.int().nullable()),
  counts: z.strictObject({
    output_bytes: index,
    dropped_bytes: index,
    redactions: index,
    egress_allowed: index,
    egress_blocked: index,
    files: index,
    withheld_files: index,
  }),
  revocation: z.enum(['done', 'pending']),
  isolation: isolation.nullable(),
})

const denialsPredicate = z.strictObject({
  ...common,
  kind: z.literal('denials'),
  from: index,
  until: index,
  counts: z.union([z.record(code, index), manifest]),
  inputs: z.strictObject({ root: z.string().regex(/^[A-Za-z0-9+/]{43}=$/), count: index }),
})

const policyPredicate = z.strictObject({
  ...common,
  kind: z.literal('policy'),
  what: z.enum(['generation', 'approvers', 'token']),
  reason: code,
  generation: index.optional(),
  modules: list(digest).optional(),
  count: index.optional(),
})

const keyPredicate = z.strictObject({
  ...common,
  kind: z.literal('key'),
  reason: code,
  outgoing: hash,
  incoming: hash,
  /** A `writ-keys+jwt` of the root: the outgoing key's last and the incoming key's first index. */
  change: z.string().max(8192),
})

const genesisPredicate = z.strictObject({
  ...common,
  kind: z.literal('genesis'),
  root: hash,
  keys: z
    .array(z.strictObject({ kid: hash, role: z.enum(['root', 'receipt', 'log']), from: index }))
    .min(1)
    .max(8),
})

const predicates = z.discriminatedUnion('kind', [
  decisionPredicate,
  approvalPredicate,
  outcomePredicate,
  denialsPredicate,
  policyPredicate,
  keyPredicate,
  genesisPredicate,
])

export const claimsShape = z.strictObject({
  iss: z.string(),
  sub: z.string().max(256).optional(),
  act: z.strictObject({ sub: z.string().max(256) }).optional(),
  aud: z.literal(audience),
  iat: index,
  toe: index,
  jti: z.string().regex(/^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/),
  txn: z.string().max(64).optional(),
  _type: z.literal(statementType),
  subject: z
    .array(
      z.strictObject({
        name: z.string().max(256),
        digest: z.strictObject({ sha256: z.string().regex(/^[0-9a-f]{64}$/) }),
      }),
    )
    .min(1)
    .max(8),
  predicateType: z.literal(predicateType),
  predicate: predicates,
  _sd_alg: z.literal('sha-256').optional(),
})

export type Claims = z.infer<typeof claimsShape>
export type DecisionPredicate = z.infer<typeof decisionPredicate>
export type ApprovalPredicate = z.infer<typeof approvalPredicate>
export type OutcomePredicate = z.infer<typeof outcomePredicate>
export type PolicyPredicate = z.infer<typeof policyPredicate>
export type KeyPredicate = z.infer<typeof keyPredicate>

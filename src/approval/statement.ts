import { randomBytes } from 'node:crypto'
import { z } from 'zod'
import { canonical, type Digest, parseDigest } from '../digest.ts'
import { WritError } from '../error.ts'
import { parseId } from '../id.ts'
import {
  type CompactJws,
  JwsError,
  parseCompact,
  parsePayload,
  type PublicKey,
  publicKey,
  verifyEd25519,
} from '../jws.ts'
import type { Approval, Approver, Statement, Verdict, VerdictWord } from './approval.ts'
import { eligible } from './requirement.ts'

const digest = z.string().transform((text, context) => parseDigest(text) ?? refuse(context))
const seconds = z.int().min(0)

function refuse(context: { issues: unknown[] }): never {
  context.issues.push({ code: 'custom', message: 'malformed', input: null })
  return z.NEVER
}

/** What is signed, as it is read. */
export const statementShape = z.strictObject({
  typ: z.literal('writ-approval/v1'),
  log_origin: z.string().max(512),
  approval_id: z.string().transform((text, context) => parseId('apr', text) ?? refuse(context)),
  execution_id: z.string().transform((text, context) => parseId('exec', text) ?? refuse(context)),
  plan: digest,
  requirement: digest,
  stage: z.string().max(128),
  verdict: z.enum(['approve', 'reject']),
  shown: digest,
  reason: z.string().max(4096),
  nonce: z.string().regex(/^[0-9a-f]{32}$/),
  issued_at: seconds,
  expires_at: seconds,
  max_uses: z.literal(1),
})

/** The statement an approver signs over: its RFC 8785 bytes. `shown` is the digest of the text that was displayed. */
export function makeStatement(options: {
  readonly approval: Approval
  readonly origin: string
  readonly stage: string
  readonly verdict: VerdictWord
  readonly shown: Digest
  readonly reason: string
  readonly nowMs: number
}): Statement {
  const { approval } = options
  return {
    typ: 'writ-approval/v1',
    log_origin: options.origin,
    approval_id: approval.id,
    execution_id: approval.execution,
    plan: approval.plan,
    requirement: approval.requirement_digest,
    stage: options.stage,
    verdict: options.verdict,
    shown: options.shown,
    reason: options.reason,
    nonce: approval.nonce,
    issued_at: Math.floor(options.nowMs / 1000),
    expires_at: Math.floor(approval.expires_at_ms / 1000),
    max_uses: 1,
  }
}

/** What a statement JWS says, not yet believed. Rejects `approval_refused` where it is not one. */
export function readStatement(jws: string): Statement {
  return open(jws).statement
}

function open(jws: string): { readonly parsed: CompactJws; readonly statement: Statement } {
  try {
    const parsed = parseCompact(jws, 'writ-approval+jwt')
    const claims = parsePayload(parsed.payloadBytes)
    const statement = statementShape.safeParse(claims)
    // One spelling only: what is signed is the canonical form, so what is read back is what was signed.
    if (!statement.success || canonical(claims) !== parsed.payloadBytes.toString('utf8'))
      throw new WritError(
        'approval_refused',
        'The signed statement is not a writ-approval/v1 statement in canonical form.',
      )
    return { parsed, statement: statement.data }
  } catch (error) {
    if (error instanceof JwsError)
      throw new WritError('approval_refused', `The statement is not a signed approval (${error.code}).`)
    throw error
  }
}

/** How far an approver's clock may be ahead of the broker's. */
const skewS = 120

/**
 * Believes a statement: signed by an enrolled key, for this very approval, plan, requirement and text, in time, by
 * somebody who holds a role of the stage and is not excluded. Returns who it is; rejects `approval_refused` with the reason.
 */
export function checkStatement(
  jws: string,
  against: {
    readonly approval: Approval
    readonly approvers: readonly Approver[]
    readonly shown: Digest
    readonly origin: string
    readonly nowMs: number
  },
): Approver {
  const { parsed, statement } = open(jws)
  const { approval } = against
  const by = against.approvers.find((approver) => keyOf(approver)?.kid === parsed.header.kid)
  const key = by === undefined ? null : keyOf(by)
  if (by === undefined || key === null)
    throw new WritError('approval_refused', 'The key is not one of an enrolled approver.')
  if (!verifyEd25519(key, parsed.signingInput, parsed.signature))
    throw new WritError('approval_refused', 'The signature is not valid.')
  const bound: readonly (readonly [keyof Statement, unknown])[] = [
    ['log_origin', against.origin],
    ['approval_id', approval.id],
    ['execution_id', approval.execution],
    ['plan', approval.plan],
    ['requirement', approval.requirement_digest],
    ['nonce', approval.nonce],
    ['expires_at', Math.floor(approval.expires_at_ms / 1000)],
  ]
  for (const [name, value] of bound)
    if (statement[name] !== value)
      throw new WritError('approval_refused', `The statement is for another approval: "${name}" differs.`)
  if (statement.shown !== against.shown)
    throw new WritError('approval_refused', 'What was shown is not what waits now; read the approval again.')
  const nowS = Math.floor(against.nowMs / 1000)
  if (statement.issued_at > nowS + skewS || statement.issued_at < Math.floor(approval.opened_at_ms / 1000) - skewS)
    throw new WritError('approval_refused', 'The statement was made at a time that cannot be; check the clock.')
  // A clock that is ahead says it was made after its own end: no verifier believes that later.
  if (statement.issued_at > statement.expires_at)
    throw new WritError('approval_refused', 'The statement was made after its own end; check the clock.')
  if (nowS >= statement.expires_at) throw new WritError('approval_refused', 'This approval has expired.')
  if (!approval.requirement.evidence.includes('key'))
    throw new WritError('approval_refused', 'This approval does not take a key as evidence.')
  const stage = approval.requirement.stages.find((candidate) => candidate.id === statement.stage)
  if (stage === undefined) throw new WritError('approval_refused', 'This approval has no such stage.')
  if (!eligible(approval, stage, against.approvers).some((approver) => approver.subject === by.subject))
    throw new WritError(
      'approval_refused',
      'This person may not answer this stage: the role is missing, or whoever asked is excluded.',
    )
  return by
}

/** An enrolled key that is not sound (a point of small order, under which one signature fits all) is nobody's. */
function keyOf(approver: Approver): PublicKey | null {
  try {
    return publicKey(approver.key)
  } catch (error) {
    if (error instanceof JwsError) return null
    throw error
  }
}

/**
 * Whether what was believed when it came is a statement by the key this approver has now: read and verified again, so that
 * nobody who can write to the ledger, and has no key, can put a verdict there.
 */
export function signedBy({ jws, statement }: Pick<Verdict, 'jws' | 'statement'>, approver: Approver): boolean {
  const key = keyOf(approver)
  if (jws === null || key === null) return false
  try {
    const { parsed, statement: signed } = open(jws)
    if (key.kid !== parsed.header.kid || canonical(signed) !== canonical(statement)) return false
    return verifyEd25519(key, parsed.signingInput, parsed.signature)
  } catch (failure) {
    // What cannot be read any more is nobody's word.
    if (failure instanceof WritError) return false
    throw failure
  }
}

/** 128 random bits in hex. */
export function newNonce(): string {
  return randomBytes(16).toString('hex')
}

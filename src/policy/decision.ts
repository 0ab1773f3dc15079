import { canonical, digestJson } from '../digest.ts'
import type { Digest } from '../digest.ts'
import type { DecisionId } from '../id.ts'
import type { Decision, DecisionErrorCode, Effect, Finding, Generation, Phase, Reason, Requirement } from './policy.ts'

export type HostCode =
  | DecisionErrorCode
  | 'not_granted'
  | 'isolation_too_weak'
  | 'egress_too_open'
  | 'unsupported_obligation'
  | 'approval_impossible'
  | 'rejected'

export type Sentence = Omit<Reason, 'ref'>

const again = 'Try again in a minute; if it stays, quote the ref to the operator of this Writ.'
const ask = 'Quote the ref to the operator of this Writ.'

/** What a caller is told where no rule speaks: the same words whichever pack it was. */
const sentences: Readonly<Record<HostCode, readonly [message: string, remedy: string]>> = {
  policy_undefined: ['Policy gave no answer.', ask],
  policy_throw: ['Policy could not be evaluated.', ask],
  builtin_error: ['Policy could not be evaluated.', ask],
  output_schema: ['Policy gave an answer that cannot be used.', ask],
  input_rejected: [
    'The request is too large or not well-formed, so policy cannot decide it.',
    'Send less, in plain JSON.',
  ],
  deadline: ['Policy did not answer in time.', again],
  no_generation: ['No policy is in force.', ask],
  not_granted: ['No policy allows this.', 'Ask the operator of this Writ to allow it and quote the ref.'],
  isolation_too_weak: [
    'Policy asks for a stronger sandbox than this target has.',
    'Choose another target from list_targets, or quote the ref to the operator of this Writ.',
  ],
  egress_too_open: [
    'Policy asks for a more closed network than this target has.',
    'Choose another target from list_targets, or quote the ref to the operator of this Writ.',
  ],
  unsupported_obligation: ['Policy asks for something this Writ cannot do.', ask],
  approval_impossible: ['Policy asks for an approval that nobody can give.', ask],
  rejected: ['Somebody who was asked rejected this.', 'Ask the person who rejected it before you try again.'],
}

export function hostSentence(code: HostCode): Sentence {
  const [message, remedy] = sentences[code]
  return { code, message, remedy }
}

/** What the merge makes of the packs' answers: a decision without the particulars of the moment. */
export interface Merged {
  readonly effect: Effect
  readonly error: DecisionErrorCode | null
  readonly findings: readonly Finding[]
  readonly grants: readonly string[]
  readonly requirement: Requirement | null
  readonly limits: Decision['limits']
  readonly credentials: readonly string[]
  /** For the caller. Empty on allow. */
  readonly sentences: readonly Sentence[]
}

/** The merge's answer where no pack was asked: nothing is allowed, leased or granted. `detail` is for the operator. */
export function failed(code: DecisionErrorCode, detail = ''): Merged {
  const sentence = hostSentence(code)
  return {
    effect: 'error',
    error: code,
    findings: [
      { id: `writ/${code}`, layer: 'writ', kind: 'error', code, title: sentence.message, at: '', message: detail },
    ],
    grants: [],
    requirement: null,
    limits: {},
    credentials: [],
    sentences: [sentence],
  }
}

/** Reasons a caller reads at most; the rest stands in the findings. */
const maxReasons = 8

/** The decision document. Pure: the same arguments make the same bytes. */
export function makeDecision(parts: {
  readonly id: DecisionId
  readonly atMs: number
  readonly phase: Phase
  readonly merged: Merged
  readonly generation: Generation | null
  readonly inputDigest: Digest
}): Decision {
  const { merged, generation } = parts
  return {
    schema: 'writ.decision/v1',
    id: parts.id,
    at_ms: parts.atMs,
    phase: parts.phase,
    effect: merged.effect,
    error: merged.error,
    findings: merged.findings,
    grants: merged.grants,
    requirement: merged.requirement,
    requirement_digest: merged.requirement === null ? null : digestJson(merged.requirement),
    limits: merged.limits,
    credentials: merged.credentials,
    generation: generation?.number ?? 0,
    policy: generation?.digest ?? null,
    modules: (generation?.packs ?? []).map(({ pack, layer, digest }) => ({ pack, layer, digest })),
    input_digest: parts.inputDigest,
    reasons: merged.sentences.slice(0, maxReasons).map((sentence) => ({ ...sentence, ref: parts.id })),
  }
}

/**
 * RFC 8785 text of the part of a decision that its input and its modules determine: all but `id`, `at_ms`, the number of
 * the generation and the refs. Replaying a recorded input against the recorded modules gives the same bytes.
 */
export function replayText(decision: Decision): string {
  const { id: _id, at_ms: _at, generation: _generation, reasons, ...rest } = decision
  return canonical({ ...rest, reasons: reasons.map(({ code, message, remedy }) => ({ code, message, remedy })) })
}

/** A decision that asks people where nobody who is enrolled could answer: a denial, and no longer a question. */
export function withoutApprovers(decision: Decision): Decision {
  return {
    ...decision,
    effect: 'deny',
    reasons: [
      {
        code: 'no_eligible_approver',
        message: 'Policy asks people to approve this, and nobody enrolled may.',
        remedy: 'Ask the operator to enrol an approver: "writ approvals enroll NAME".',
        ref: decision.id,
      },
    ],
  }
}

/** An allow that stands on approvals counts only for the very requirement people answered; another is asked anew. */
export function pinned(decision: Decision, answered: Digest | null): Decision {
  const { effect, requirement_digest } = decision
  if (effect !== 'allow' || requirement_digest === null || requirement_digest === answered) return decision
  return { ...decision, effect: 'pending' }
}

import type { Admission, Message } from '../broker.ts'
import { WritError } from '../error.ts'
import { buildInput } from '../policy/input.ts'
import type { DecisionId } from '../id.ts'
import type { Decision, Effect, Reason } from '../policy/policy.ts'
import type { Caller } from '../request/caller.ts'
import { isMine, notFound, type Parts, unknownTarget } from './parts.ts'
import type { Refusals } from './refusals.ts'
import { policyArguments, type PolicyResource, resourceOf, targetResource } from './resource.ts'

/** Phase `request`: every message is decided before anything looks at it, reads, listings and discovery included. */
export async function admit(parts: Parts, refusals: Refusals, caller: Caller, message: Message): Promise<Admission> {
  const resource = resourceOf(parts.ledger.views, parts.catalog(), caller, message)
  const decision = await decideRequest(parts, caller, message, resource)
  if (decision.effect === 'allow') return { allowed: true }
  const reason = decision.reasons[0] ?? {
    code: 'denied',
    message: 'Policy denies this.',
    remedy: 'Quote the ref to the operator of this Writ.',
    ref: decision.id,
  }
  try {
    await refusals.note(caller, reason.code, decision)
  } catch (unwritten) {
    // The refusal stands either way; that it could not be recorded is the operator's to know.
    parts.log.error({ err: unwritten, ref: decision.id }, 'a refusal could not be recorded')
  }
  const ref = message.arguments['target_ref']
  const refused = decision.effect === 'deny' && resource.type === 'target'
  const hidden = refused && !(typeof ref === 'string' && (await mayView(parts, caller, ref)))
  return { allowed: false, reason: hidden ? hiddenTarget(decision.id) : seen(caller, resource, reason.ref, decision) }
}

/** A target the caller may not see is refused as one there is not, by whatever rule it is refused. */
function hiddenTarget(ref: DecisionId): Reason {
  const { code, message, remedy } = unknownTarget()
  return { code, message, remedy, ref }
}

/** A stranger's thing and a thing that does not exist are refused in the same words. */
function seen(
  caller: Caller,
  resource: PolicyResource,
  ref: string,
  decision: Decision,
): Extract<Admission, { allowed: false }>['reason'] {
  const { owner, tenant } = resource.properties
  const mine = owner !== null && tenant !== null && isMine(caller, { owner, tenant })
  switch (resource.type) {
    case 'none':
    case 'target':
    case 'service':
      break
    case 'task':
    case 'execution':
    case 'approval':
      if (!mine) return notFound(resource.type, decision.id)
      break
    case 'receipt':
      if (!mine) return notFound('receipt', decision.id)
      break
    case 'artifact':
      if (!mine) return notFound('file', decision.id)
      break
  }
  return (
    decision.reasons[0] ?? {
      code: 'denied',
      message: 'Policy denies this.',
      remedy: 'Quote the ref to the operator of this Writ.',
      ref,
    }
  )
}

export async function decideRequest(
  parts: Parts,
  caller: Caller,
  message: Message,
  resource: PolicyResource,
): Promise<Decision> {
  const nowMs = parts.clock.now()
  return await parts.policy.decide(
    buildInput({
      phase: 'request',
      caller,
      action: { name: message.name, arguments: policyArguments(message.arguments) },
      resource,
      nowMs,
      counters: parts.ledger.views.counters(caller.tenant, caller.subject.id, nowMs),
    }),
  )
}

/**
 * Whether there is such a target and it may be shown to the caller: an item of a listing is decided like anything else,
 * as action `view`.
 */
export async function mayView(parts: Parts, caller: Caller, ref: string): Promise<boolean> {
  return (await viewOf(parts, caller, ref)) === 'allow'
}

/** Rejects `unknown_target` where `mayView` says no, and `policy_unavailable` where nobody could say. */
export async function mustView(parts: Parts, caller: Caller, ref: string): Promise<void> {
  const effect = await viewOf(parts, caller, ref)
  if (effect === 'error') throw new WritError('policy_unavailable', 'whether a target may be seen could not be decided')
  if (effect !== 'allow') throw unknownTarget()
}

async function viewOf(parts: Parts, caller: Caller, ref: string): Promise<Effect> {
  const catalog = parts.catalog()
  const message = { name: 'view', arguments: {} }
  const { effect } = await decideRequest(parts, caller, message, targetResource(catalog, caller, ref))
  return effect === 'allow' && !catalog.targets.has(ref) ? 'deny' : effect
}

import type { Approval, Approver, Statement, Verdict } from '../approval/approval.ts'
import { payloadOf } from '../approval/payload.ts'
import { refuseVerdict, stageFor, standing } from '../approval/requirement.ts'
import { checkStatement, newNonce, readStatement } from '../approval/statement.ts'
import { canonical, type Digest, digestOf } from '../digest.ts'
import { WritError } from '../error.ts'
import { parseId } from '../id.ts'
import type { Entry } from '../ledger/ledger.ts'
import { buildInput } from '../policy/input.ts'
import type { Evidence } from '../policy/policy.ts'
import { approvalAccount } from '../receipt/account.ts'
import type { Arguments } from '../request/call.ts'
import type { Caller } from '../request/caller.ts'
import { closingEntries, unasserted } from './close.ts'
import { findApproval } from './found.ts'
import { nowOf, type Parts } from './parts.ts'
import { approvalResource } from './resource.ts'
import type { Runner } from './run.ts'
import { bytesOf } from './submit.ts'
import { inTurn } from './turn.ts'

/**
 * The approval with the text an approver has to be shown; its digest is what a statement's `shown` names.
 * @param tenant whose it has to be; null for enrolled approvers and the operator's terminal, who answer for every tenant
 */
export async function showApproval(
  parts: Parts,
  text: string,
  tenant: string | null,
): Promise<{ readonly approval: Approval; readonly payload: string }> {
  const approval = find(parts, text, tenant)
  const plan = parts.ledger.views.plan(approval.plan)
  if (plan === null) throw new WritError('ledger_corrupt', 'an approval without its plan')
  const before = parts.ledger.views.lastApprovedPlan(plan.task.id)
  return { approval, payload: await payloadOf({ approval, plan, before, bytesOf: bytesOf(parts) }) }
}

/** Bytes of a file that one answer to the operator's terminal holds. */
const pieceBytes = 1024 * 1024

/** A piece of any file of a plan that waits, however large: the payload shows no more than people read. */
export async function readPlanFile(
  parts: Parts,
  text: string,
  path: string,
  from: number,
): Promise<{ readonly size: number; readonly sha256: Digest; readonly bytes: Buffer }> {
  const file = parts.ledger.views.plan(find(parts, text, null).plan)?.files.find((one) => one.path === path)
  if (file === undefined)
    throw new WritError('not_found', 'The plan has no such file.', {
      remedy: 'Give a path as "writ approvals show" prints it.',
    })
  const bytes: Buffer[] = []
  let left = Math.min(pieceBytes, Math.max(0, file.size - from))
  if (left > 0)
    for await (const chunk of await parts.artifacts.open(file.sha256, from)) {
      const piece = Buffer.from(chunk as Uint8Array).subarray(0, left)
      bytes.push(piece)
      left -= piece.length
      if (left === 0) break
    }
  return { size: file.size, sha256: file.sha256, bytes: Buffer.concat(bytes) }
}

/** An enrolled approver's signed statement, from whatever channel it came. */
export async function answerWithKey(parts: Parts, runner: Runner, jws: string): Promise<Approval> {
  const statement = readStatement(jws)
  return await inTurn(`approval ${statement.approval_id}`, async () => {
    const { approval, payload } = await showApproval(parts, statement.approval_id, null)
    const by = checkStatement(jws, {
      approval,
      approvers: parts.approvers(),
      shown: digestOf(payload),
      origin: parts.origin,
      nowMs: nowOf(parts),
    })
    return await take(
      parts,
      runner,
      approval,
      { statement, by: by.subject, roles: by.roles, evidence: 'key', jws, at_ms: nowOf(parts) },
      personOf(approval, by, parts),
    )
  })
}

/** `respond_to_approval`: a confirmation in chat, and recorded as such. Only where the requirement takes `bearer`. */
export async function answerInChat(
  parts: Parts,
  runner: Runner,
  caller: Caller,
  args: Arguments['respond_to_approval'],
): Promise<Approval> {
  return await inTurn(`approval ${args.approval_id}`, async () => {
    const { approval, payload } = await showApproval(parts, args.approval_id, caller.tenant)
    if (args.plan_digest !== approval.plan)
      throw new WritError('plan_changed', '"plan_digest" is not the digest of the plan that waits.')
    if (!approval.requirement.evidence.includes('bearer'))
      throw new WritError('denied', 'This approval takes an approver’s own key, not a word in chat.', {
        remedy: `A person runs: writ approvals approve ${approval.id}`,
      })
    const excluded = new Set([...approval.excluded.subjects, ...approval.excluded.agents])
    if (excluded.has(caller.subject.id) || excluded.has(caller.agent.id))
      throw new WritError('denied', 'Whoever asked for this run may not approve it.', {
        remedy: 'Ask another person with the role.',
      })
    // Roles the caller holds now and this very token gives: another token of the same person lends it none.
    const held = parts.rolesOf(caller.tenant, caller.subject.id, caller.agent.id)
    const roles = caller.roles.filter((role) => held.includes(role))
    const stage = stageFor(approval, { subject: caller.subject.id, roles }, parts.approvers())
    if (stage === null)
      throw new WritError('denied', 'You hold no role this approval waits for.', { remedy: 'Ask a person who does.' })
    const nowMs = nowOf(parts)
    const statement: Statement = {
      typ: 'writ-approval/v1',
      log_origin: parts.origin,
      approval_id: approval.id,
      execution_id: approval.execution,
      plan: approval.plan,
      requirement: approval.requirement_digest,
      stage,
      verdict: args.verdict,
      shown: digestOf(payload),
      reason: args.reason,
      nonce: newNonce(),
      issued_at: Math.floor(nowMs / 1000),
      expires_at: Math.floor(approval.expires_at_ms / 1000),
      max_uses: 1,
    }
    return await take(
      parts,
      runner,
      approval,
      { statement, by: caller.subject.id, roles, evidence: 'bearer', jws: null, at_ms: nowMs },
      caller,
    )
  })
}

function find(parts: Parts, text: string, tenant: string | null): Approval {
  const { views } = parts.ledger
  const id = parseId('apr', text)
  const approval = tenant !== null ? findApproval(views, tenant, text) : id === null ? null : views.approval(id)
  if (approval === null) throw new WritError('not_found', 'There is no such approval among yours.')
  return approval
}

function personOf(approval: Approval, by: Approver, parts: Parts): Caller {
  return {
    tenant: approval.tenant,
    subject: { type: 'user', id: by.subject },
    roles: by.roles,
    agent: { id: 'none', asserted: { client: '', version: '' } },
    auth: { method: 'socket', atMs: parts.clock.now(), shown: null },
  }
}

/** Phase `approval` decides whether this verdict may count at all; then verdict, receipt and what follows from it are one transaction. */
async function take(
  parts: Parts,
  runner: Runner,
  approval: Approval,
  verdict: Verdict,
  person: Caller,
): Promise<Approval> {
  const nowMs = nowOf(parts)
  refuseVerdict(approval, verdict.by, verdict.statement.stage, verdict.statement.verdict, nowMs)
  const execution = parts.ledger.views.execution(approval.execution)
  const plan = parts.ledger.views.plan(approval.plan)
  const task = execution === null ? null : parts.ledger.views.task(execution.task)
  if (execution === null || plan === null || task === null)
    throw new WritError('ledger_corrupt', 'an approval without its execution')
  const input = buildInput({
    phase: 'approval',
    caller: person,
    action: {
      name: 'respond_to_approval',
      arguments: { approval_id: approval.id, verdict: verdict.statement.verdict },
    },
    resource: approvalResource(parts.ledger.views, person.tenant, approval.id),
    nowMs,
    counters: parts.ledger.views.counters(person.tenant, person.subject.id, nowMs),
    task: { ...task, files: plan.files },
    plan: { plan, digest: approval.plan },
    verdict: {
      approval_id: approval.id,
      stage: verdict.statement.stage,
      verdict: verdict.statement.verdict,
      evidence: verdict.evidence satisfies Evidence,
      requirement: approval.requirement_digest,
    },
  })
  const decision = await parts.policy.decide(input)
  if (decision.effect !== 'allow')
    throw new WritError('approval_refused', decision.reasons[0]?.message ?? 'Policy does not take this verdict.', {
      remedy: decision.reasons[0]?.remedy ?? 'Ask the operator of this Writ.',
    })
  // Policy took its time, which may have been the rest of it.
  refuseVerdict(approval, verdict.by, verdict.statement.stage, verdict.statement.verdict, nowOf(parts))

  const after: Approval = { ...approval, verdicts: [...approval.verdicts, verdict] }
  const stands = standing(after)
  const then: Entry[] = []
  if (stands.outcome === 'rejected') then.push(...closingEntries(parts, execution, 'rejected', 'rejected'))
  if (stands.outcome === 'satisfied') {
    const executeBy = nowMs + approval.requirement.execute_within_s * 1000
    then.push({ kind: 'approval_closed', approval: approval.id, state: 'satisfied', execute_by_ms: executeBy })
    then.push({ kind: 'state', execution: execution.id, state: 'queued', ran: false, reasons: [] })
  }
  const written = parts.ledger.append(
    { kind: 'decided', execution: execution.id, decision, input: canonical(input) },
    { kind: 'verdict', approval: approval.id, verdict },
    {
      kind: 'sign',
      execution: execution.id,
      account: approvalAccount(
        { execution: execution.id, plan, plan_digest: approval.plan, asserted: unasserted },
        verdict,
      ),
    },
    ...then,
  )
  await written.catch((unwritten: unknown) => {
    if (stands.outcome === 'satisfied') runner.doubt(execution.id)
    throw unwritten
  })
  if (stands.outcome === 'satisfied') runner.enqueue(execution.id)
  parts.changes.wake(execution.id)
  return parts.ledger.views.approval(approval.id) ?? after
}

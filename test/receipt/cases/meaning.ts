import { canonical, digestOf } from '../../../src/digest.ts'
import { newId } from '../../../src/id.ts'
import { generateKey, signCompact } from '../../../src/jws.ts'
import type { SigningKey } from '../../../src/jws.ts'
import { approvalAccount, decisionAccount, outcomeAccount } from '../../../src/receipt/account.ts'
import { generation, ref, sampleDecision, sampleReport, sampleRun, sampleVerdict } from '../sample.ts'
import type { SampleLog, SampleParts } from '../sample.ts'
import { whole } from './case.ts'
import type { Draft } from './case.ts'

export function pairs(log: SampleLog, { plain, asked }: SampleParts): readonly Draft[] {
  const end = (
    run: typeof plain.run,
    decision: { digest: ReturnType<typeof digestOf>; index: number },
    fork: SampleLog,
  ) =>
    outcomeAccount(run, {
      status: 'succeeded',
      ran: true,
      report: sampleReport,
      decision,
      revocation: 'done',
      at_ms: fork.nowMs,
    })
  const none = log.fork(2)
  none.add(end(sampleRun(), { digest: digestOf('x'), index: 1 }, none))
  const later = log.fork(3)
  later.add(end(plain.run, { digest: plain.decision.digest, index: 3 }, later))
  const second = log.fork(4)
  second.add(end(plain.run, ref(plain.decision), second))
  const crossed = log.fork(3)
  const other = sampleRun('0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f')
  const otherDecision = crossed.add(
    decisionAccount(other, sampleDecision('allow', crossed.nowMs), generation.digest, []),
  )
  crossed.add(end(plain.run, ref(otherDecision), crossed))
  const stale = log.fork(7)
  stale.add(end(asked.run, ref(asked.pending), stale))
  const denied = log.fork(9)
  const refused = sampleRun('abababababababababababababababab')
  const denial = denied.add(decisionAccount(refused, sampleDecision('deny', denied.nowMs), generation.digest, []))
  denied.add(end(refused, ref(denial), denied))
  const reopened = log.fork(4)
  reopened.add(decisionAccount(plain.run, sampleDecision('allow', reopened.nowMs), generation.digest, []))
  const again = log.fork(4)
  const rerun = { ...plain.run, execution: newId('exec') }
  const rerunDecision = again.add(decisionAccount(rerun, sampleDecision('allow', again.nowMs), generation.digest, []))
  again.add(end(rerun, ref(rerunDecision), again))
  const backdated = log.fork(3)
  backdated.forge(end(plain.run, ref(plain.decision), backdated), (payload) => {
    payload['toe'] = 1_700_000_000
  })
  const unknownPolicy = log.fork(4)
  unknownPolicy.add(
    decisionAccount(
      sampleRun('cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd'),
      sampleDecision('allow', unknownPolicy.nowMs),
      digestOf('another policy'),
      [],
    ),
  )
  const open = log.fork(3)
  return [
    { title: '57 an outcome without a decision', code: 'ORDER', log: whole(none) },
    { title: '57 an outcome of a decision that comes later', code: 'ORDER', log: whole(later) },
    { title: '57 an outcome that happened before its decision', code: 'ORDER', log: whole(backdated) },
    { title: '57 a run after a denial', code: 'ORDER', log: whole(denied) },
    { title: '57 a decision after the outcome', code: 'ORDER', log: whole(reopened) },
    { title: '58 an allowed run without an outcome', code: 'DANGLING', verdict: 'INCOMPLETE', log: whole(open) },
    {
      title: '58 control: the same run, listed open',
      code: null,
      verdict: 'VALID:LOGGED',
      log: whole(open),
      evidence: { open: [plain.run.execution] },
    },
    { title: '60 two outcomes of one decision', code: 'PAIR', log: whole(second) },
    { title: '60 an outcome that points at the decision of another run', code: 'PAIR', log: whole(crossed) },
    { title: '60 an outcome that points at a decision that was not the final one', code: 'PAIR', log: whole(stale) },
    {
      title: '60 an outcome beside the decision of another run',
      code: 'PAIR',
      receipt: plain.outcome.jws,
      evidence: { related: [asked.decision.jws] },
    },
    { title: '60 one plan run twice', code: 'PAIR', log: whole(again) },
    { title: '67 a policy that never came into force', code: 'POLICY_EPOCH', log: whole(unknownPolicy) },
  ]
}

export function approvals(log: SampleLog, { asked, approver }: SampleParts): readonly Draft[] {
  const decide = (fork: SampleLog, run = asked.run, used = [ref(asked.approval)]) =>
    fork.forge(
      decisionAccount(run, sampleDecision('allow', fork.nowMs, true), generation.digest, used),
      () => undefined,
    )
  const otherPlan = log.fork(6)
  decide(otherPlan, sampleRun('eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee'))
  const otherRequirement = log.fork(6)
  otherRequirement.forge(
    decisionAccount(asked.run, sampleDecision('allow', otherRequirement.nowMs, true), generation.digest, [
      ref(asked.approval),
    ]),
    (payload) => {
      payload.predicate['requirement'] = digestOf('fewer people')
    },
  )
  const notGiven = log.fork(6)
  decide(notGiven, asked.run, [])
  const notThere = log.fork(5)
  decide(notThere)
  const twice = log.fork(6)
  decide(twice)
  decide(twice)
  const rejected = log.fork(5)
  const no = sampleVerdict(asked.run, approver, log.origin, log.nowMs)
  const rejection = rejected.add(
    approvalAccount(asked.run, { ...no, statement: { ...no.statement, verdict: 'reject' } }),
  )
  decide(rejected, asked.run, [ref(rejection)])
  const statement = (change: object, key: SigningKey) => {
    const changed = { ...asked.verdict.statement, ...change } as typeof asked.verdict.statement
    const jws = signCompact('writ-approval+jwt', canonical(changed), key)
    const fork = log.fork(5)
    const receipt = fork.forge(approvalAccount(asked.run, { ...asked.verdict, jws }), () => undefined)
    return { receipt: receipt.jws, evidence: { statements: [jws], approvers: [approver.x] } }
  }
  const spaced = signCompact('writ-approval+jwt', JSON.stringify(asked.verdict.statement), approver)
  const loose = log.fork(5).add(approvalAccount(asked.run, { ...asked.verdict, jws: spaced })).jws
  const evidence = { statements: [asked.verdict.jws ?? ''], approvers: [approver.x] }
  return [
    { title: '62 an approval for another plan', code: 'APPROVAL_BIND', log: whole(otherPlan) },
    { title: '62 an approval of another requirement', code: 'APPROVAL_BIND', log: whole(otherRequirement) },
    { title: '62 a requirement nobody answered', code: 'APPROVAL_BIND', log: whole(notGiven) },
    { title: '62 an approval that is not in the log', code: 'APPROVAL_BIND', log: whole(notThere) },
    { title: '62 an approval used twice', code: 'APPROVAL_BIND', log: whole(twice) },
    { title: '62 a rejection used as an approval', code: 'APPROVAL_BIND', log: whole(rejected) },
    {
      title: '62 a decision beside the approval of another plan',
      code: 'APPROVAL_BIND',
      receipt: otherPlan.entries[6]?.jws ?? '',
      evidence: { related: [asked.approval.jws] },
    },
    {
      title: '62 a statement about another plan',
      code: 'APPROVAL_BIND',
      ...statement({ plan: digestOf('other') }, approver),
    },
    { title: '62 a statement about another stage', code: 'APPROVAL_BIND', ...statement({ stage: 'two' }, approver) },
    {
      title: '62 a statement for another log',
      code: 'APPROVAL_BIND',
      ...statement({ log_origin: 'https://other.example' }, approver),
    },
    { title: '62 a statement that says no', code: 'APPROVAL_BIND', ...statement({ verdict: 'reject' }, approver) },
    { title: '62 a statement for many uses', code: 'APPROVAL_BIND', ...statement({ max_uses: 9 }, approver) },
    {
      title: '62 a statement that had expired',
      code: 'APPROVAL_BIND',
      ...statement({ expires_at: asked.verdict.statement.issued_at - 1 }, approver),
    },
    {
      title: '64 a statement a stranger signed',
      code: 'UNKNOWN_APPROVER',
      verdict: 'UNTRUSTED',
      ...statement({}, generateKey()),
    },
    {
      title: '64 a statement a stranger signed in the name of an approver',
      code: 'APPROVAL_SIG',
      ...statement({}, { ...generateKey(), kid: approver.kid }),
    },
    {
      title: '64 a statement that is not in its canonical form',
      code: 'APPROVAL_SIG',
      receipt: loose,
      evidence: { statements: [spaced], approvers: [approver.x] },
    },
    {
      title: 'control: an approval with its statement',
      code: null,
      verdict: 'VALID:SIGNED',
      receipt: asked.approval.jws,
      evidence,
    },
    {
      title: 'control: a log with the statements of its approvals',
      code: null,
      verdict: 'VALID:LOGGED',
      log: whole(log),
      evidence,
    },
  ]
}

import { canonical, digestJson, digestOf } from '../../../src/digest.ts'
import { generateKey, signCompact } from '../../../src/jws.ts'
import {
  approvalAccount,
  approversAccount,
  decisionAccount,
  outcomeAccount,
  policyAccount,
} from '../../../src/receipt/account.ts'
import { signKeySet } from '../../../src/receipt/keyset.ts'
import { generation, ref, sampleDecision, sampleReport, sampleRun } from '../sample.ts'
import type { Changeable, SampleLog, SampleParts } from '../sample.ts'
import { whole } from './case.ts'
import type { Draft } from './case.ts'

/** Receipts that contradict themselves, each other, or what stands before them, under good signatures. */

type Change = (payload: Changeable) => void
const predicate =
  (changes: Readonly<Record<string, unknown>>): Change =>
  (payload) => {
    Object.assign(payload.predicate, changes)
  }
const members =
  (changes: Readonly<Record<string, unknown>>): Change =>
  (payload) => {
    Object.assign(payload, changes)
  }

/** A run allowed and ended in a history of its own, its end as `change` makes it. */
function ended(log: SampleLog, change: Change, report = sampleReport) {
  const fork = log.fork(9)
  const run = sampleRun('12'.repeat(16))
  const decision = fork.add(decisionAccount(run, sampleDecision('allow', fork.nowMs), generation.digest, []))
  const outcome = fork.forge(
    outcomeAccount(run, {
      status: 'succeeded',
      ran: true,
      report,
      decision: ref(decision),
      revocation: 'done',
      at_ms: fork.nowMs,
    }),
    change,
  )
  return { fork, decision, outcome }
}

export function endings(log: SampleLog): readonly Draft[] {
  const nothing = { effect: 'none', isolation: null, exits: [] }
  const plan = { subject: [{ name: 'plan', digest: { sha256: 'ab'.repeat(32) } }] }
  const refused: readonly (readonly [string, Change])[] = [
    ['a success of what never ran', predicate({ ...nothing })],
    ['an end that was denied and observed', predicate({ status: 'denied' })],
    ['an unknown end that was observed', predicate({ status: 'unknown' })],
    ['a success that nobody saw', predicate({ effect: 'dispatched' })],
    ['a time limit of what never ran', predicate({ ...nothing, status: 'timed_out' })],
    ['an isolation of what never ran', predicate({ ...nothing, status: 'failed', isolation: 'process' })],
    ['exits of what never ran', predicate({ ...nothing, status: 'failed', exits: [0] })],
    ['outputs of what never ran', predicate({ ...nothing, status: 'failed' })],
    ['an end that was seen in no isolation', predicate({ isolation: null })],
    ['a success with a step that was ended from outside', predicate({ exits: [null] })],
    ['a success without steps', predicate({ exits: [] })],
    ['more outputs than files', (p) => ((p.predicate['counts'] as Record<string, number>)['files'] = 0)],
    ['a subject that is neither plan nor output', members({ subject: [{ ...plan.subject[0], name: 'policy' }] })],
  ]
  const neverRan: Change = (payload) => {
    predicate({ ...nothing, status: 'failed' })(payload)
    members(plan)(payload)
  }
  const accepted: readonly (readonly [string, Change])[] = [
    ['a failure of what never ran', neverRan],
    [
      'a lost run of which no isolation was seen',
      predicate({ status: 'unknown', effect: 'dispatched', isolation: null }),
    ],
    ['a failure though each step did well', predicate({ status: 'failed' })],
  ]
  return [
    ...refused.flatMap(([title, change]): Draft[] => {
      const { fork, outcome } = ended(log, change)
      return [
        { title, code: 'PROFILE', log: whole(fork) },
        { title: `${title}, one receipt alone`, code: 'PROFILE', receipt: outcome.jws },
      ]
    }),
    ...accepted.map(([title, change]): Draft => {
      const { outcome } = ended(log, change)
      return { title: `control: ${title}`, code: null, verdict: 'VALID:SIGNED', receipt: outcome.jws }
    }),
  ]
}

export function crossed(log: SampleLog, { plain }: SampleParts): readonly Draft[] {
  const noFiles = { ...sampleReport, files: [] }
  const otherPlan = members({ subject: [{ name: 'plan', digest: { sha256: 'ab'.repeat(32) } }] })
  const pairs: readonly (readonly [string, Change, typeof sampleReport])[] = [
    ['60 an outcome of another plan than its decision', otherPlan, noFiles],
    ['60 an outcome on behalf of another than its decision', members({ sub: 'mallory' }), sampleReport],
    ['60 an outcome through another agent than its decision', members({ act: { sub: 'other' } }), sampleReport],
  ]
  const policy = (change: Change) => {
    const fork = log.fork(9)
    const { number } = generation
    const receipt = fork.forge(policyAccount({ ...generation, number: number + 1 }, fork.nowMs), change)
    return { code: 'PROFILE' as const, receipt: receipt.jws }
  }
  const approvers = log.fork(9)
  const set = { digest: digestJson([]), approvers: [] }
  approvers.forge(approversAccount(set, approvers.nowMs), predicate({ generation: 7 }))
  const secondDigest = log.fork(9)
  secondDigest.add(policyAccount({ ...generation, digest: digestOf('generation 1, once more') }, secondDigest.nowMs))
  const again = log.fork(9)
  again.add(policyAccount(generation, again.nowMs))
  const doubled = log.fork(9)
  const twice = doubled.forge(
    decisionAccount(plain.run, sampleDecision('deny', doubled.nowMs), generation.digest, []),
    ({ predicate: it }) => {
      const [first] = it['_sd'] as string[]
      it['_sd'] = [first, first]
    },
  )
  return [
    ...pairs.flatMap(([title, change, report]): Draft[] => {
      const { fork, decision, outcome } = ended(log, change, report)
      return [
        { title, code: 'PAIR', log: whole(fork) },
        { title: `${title}, beside it`, code: 'PAIR', receipt: outcome.jws, evidence: { related: [decision.jws] } },
      ]
    }),
    { title: '67 one generation with two digests', code: 'POLICY_EPOCH', log: whole(secondDigest) },
    { title: '67 control: one generation told of twice', code: null, verdict: 'VALID:LOGGED', log: whole(again) },
    { title: 'a token with a generation of policy', ...policy(predicate({ what: 'token' })) },
    { title: 'a generation without its number', ...policy((p) => void delete p.predicate['generation']) },
    { title: 'a generation with a count of approvers', ...policy(predicate({ count: 1 })) },
    { title: 'a set of approvers with a generation', code: 'PROFILE', receipt: approvers.entries[9]?.jws ?? '' },
    { title: 'one withheld member twice', code: 'PROFILE', receipt: twice.jws },
  ]
}

export function assents(log: SampleLog, { asked, approver }: SampleParts): readonly Draft[] {
  const decide = (fork: SampleLog, used: readonly ReturnType<typeof ref>[], effect: 'allow' | 'pending' | 'deny') =>
    fork.forge(
      decisionAccount(asked.run, sampleDecision(effect, fork.nowMs, true), generation.digest, used),
      () => undefined,
    )
  const repeated = log.fork(6)
  const second = repeated.add(approvalAccount(asked.run, asked.verdict))
  decide(repeated, [ref(asked.approval), ref(second)], 'allow')
  const counted = log.fork(6)
  decide(counted, [ref(asked.approval), ref(asked.approval)], 'allow')
  const nowhere = { digest: digestOf('nothing'), index: 3 }
  const [deny, pending] = (['deny', 'pending'] as const).map((effect) => {
    const fork = log.fork(6)
    decide(fork, [nowhere], effect)
    return fork
  })
  const unasked = log.fork(6)
  unasked.forge(
    decisionAccount(asked.run, sampleDecision('deny', unasked.nowMs), generation.digest, []),
    predicate({ approvals: [ref(asked.approval)] }),
  )
  const partly = log.fork(6)
  decide(partly, [ref(asked.approval)], 'pending')
  const behalf = log.fork(5)
  const stranger = behalf.forge(approvalAccount(asked.run, asked.verdict), members({ sub: 'mallory' }))
  decide(behalf, [ref(stranger)], 'allow')
  const many = (requirement: string | null) => {
    // A list too long for the receipt is a digest of the last ones of its own requirement, whatever was answered before.
    const fork = log.fork(5)
    const answer = (nonce: number, of?: string) => {
      const statement = { ...asked.verdict.statement, nonce: nonce.toString(16).padStart(32, '0') }
      const jws = signCompact('writ-approval+jwt', canonical(statement), approver)
      const account = approvalAccount(asked.run, { ...asked.verdict, statement, jws })
      return ref(fork.forge(account, of === undefined ? () => undefined : predicate({ requirement: of })))
    }
    if (requirement !== null) answer(1, requirement)
    const used = Array.from({ length: 9 }, (_, at) => answer(at + 2))
    decide(fork, used, 'allow')
    return fork
  }
  const open = { open: [asked.run.execution] }
  const late = (seconds: number) => {
    const statement = { ...asked.verdict.statement, issued_at: asked.verdict.statement.issued_at + seconds }
    const jws = signCompact('writ-approval+jwt', canonical(statement), approver)
    const receipt = log.fork(5).add(approvalAccount(asked.run, { ...asked.verdict, statement, jws }))
    return { receipt: receipt.jws, evidence: { statements: [jws], approvers: [approver.x] } }
  }
  return [
    { title: '62 one statement behind two approvals', code: 'APPROVAL_BIND', log: whole(repeated) },
    { title: '62 one approval counted twice by one decision', code: 'APPROVAL_BIND', log: whole(counted) },
    { title: '62 a denial that names an approval that is not there', code: 'APPROVAL_BIND', log: whole(deny ?? log) },
    {
      title: '62 a question that names an approval that is not there',
      code: 'APPROVAL_BIND',
      log: whole(pending ?? log),
    },
    { title: '62 approvals of what asked for none', code: 'APPROVAL_BIND', log: whole(unasked) },
    {
      title: '62 control: a question that names the answers so far',
      code: null,
      verdict: 'VALID:LOGGED',
      log: whole(partly),
    },
    { title: '62 an approval on behalf of another', code: 'APPROVAL_BIND', log: whole(behalf) },
    {
      title: '62 control: nine approvals, beside one of an earlier requirement',
      code: null,
      verdict: 'VALID:LOGGED',
      log: whole(many(digestOf('an earlier requirement'))),
      evidence: open,
    },
    {
      title: '62 control: nine approvals, after one of the same requirement that counted no more',
      code: null,
      verdict: 'VALID:LOGGED',
      log: whole(many(asked.verdict.statement.requirement)),
      evidence: open,
    },
    {
      title: '62 control: nine approvals',
      code: null,
      verdict: 'VALID:LOGGED',
      log: whole(many(null)),
      evidence: open,
    },
    { title: '62 a statement made after it was received', code: 'APPROVAL_BIND', ...late(500) },
    {
      title: '62 control: a statement of a clock two minutes ahead',
      code: null,
      verdict: 'VALID:SIGNED',
      ...late(118),
    },
  ]
}

export function keys(log: SampleLog): readonly Draft[] {
  const extra = generateKey()
  const fork = log.fork(9)
  fork.forge(policyAccount({ ...generation, number: 2 }, fork.nowMs), () => undefined, extra)
  const { set } = log.keys
  const entry = { x: extra.x, kid: extra.kid, role: 'receipt' as const, from: 0, until: null }
  const overlapping = signKeySet(log.keys.rootKey(), [...set.keys, entry], 1_795_000_000)
  const list = JSON.stringify({
    keys: [...(log.keys.jwks()['keys'] as object[]), { kty: 'OKP', crv: 'Ed25519', x: extra.x }],
  })
  return [
    {
      title: '55 a key set with two keys for receipts at one index',
      code: 'KEYS',
      verdict: 'UNTRUSTED',
      log: whole(fork),
      trust: { root: log.keys.fingerprint(), own: overlapping },
    },
    {
      title: '55 a log signed by a key that it did not bring',
      code: 'KEY_CHAIN',
      log: whole(fork),
      trust: { file: list },
    },
    {
      title: '55 control: that list with an honest log',
      code: null,
      verdict: 'VALID:LOGGED',
      log: whole(log),
      trust: { file: list },
    },
  ]
}

import * as fc from 'fast-check'
import { createLocalJWKSet, jwtVerify } from 'jose'
import type { JSONWebKeySet } from 'jose'
import { afterAll, describe, expect, it } from 'vitest'
import type { Verdict } from '../../src/approval/approval.ts'
import { canonical, digestJson, digestOf } from '../../src/digest.ts'
import type { JsonObject } from '../../src/digest.ts'
import { signCompact } from '../../src/jws.ts'
import {
  approvalAccount,
  approvalsUsed,
  approversAccount,
  decisionAccount,
  denialsAccount,
  outcomeAccount,
  policyAccount,
  statementDigest,
} from '../../src/receipt/account.ts'
import { openSigner } from '../../src/receipt/sign.ts'
import { openTrust } from '../../src/receipt/trust.ts'
import { verifyReceipt } from '../../src/receipt/verify.ts'
import { formatReport, inert } from '../../src/receipt/words.ts'
import {
  SampleLog,
  generation,
  ref,
  removeFolders,
  sampleDecision,
  sampleLog,
  samplePlan,
  sampleReport,
  sampleRun,
  sampleVerdict,
} from './sample.ts'

function payloadOf(jws: string): JsonObject {
  return JSON.parse(Buffer.from(jws.split('.')[1] ?? '', 'base64url').toString()) as JsonObject
}

function disclosed(disclosures: readonly string[]): Record<string, unknown> {
  return Object.fromEntries(
    disclosures.map((each) =>
      (JSON.parse(Buffer.from(each, 'base64url').toString()) as [string, string, unknown]).slice(1),
    ),
  ) as Record<string, unknown>
}

function attempt(sign: () => { readonly jws: string }): { readonly jws: string | null; readonly refused: unknown } {
  try {
    return { jws: sign().jws, refused: null }
  } catch (refused) {
    return { jws: null, refused }
  }
}

afterAll(removeFolders)

describe('a receipt', () => {
  const parts = sampleLog()
  const { log, plain, asked } = parts
  const trust = openTrust({ root: log.keys.fingerprint(), own: log.keys.jwt })

  it('is accepted by an ordinary JWT library', async () => {
    const keys = createLocalJWKSet(log.keys.jwks() as unknown as JSONWebKeySet)
    for (const { jws } of log.entries) {
      const { payload } = await jwtVerify(jws, keys, {
        typ: 'writ-receipt+jwt',
        algorithms: ['Ed25519'],
        audience: 'urn:writ:aud:receipt',
        issuer: log.origin,
      })
      expect(payload.jti).toMatch(/^[0-9a-f-]{36}$/)
    }
  })

  it('is an in-toto Statement v1 as well', () => {
    for (const { jws } of log.entries) {
      const statement = payloadOf(jws)
      expect(statement).toMatchObject({
        _type: 'https://in-toto.io/Statement/v1',
        predicateType: 'urn:writ:receipt:v1',
      })
      for (const subject of statement['subject'] as JsonObject[])
        expect(subject).toEqual({
          name: expect.any(String) as string,
          digest: { sha256: expect.stringMatching(/^[0-9a-f]{64}$/) as string },
        })
    }
  })

  it('has exactly the claims of the contract, and neither exp nor nbf', () => {
    expect(Object.keys(payloadOf(plain.decision.jws)).sort()).toEqual(
      [
        '_sd_alg',
        '_type',
        'act',
        'aud',
        'iat',
        'iss',
        'jti',
        'predicate',
        'predicateType',
        'subject',
        'sub',
        'toe',
        'txn',
      ].sort(),
    )
    expect(payloadOf(plain.decision.jws)).toMatchObject({
      sub: 'ada',
      act: { sub: 'assistant-7' },
      txn: plain.run.plan.task.id,
      iss: log.origin,
    })
    expect(payloadOf(asked.decision.jws)).toMatchObject({
      predicate: { invocationId: asked.run.execution, approvals: [ref(asked.approval)] },
    })
    expect(payloadOf(asked.outcome.jws)).toMatchObject({
      predicate: { invocationId: asked.run.execution, decisionRef: ref(asked.decision) },
    })
  })

  it('shows nothing of infrastructure, rules or approvers, and says all of it to auditors [G-receipt-withholds]', () => {
    for (const { jws } of log.entries)
      expect(Buffer.from(jws.split('.')[1] ?? '', 'base64url').toString()).not.toMatch(
        /secret|vault\.internal|rotate the staging/,
      )
    expect(disclosed(plain.decision.disclosures)).toMatchObject({
      rules: ['org/secretrule'],
      image: plain.run.plan.image,
      services: [{ name: 'vault-secretservice', url: 'https://vault.internal:8200' }],
      credentials: ['vault-secrettoken'],
      executor: 'isolate-secretname',
      limits: plain.run.plan.limits,
      hosts: [],
    })
    expect(disclosed(asked.approval.disclosures)).toMatchObject({
      approver: 'grace-secretapprover',
      roles: ['approver'],
    })
    expect(disclosed(plain.outcome.disclosures)).toMatchObject({
      files: sampleReport.files,
      output: sampleReport.output.sha256,
    })
    expect(JSON.stringify(payloadOf(plain.outcome.jws))).not.toContain(digestOf('small').slice(7))
  })

  it('has no digest of the policy input by which what is withheld could be guessed, and says to whoever has the plan which input it was [G-receipt-withholds]', () => {
    const { plan } = plain.run
    const decision = sampleDecision('allow', log.nowMs)
    const { clear } = decisionAccount(plain.run, decision, generation.digest, [])
    expect(JSON.stringify(clear)).not.toContain(decision.input_digest.slice('sha256:'.length))
    expect(clear['input']).toBe(digestJson([plan.nonce, decision.input_digest]))
    const other = { ...plain.run, plan: { ...plan, nonce: 'f'.repeat(32) } }
    expect(decisionAccount(other, decision, generation.digest, []).clear['input']).not.toBe(clear['input'])
  })

  it('withholds with fresh salts: equal values have unequal digests', () => {
    const two = [0, 1].map(() =>
      log.fork(2).add(decisionAccount(plain.run, sampleDecision('allow', log.nowMs), generation.digest, [])),
    )
    const withheld = two.flatMap(({ jws }) => (payloadOf(jws)['predicate'] as { _sd: string[] })._sd)
    expect(new Set(withheld).size).toBe(withheld.length)
    expect(withheld.slice(0, 9)).toEqual(withheld.slice(0, 9).sort())
    expect(verifyReceipt(`${two[0]?.jws}~${two[1]?.disclosures[0]}~`, trust).code).toBe('DISCLOSURE')
  })

  it('keeps what a client claimed under "asserted", a goal only as a digest nobody can guess', () => {
    const { asserted } = payloadOf(plain.decision.jws)['predicate'] as { asserted: JsonObject }
    expect(asserted).toEqual({
      client: 'claude-code',
      version: '3.1',
      goal: digestJson([plain.run.plan.nonce, plain.run.plan.task.goal]),
    })
    const run = { ...sampleRun(), asserted: { client: `a\u202e\u001b[2J\uffff\ud800${'x'.repeat(500)}`, version: '' } }
    const odd = log.fork(2).add(decisionAccount(run, sampleDecision('allow', log.nowMs), generation.digest, []))
    expect(verifyReceipt(odd.jws, trust).verdict).toBe('VALID:SIGNED')
    expect((payloadOf(odd.jws)['predicate'] as { asserted: { client: string } }).asserted.client).toMatch(
      /^[ -~\ufffd]{1,64}$/,
    )
  })

  it('fits 16 KiB and verifies, however much there is to account for [G-receipt-fits]', () => {
    fc.assert(
      fc.property(fc.nat(400), fc.nat(60), fc.string({ unit: 'grapheme', maxLength: 3000 }), (many, some, text) => {
        fc.pre(text.isWellFormed() && !/\p{Noncharacter_Code_Point}/u.test(text))
        const fork = log.fork(2)
        const plan = { ...samplePlan('0'.repeat(32)), intent: `${text}i`, target: { ref: text, about: '', labels: {} } }
        const run = { ...sampleRun(), plan: { ...plan, task: { ...plan.task, owner: text, agent: `${text}${text}` } } }
        const files = Array.from({ length: many }, (_, i) => ({
          path: `f${i}${text}`,
          sha256: digestOf(`${i}`),
          size: 5000,
        }))
        const steps = Array.from({ length: some }, (_, i) => ({ title: text, exit: i % 3 === 0 ? null : i, ms: 1.5 }))
        const approvals = Array.from({ length: some }, (_, index) => ({ digest: digestOf(`${index}`), index }))
        const receipts = [
          fork.add(decisionAccount(run, sampleDecision('deny', fork.nowMs), generation.digest, approvals)),
          fork.add(
            outcomeAccount(run, {
              status: 'failed',
              ran: true,
              report: { ...sampleReport, files, steps, reason: text },
              decision: ref(plain.decision),
              revocation: 'pending',
              at_ms: fork.nowMs,
            }),
          ),
          fork.add(
            denialsAccount({
              from_ms: 0,
              until_ms: 60_000,
              counts: Object.fromEntries(approvals.map(({ index }) => [`code_${index}`, index])),
              inputs: approvals.map(({ digest }) => digest),
              callers: [text],
            }),
          ),
          fork.add(approversAccount({ digest: digestOf('set'), approvers: [{ subject: text }] }, fork.nowMs)),
          fork.add(
            policyAccount(
              {
                ...generation,
                packs: Array.from({ length: some }, () => generation.packs[0]).filter((pack) => pack !== undefined),
              },
              fork.nowMs,
            ),
          ),
        ]
        for (const { jws } of receipts) {
          expect(jws.length).toBeLessThan(16 * 1024)
          expect(verifyReceipt(jws, trust)).toMatchObject({ verdict: 'VALID:SIGNED', code: null })
        }
      }),
      { numRuns: 15 },
    )
  })

  it('keeps the whole of a list that was too long where auditors find it', () => {
    const files = Array.from({ length: 9 }, (_, i) => ({ path: `f${i}`, sha256: digestOf(`${i}`), size: 5000 }))
    const steps = Array.from({ length: 9 }, (_, exit) => ({ title: 't', exit, ms: 1 }))
    const receipt = log.fork(3).add(
      outcomeAccount(plain.run, {
        status: 'failed',
        ran: true,
        report: { ...sampleReport, files, steps },
        decision: ref(plain.decision),
        revocation: 'done',
        at_ms: log.nowMs,
      }),
    )
    const exits = steps.map((step) => step.exit)
    const payload = payloadOf(receipt.jws)
    expect(payload['predicate']).toMatchObject({ exits: { digest: digestJson(exits), count: 9 } })
    const { manifests } = disclosed(receipt.disclosures) as { manifests: { exits: number[]; subject: unknown[] } }
    expect(manifests.exits).toEqual(exits)
    expect((payload['subject'] as { digest: { sha256: string } }[])[0]?.digest.sha256).toBe(
      digestJson(manifests.subject).slice(7),
    )
  })

  it('is never one its own verifier would refuse [G-signs-only-verifiable]', () => {
    const fork = log.fork(3)
    const account = policyAccount(generation, fork.nowMs)
    for (const wrong of [
      { ...account, clear: { ...account.clear, extra: 1 } },
      { ...account, clear: { ...account.clear, generation: 1.5 } },
      { ...account, subjects: [] },
      { ...account, kind: 'epoch' as const },
      { ...account, subject: '\ud800' },
    ])
      expect(() => fork.add(wrong)).toThrow(expect.objectContaining({ code: 'internal' }) as Error)
    expect(() => fork.add({ ...account, kind: 'genesis' })).toThrow(
      expect.objectContaining({ code: 'conflict' }) as Error,
    )
    expect(fork.head().size).toBe(3)
  })

  it('is, whatever members an account has, either not signed at all or one that verifies [G-signs-only-verifiable]', () => {
    const signer = openSigner(log.keys, { issuer: null })
    const account = policyAccount(generation, log.nowMs)
    const odd = fc.oneof(
      fc.string({ unit: 'binary', maxLength: 20 }),
      fc.constantFrom(
        '\ud800',
        '\ufffe',
        '"',
        '\\u0000',
        '__proto__',
        -0,
        0.5,
        1e21,
        2 ** 53,
        Number.NaN,
        undefined,
        null,
        true,
      ),
      fc.jsonValue({ maxDepth: 3 }),
      fc.date(),
    )
    const name = fc.oneof(
      fc.constantFrom('asserted', 'generation', 'reason', 'modules', 'count', '__proto__', '_sd', 'log', 'kind'),
      fc.string({ maxLength: 8 }),
    )
    const members = fc
      .array(fc.tuple(name, odd), { maxLength: 2 })
      .map((pairs) => Object.fromEntries(pairs) as JsonObject)
    let signed = 0
    fc.assert(
      fc.property(members, members, odd, (clear, asserted, subject) => {
        const wrong = {
          ...account,
          clear: { ...account.clear, ...clear },
          asserted,
          subject: (signed % 2 === 0 ? null : subject) as string | null,
        }
        const { jws, refused } = attempt(() => signer.sign(wrong, { ...log.head(), size: 4 }, log.nowMs))
        if (jws !== null) signed++
        expect(jws === null ? refused : verifyReceipt(jws, trust)).toMatchObject(
          jws === null ? { code: 'internal' } : { verdict: 'VALID:SIGNED', code: null },
        )
      }),
      { numRuns: 1500 },
    )
    expect(signed).toBeGreaterThan(50)
  })

  it('is not signed before it happened, also when the wall clock went back', () => {
    const signer = openSigner(log.keys, { issuer: null })
    const receipt = signer.sign(
      policyAccount(generation, 2_000_000_000_000),
      { ...log.head(), size: 4 },
      1_900_000_000_000,
    )
    expect(payloadOf(receipt.jws)).toMatchObject({ iat: 1_900_000_000, toe: 1_900_000_000 })
  })

  it('names the configured issuer, and only a verifier that expects another refuses it', () => {
    const signer = openSigner(log.keys, { issuer: 'https://writ.example/eu' })
    const { jws } = signer.sign(
      policyAccount(generation, log.nowMs),
      { ...log.head(), origin: 'https://writ.example/eu' },
      log.nowMs,
    )
    const pin = { root: log.keys.fingerprint(), own: log.keys.jwt }
    expect(verifyReceipt(jws, openTrust({ ...pin, issuer: 'https://writ.example/eu' })).verdict).toBe('VALID:SIGNED')
    expect(verifyReceipt(jws, openTrust({ ...pin, issuer: 'https://writ.example/us' })).code).toBe('ISS')
    expect(verifyReceipt(jws, trust).notShown[0]).toContain('no issuer was pinned')
    expect(() => signer.sign(policyAccount(generation, log.nowMs), log.head(), log.nowMs)).toThrow(
      'the head is that of another log',
    )
  })

  it('tells an outcome that was not seen from one where nothing ran', () => {
    const end = { report: null, decision: ref(plain.decision), revocation: 'done', at_ms: log.nowMs } as const
    const effects = [
      outcomeAccount(plain.run, { ...end, status: 'unknown', ran: true }),
      outcomeAccount(plain.run, { ...end, status: 'cancelled', ran: false }),
      outcomeAccount(plain.run, { ...end, status: 'cancelled', ran: true }),
    ].map((account) => account.clear['effect'])
    expect(effects).toEqual(['dispatched', 'none', 'observed'])
  })

  it('accounts for an approval on bearer evidence by its canonical statement', () => {
    const verdict = {
      ...sampleVerdict(asked.run, parts.approver, log.origin, log.nowMs),
      evidence: 'bearer' as const,
      jws: null,
    }
    expect(approvalAccount(asked.run, verdict).clear['statement']).toBe(digestJson(verdict.statement))
  })

  it('[G-approval-bound] is verified against the statement also where the name of the stage is too long to stand in it', () => {
    const { statement } = sampleVerdict(asked.run, parts.approver, log.origin, log.nowMs)
    const verdictOf = (stage: string): Verdict => {
      const signed = { ...statement, stage }
      const jws = signCompact('writ-approval+jwt', canonical(signed), parts.approver)
      return { statement: signed, by: 'grace', roles: ['approver'], evidence: 'key', jws, at_ms: log.nowMs }
    }
    const [owner, other] = [verdictOf('\u{5b98}'.repeat(100)), verdictOf('\u{5b98}'.repeat(99))]
    const verified = (said: Verdict, signed: Verdict) => {
      const account = approvalAccount(asked.run, said)
      const { jws } = log.fork(5).add({ ...account, clear: { ...account.clear, statement: statementDigest(signed) } })
      return verifyReceipt(jws, trust, { statements: [signed.jws ?? ''], approvers: [parts.approver.x] })
    }
    expect(verified(owner, owner)).toMatchObject({ verdict: 'VALID:SIGNED', checked: ['APPROVER'] })
    expect(verified(owner, other)).toMatchObject({ verdict: 'INVALID', code: 'APPROVAL_BIND' })
  })

  it('lists of all answers of a run those that policy was given and that said yes, and none where none was asked', () => {
    const fork = log.fork(5)
    const made = sampleVerdict(asked.run, parts.approver, log.origin, log.nowMs)
    const yes = { ...made, jws: null }
    const no = { ...yes, statement: { ...yes.statement, verdict: 'reject' as const } }
    const earlier = { ...yes, statement: { ...yes.statement, nonce: 'e'.repeat(32) } }
    const verdicts = [made, yes, no, earlier]
    const answers = verdicts.map((verdict) => fork.add(approvalAccount(asked.run, verdict)))
    const given = (...some: readonly Verdict[]) => new Set(some.map(statementDigest))
    const used = approvalsUsed([...answers, plain.decision], given(made, no))
    expect(used).toEqual(answers.slice(0, 1).map(ref))
    const later = approvalsUsed([...answers, plain.decision], given(yes, earlier))
    expect(later).toEqual([answers[1], answers[3]].flatMap((one) => (one === undefined ? [] : [ref(one)])))
    expect(approvalsUsed([...answers, plain.decision], given())).toEqual([])
    const asks = decisionAccount(asked.run, sampleDecision('allow', log.nowMs, true), generation.digest, used)
    const plainly = decisionAccount(asked.run, sampleDecision('allow', log.nowMs), generation.digest, used)
    expect([asks.clear['approvals'], plainly.clear['approvals']]).toEqual([used, []])
  })

  it('[G-approval-bound] is verified with approvals too many to stand in it where all of them are given, and claims none where some are missing', () => {
    const fork = log.fork(5)
    const answers = Array.from({ length: 10 }, (_, at) => {
      const made = sampleVerdict(asked.run, parts.approver, log.origin, log.nowMs)
      const statement = { ...made.statement, nonce: String(at).padStart(32, '0') }
      return fork.add(approvalAccount(asked.run, { ...made, jws: null, statement }))
    })
    const used = answers.slice(0, 9)
    const asks = sampleDecision('allow', fork.nowMs, true)
    const { jws } = fork.add(decisionAccount(asked.run, asks, generation.digest, used.map(ref)))
    const verified = (given: typeof answers) => verifyReceipt(jws, trust, { related: given.map((one) => one.jws) })
    const together = expect.stringContaining('its 9 approvals, all together')
    const whole = verified(used.toReversed())
    expect(whole).toMatchObject({ verdict: 'VALID:SIGNED', checked: used.map(() => 'APPROVAL') })
    expect(whole.refersTo).not.toContainEqual(together)
    for (const some of [used.slice(1), answers.slice(9)]) {
      const part = verified(some)
      expect(part).toMatchObject({ verdict: 'VALID:SIGNED', checked: [] })
      expect(part.refersTo).toContainEqual(together)
    }
    for (const wrong of [answers, answers.slice(1)])
      expect(verified(wrong)).toMatchObject({ verdict: 'INVALID', code: 'APPROVAL_BIND' })
  })

  it('counts codes together that a policy spelled as no code is, so that none of them stops the receipt', () => {
    const counts = { denied: 1, 'Not A Code': 2, '': 3, ['__proto__']: 4, ['x'.repeat(99)]: 5 }
    const account = denialsAccount({ from_ms: 0, until_ms: 1, counts, inputs: [digestOf('a')], callers: ['ada'] })
    expect(account.clear['counts']).toEqual({ denied: 1, other: 14 })
    expect(verifyReceipt(log.fork(2).add(account).jws, trust).verdict).toBe('VALID:SIGNED')
  })

  it('reads on a terminal as who, what, allowed by, ran in, end, what was not given and what it does not show', () => {
    const report = verifyReceipt(asked.outcome.jws, trust)
    const text = formatReport(report)
    expect(text).toMatch(/^VALID:SIGNED\n/)
    for (const line of [
      `key        ${log.keys.receiptKey(7).kid} (receipt), pinned by its root`,
      'who        ada, through agent assistant-7',
      `what       the end of ${asked.run.execution}, task ${asked.run.plan.task.id}`,
      `allowed by the decision at index 6 (${asked.decision.digest})`,
      'ran in     isolation process',
      'end        failed: its end was observed; exits 0; 120 bytes of output',
      `not given  the decision at index 6 (${asked.decision.digest})`,
      'not shown  that no action went past Writ',
    ])
      expect(text).toContain(`  ${line}`)
    const decision = formatReport(verifyReceipt(asked.decision.jws, openTrust({ own: log.keys.jwt })))
    expect(decision).toContain('self-pinned: this machine vouches for itself')
    expect(decision).toContain(`allowed by policy generation 1 (${generation.digest}), with the approvals at index 5`)
    const bad = formatReport(verifyReceipt(`${asked.outcome.jws.slice(0, -1)}=`, trust))
    expect(bad).toBe('INVALID ENCODING\n  why        a character outside base64url\n  trust      pinned by its root\n')
  })

  it('cannot repaint a terminal', () => {
    const log = new SampleLog()
    log.add(policyAccount(generation, log.nowMs))
    const run = sampleRun()
    const nasty = { ...run, plan: { ...run.plan, task: { ...run.plan.task, owner: 'a\u001b[2J\u202eb\u2028c' } } }
    const { jws } = log.add(decisionAccount(nasty, sampleDecision('allow', log.nowMs), generation.digest, []))
    const report = verifyReceipt(jws, openTrust({ own: log.keys.jwt }))
    expect(report.words?.who).toBe('a\\u{1b}[2J\\u{202e}b\\u{2028}c, through agent assistant-7')
    expect(inert('\u200b\u0000x')).toBe('\\u{200b}\\u{0}x')
  })
})

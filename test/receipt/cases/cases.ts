import { sampleLog } from '../sample.ts'
import type { SampleLog, SampleParts } from '../sample.ts'
import { partsOf, whole } from './case.ts'
import type { Case, Draft } from './case.ts'
import { envelope, keyAttacks, twin } from './envelope.ts'
import { claims } from './claims.ts'
import { assents, crossed, endings, keys } from './contradiction.ts'
import { epochs, history } from './log.ts'
import { approvals, pairs } from './meaning.ts'

export function buildCases(parts: SampleParts = sampleLog()): readonly Case[] {
  const { log, plain } = parts
  const trust = { root: log.keys.fingerprint(), own: log.keys.jwt }
  const drafts = [
    ...envelope(log, plain.decision.jws, parts),
    ...keyAttacks(log, plain.decision.jws),
    ...claims(log, parts),
    ...history(log, parts),
    ...epochs(log, parts),
    ...pairs(log, parts),
    ...approvals(log, parts),
    ...endings(log),
    ...crossed(log, parts),
    ...assents(log, parts),
    ...keys(log),
    ...honest(log, parts),
  ]
  return drafts.map((draft) => ({ trust, verdict: 'INVALID', ...draft }))
}

function honest(log: SampleLog, { plain, asked }: SampleParts): readonly Draft[] {
  const { decision, outcome } = plain
  const payload = Buffer.from(partsOf(decision.jws).payload, 'base64url')
  const valid = { code: null, verdict: 'VALID:SIGNED' } as const
  return [
    ...log.entries.map((receipt): Draft => ({
      title: `control: entry ${receipt.index}, ${receipt.kind}`,
      ...valid,
      receipt: receipt.jws,
    })),
    {
      title: 'control: the whole log',
      code: null,
      verdict: 'VALID:LOGGED',
      log: whole(log),
      evidence: { held: [decision.jws, asked.outcome.jws] },
    },
    { title: 'control: a key file', ...valid, receipt: decision.jws, trust: { file: JSON.stringify(log.keys.jwks()) } },
    {
      title: 'control: the root and the key file that "writ keys --json" prints',
      ...valid,
      receipt: decision.jws,
      trust: {
        root: log.keys.fingerprint(),
        file: JSON.stringify({ root_thumbprint: '', key_set: log.keys.jwt, jwks: log.keys.jwks() }),
      },
    },
    {
      title: 'control: a key file of an ordinary issuer',
      ...valid,
      receipt: decision.jws,
      trust: {
        file: JSON.stringify({
          keys: [
            { kty: 'RSA', n: 'AQAB', e: 'AQAB' },
            { kty: 'OKP', crv: 'Ed25519', x: log.keys.receiptKey(1).x, key_ops: ['verify'] },
          ],
        }),
      },
    },
    { title: 'control: self-pinned', ...valid, receipt: decision.jws, trust: { own: log.keys.jwt } },
    { title: 'control: with its disclosures', ...valid, receipt: `${decision.jws}~${decision.disclosures.join('~')}~` },
    {
      title: 'control: with its twin',
      ...valid,
      receipt: decision.jws,
      evidence: { twin: twin(payload, log.keys.receiptKey(2)) },
    },
    {
      title: 'control: an outcome with its decision',
      ...valid,
      receipt: outcome.jws,
      evidence: { related: [decision.jws] },
    },
    {
      title: 'control: a decision with its approval',
      ...valid,
      receipt: asked.decision.jws,
      evidence: { related: [asked.approval.jws] },
    },
  ]
}

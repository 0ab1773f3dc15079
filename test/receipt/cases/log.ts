import { generateKey } from '../../../src/jws.ts'
import { decisionAccount, outcomeAccount, policyAccount } from '../../../src/receipt/account.ts'
import { signKeySet } from '../../../src/receipt/keyset.ts'
import { generation, ref, sampleDecision, sampleReport, sampleRun } from '../sample.ts'
import type { SampleLog, SampleParts } from '../sample.ts'
import { whole } from './case.ts'
import type { Draft } from './case.ts'

export function history(log: SampleLog, { plain }: SampleParts): readonly Draft[] {
  const entries = whole(log)
  const swapped = entries.map(([index], i) => [index, entries[i === 1 ? 2 : i === 2 ? 1 : i]?.[1] ?? ''] as const)
  const removed = entries.filter(([index]) => index !== 8 - 4).map(([, jws], i) => [i, jws] as const)
  const rewritten = log.fork(2)
  const run = sampleRun()
  const decision = rewritten.add(decisionAccount(run, sampleDecision('allow', log.nowMs), generation.digest, []))
  rewritten.add(
    outcomeAccount(run, {
      status: 'succeeded',
      ran: true,
      report: sampleReport,
      decision: ref(decision),
      revocation: 'done',
      at_ms: log.nowMs,
    }),
  )
  const backwards = log.fork(2)
  backwards.forge(policyAccount({ ...generation, number: 2 }, 0), (payload) => {
    payload['iat'] = 1_700_000_000
  })
  const twice = log.fork(2)
  const id = '019a1b2c-3d4e-7f00-8000-0123456789ab'
  for (let i = 0; i < 2; i++)
    twice.forge(policyAccount({ ...generation, number: 2 + i }, log.nowMs), (payload) => {
      payload['jti'] = id
    })
  return [
    { title: '23 an entry signed before the one that stands before it', code: 'TIME', log: whole(backwards) },
    { title: '24 a receipt id at two indexes', code: 'REPLAY', log: whole(twice) },
    { title: '27 an entry removed from the middle', code: 'HEAD', log: removed },
    {
      title: '27 history written anew, against a receipt held elsewhere',
      code: 'FORK',
      verdict: 'EQUIVOCATION',
      log: whole(rewritten),
      evidence: { held: [plain.decision.jws] },
    },
    {
      title: '28 a log cut short, against a newer receipt',
      code: 'STALE',
      verdict: 'INCOMPLETE',
      log: entries.slice(0, 4),
      evidence: { held: [log.entries[8]?.jws ?? ''] },
    },
    { title: '30 two entries swapped', code: 'HEAD', log: swapped },
    { title: 'an index left out', code: 'GAP', verdict: 'INCOMPLETE', log: entries.filter(([index]) => index !== 3) },
    { title: 'an index twice', code: 'HEAD', log: [...entries.slice(0, 3), ...entries.slice(2)] },
    { title: 'an empty log', code: 'GAP', verdict: 'INCOMPLETE', log: [] },
    { title: 'a log that begins later', code: 'GAP', verdict: 'INCOMPLETE', log: entries.slice(1) },
    {
      title: 'a flipped character in the third entry',
      code: 'SIG',
      log: entries.map(
        ([index, jws]) =>
          [index, index === 2 ? `${jws.slice(0, -9)}${jws.at(-9) === 'A' ? 'B' : 'A'}${jws.slice(-8)}` : jws] as const,
      ),
    },
    {
      title: 'a root in the head that is not the tree',
      code: 'HEAD',
      log: whole(headed(log, (head) => (head['root'] = Buffer.alloc(32).toString('base64')))),
    },
    {
      title: 'a size in the head that is not the index',
      code: 'HEAD',
      log: whole(headed(log, (head) => (head['size'] = 1))),
    },
  ]
}

function headed(log: SampleLog, change: (head: Record<string, unknown>) => void): SampleLog {
  const fork = log.fork(2)
  fork.forge(policyAccount({ ...generation, number: 2 }, log.nowMs), (payload) => change(payload.predicate.log))
  return fork
}

export function epochs(log: SampleLog, { plain }: SampleParts): readonly Draft[] {
  const rotated = log.fork(9)
  const before = log.keys.receiptKey(0 + 1)
  rotated.rotate()
  const trust = { root: rotated.keys.fingerprint(), own: rotated.keys.jwt }
  const old = { root: log.keys.fingerprint(), own: log.keys.jwt }
  const policy = (n: number) => policyAccount({ ...generation, number: n }, log.nowMs)
  rotated.add(policy(2))
  const next = rotated.keys.receiptKey(10)
  const retired = rotated.fork(11)
  retired.forge(policy(3), () => undefined, before)
  const early = log.fork(9)
  early.forge(policy(3), () => undefined, next)
  const unannounced = log.fork(9)
  unannounced.forge(policy(3), () => undefined, before)
  unannounced.forge(policy(4), () => undefined, next)
  const forgedChange = rotated.fork(9)
  const mine = generateKey()
  const account = { ...policy(2), kind: 'key' as const }
  const stranger = generateKey()
  const change = signKeySet(
    stranger,
    [
      { x: stranger.x, kid: stranger.kid, role: 'root', from: 0, until: null },
      { x: before.x, kid: before.kid, role: 'receipt', from: 0, until: 10 },
      { x: mine.x, kid: mine.kid, role: 'receipt', from: 10, until: null },
    ],
    1_795_000_000,
  )
  forgedChange.forge(
    account,
    (payload) => {
      payload.predicate = {
        kind: 'key',
        log: payload.predicate.log,
        reason: 'rotated',
        outgoing: before.kid,
        incoming: mine.kid,
        change,
      }
      delete payload['_sd_alg']
    },
    before,
  )
  const logKey = log.keys.set.keys.find((key) => key.role === 'log')
  const byRoot = log.fork(2)
  byRoot.forge(
    decisionAccount(plain.run, sampleDecision('allow', log.nowMs), generation.digest, []),
    () => undefined,
    log.keys.rootKey(),
  )
  const foreign = log.fork(1)
  foreign.forge(policy(2), () => undefined, stranger)
  // The true root, and where its receipt key stood one of somebody else's: a list that nobody signed.
  const replaced = JSON.stringify({
    keys: (log.keys.jwks()['keys'] as Record<string, unknown>[]).map((key) =>
      key['role'] === 'receipt' ? { ...key, x: stranger.x, kid: stranger.kid } : key,
    ),
  })
  const pinned = { root: log.keys.fingerprint(), file: replaced }
  const relabelled = JSON.stringify({
    keys: (log.keys.jwks()['keys'] as Record<string, unknown>[]).map((key) =>
      key['role'] === 'receipt' ? { ...key, role: 'log' } : key,
    ),
  })
  return [
    { title: 'control: a log with a change of keys', code: null, verdict: 'VALID:LOGGED', log: whole(rotated), trust },
    {
      title: 'control: the same log, from a key set issued before the change',
      code: null,
      verdict: 'VALID:LOGGED',
      log: whole(rotated),
      trust: old,
    },
    { title: '51 a retired key signs after its epoch', code: 'KEY_EPOCH', log: whole(retired), trust },
    { title: '51 the same, one receipt alone', code: 'KEY_EPOCH', receipt: retired.entries[11]?.jws ?? '', trust },
    { title: '52 the next key signs before its epoch', code: 'KEY_EPOCH', log: whole(early), trust },
    { title: '55 a change of keys that another root signed', code: 'KEY_CHAIN', log: whole(forgedChange) },
    { title: '55 a change of keys without its receipt', code: 'KEY_CHAIN', log: whole(unannounced), trust },
    { title: '56 the root signs a decision', code: 'KEY_ROLE', receipt: byRoot.entries[2]?.jws ?? '' },
    {
      title: '56 a receipt under a log key',
      code: 'KEY_ROLE',
      receipt: plain.decision.jws,
      trust: { file: relabelled },
    },
    {
      title: 'an unsigned list of keys that names the root and another key for receipts',
      code: 'KEYS',
      verdict: 'UNTRUSTED',
      receipt: foreign.entries[1]?.jws ?? '',
      trust: pinned,
    },
    {
      title: 'the same for a whole log',
      code: 'KEYS',
      verdict: 'UNTRUSTED',
      log: whole(foreign),
      trust: pinned,
    },
    {
      title: '56 a key set that calls one key twice',
      code: 'KEYS',
      verdict: 'UNTRUSTED',
      receipt: plain.decision.jws,
      trust: {
        file: JSON.stringify({ keys: [logKey, logKey].map((key) => ({ kty: 'OKP', crv: 'Ed25519', x: key?.x })) }),
      },
    },
  ]
}

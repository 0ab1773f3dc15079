import { generateKey } from '../../../src/jws.ts'
import { decisionAccount } from '../../../src/receipt/account.ts'
import { brokerUrn } from '../../../src/receipt/keyset.ts'
import type { VerdictClass, VerdictCode } from '../../../src/receipt/verdict.ts'
import { generation, sampleDecision } from '../sample.ts'
import type { Changeable, SampleLog, SampleParts } from '../sample.ts'
import type { Draft } from './case.ts'

export function claims(log: SampleLog, { plain }: SampleParts): readonly Draft[] {
  const forged = (
    title: string,
    code: VerdictCode,
    change: (payload: Changeable) => void,
    verdict: VerdictClass = 'INVALID',
  ): Draft => {
    const account = decisionAccount(plain.run, sampleDecision('allow', log.nowMs), generation.digest, [])
    return { title, code, verdict, receipt: log.fork(2).forge(account, change).jws }
  }
  const predicate = (name: string, value: unknown) => (payload: Changeable) => {
    payload.predicate[name] = value
  }
  const member = (name: string, value: unknown) => (payload: Changeable) => {
    payload[name] = value
  }
  const other = brokerUrn(generateKey().kid)
  return [
    forged('20 the issuer of another broker', 'ISS', (payload) => {
      payload['iss'] = other
      payload.predicate.log['origin'] = other
    }),
    forged('20 the log of another issuer', 'ISS', (payload) => {
      payload.predicate.log['origin'] = other
    }),
    forged('20 an issuer that is no URL of a broker', 'ISS', (payload) => {
      payload['iss'] = 'http://writ.example'
      payload.predicate.log['origin'] = 'http://writ.example'
    }),
    forged('21 no audience', 'AUD', (payload) => {
      delete payload['aud']
    }),
    forged('21 another audience', 'AUD', member('aud', 'https://api.example')),
    forged('21 an audience in a list', 'AUD', member('aud', ['urn:writ:aud:receipt'])),
    forged('22 an expiry', 'PROFILE', member('exp', 4_102_444_800)),
    forged('22 a not-before', 'PROFILE', member('nbf', 1)),
    forged('23 signed before it happened', 'TIME', member('toe', 4_102_444_800)),
    forged('26 an unknown kind', 'UNKNOWN_KIND', predicate('kind', 'verdict'), 'UNTRUSTED'),
    forged('26 a reserved kind', 'UNKNOWN_KIND', predicate('kind', 'epoch'), 'UNTRUSTED'),
    forged('26 a later predicate type', 'UNKNOWN_KIND', member('predicateType', 'urn:writ:receipt:v2'), 'UNTRUSTED'),
    forged('69 a goal beside what the broker saw', 'PROFILE', predicate('goal', 'harmless')),
    forged('69 a client name among the claims', 'PROFILE', member('client_name', 'trusted')),
    forged(
      'an asserted object inside an asserted member',
      'PROFILE',
      predicate('asserted', { client: { nested: true } }),
    ),
    forged('no subject', 'PROFILE', member('subject', [])),
    forged('a digest in capitals', 'PROFILE', predicate('input', `sha256:${'A'.repeat(64)}`)),
    forged('an effect that is no effect', 'PROFILE', predicate('result', 'allowed')),
    forged('a jti that is not a UUIDv7', 'PROFILE', member('jti', '00000000-0000-4000-8000-000000000000')),
    forged('a root of the wrong length', 'PROFILE', (payload) => {
      payload.predicate.log['root'] = 'AAAA'
    }),
    forged('withheld members without their algorithm', 'PROFILE', (payload) => {
      delete payload['_sd_alg']
    }),
    forged('no agent', 'PROFILE', (payload) => {
      delete payload['act']
    }),
  ]
}

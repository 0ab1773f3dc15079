import { describe, expect, it } from 'vitest'
import type { Approval } from '../../src/approval/approval.ts'
import { checkStatement, readStatement } from '../../src/approval/statement.ts'
import { canonical, digestOf, type Json, type JsonObject } from '../../src/digest.ts'
import { newId } from '../../src/id.ts'
import { generateKey, signCompact } from '../../src/jws.ts'
import { approvalOf, origin, person, planWith, signed, startMs } from './sample.ts'

const ada = person('ada', 'approver')
const bob = person('bob', 'approver')
const approval = approvalOf(planWith())
const shown = digestOf('shown')
const now = startMs + 60_000

function check(jws: string, over: Partial<Parameters<typeof checkStatement>[1]> = {}): string {
  return checkStatement(jws, { approval, approvers: [ada, bob], shown, origin, nowMs: now, ...over }).subject
}

function claims(): JsonObject {
  return { ...readStatement(signed(approval, ada)) }
}

function resigned(over: JsonObject, typ: Parameters<typeof signCompact>[0] = 'writ-approval+jwt'): string {
  return signCompact(typ, canonical({ ...claims(), ...over }), ada.signing)
}

describe('a signed statement', () => {
  it('is believed when it is about this approval and by somebody who may', () => {
    expect(check(signed(approval, ada))).toBe('ada')
    expect(check(signed(approval, bob))).toBe('bob')
    expect(check(signed(approval, bob, { verdict: 'reject' }))).toBe('bob')
  })

  const others: Readonly<Record<string, Json>> = {
    typ: 'writ-approval/v2',
    log_origin: 'urn:writ:another',
    approval_id: newId('apr'),
    execution_id: newId('exec'),
    plan: digestOf('another plan'),
    requirement: digestOf('another requirement'),
    stage: 'another',
    verdict: 'approved',
    shown: digestOf('another text'),
    nonce: '0'.repeat(32),
    issued_at: Math.floor(now / 1000) + 121,
    expires_at: Math.floor(approval.expires_at_ms / 1000) + 1,
    max_uses: 2,
  }
  for (const [field, value] of Object.entries(others))
    it(`[G-approval-bound] is refused when its "${field}" is another than was asked for`, () => {
      expect(() => check(resigned({ [field]: value }))).toThrow(expect.objectContaining({ code: 'approval_refused' }))
    })

  it('[G-approval-bound] is refused with any field missing, and with one more', () => {
    for (const field of Object.keys(claims())) {
      const { [field]: _, ...rest } = claims()
      expect(() => check(signCompact('writ-approval+jwt', canonical(rest), ada.signing))).toThrow(/not a writ-approval/)
    }
    expect(() => check(resigned({ extra: true }))).toThrow(/not a writ-approval/)
  })

  it('has all its fields in the list above, except the reason, which binds nothing', () => {
    expect(Object.keys(claims()).toSorted()).toEqual([...Object.keys(others), 'reason'].toSorted())
    expect(check(resigned({ reason: 'another reason' }))).toBe('ada')
  })

  it('[G-approval-time] is refused when a clock that is ahead made it after the end of the approval, as a verifier of its receipt refuses it', () => {
    const end = Math.floor(approval.expires_at_ms / 1000)
    const nearTheEnd = { nowMs: (end - 60) * 1000 }
    expect(() => check(resigned({ issued_at: end + 1 }), nearTheEnd)).toThrow('made after its own end')
    expect(check(resigned({ issued_at: end }), nearTheEnd)).toBe('ada')
  })

  it('is refused under a key nobody enrolled, and under an enrolled name with another key', () => {
    const mallory = person('mallory', 'approver')
    expect(() => check(signed(approval, mallory))).toThrow('The key is not one of an enrolled approver.')
    const impostor = { ...ada, signing: { ...generateKey(), kid: ada.signing.kid } }
    expect(() => check(signed(approval, impostor))).toThrow('The signature is not valid.')
  })

  it('is refused with one bit of the signature or of the payload changed', () => {
    const jws = signed(approval, ada)
    const [header = '', payload = '', signature = ''] = jws.split('.')
    const bytes = Buffer.from(signature, 'base64url')
    bytes[10] = (bytes[10] ?? 0) ^ 1
    expect(() => check(`${header}.${payload}.${bytes.toString('base64url')}`)).toThrow('The signature is not valid.')
    const changed = Buffer.from(payload, 'base64url').toString('utf8').replace('"seen"', '"sean"')
    expect(() => check(`${header}.${Buffer.from(changed).toString('base64url')}.${signature}`)).toThrow(
      'The signature is not valid.',
    )
  })

  it('is refused in any other spelling of the same claims: order, spaces, escapes, a duplicate key', () => {
    const text = canonical(claims())
    const spellings = [
      `${text} `,
      text.replace('":', '": '),
      JSON.stringify(Object.fromEntries(Object.entries(claims()).toReversed())),
      text.replace('"seen"', '"\\u0073een"'),
      text.replace('{', '{"max_uses":1,'),
      text.replace('"max_uses":1', '"max_uses":1.0'),
    ]
    for (const spelling of spellings)
      expect(() => check(signCompact('writ-approval+jwt', spelling, ada.signing))).toThrow(
        expect.objectContaining({ code: 'approval_refused' }),
      )
  })

  it('is refused as another kind of JWT, though the key and the claims are right', () => {
    for (const typ of ['writ-receipt+jwt', 'writ-keys+jwt'] as const)
      expect(() => check(resigned({}, typ))).toThrow(/TYP/)
  })

  it('is refused when it is no JWS at all', () => {
    for (const text of ['', 'x', 'a.b.c', '{}', `${signed(approval, ada)}.x`, `${signed(approval, ada)}\n`])
      expect(() => check(text)).toThrow(expect.objectContaining({ code: 'approval_refused' }))
  })

  it('[G-approval-time] is refused when it was made before the question or from the future, or comes too late', () => {
    expect(() => check(signed(approval, ada, { nowMs: startMs - 121_000 }))).toThrow(/time that cannot be/)
    expect(() => check(signed(approval, ada, { nowMs: now + 122_000 }))).toThrow(/time that cannot be/)
    expect(check(signed(approval, ada, { nowMs: now + 100_000 }))).toBe('ada')
    expect(() => check(signed(approval, ada), { nowMs: approval.expires_at_ms })).toThrow('This approval has expired.')
    expect(check(signed(approval, ada), { nowMs: approval.expires_at_ms - 1000 })).toBe('ada')
  })

  it('[G-four-eyes] is refused from whoever asked, person or agent, whichever key or name it comes under', () => {
    const alice = person('alice', 'approver')
    const agent = person('local-agent', 'approver')
    expect(() => check(signed(approval, alice), { approvers: [alice] })).toThrow(/whoever asked is excluded/)
    expect(() => check(signed(approval, agent), { approvers: [agent] })).toThrow(/whoever asked is excluded/)
    const twoEyes: Approval = approvalOf(planWith(), { exclude: ['agent'] })
    expect(check(signed(twoEyes, alice), { approval: twoEyes, approvers: [alice] })).toBe('alice')
  })

  it('is refused from somebody without the role of the stage, also where a role of another stage is held', () => {
    const clerk = person('clerk', 'clerk')
    expect(() => check(signed(approval, clerk), { approvers: [clerk] })).toThrow(/the role is missing/)
    const two = approvalOf(planWith(), {
      stages: [
        { id: 'first', roles: ['approver'], min: 1 },
        { id: 'second', roles: ['security'], min: 1 },
      ],
    })
    expect(() => check(signed(two, ada, { stage: 'second' }), { approval: two })).toThrow(/the role is missing/)
    expect(check(signed(two, ada, { stage: 'first' }), { approval: two })).toBe('ada')
  })

  it('is refused where the requirement does not take a key, or takes nothing', () => {
    for (const evidence of [['passkey'], ['bearer'], []] as const) {
      const other = approvalOf(planWith(), { evidence })
      expect(() => check(signed(other, ada), { approval: other })).toThrow(
        'This approval does not take a key as evidence.',
      )
    }
  })

  it('is not kept from the others by an enrolled key that is not sound, and that key signs for nobody', () => {
    const weak = {
      subject: 'weak',
      roles: ['approver'],
      key: Buffer.concat([Buffer.from([1]), Buffer.alloc(31)]).toString('base64url'),
    }
    expect(check(signed(approval, ada), { approvers: [weak, ada] })).toBe('ada')
  })
})

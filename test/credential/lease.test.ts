import { setTimeout as pause } from 'node:timers/promises'
import { inspect } from 'node:util'
import { describe, expect, it } from 'vitest'
import type { CredentialSource } from '../../src/credential/credential.ts'
import { endLease, fingerprint, leaseCredentials } from '../../src/credential/lease.ts'
import { Secret } from '../../src/credential/secret.ts'
import { openSources } from '../../src/credential/sources.ts'
import { newId } from '../../src/id.ts'
import { planOf } from '../egress/run.ts'
import { until } from '../wait.ts'

interface Ledgered extends CredentialSource {
  readonly log: string[]
}

/** A source that mints values and keeps count of what is out, as a dynamic one does. */
function minting(
  behaviour: {
    readonly fail?: string
    /** The credential that comes only after `until`. */
    readonly slow?: string
    readonly until?: Promise<unknown>
    readonly revoke?: 'fail' | 'hang'
    readonly expires?: number
  } = {},
): Ledgered {
  const log: string[] = []
  return {
    kind: 'file',
    log,
    check: () => Promise.resolve([]),
    async lease(name) {
      if (name === behaviour.fail) throw new TypeError(`connect to 10.1.2.3 failed with password minted-${name}-value`)
      if (name === behaviour.slow) await behaviour.until
      log.push(`lease ${name}`)
      return {
        name,
        value: Secret.ingest(name, `minted-${name}-value`),
        expires_at_ms: behaviour.expires ?? null,
        async revoke() {
          if (behaviour.revoke === 'hang') await new Promise(() => {})
          if (behaviour.revoke === 'fail') throw new Error('no')
          log.push(`revoke ${name}`)
        },
      }
    },
  }
}

const plan = planOf([], { a: { kind: 'bearer' }, b: { kind: 'bearer' }, c: { kind: 'bearer' } })
const sourcesOf = (source: CredentialSource): ReadonlyMap<string, CredentialSource> => new Map([['file', source]])
const options = { wallS: 30, signal: new AbortController().signal }
const clock = { now: () => 1_000_000, monotonic: () => 0 }

describe('a lease', () => {
  it('holds what the decision allowed and no more, and gives it back when it ends', async () => {
    const source = minting()
    const lease = await leaseCredentials(plan, ['a', 'b', 'a'], sourcesOf(source), newId('exec'), options)
    expect(lease.secrets.map((secret) => secret.name)).toEqual(['a', 'b'])
    expect(await endLease(lease)).toBe('done')
    expect(source.log).toEqual(['lease a', 'lease b', 'revoke a', 'revoke b'])
    expect(JSON.stringify(lease)).not.toContain('minted-')
  })

  it('[G-lease-all-or-none] gives back what it got when one credential cannot be had, and says no more than its name', async () => {
    const source = minting({ fail: 'b', slow: 'c', until: pause(20) })
    const failure: unknown = await leaseCredentials(
      plan,
      ['a', 'b', 'c'],
      sourcesOf(source),
      newId('exec'),
      options,
    ).catch((error: unknown) => error)
    expect(failure).toMatchObject({ code: 'credential_unavailable', message: 'credential "b" cannot be had' })
    expect(source.log.toSorted()).toEqual(['lease a', 'lease c', 'revoke a', 'revoke c'])
  })

  it('gives back what comes after the wait was given up', async () => {
    const answer = Promise.withResolvers<void>()
    const source = minting({ slow: 'b', until: answer.promise })
    const stop = new AbortController()
    const leasing = leaseCredentials(plan, ['a', 'b'], sourcesOf(source), newId('exec'), {
      wallS: 30,
      signal: stop.signal,
    })
    // The first is leased by then.
    await pause(0)
    stop.abort()
    await expect(leasing).rejects.toMatchObject({ code: 'credential_unavailable' })
    await until('what was leased is given back', () => source.log.includes('revoke a'))
    answer.resolve()
    await until('what came too late is given back', () => source.log.includes('revoke b'))
    expect(source.log).toEqual(['lease a', 'revoke a', 'lease b', 'revoke b'])
  })

  it('is refused for a name the plan does not have, a source there is none of, and a wait given up before', async () => {
    const source = minting()
    const sources = sourcesOf(source)
    await expect(leaseCredentials(plan, ['a', 'other'], sources, newId('exec'), options)).rejects.toMatchObject({
      code: 'credential_unavailable',
    })
    await expect(leaseCredentials(plan, ['__proto__'], sources, newId('exec'), options)).rejects.toMatchObject({
      code: 'credential_unavailable',
    })
    await expect(leaseCredentials(plan, ['a'], new Map(), newId('exec'), options)).rejects.toMatchObject({
      code: 'credential_unavailable',
    })
    await expect(
      leaseCredentials(plan, ['a'], sources, newId('exec'), { wallS: 30, signal: AbortSignal.abort() }),
    ).rejects.toMatchObject({ code: 'credential_unavailable' })
    expect(source.log).toEqual([])
  })

  it('lasts at most the wall limit and a minute, or as long as the source says if that is less', async () => {
    const long = await leaseCredentials(plan, ['a'], sourcesOf(minting({ expires: 99_000_000 })), newId('exec'), {
      ...options,
      clock,
    })
    expect(long.secrets[0]?.expires_at_ms).toBe(1_000_000 + 30_000 + 60_000)
    const open = await leaseCredentials(plan, ['a'], sourcesOf(minting()), newId('exec'), { ...options, clock })
    expect(open.secrets[0]?.expires_at_ms).toBe(1_090_000)
    const short = await leaseCredentials(plan, ['a'], sourcesOf(minting({ expires: 1_005_000 })), newId('exec'), {
      ...options,
      clock,
    })
    expect(short.secrets[0]?.expires_at_ms).toBe(1_005_000)
  })

  it('ends pending when a source refuses or does not answer, within its time', async () => {
    const refusing = await leaseCredentials(plan, ['a'], sourcesOf(minting({ revoke: 'fail' })), newId('exec'), options)
    expect(await endLease(refusing)).toBe('pending')
    const silent = await leaseCredentials(plan, ['a'], sourcesOf(minting({ revoke: 'hang' })), newId('exec'), options)
    const started = performance.now()
    expect(await endLease(silent, 40)).toBe('pending')
    // A source is given 10 s where nothing else is said.
    expect(performance.now() - started).toBeLessThan(9000)
  })

  it('without credentials asks nobody', async () => {
    const lease = await leaseCredentials(plan, [], new Map(), newId('exec'), options)
    expect(lease.secrets).toEqual([])
    expect(await endLease(lease)).toBe('done')
  })

  it('keeps the id that was made durable before it', async () => {
    const id = newId('lease')
    expect((await leaseCredentials(plan, [], new Map(), newId('exec'), { ...options, id })).id).toBe(id)
  })

  it('refuses a variable whose value is no credential, without quoting it', async () => {
    const sources = openSources({
      env: new Map([['BAD', 'two\nlines-of-it']]),
      file: { dir: '/nonexistent', identityFile: '/nonexistent' },
    })
    const withEnv = {
      ...plan,
      credentials: plan.credentials.map((credential) => ({ ...credential, source: { kind: 'env', ref: 'BAD' } })),
    }
    const failure: unknown = await leaseCredentials(withEnv, ['a'], sources, newId('exec'), options).catch(
      (error: unknown) => error,
    )
    expect(failure).toMatchObject({ code: 'credential_unavailable' })
    expect(inspect(failure, { depth: 9 })).not.toContain('lines-of-it')
  })
})

describe('a fingerprint', () => {
  it('is a keyed digest of 8 bytes: equal for one tenant, different for two', () => {
    const value = Buffer.from('some-value-0123')
    const one = fingerprint(Buffer.alloc(32, 1), value)
    expect(one).toMatch(/^[0-9a-f]{16}$/)
    expect(fingerprint(Buffer.alloc(32, 1), value)).toBe(one)
    expect(fingerprint(Buffer.alloc(32, 2), value)).not.toBe(one)
    expect(fingerprint(Buffer.alloc(32, 1), Buffer.from('some-value-0124'))).not.toBe(one)
  })
})

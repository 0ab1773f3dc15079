import { inspect } from 'node:util'
import { expect, it } from 'vitest'
import type { CredentialSource } from '../../src/credential/credential.ts'
import { newId } from '../../src/id.ts'

/** What a test needs to know about one kind of source. */
export interface SourceCase {
  readonly source: CredentialSource
  /** Makes the source hold a value, and says under which reference. */
  readonly put: (name: string, value: string) => Promise<string>
  /** Text that must not be read in any error: where values lie. */
  readonly places: readonly string[]
}

/** What every credential source promises (src/credential/credential.ts). */
export function credentialSourceContract(open: () => Promise<SourceCase>): void {
  const signal = new AbortController().signal

  it('leases a value under the name it was asked for', async () => {
    const { source, put } = await open()
    const ref = await put('api-token', 'contract-value-0123')
    const leased = await source.lease('my-name', ref, newId('exec'), signal)
    expect(leased.name).toBe('my-name')
    expect(leased.value.name).toBe('my-name')
    expect(leased.value.reveal().toString()).toBe('contract-value-0123')
    await leased.revoke()
  })

  it('lets a lease be revoked more than once', async () => {
    const { source, put } = await open()
    const leased = await source.lease('n', await put('api-token', 'contract-value-0123'), newId('exec'), signal)
    await leased.revoke()
    await expect(leased.revoke()).resolves.toBeUndefined()
  })

  it('names its kind, and finds no problem in itself', async () => {
    const { source } = await open()
    expect(source.kind).toMatch(/^[a-z]+$/)
    const findings = await source.check()
    expect(findings.length).toBeGreaterThan(0)
    expect(findings.filter((finding) => finding.level === 'problem')).toEqual([])
  })

  it('rejects what it does not have with credential_unavailable, and says nothing of where it looked', async () => {
    const { source, places } = await open()
    const failure: unknown = await source
      .lease('wanted', 'nowhere', newId('exec'), signal)
      .catch((error: unknown) => error)
    expect(failure).toMatchObject({ code: 'credential_unavailable' })
    const message = failure instanceof Error ? failure.message : ''
    expect(message).toContain('wanted')
    for (const place of ['nowhere', ...places]) expect(message).not.toContain(place)
  })

  it.each(['', '..', '../api-token', '/etc/passwd', 'a/b', 'a\0b', '__proto__', 'constructor', 'x'.repeat(5000)])(
    'has nothing under the reference %j',
    async (ref) => {
      const { source, put } = await open()
      await put('api-token', 'contract-value-0123')
      await expect(source.lease('n', ref, newId('exec'), signal)).rejects.toMatchObject({
        code: 'credential_unavailable',
      })
    },
  )

  it('leases nothing for a request that was given up', async () => {
    const { source, put } = await open()
    const ref = await put('api-token', 'contract-value-0123')
    await expect(source.lease('n', ref, newId('exec'), AbortSignal.abort())).rejects.toMatchObject({
      code: 'credential_unavailable',
    })
  })

  it('shows no value when it is printed, nor when what it leased is', async () => {
    const { source, put } = await open()
    const leased = await source.lease('n', await put('api-token', 'contract-value-0123'), newId('exec'), signal)
    expect(inspect([source, leased, await source.check()], { depth: 9, showHidden: true })).not.toContain(
      'contract-value',
    )
    expect(JSON.stringify(leased)).not.toContain('contract-value')
  })
}

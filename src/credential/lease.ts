import { createHmac } from 'node:crypto'
import { type Clock, systemClock } from '../clock.ts'
import { WritError } from '../error.ts'
import { type ExecutionId, type LeaseId, newId } from '../id.ts'
import type { Plan, PlanCredential } from '../plan/plan.ts'
import type { CredentialSource, Lease, LeasedSecret } from './credential.ts'

/** A lease may outlive the run's wall limit by this much, for revoking. */
const graceMs = 60_000
const revokeWithinMs = 10_000

/**
 * Leases the named credentials of a plan for one run, all or none: when one cannot be had, those already got are given
 * back before this rejects with `credential_unavailable`. `names` is what the decision allowed. A source that answers
 * after `signal` was aborted is given back what it leased. A lease lasts at most `wallS` seconds and a minute.
 */
export async function leaseCredentials(
  plan: Plan,
  names: readonly string[],
  sources: ReadonlyMap<string, CredentialSource>,
  execution: ExecutionId,
  options: { readonly wallS: number; readonly signal: AbortSignal; readonly id?: LeaseId; readonly clock?: Clock },
): Promise<Lease> {
  const credentials = [...new Set(names)].map((name) => planned(plan, name))
  const results = await Promise.allSettled(
    credentials.map((credential) => leaseOne(credential, sources, execution, options.signal)),
  )
  const secrets = results.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : []))
  const failed = results.find((result) => result.status === 'rejected')
  if (failed !== undefined) {
    await revokeAll(secrets)
    throw failed.reason
  }
  const latest = (options.clock ?? systemClock).now() + options.wallS * 1000 + graceMs
  return {
    id: options.id ?? newId('lease'),
    execution,
    secrets: secrets.map((secret) => ({
      name: secret.name,
      value: secret.value,
      expires_at_ms: Math.min(secret.expires_at_ms ?? latest, latest),
      revoke: () => secret.revoke(),
    })),
  }
}

/** Gives everything back. `pending` when a source refused or did not confirm in time; it has to be tried again then. */
export async function endLease(lease: Lease, withinMs: number = revokeWithinMs): Promise<'done' | 'pending'> {
  return await revokeAll(lease.secrets, withinMs)
}

/**
 * HMAC-SHA256 cut to 8 bytes, in hex: tells an auditor who knows a value that it was this one, and nobody else
 * anything. The key is the tenant's, so that two tenants' equal values look different.
 */
export function fingerprint(key: Uint8Array, value: Uint8Array): string {
  return createHmac('sha256', key).update(value).digest().subarray(0, 8).toString('hex')
}

function planned(plan: Plan, name: string): PlanCredential {
  const credential = plan.credentials.find((one) => one.name === name)
  if (credential === undefined) throw unavailable(name)
  return credential
}

function unavailable(name: string, cause?: unknown): WritError {
  return new WritError(
    'credential_unavailable',
    `credential "${name}" cannot be had`,
    cause === undefined ? {} : { cause },
  )
}

async function leaseOne(
  credential: PlanCredential,
  sources: ReadonlyMap<string, CredentialSource>,
  execution: ExecutionId,
  signal: AbortSignal,
): Promise<LeasedSecret> {
  const { name, source } = credential
  const from = sources.get(source.kind)
  if (from === undefined || signal.aborted) throw unavailable(name)
  const asked = (async () => await from.lease(name, source.ref, execution, signal))()
  const { promise: aborted, reject } = Promise.withResolvers<never>()
  const abort = (): void => reject(unavailable(name))
  signal.addEventListener('abort', abort, { once: true })
  try {
    return await Promise.race([asked, aborted])
  } catch (failure) {
    // Nobody waits for it any more, so what still comes has to go back.
    asked.then(
      (late) => revokeAll([late]),
      () => 'done',
    )
    if (failure instanceof WritError && failure.code === 'credential_unavailable') throw failure
    throw unavailable(name, failure)
  } finally {
    signal.removeEventListener('abort', abort)
  }
}

async function revokeAll(
  secrets: readonly LeasedSecret[],
  withinMs: number = revokeWithinMs,
): Promise<'done' | 'pending'> {
  const { promise: late, resolve } = Promise.withResolvers<'pending'>()
  const timer = setTimeout(() => resolve('pending'), withinMs)
  const all = Promise.allSettled(secrets.map(async (secret) => await secret.revoke()))
  try {
    return await Promise.race([
      late,
      all.then((ends) => (ends.every((end) => end.status === 'fulfilled') ? 'done' : 'pending')),
    ])
  } finally {
    clearTimeout(timer)
  }
}

import { WritError } from '../../error.ts'
import type { CredentialSource } from '../credential.ts'
import { Secret } from '../secret.ts'

/**
 * Values from variables of the broker's environment, by name. The map is handed in: only `main.ts` reads the
 * environment. Static: there is nothing to take back when a lease ends.
 */
export function openEnvSource(variables: ReadonlyMap<string, string>): CredentialSource {
  return {
    kind: 'env',
    check: () =>
      Promise.resolve([
        { level: 'ok', what: `${variables.size} variables of the environment may be credentials`, fix: null },
      ]),
    // eslint-disable-next-line typescript/require-await -- a failure has to reject, not throw
    async lease(name, ref, _execution, signal) {
      const value = variables.get(ref)
      if (value === undefined || signal.aborted)
        throw new WritError('credential_unavailable', `credential "${name}" cannot be had`, {
          remedy:
            'Set the variable that its source names in the environment of the broker, and start the broker again.',
        })
      return { name, value: Secret.ingest(name, value), expires_at_ms: null, revoke: () => Promise.resolve() }
    },
  }
}

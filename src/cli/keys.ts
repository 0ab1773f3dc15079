import { openKeys } from '../receipt/keys.ts'
import { type Context, configOf, yes } from './context.ts'
import { show, table } from './print.ts'

export function keysShow(context: Context, fingerprintOnly: boolean): number {
  const config = configOf(context)
  const keys = openKeys(config.keys)
  if (fingerprintOnly) {
    show(context, { root_thumbprint: keys.fingerprint() }, () => keys.fingerprint())
    return yes
  }
  show(context, { root_thumbprint: keys.fingerprint(), key_set: keys.jwt, jwks: keys.jwks() }, () =>
    [
      `root  ${keys.fingerprint()}`,
      table(
        ['role', 'kid', 'from', 'until'],
        keys.set.keys.map((key) => [key.role, key.kid, String(key.from), key.until === null ? '' : String(key.until)]),
      ),
    ].join('\n'),
  )
  return yes
}

import { WritError } from '../error.ts'
import { lockFolder } from '../ledger/sqlite/lock.ts'
import { type Keys, openKeys, rotate } from '../receipt/keys.ts'
import { type Context, configOf, folderFor, withViews, yes } from './context.ts'
import { show, table } from './print.ts'

export function keysShow(context: Context, fingerprintOnly: boolean): number {
  const config = configOf(context)
  const keys = openKeys(config.keys)
  if (fingerprintOnly) {
    show(context, { root_thumbprint: keys.fingerprint() }, () => keys.fingerprint())
    return yes
  }
  shown(context, keys)
  return yes
}

/**
 * A new receipt key from the next receipt but one on: the next is the word of old key and root on the change, which the
 * broker writes when it starts. Under the lock of the data folder, so that no broker signs meanwhile.
 */
export function keysRotate(context: Context): number {
  const { config, folder } = folderFor(context)
  const lock = lockFolder(folder.root)
  try {
    const size = withViews(folder, 0, (views) => views.logHead().size)
    if (size === 0) throw new WritError('conflict', 'There is no receipt yet, so there is no key to take over from.')
    shown(context, rotate(config.keys, size, Date.now()))
  } finally {
    lock.release()
  }
  if (!context.json)
    context.note(
      'The next start of the broker writes the receipt of it. The fingerprint stays; take keys/root.pem offline again, and keep a copy of keys/.',
    )
  return yes
}

function shown(context: Context, keys: Keys): void {
  show(context, { root_thumbprint: keys.fingerprint(), key_set: keys.jwt, jwks: keys.jwks() }, () =>
    [
      `root  ${keys.fingerprint()}`,
      table(
        ['role', 'kid', 'from', 'until'],
        keys.set.keys.map((key) => [key.role, key.kid, String(key.from), key.until === null ? '' : String(key.until)]),
      ),
    ].join('\n'),
  )
}

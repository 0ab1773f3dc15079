import { digestOf } from '../digest.ts'
import type { JsonObject } from '../digest.ts'
import { WritError } from '../error.ts'
import { newId } from '../id.ts'
import { JwsError, maxJwsBytes, parsePayload, signCompact } from '../jws.ts'
import type { SigningKey } from '../jws.ts'
import { genesisAccount, keyAccount } from './account.ts'
import { buildClaims } from './claims.ts'
import type { Keys } from './keys.ts'
import { brokerUrn } from './keyset.ts'
import { ProfileError, readClaims } from './profile.ts'
import type { Account, ReceiptSigner } from './receipt.ts'

/**
 * A signer for the log of these keys. `issuer` is the configured URL, or null for `urn:writ:<root thumbprint>`; either
 * names the log. `sign` rejects `conflict` for a receipt that may not stand at that index, `key_unavailable`, and
 * `internal` for an account its own verifier would refuse: nothing that does not verify is ever signed.
 */
export function openSigner(keys: Keys, options: { readonly issuer: string | null }): ReceiptSigner {
  const origin = options.issuer ?? brokerUrn(keys.fingerprint())
  return {
    origin,
    sign(account, head, nowMs) {
      if (head.origin !== origin) throw new WritError('internal', 'the head is that of another log')
      const key = keyFor(keys, account, head.size)
      const { payload, disclosures } = buildClaims(account, head, nowMs)
      const text = JSON.stringify(payload)
      selfCheck(payload, text)
      const jws = signCompact('writ-receipt+jwt', text, key)
      if (jws.length > maxJwsBytes) throw new WritError('internal', 'a receipt longer than 16 KiB')
      return { id: newId('rcpt'), index: head.size, kind: account.kind, jws, digest: digestOf(jws), disclosures }
    },
  }
}

/** What the log needs before anything else may stand at `index`: the genesis, or the `key` receipt of a rotation. */
export function dueAccount(keys: Keys, index: number, nowMs: number): Account | null {
  if (index === 0) return genesisAccount(keys, nowMs)
  const change = keys.changeAfter(index)
  return change === null ? null : keyAccount(keys, index, change, nowMs)
}

/** The root signs the genesis and nothing else; at the end of a key's range stands the receipt that says so. */
function keyFor(keys: Keys, account: Account, index: number): SigningKey {
  if ((account.kind === 'genesis') !== (index === 0))
    throw new WritError('conflict', 'the genesis receipt is the first, and the first is the genesis')
  if (index === 0) return keys.rootKey()
  const change = keys.changeAfter(index)
  if ((account.kind === 'key') !== (change !== null))
    throw new WritError('conflict', 'the receipt of a key change stands where the key changes')
  return keys.receiptKey(index)
}

/** A text in which no string has an escape or a character that I-JSON is particular about. */
const simple = /^[ !#-[\]-~"]*$/

/**
 * What a verifier checks before it trusts a key. Of a simple text nothing can be misread: its names are those of an object,
 * so none stands twice, and the profile takes no number but whole ones. Any other text is read back as a verifier would.
 */
function selfCheck(payload: JsonObject, text: string): void {
  try {
    readClaims(simple.test(text) && !text.includes('"__proto__"') ? payload : parsePayload(text))
  } catch (error) {
    if (error instanceof JwsError || error instanceof ProfileError)
      throw new WritError('internal', 'an account that cannot be put into a receipt', { cause: error })
    throw error
  }
}

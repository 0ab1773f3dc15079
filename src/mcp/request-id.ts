import { isUtf8 } from 'node:buffer'

/** Bytes of one message without its line break (docs/mcp.md). */
export const maxMessageBytes = 4 * 1024 * 1024

export type RequestId = string | number

/** Null for what is no id of a request: only text of a sensible length and integers can be answered exactly. */
export function parseRequestId(value: unknown): RequestId | null {
  if (typeof value === 'string') return value.length <= 128 && value.isWellFormed() ? value : null
  return typeof value === 'number' && Number.isSafeInteger(value) ? value : null
}

/** Reads along a line, in pieces, and remembers nothing of it but the id it would be answered under. */
export interface IdFinder {
  feed(bytes: Uint8Array): void
  /** The one id of the one request that the whole line is; null where there is none or more than one. */
  found(): RequestId | null
}

const QUOTE = 0x22
const BACKSLASH = 0x5c
const COLON = 0x3a
const COMMA = 0x2c
/** More than any name looked for, and any id of 128 characters, has in whatever spelling. */
const mostKept = 1024

/**
 * Finds the id of a request that cannot be read, so that who sent it hears what was wrong: a client drops an answer
 * without an id, and its caller would wait until it gives up. What is looked at is the outline of one JSON object; all
 * else may be broken, too deep or too long.
 */
export function openIdFinder(): IdFinder {
  /** Objects and arrays inside one another; 1 among the members of the message itself. */
  let depth = 0
  let part: 'before' | 'name' | 'value' | 'after' | 'broken' = 'before'
  let inString = false
  let escaped = false
  let kept: number[] | null = null
  let name: string | null = null
  const ids: (RequestId | null)[] = []
  const members = new Set<string>()

  const endMember = (): void => {
    if (part === 'value' && name !== null) members.add(name)
    if (part === 'value' && name === 'id') ids.push(parseRequestId(decoded(kept)))
    kept = null
    name = null
    part = 'name'
  }
  const endString = (): void => {
    if (depth !== 1 || part !== 'name') return
    const text = decoded(kept)
    name = typeof text === 'string' ? text : null
    kept = null
  }
  const outside = (byte: number): void => {
    switch (byte) {
      case QUOTE:
        inString = true
        if (depth === 1 && part === 'name') kept = [QUOTE]
        break
      case COLON:
        if (depth !== 1 || part !== 'name') break
        part = 'value'
        if (name === 'id') kept = []
        break
      case COMMA:
        if (depth === 1) endMember()
        break
      case 0x7b:
      case 0x5b:
        if (depth === 0) part = part === 'before' && byte === 0x7b ? 'name' : 'broken'
        depth++
        break
      case 0x7d:
      case 0x5d:
        if (depth === 1) {
          endMember()
          part = byte === 0x7d ? 'after' : 'broken'
        }
        depth--
        break
      default:
        // Outside of the object, or where only a name may stand.
        if (byte > 0x20 && (depth === 0 || (depth === 1 && part === 'name'))) part = 'broken'
    }
  }

  return {
    feed(bytes) {
      for (const byte of bytes) {
        if (part === 'broken') return
        if (!inString) {
          if (depth < 1 && (byte === QUOTE || byte === COLON || byte === COMMA)) part = 'broken'
          const keeps = kept !== null
          outside(byte)
          if (keeps && kept !== null && kept.length < mostKept) kept.push(byte)
          continue
        }
        if (kept !== null && kept.length < mostKept) kept.push(byte)
        if (escaped) escaped = false
        else if (byte === BACKSLASH) escaped = true
        else if (byte === QUOTE) {
          inString = false
          endString()
        }
      }
    },
    found() {
      const request = members.has('method') && !members.has('result') && !members.has('error')
      return part === 'after' && depth === 0 && request && ids.length === 1 ? (ids[0] ?? null) : null
    },
  }
}

/** The id a line is answered under, whether it can be read or not. */
export function requestIdIn(line: Uint8Array): RequestId | null {
  const finder = openIdFinder()
  finder.feed(line)
  return finder.found()
}

/** What a name or an id says, or null where it is no JSON. */
function decoded(kept: readonly number[] | null): unknown {
  if (kept === null) return null
  const bytes = Buffer.from(kept)
  try {
    return isUtf8(bytes) ? (JSON.parse(bytes.toString('utf8')) as unknown) : null
  } catch {
    // Not this function's to judge: what is none has no id.
    return null
  }
}

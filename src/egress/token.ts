import { Refusal } from './refusal.ts'

/** Larger answers are searched for token fields as text only. */
const mostParsedBytes = 1_048_576

/** Members whose text is a token, as OAuth servers (RFC 6749 §5.1), Vault and others name them; case, `_` and `-` aside. */
const names: ReadonlySet<string> = new Set([
  'accesstoken',
  'refreshtoken',
  'idtoken',
  'clienttoken',
  'authtoken',
  'sessiontoken',
  'apitoken',
])
/** `token` alone, as forges and registries name theirs, is the word for much else: its text has to look like one. */
const bareName = 'token'
const shortestBare = 16

/** No name begins with an escaped quote: so no text is read again for each of a row of them. */
const members = /(?<!\\)("(?:[^"\\]|\\.){5,160}")\s*:\s*("(?:[^"\\]|\\.){0,10000}")/g

function isToken(name: string, value: string): boolean {
  const plain = name.toLowerCase().replaceAll(/[_-]/g, '')
  if (names.has(plain)) return value !== ''
  return plain === bareName && value.length >= shortestBare && /^[\u0021-\u007e]*$/.test(value)
}

/**
 * The tokens of an answer: values of such members in JSON of any depth or in a form. Throws `response_token` for JSON
 * that is too deep to be walked.
 */
export function tokensOf(contentType: string, body: Buffer): ReadonlySet<string> {
  const found = new Set<string>()
  const text = body.toString('utf8')
  if (!/token/i.test(text) && !text.includes('\\u')) return found
  const see = (name: string, value: unknown): void => {
    if (typeof value === 'string' && isToken(name, value)) found.add(value)
  }
  if (/^application\/x-www-form-urlencoded/i.test(contentType))
    for (const [name, value] of new URLSearchParams(text)) see(name, value)
  // As text too: a parser keeps only the last of two equal names, and the reader sees both.
  for (const [, name = '', value = ''] of text.matchAll(members))
    if (/token|\\/i.test(name)) see(String(parsed(name)), parsed(value))
  if (body.length <= mostParsedBytes) parsed(text, see)
  return found
}

/** The JSON value, or undefined where it is none. */
function parsed(text: string, see: (name: string, value: unknown) => void = () => {}): unknown {
  try {
    return JSON.parse(text, (name: string, value: unknown) => {
      see(name, value)
      return value
    }) as unknown
  } catch (failure) {
    if (failure instanceof SyntaxError) return undefined
    // Too deep to be walked, so nobody can say what is in it.
    throw new Refusal('response_token')
  }
}

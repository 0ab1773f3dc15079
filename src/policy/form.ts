/**
 * A form checks a value and writes its RFC 8785 text in one pass, so that the text cannot be of anything that was not
 * checked. `where` names the place for the operator. Throws `NotInForm`, and nothing else for plain values.
 */
export type Form = (value: unknown, where: string) => string

/** The message names the place and the rule, never what was found there. */
export class NotInForm extends Error {}

const plainText = /^[ !#-[\]-~]*$/

function refuse(where: string, what: string): never {
  throw new NotInForm(where === '' ? what : `${where}: ${what}`)
}

function quoted(text: string, where: string, what: string): string {
  if (plainText.test(text)) return `"${text}"`
  if (!text.isWellFormed()) refuse(where, `${what} with a lone surrogate`)
  return JSON.stringify(text)
}

/** Any I-JSON made of plain arrays and objects. Never recurses deeper than `depth`. */
export function write(value: unknown, depth: number, where = ''): string {
  switch (typeof value) {
    case 'string':
      return quoted(value, where, 'a string')
    case 'number':
      if (!Number.isFinite(value)) refuse(where, 'a number that JSON does not have')
      return JSON.stringify(value)
    case 'boolean':
      return value ? 'true' : 'false'
    case 'object':
      break
    case 'undefined':
    case 'function':
    case 'symbol':
    case 'bigint':
      refuse(where, 'a value that JSON does not have')
  }
  if (value === null) return 'null'
  if (depth === 0) refuse(where, 'too many levels')
  if (Array.isArray(value)) {
    let text = '['
    // An index loop meets the holes of a sparse array, which `map` would step over.
    for (let at = 0; at < value.length; at++) text += `${at === 0 ? '' : ','}${write(value[at], depth - 1, where)}`
    return `${text}]`
  }
  let text = '{'
  for (const key of Object.keys(plain(value, where)).sort()) {
    if (key === '__proto__') refuse(where, 'a key named __proto__')
    const member = write((value as Record<string, unknown>)[key], depth - 1, where)
    text += `${text === '{' ? '' : ','}${quoted(key, where, 'a key')}:${member}`
  }
  return `${text}}`
}

function plain(value: unknown, where: string): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) refuse(where, 'not an object')
  const prototype: unknown = Object.getPrototypeOf(value)
  if (prototype !== Object.prototype && prototype !== null) refuse(where, 'an object that is not plain')
  return value as Record<string, unknown>
}

export const text: Form = (value, where) =>
  typeof value === 'string' ? quoted(value, where, 'a string') : refuse(where, 'not a string')

export const name: Form = (value, where) => (value === '' ? refuse(where, 'empty') : text(value, where))

export function pattern(wanted: RegExp): Form {
  return (value, where) =>
    typeof value === 'string' && wanted.test(value) ? text(value, where) : refuse(where, 'not spelled as it must be')
}

export const number: Form = (value, where) =>
  typeof value === 'number' && Number.isFinite(value) ? JSON.stringify(value) : refuse(where, 'not a number')

/** A whole number from 0 to `most`. */
export function count(most: number = Number.MAX_SAFE_INTEGER): Form {
  return (value, where) =>
    typeof value === 'number' && Number.isSafeInteger(value) && value >= 0 && value <= most
      ? JSON.stringify(value)
      : refuse(where, 'not a count')
}

export function word(...words: readonly string[]): Form {
  const known = new Map<unknown, string>(words.map((one) => [one, JSON.stringify(one)]))
  return (value, where) => known.get(value) ?? refuse(where, 'not one of the words for it')
}

export function nullable(form: Form): Form {
  return (value, where) => (value === null ? 'null' : form(value, where))
}

export function list(form: Form): Form {
  return (value, where) => {
    if (!Array.isArray(value)) refuse(where, 'not a list')
    let written = ''
    for (let at = 0; at < value.length; at++)
      written += at === 0 ? form(value[at], where) : `,${form(value[at], where)}`
    return `[${written}]`
  }
}

/** Exactly these members. */
export function object(members: Readonly<Record<string, Form>>): Form {
  const known = Object.keys(members)
    .sort()
    .map((key, at) => ({
      key,
      form: members[key] ?? refuse(key, 'no form'),
      head: `${at === 0 ? '' : ','}${JSON.stringify(key)}:`,
    }))
  return (value, where) => {
    const given = plain(value, where)
    let written = '{'
    for (const { key, form, head } of known) {
      // Only what the object itself has: an inherited member is none.
      if (!Object.hasOwn(given, key)) refuse(where, `without ${key}`)
      written += head + form(given[key], key)
    }
    if (Object.keys(given).length !== known.length) refuse(where, 'a member that is not known')
    return `${written}}`
  }
}

/** An object whose members are not known, of at most `depth` levels. */
export function free(depth: number): Form {
  return (value, where) => write(plain(value, where), depth, where)
}

/** An object of any names, each with a text. */
export const texts: Form = (value, where) => {
  for (const member of Object.values(plain(value, where))) text(member, where)
  return write(value, 1, where)
}

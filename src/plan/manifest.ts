import { parse as parseToml } from 'smol-toml'
import type { Json, JsonObject } from '../digest.ts'

/** A manifest's object, or null where there is none that can be read. */
export function readJson(contents: ReadonlyMap<string, string>, name: string): JsonObject | null {
  return parsed(contents.get(name) ?? null, name, asJson)[0]
}

export function readToml(contents: ReadonlyMap<string, string>, name: string): JsonObject | null {
  return parsed(contents.get(name) ?? null, name, asToml)[0]
}

/** The object under that name of an object, or an empty one. */
export function member(value: JsonObject | null, name: string): JsonObject {
  const found = value !== null && Object.hasOwn(value, name) ? value[name] : null
  return typeof found === 'object' && found !== null && !Array.isArray(found) ? (found as JsonObject) : {}
}

export const asJson = (text: string): Json => JSON.parse(text) as Json
export const asToml = (text: string): Json => parseToml(text, { integersAsBigInt: 'asNeeded' }) as Json

/** A manifest's object, or what is wrong with it. */
export function parsed(
  text: string | null,
  name: string,
  parse: (text: string) => Json,
): readonly [JsonObject | null, string | null] {
  if (text === null) return [null, `${name} is larger than 256 KiB or was not read`]
  try {
    const value = parse(text)
    return typeof value === 'object' && value !== null && !Array.isArray(value)
      ? [value as JsonObject, null]
      : [null, `${name} does not hold an object`]
  } catch (error) {
    // Both parsers throw plain Errors, and RangeError where nesting exhausts the stack: unreadable either way.
    if (!(error instanceof Error)) throw error
    return [null, `${name} cannot be parsed`]
  }
}

import { defaultCodes, elementKeys, setNames } from './pack.ts'
import type { PackFile, SetName } from './pack.ts'

/**
 * The generated module with the entry point. It gathers the pack's sets into one object that has every key, names each
 * rule by `{id, title, code, remedy}`, and puts null where an element leaves an optional field out. Every reading of an
 * element goes through object.get: an element must never vanish because a part of it is missing.
 */
export function wrapper(pack: string): PackFile {
  const sets = setNames.map(
    (set) => `\t"${set}": {element | some x in data.writ.pack.${pack}.${set}; element := ${element(set)}},`,
  )
  const text = `package writ

main := {
${sets.join('\n')}
}

named(kind_code, rule) := {
	"id": object.get(rule, ["custom", "id"], ""),
	"title": object.get(rule, "title", ""),
	"code": object.get(rule, ["custom", "code"], kind_code),
	"remedy": object.get(rule, ["custom", "remedy"], ""),
}
`
  return { path: 'writ/main.rego', text }
}

function element(set: SetName): string {
  const rule = `named("${defaultCodes[set]}", object.get(x, "rule", {}))`
  // object.union merges deeply, so the raw rule has to go first.
  if (set === 'limit') return `object.union(object.remove(x, ["rule"]), {"rule": ${rule}})`
  const { required, optional } = elementKeys[set]
  const rest = [...required, ...optional].map(
    (key) => `"${key}": object.get(x, "${key}", ${key === 'properties' ? '{}' : 'null'})`,
  )
  return `{${[`"rule": ${rule}`, ...rest].join(', ')}}`
}

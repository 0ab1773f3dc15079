import { readFileSync, statSync } from 'node:fs'
import { basename, dirname, join, resolve } from 'node:path'
import type { Digest } from '../digest.ts'
import { digestJson } from '../digest.ts'
import { systemCode, WritError } from '../error.ts'
import { pathProblem, showPath } from '../request/files.ts'
import { locateYaml } from '../yaml.ts'
import type { Path } from '../yaml.ts'
import { maxOperatorFileBytes, readCredential, readIntent, readTarget } from './entries.ts'
import type { Target } from './entries.ts'
import { builtinIntents } from './intents.ts'
import type { Intent } from './intents.ts'
import { limitSettings } from './limits.ts'
import type { LimitSettings } from './limits.ts'
import type { PlanCredential } from './plan.ts'
import { catalogSchema } from './schema.ts'

/** What the operator offers, resolved and checked; immutable. An edit makes the next one. */
export interface Catalog {
  readonly targets: ReadonlyMap<string, Target>
  readonly credentials: ReadonlyMap<string, PlanCredential>
  /** The built-in ones and the operator's. */
  readonly intents: ReadonlyMap<string, Intent>
  readonly limits: LimitSettings
  /** Bytes of the files that the operator's intents bring along; the broker stores them as artifacts before a run. */
  readonly files: ReadonlyMap<Digest, Uint8Array>
  /** Absolute paths of everything it was read from, to watch for an edit. */
  readonly sources: readonly string[]
  /** Digest over all entries. */
  readonly generation: Digest
}

/**
 * Reads `catalog.yaml` and the files it names.
 * @param path the file
 * @param limits defaults and maxima of `writ.yaml`
 * @param sources filled with `sources` of the catalog, as far as it came where it is refused
 * @throws WritError `invalid_catalog`, its message `FILE:LINE:COLUMN: …`
 */
export function loadCatalog(
  path: string,
  limits: LimitSettings = limitSettings(),
  sources: Set<string> = new Set(),
): Catalog {
  const absolute = resolve(path)
  sources.add(absolute)
  const file = basename(absolute)
  const located = locateYaml(readText(absolute, file), file, catalogSchema, 'invalid_catalog')
  const files = new Map<Digest, Uint8Array>()
  const readBeside = (name: string, at: Path): Buffer => {
    const problem = pathProblem(name)
    if (problem !== null) throw located.fail(at, `${showPath(name)}: ${problem}`)
    const full = join(dirname(absolute), name)
    sources.add(full)
    return readBytes(full, (what) => located.fail(at, `${showPath(name)} ${what}`))
  }
  const credentials = new Map(
    Object.entries(located.value.credentials ?? {}).map(([name, given]) => [
      name,
      readCredential(name, given, located),
    ]),
  )
  const intents = new Map(builtinIntents)
  for (const [name, given] of Object.entries(located.value.intents ?? {})) {
    if (builtinIntents.has(name)) throw located.fail(['intents', name], `"${name}" is the name of a built-in intent`)
    intents.set(name, readIntent(name, given, located, readBeside, files))
  }
  const targets = new Map(
    Object.entries(located.value.targets).map(([ref, given]) => [
      ref,
      readTarget(ref, given, { located, credentials, intents, limits, readBeside }),
    ]),
  )
  const parts = { targets, credentials, intents, limits, files, sources: [...sources] }
  const generation = digestJson({
    targets: [...targets.values()],
    credentials: [...credentials.values()],
    intents: [...intents.values()],
    limits,
  })
  return deepFreeze({ ...parts, generation })
}

/**
 * Digest of one entry's resolved content: `target:NAME`, `credential:NAME`, `intent:NAME` or `limits`; null where the
 * catalog has no such entry.
 */
export function entryDigest(catalog: Catalog, entry: string): Digest | null {
  const colon = entry.indexOf(':')
  const kind = colon < 0 ? entry : entry.slice(0, colon)
  const name = entry.slice(colon + 1)
  const content =
    kind === 'target'
      ? catalog.targets.get(name)
      : kind === 'credential'
        ? catalog.credentials.get(name)
        : kind === 'intent'
          ? catalog.intents.get(name)
          : entry === 'limits'
            ? catalog.limits
            : undefined
  return content === undefined ? null : digestJson(content)
}

function readText(path: string, file: string): string {
  const bytes = readBytes(path, (what) => new WritError('invalid_catalog', `${file}:1:1: the catalog ${what}`))
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch {
    throw new WritError('invalid_catalog', `${file}:1:1: the file is not UTF-8`)
  }
}

function readBytes(path: string, wrong: (what: string) => WritError): Buffer {
  try {
    const found = statSync(path)
    if (!found.isFile()) throw wrong('is not a regular file')
    if (found.size > maxOperatorFileBytes) throw wrong('is larger than 16 MiB')
    return readFileSync(path)
  } catch (error) {
    if (error instanceof WritError) throw error
    throw wrong(
      systemCode(error) === 'ENOENT' ? 'does not exist' : `cannot be read (${systemCode(error) ?? 'unknown'})`,
    )
  }
}

function deepFreeze<T>(value: T): T {
  if (value instanceof Map) for (const entry of value.values()) deepFreeze(entry)
  else if (typeof value === 'object' && value !== null && !ArrayBuffer.isView(value) && !Object.isFrozen(value)) {
    Object.freeze(value)
    for (const entry of Object.values(value)) deepFreeze(entry)
  }
  return value
}

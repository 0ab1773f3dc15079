import { isDeepStrictEqual } from 'node:util'
import type { JsonObject } from '../../digest.ts'
import type { EngineContainer } from './client.ts'

/*
 * What the engine says it made is held against what was asked: an engine may know a member by another name, drop what it
 * cannot do with no more than a warning, or fill in a default of its own, and each of that would be a weaker sandbox.
 */

type Fields = Readonly<Record<string, unknown>>

/** Members whose defaults are no weakness: what Windows and consoles have, sizes of folders that are not mounted. */
const harmless: ReadonlySet<string> = new Set(['ShmSize', 'ConsoleSize', 'Isolation', 'CpuCount', 'CpuPercent'])

/** Folders of /proc that an unmasked container could read the machine by (an empty list unmasks, and no engine says so). */
const masked = ['/proc/kcore', '/proc/keys', '/proc/timer_list', '/sys/firmware']
const readOnly = ['/proc/sys', '/proc/sysrq-trigger', '/proc/irq', '/proc/bus']

/** Names the first member that is not what was asked for, or null. Nobody but the operator is to see it. */
export function difference(asked: JsonObject, made: EngineContainer): string | null {
  const { HostConfig: askedHost, Labels: askedLabels, Env: _env, ...askedConfig } = asked
  return (made.Mounts?.length ?? 0) > 0
    ? 'Mounts'
    : Object.keys(made.NetworkSettings?.Networks ?? {}).some((name) => name !== 'none')
      ? 'Networks'
      : (differs('HostConfig', askedHost as Fields, made.HostConfig, hostDefault) ??
        differs('Config', askedConfig, made.Config, configDefault) ??
        labels(askedLabels as Fields, made.Config['Labels']))
}

function differs(
  where: string,
  asked: Fields,
  made: Fields,
  isDefault: (name: string, value: unknown, asked: Fields) => boolean,
): string | null {
  for (const [name, value] of Object.entries(asked)) if (!same(value, made[name])) return `${where}.${name}`
  for (const [name, value] of Object.entries(made))
    if (!Object.hasOwn(asked, name) && !isDefault(name, value, asked)) return `${where}.${name}`
  return null
}

/** An engine leaves out what is empty, and adds members to what it was given in lists and tables. */
function same(asked: unknown, made: unknown): boolean {
  if (isEmpty(asked)) return isEmpty(made)
  if (Array.isArray(asked))
    return Array.isArray(made) && made.length === asked.length && asked.every((item, at) => same(item, made[at]))
  if (isTable(asked)) {
    if (!isTable(made)) return false
    return (
      Object.entries(asked).every(([name, value]) => same(value, made[name])) &&
      Object.entries(made).every(([name, value]) => Object.hasOwn(asked, name) || isEmpty(value))
    )
  }
  return isDeepStrictEqual(asked, made)
}

function hostDefault(name: string, value: unknown): boolean {
  switch (name) {
    case 'MaskedPaths':
      return holds(value, masked)
    case 'ReadonlyPaths':
      return holds(value, readOnly)
    case 'Runtime':
      // Not asked for: the engine's own, whose name is told by `info`.
      return typeof value === 'string'
    case 'MemorySwappiness':
      return value === null || value === -1 || value === 0
    default:
      return harmless.has(name) || isEmpty(value)
  }
}

/** The image's own environment and command line's rest come with it; none of it is handed to a step. */
function configDefault(name: string, value: unknown): boolean {
  return name === 'Labels' || name === 'Env' || name === 'ArgsEscaped' || name === 'Shell' || isEmpty(value)
}

/** The image may have labels; the owner is the one that was asked for. */
function labels(asked: Fields, made: unknown): string | null {
  return isTable(made) && Object.entries(asked).every(([name, value]) => made[name] === value) ? null : 'Config.Labels'
}

function holds(value: unknown, needed: readonly string[]): boolean {
  return Array.isArray(value) && needed.every((path) => value.includes(path))
}

function isEmpty(value: unknown): boolean {
  if (value === undefined || value === null || value === '' || value === 0 || value === false) return true
  if (Array.isArray(value)) return value.every(isEmpty)
  return isTable(value) && Object.keys(value).length === 0
}

function isTable(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

import type { Json, JsonObject } from '../../../src/digest.ts'

/** One generated message and what has to become of it: an answer under its id, one under none, no answer, or either. */
export interface Fuzzed {
  readonly bytes: Buffer
  readonly id: string
  readonly expects: 'id' | 'null' | 'none' | 'any'
  /** What it is a case of, for the report. */
  readonly family: string
}

export interface Tool {
  readonly name: string
  readonly schema: JsonObject
}

/** Numbers from a seed (mulberry32): a campaign can be walked again, as far as answers do not steer it. */
export function dice(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

const methods = [
  'initialize',
  'ping',
  'server/discover',
  'tools/list',
  'tools/call',
  'resources/list',
  'resources/templates/list',
  'resources/read',
]
const foreign = [
  '',
  'tools/cal',
  'sampling/createMessage',
  'logging/setLevel',
  '__proto__',
  'constructor',
  'rpc.discover',
]
const envelope = {
  'io.modelcontextprotocol/protocolVersion': '2026-07-28',
  'io.modelcontextprotocol/clientCapabilities': {},
  'io.modelcontextprotocol/clientInfo': { name: 'fuzz', version: '1' },
}
const words: readonly string[] = [
  '',
  ' ',
  'sandbox',
  'production',
  'run_script',
  'a.js',
  '../a.js',
  '.',
  '..',
  'a/../../b',
  'C:\\a',
  'con',
  '__proto__',
  'toString',
  'é\u0301\u202e\u200b',
  '\u0000\u001b[31m',
  '%00%2e%2e%2f',
  "'; DROP TABLE steps; --",
  '{{7*7}}${7*7}',
  'x'.repeat(129),
  'x'.repeat(5000),
  '-1',
  'NaN',
  'start',
  'sha256:'.padEnd(71, '0'),
]
const numbers: readonly number[] = [
  0,
  -0,
  1,
  -1,
  2,
  20,
  255,
  65_536,
  2 ** 31,
  2 ** 53 - 1,
  -(2 ** 53),
  1e308,
  0.5,
  1e-7,
]

/** Makes messages; `seen` holds ids that answers brought up, so that later ones reach what there is. */
export function makeMessages(options: {
  readonly seed: number
  readonly prefix: string
  readonly tools: readonly Tool[]
  readonly seen: string[]
  /** How many of the requests say in their envelope that they need no session. */
  readonly stateless: number
}): () => Fuzzed {
  const { tools, seen, prefix } = options
  const roll = dice(options.seed)
  const below = (n: number): number => Math.floor(roll() * n)
  const pick = <T>(list: readonly T[]): T => list[below(list.length)] as T
  const chance = (part: number): boolean => roll() < part
  let count = 0

  const text = (): string => (chance(0.3) && seen.length > 0 ? pick(seen) : pick(words))
  const any = (depth: number): Json => {
    switch (below(depth > 3 ? 5 : 7)) {
      case 0:
        return null
      case 1:
        return chance(0.5)
      case 2:
        return pick(numbers)
      case 5:
        return Array.from({ length: below(4) }, () => any(depth + 1))
      case 6:
        return Object.fromEntries(Array.from({ length: below(4) }, (_, at) => [`${text()}${at}`, any(depth + 1)]))
      default:
        return text()
    }
  }
  /** A value by its schema, or, now and then, one that is not. */
  const fitting = (schema: JsonObject, name: string, depth: number): Json => {
    if (chance(0.06)) return any(depth)
    if (Array.isArray(schema['enum'])) return chance(0.9) ? pick(schema['enum']) : text()
    switch (String(schema['type'])) {
      case 'string':
        return byName(name) ?? text()
      case 'integer':
      case 'number':
        // A wait that is real would hold a place of the campaign.
        return name === 'wait_ms' ? pick([0, 1, 10, -1, 0.5, 50_001]) : pick(numbers)
      case 'boolean':
        return chance(0.5)
      case 'array':
        return Array.from({ length: below(3) }, () => fitting((schema['items'] ?? {}) as JsonObject, name, depth + 1))
      case 'object':
        return objectBy(schema, depth)
      default:
        return any(depth)
    }
  }
  const byName = (name: string): string | null => {
    if (chance(0.2)) return null
    if (name === 'target_ref') return pick(['sandbox', 'production'])
    if (name === 'execution_intent') return 'run_script'
    if (name === 'path') return pick(['a.js', 'lib/b.js'])
    if (name === 'content') return 'console.log(1)\n'
    if (name.endsWith('_id')) return seen.length === 0 ? null : pick(seen)
    return null
  }
  const objectBy = (schema: JsonObject, depth: number): JsonObject => {
    const properties = (schema['properties'] ?? {}) as { readonly [name: string]: JsonObject }
    const required = Array.isArray(schema['required']) ? schema['required'] : []
    const made = new Map<string, Json>()
    for (const [name, one] of Object.entries(properties))
      if (required.includes(name) ? chance(0.95) : chance(0.3)) made.set(name, fitting(one, name, depth + 1))
    if (chance(0.05)) made.set(text(), any(depth))
    return Object.fromEntries(made)
  }
  const paramsOf = (method: string): JsonObject => {
    const meta = chance(options.stateless) ? { _meta: chance(0.95) ? envelope : (any(0) as JsonObject) } : {}
    switch (method) {
      case 'tools/call': {
        const tool = pick(tools)
        return {
          name: chance(0.95) ? tool.name : text(),
          arguments: chance(0.97) ? objectBy(tool.schema, 0) : any(0),
          ...meta,
        }
      }
      case 'resources/read':
        return { uri: chance(0.7) ? `writ://${pick(['receipts', 'artifacts'])}/${text()}` : text(), ...meta }
      case 'initialize':
        return {
          protocolVersion: pick(['2025-11-25', '2025-06-18', '1999-01-01', text()]),
          capabilities: {},
          clientInfo: { name: text(), version: '1' },
        }
      default:
        return chance(0.9) ? meta : objectBy({ properties: { cursor: { type: 'string' } } }, 0)
    }
  }

  return () => {
    const id = `${prefix}${String(count++)}`
    const fuzzed = (family: string, expects: Fuzzed['expects'], bytes: Buffer | string): Fuzzed => ({
      family,
      expects,
      id,
      bytes: typeof bytes === 'string' ? Buffer.from(bytes) : bytes,
    })
    const method = chance(0.75) ? 'tools/call' : pick(methods)
    const request = { jsonrpc: '2.0', id, method, params: paramsOf(method) }
    const line = JSON.stringify(request)
    const kind = roll()
    // Some numbers and names are no I-JSON: such a message is refused, under its id all the same.
    if (kind < 0.8) return fuzzed(method, 'id', line)
    if (kind < 0.83) return fuzzed('unknown method', 'id', JSON.stringify({ ...request, method: pick(foreign) }))
    if (kind < 0.86) {
      const note = {
        jsonrpc: '2.0',
        method: pick(['notifications/initialized', 'notifications/cancelled', 'notifications/x']),
      }
      return fuzzed('notification', 'none', JSON.stringify({ ...note, params: { requestId: `none-${id}` } }))
    }
    if (kind < 0.88)
      return fuzzed('answer nobody asked for', 'none', JSON.stringify({ jsonrpc: '2.0', id, result: {} }))
    if (kind < 0.9) return fuzzed('batch', 'null', `[${line}]`)
    if (kind < 0.92) return fuzzed('member twice', 'null', `${line.slice(0, -1)},"id":"${id}"}`)
    if (kind < 0.94) return fuzzed('cut', 'null', line.slice(0, 1 + below(line.length - 1)))
    if (kind < 0.95) return fuzzed('too deep', 'null', `${'['.repeat(70)}${']'.repeat(70)}`)
    if (kind < 0.97)
      return fuzzed(
        'strange id',
        'null',
        JSON.stringify({ ...request, id: pick([null, 1.5, {}, [], true, 'x'.repeat(129)]) }),
      )
    // Bytes changed behind the id, so that it is known whose answer would be whose.
    const bytes = Buffer.from(line)
    const from = bytes.indexOf('"method"')
    for (let changes = 1 + below(4); changes > 0; changes--) {
      const value = below(256)
      bytes[from + below(bytes.length - from)] = value === 10 || value === 13 ? 0xff : value
    }
    return fuzzed('bytes', 'any', bytes)
  }
}

import { createHash, randomBytes, randomUUID } from 'node:crypto'
import { setTimeout as timer } from 'node:timers'
import { callBytes, callQuota, fetchLimits, maxPayload } from './wire.ts'

/** What the guest's calls do outside the isolate; the worker's side of `prelude.ts`. */
export interface Surroundings {
  print(stream: 'stdout' | 'stderr', text: string): void
  /** True while the pipe is too full for more output. */
  readonly congested: boolean
  fetch(id: number, method: string, url: string, headers: readonly (readonly [string, string])[], body: Buffer): void
  unfetch(id: number): void
  /** Runs the guest's callback of that number. */
  wake(id: number): void
  exit(code: number): void
  done(): void
  exhausted(): void
}

export interface BridgeLimits {
  /** Bytes of all outputs together. */
  readonly outputs: number
}

const maxOutputs = 1000
const maxTimers = 10_000
const digests: ReadonlyMap<string, string> = new Map([
  ['SHA-1', 'sha1'],
  ['SHA-256', 'sha256'],
  ['SHA-384', 'sha384'],
  ['SHA-512', 'sha512'],
])
const urlParts = [
  'href',
  'origin',
  'protocol',
  'username',
  'password',
  'host',
  'hostname',
  'port',
  'pathname',
  'search',
  'hash',
] as const

/**
 * Takes the guest's calls: text in, text out. Nothing the guest hands over is looked at before its type and size are
 * checked; no error of the host ever leaves, only an answer.
 */
export function openBridge(around: Surroundings, outputs: Map<string, Buffer>, limits: BridgeLimits) {
  let calls = 0
  let closed = false
  let bytes: Buffer[] = []
  let held = 0
  const timers = new Map<number, NodeJS.Timeout>()
  /** Those that nobody waits for. */
  const idle = new Set<number>()
  const maxHeld = Math.max(limits.outputs, 8 * 1024 * 1024)

  function takeBytes(): Buffer | null {
    const all = held > maxHeld ? null : Buffer.concat(bytes)
    bytes = []
    held = 0
    return all
  }

  function write(path: string): string {
    const data = takeBytes()
    const name = outputName(path)
    if (name === null) return 'outputs go under /out: relative parts, no "..", no control characters, at most 512 bytes'
    let total = data?.length ?? 0
    for (const [other, known] of outputs) if (other !== name) total += known.length
    if (data === null || total > limits.outputs)
      return `the outputs of a run may hold ${limits.outputs / 1024} KB together`
    if (data.length > maxPayload) return `an output may hold ${maxPayload / 1024} KB`
    if (!outputs.has(name) && outputs.size >= maxOutputs) return `a run may have ${maxOutputs} outputs`
    outputs.set(name, data)
    return ''
  }

  function operate(op: string, text: string): string {
    switch (op) {
      case 'stdout':
      case 'stderr':
        around.print(op, text)
        return around.congested ? 'wait' : ''
      case 'bytes':
        held += text.length
        if (held <= maxHeld) bytes.push(Buffer.from(text, 'latin1'))
        return ''
      case 'write':
        return write(text)
      case 'digest': {
        const data = takeBytes()
        const name = digests.get(text.toUpperCase())
        return data === null || name === undefined ? '' : createHash(name).update(data).digest().toString('latin1')
      }
      case 'random':
        return text === 'uuid'
          ? randomUUID()
          : randomBytes(Math.min(Number.parseInt(text, 10) || 0, 65_536)).toString('latin1')
      case 'url':
        return parseUrl(object(text))
      case 'timer': {
        const { id, ms, idle: isIdle } = object(text)
        if (typeof id !== 'number' || typeof ms !== 'number') return 'a timer needs a number'
        if (timers.size >= maxTimers) return `a step may have ${maxTimers} timers`
        if (isIdle === true) idle.add(id)
        timers.set(
          id,
          timer(() => {
            timers.delete(id)
            idle.delete(id)
            around.wake(id)
          }, ms),
        )
        return ''
      }
      case 'untimer': {
        const { id } = object(text)
        if (typeof id === 'number') {
          clearTimeout(timers.get(id))
          timers.delete(id)
          idle.delete(id)
        }
        return ''
      }
      case 'fetch': {
        const body = takeBytes()
        const { id, url, method, headers } = object(text)
        if (body === null) return 'the body of the request is too large'
        if (!isCount(id) || typeof url !== 'string' || typeof method !== 'string' || !pairs(headers))
          return 'fetch needs a URL'
        // What the run host would refuse as a frame is told to the guest here.
        if (url.length > fetchLimits.url) return `the URL is longer than ${fetchLimits.url} characters`
        if (method.length > fetchLimits.method) return `the method is longer than ${fetchLimits.method} characters`
        if (headers.length > fetchLimits.headers) return `a request may have ${fetchLimits.headers} headers`
        if (headers.some(([name, value]) => name.length > fetchLimits.name || value.length > fetchLimits.value))
          return `a header has a name of at most ${fetchLimits.name} and a value of at most ${fetchLimits.value} characters`
        around.fetch(id, method, url, headers, body)
        return ''
      }
      case 'unfetch': {
        const { id } = object(text)
        if (isCount(id)) around.unfetch(id)
        return ''
      }
      case 'exit':
        around.exit(Number.parseInt(text, 10) & 255)
        return ''
      case 'done':
        around.done()
        return ''
      default:
        return 'unknown'
    }
  }

  return {
    /** The guest's only way out. Answers always, and with text only. */
    call(op: unknown, text: unknown): string {
      if (closed || typeof op !== 'string' || typeof text !== 'string') return 'refused'
      calls++
      if (calls > callQuota || text.length > callBytes) {
        closed = true
        around.exhausted()
        return 'refused'
      }
      try {
        return operate(op, text)
      } catch {
        return 'refused'
      }
    },
    /** Timers that have not run, but for idle ones: while there are some, a step whose entry has ended is not over. */
    get pending(): number {
      return timers.size - idle.size
    },
    /** Nothing of the step wakes after this. */
    close(): void {
      closed = true
      for (const pending of timers.values()) clearTimeout(pending)
      timers.clear()
      idle.clear()
    },
  }
}

/** `/out/a/b.txt` → `a/b.txt`, or null where the path is not one an output may have. */
export function outputName(path: string): string | null {
  if (!path.startsWith('/out/')) return null
  const name = path.slice('/out/'.length).normalize('NFC')
  // eslint-disable-next-line no-control-regex -- control characters are exactly what must be refused
  if (!name.isWellFormed() || Buffer.byteLength(name) > 512 || /[\u0000-\u001f\u007f\\]/.test(name)) return null
  return name.split('/').every((part) => part !== '' && part !== '.' && part !== '..') ? name : null
}

function object(text: string): { readonly [key: string]: unknown } {
  const value: unknown = JSON.parse(text)
  if (typeof value !== 'object' || value === null) throw new TypeError('not an object')
  return value as { readonly [key: string]: unknown }
}

function isCount(value: unknown): value is number {
  return typeof value === 'number' && Number.isInteger(value) && value >= 0 && value <= maxPayload
}

function pairs(value: unknown): value is readonly (readonly [string, string])[] {
  return (
    Array.isArray(value) &&
    value.every((pair) => Array.isArray(pair) && pair.length === 2 && pair.every((item) => typeof item === 'string'))
  )
}

function parseUrl(question: { readonly [key: string]: unknown }): string {
  const { input, base, part, value } = question
  if (typeof input !== 'string' || !URL.canParse(input, typeof base === 'string' ? base : undefined)) return ''
  const url = new URL(input, typeof base === 'string' ? base : undefined)
  const known = urlParts.find((name) => name === part)
  if (known !== undefined && known !== 'origin' && typeof value === 'string') {
    if (known === 'href' && !URL.canParse(value)) return ''
    url[known] = value
  }
  return JSON.stringify(Object.fromEntries(urlParts.map((name) => [name, url[name]])))
}

import { type Automaton, buildAutomaton, type Needle } from './automaton.ts'
import { encodingsOf } from './encoding.ts'
import { Normaliser, specialBytes } from './normal.ts'
import { type Known, Redaction, type RedactionStream, type Tables } from './redaction.ts'
import type { Secret } from './secret.ts'

export { encodingsOf } from './encoding.ts'
export type { RedactionStream } from './redaction.ts'

export interface Redactor {
  stream(): RedactionStream
  bytes(input: Uint8Array): { bytes: Buffer; hits: number }
  /** Bytes its tables take in memory. */
  readonly size: number
  /**
   * Adds a derived secret (a token that came back from a service), for open streams too, from their next byte on.
   * A value of fewer than 8 bytes is not taken: `false`, and the caller has to keep it from being seen.
   */
  learn(name: string, value: Uint8Array, placeholder?: string): boolean
  /** The same needles, learned ones included, with these placeholders (by name) instead of the marker. */
  answering(placeholders: Readonly<Record<string, string>>): Redactor
}

/**
 * A redactor for one run, made before the run starts and from all of its values, those that never enter the sandbox
 * included. Each place becomes `[REDACTED:name]`, or the placeholder where one is given.
 */
export function createRedactor(
  secrets: readonly { readonly name: string; readonly value: Secret; readonly placeholder: string | null }[],
): Redactor {
  const known = secrets.map(({ name, value, placeholder }) => ({ name, value: value.reveal(), placeholder }))
  return redactorOver({ known, automaton: compile(known) }, new Map())
}

function compile(known: readonly Known[]): Automaton {
  const needles: Needle[] = []
  for (const [owner, { value }] of known.entries())
    for (const form of encodingsOf(value)) {
      needles.push({ bytes: form, owner })
      const seen: number[] = []
      const normaliser = new Normaliser(
        (byte) => seen.push(byte),
        () => {},
      )
      for (const byte of form) normaliser.take(byte)
      if (normaliser.idle && seen.length >= 8 && seen.length < form.length)
        needles.push({ bytes: Uint8Array.from(seen), owner })
    }
  return buildAutomaton(needles, specialBytes)
}

function redactorOver(tables: Tables, placeholders: ReadonlyMap<string, string>): Redactor {
  const replacement = (owner: number): Buffer => {
    const secret = tables.known[owner]
    const name = secret?.name ?? ''
    return Buffer.from(
      placeholders.get(name) ?? secret?.placeholder ?? `[REDACTED:${name.replaceAll(/[^\w.-]/g, '_')}]`,
    )
  }
  return {
    stream: () => new Redaction(tables, replacement),
    bytes(input) {
      const stream = new Redaction(tables, replacement)
      const bytes = Buffer.concat([stream.write(input), stream.flush()])
      return { bytes, hits: stream.hits }
    },
    get size() {
      return tables.automaton.size
    },
    learn(name, value, placeholder) {
      if (value.length < 8) return false
      if (tables.known.some((secret) => Buffer.compare(secret.value, value) === 0)) return true
      tables.known.push({ name, value: Uint8Array.from(value), placeholder: placeholder ?? null })
      tables.automaton = compile(tables.known)
      return true
    },
    answering: (given) => redactorOver(tables, new Map(Object.entries(given))),
  }
}

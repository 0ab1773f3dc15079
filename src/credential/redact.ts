import { type Automaton, buildAutomaton, type Needle } from './automaton.ts'
import { encodingsOf, mainEncodingsOf, shortestNeedle } from './encoding.ts'
import { Normaliser, specialBytes } from './normal.ts'
import { type Known, Redaction, type RedactionStream, type Tables } from './redaction.ts'
import type { Secret } from './secret.ts'

export { encodingsOf } from './encoding.ts'
export type { RedactionStream } from './redaction.ts'

export interface Derived {
  readonly name: string
  readonly value: Uint8Array
  readonly placeholder: string | null
}

export interface Redactor {
  stream(): RedactionStream
  bytes(input: Uint8Array): { bytes: Buffer; hits: number }
  /** Bytes its tables take in memory. */
  readonly size: number
  /**
   * Adds derived secrets (tokens of one answer of a service) in their main forms, for open streams too, from their next
   * byte on. Where one has fewer than 8 bytes none is taken: `false`, and the caller has to keep them from being seen.
   */
  learn(derived: readonly Derived[]): boolean
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
  const known = secrets.map(({ name, value, placeholder }) => {
    const bytes = value.reveal()
    return { name, value: bytes, placeholder, needles: needlesOf(encodingsOf(bytes)) }
  })
  return redactorOver({ known, automaton: compile(known) }, new Map())
}

function compile(known: readonly Known[]): Automaton {
  const needles: Needle[] = []
  for (const [owner, secret] of known.entries()) for (const bytes of secret.needles) needles.push({ bytes, owner })
  return buildAutomaton(needles, specialBytes)
}

/** Each form, and what is left of it where its own line ends and escapes are not seen. */
function needlesOf(forms: readonly Uint8Array[]): readonly Uint8Array[] {
  return forms.flatMap((form) => {
    const seen: number[] = []
    const normaliser = new Normaliser(
      (byte) => seen.push(byte),
      () => {},
    )
    for (const byte of form) normaliser.take(byte)
    const differs = normaliser.idle && seen.length >= shortestNeedle && seen.length < form.length
    return differs ? [form, Uint8Array.from(seen)] : [form]
  })
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
    learn(derived) {
      if (derived.some(({ value }) => value.length < shortestNeedle)) return false
      const fresh = derived.filter(
        ({ value }) => !tables.known.some((secret) => Buffer.compare(secret.value, value) === 0),
      )
      for (const { name, value, placeholder } of fresh) {
        const own = Uint8Array.from(value)
        tables.known.push({ name, value: own, placeholder, needles: needlesOf(mainEncodingsOf(own)) })
      }
      if (fresh.length > 0) tables.automaton = compile(tables.known)
      return true
    },
    answering: (given) => redactorOver(tables, new Map(Object.entries(given))),
  }
}

import type { Automaton } from './automaton.ts'
import { Normaliser, specialBytes } from './normal.ts'

/**
 * Takes the forms of secrets out of a stream of bytes, however the stream is cut into chunks. A net under the lanes of
 * DESIGN §8, never the boundary. Count and limit what comes out, not what went in: a limit in front of the redactor
 * could cut a secret in two.
 */
export interface RedactionStream {
  /** The bytes that are certain by now; holds back only what may be the beginning of a secret. */
  write(chunk: Uint8Array): Buffer
  /** The rest. The stream may be written again afterwards, as a new one. */
  flush(): Buffer
  /** Places replaced so far. */
  readonly hits: number
}

export interface Known {
  readonly name: string
  readonly value: Uint8Array
  readonly placeholder: string | null
  /** The bytes that it is known by. */
  readonly needles: readonly Uint8Array[]
}

/** Tables shared by all views and streams of one run. */
export interface Tables {
  readonly known: Known[]
  automaton: Automaton
}

interface Match {
  start: number
  end: number
  owner: number
  /** Length of the longest match in it, which names it. */
  length: number
}

/** Most bytes that escape sequences and line ends may put inside of one needle. */
const mostDropped = 16_384

/**
 * One automaton read twice: over the bytes, and over the normalised view. Both readings are in the same state nearly
 * always, and then one step serves both; they part at a byte the normaliser drops and meet again soon after.
 * Positions are absolute in the stream. A position of the normalised view is one of the stream less what was dropped
 * since the readings parted.
 */
export class Redaction implements RedactionStream {
  readonly #tables: Tables
  readonly #replacement: (owner: number) => Buffer
  #automaton: Automaton
  #hits = 0
  /** Bytes not given out yet, and where they begin. */
  #held: Buffer = Buffer.alloc(0)
  #base = 0
  #position = 0
  #state = 0
  #parted = false
  #normalState = 0
  #normalPosition = 0
  /** Dropped since the readings parted: after `at` bytes of the normalised view, `total` bytes in all. */
  #gaps: { at: number; total: number }[] = []
  #matches: Match[] = []
  readonly #normaliser = new Normaliser(
    (byte) => this.#keep(byte),
    (count) => this.#drop(count),
  )

  constructor(tables: Tables, replacement: (owner: number) => Buffer) {
    this.#tables = tables
    this.#replacement = replacement
    this.#automaton = tables.automaton
  }

  get hits(): number {
    return this.#hits
  }

  write(chunk: Uint8Array): Buffer {
    let from = this.#held.length
    const data =
      from === 0 ? Buffer.from(chunk.buffer, chunk.byteOffset, chunk.length) : Buffer.concat([this.#held, chunk])
    if (this.#automaton !== this.#tables.automaton) {
      // Something was learned: what is held is read again with it.
      this.#automaton = this.#tables.automaton
      this.#rewind()
      from = 0
    }
    this.#scan(data, from)
    return this.#give(data, this.#certain())
  }

  flush(): Buffer {
    const rest = this.#give(this.#held, this.#position)
    this.#rewind()
    return rest
  }

  #rewind(): void {
    this.#position = this.#base
    this.#state = 0
    this.#meet()
    this.#normaliser.reset()
  }

  #scan(data: Buffer, from: number): void {
    const { rows, dense, length } = this.#automaton
    const end = data.length
    const base = this.#base
    let at = from
    while (at < end) {
      if (!this.#parted) {
        let state = this.#state
        if (state < dense)
          while (at < end) {
            const next = rows[(state << 8) | (data[at] as number)] as number
            if (next < 0) break
            state = next
            at += 1
          }
        this.#state = state
        if (at >= end) break
        const byte = data[at] as number
        if (!specialBytes.has(byte)) {
          state = this.#automaton.step(state, byte)
          at += 1
          this.#state = state
          if (length[state] !== 0) this.#found(base + at - (length[state] as number), base + at, state)
          continue
        }
        this.#parted = true
        this.#normalState = state
        this.#normalPosition = base + at
      }
      const byte = data[at] as number
      at += 1
      this.#position = base + at
      const state = this.#automaton.step(this.#state, byte)
      this.#state = state
      if (length[state] !== 0) this.#found(base + at - (length[state] as number), base + at, state)
      this.#normaliser.take(byte)
      if (state === this.#normalState && this.#normaliser.idle) this.#meet()
    }
    this.#position = base + end
  }

  #meet(): void {
    this.#parted = false
    if (this.#gaps.length > 0) this.#gaps = []
  }

  #keep(byte: number): void {
    const state = this.#automaton.step(this.#normalState, byte)
    this.#normalState = state
    this.#normalPosition += 1
    const length = this.#automaton.length[state] as number
    if (length === 0) return
    this.#found(this.#raw(this.#normalPosition - length), this.#normalPosition + (this.#gaps.at(-1)?.total ?? 0), state)
  }

  #drop(count: number): void {
    const last = this.#gaps.at(-1)
    const total = (last?.total ?? 0) + count
    if (last !== undefined && last.at === this.#normalPosition) last.total = total
    else {
      this.#gaps.push({ at: this.#normalPosition, total })
      this.#forget()
    }
    const depth = this.#automaton.depth[this.#normalState] as number
    if (depth === 0) return
    const span = this.#normalPosition + total - this.#raw(this.#normalPosition - depth)
    if (span > this.#automaton.longest + mostDropped) this.#normalState = 0
  }

  /** Drops the gaps before any needle that may still end, but one, which holds the count. */
  #forget(): void {
    const { longest } = this.#automaton
    if (this.#gaps.length < 2 * longest + 64) return
    const kept = this.#gaps.findIndex((gap) => gap.at >= this.#normalPosition - longest)
    if (kept > 1) this.#gaps.splice(0, kept - 1)
  }

  /** Where in the stream the byte at this position of the normalised view stands. */
  #raw(normal: number): number {
    let low = 0
    let high = this.#gaps.length
    while (low < high) {
      const middle = (low + high) >> 1
      if ((this.#gaps[middle]?.at ?? 0) <= normal) low = middle + 1
      else high = middle
    }
    return normal + (this.#gaps[low - 1]?.total ?? 0)
  }

  #found(start: number, end: number, state: number): void {
    const match: Match = { start, end, owner: this.#automaton.owner[state] as number, length: end - start }
    for (let last = this.#matches.at(-1); last !== undefined && match.start < last.end; last = this.#matches.at(-1)) {
      this.#matches.pop()
      match.start = Math.min(match.start, last.start)
      match.end = Math.max(match.end, last.end)
      if (last.length >= match.length) {
        match.length = last.length
        match.owner = last.owner
      }
    }
    this.#matches.push(match)
  }

  /** Up to here no needle can begin any more, in either reading. */
  #certain(): number {
    const direct = this.#position - (this.#automaton.depth[this.#state] as number)
    const depth = this.#parted ? (this.#automaton.depth[this.#normalState] as number) : 0
    return depth === 0 ? direct : Math.min(direct, this.#raw(this.#normalPosition - depth))
  }

  #give(data: Buffer, certain: number): Buffer {
    const base = this.#base
    const parts: Buffer[] = []
    let cursor = base
    let done = 0
    for (const match of this.#matches) {
      if (match.end > certain) break
      parts.push(data.subarray(cursor - base, match.start - base), this.#replacement(match.owner))
      cursor = match.end
      done += 1
    }
    this.#matches.splice(0, done)
    this.#hits += done
    // What a match covers is not given out, so it need not be kept while the match may still grow.
    const open = this.#matches[0]
    if (open !== undefined && open.start < certain) {
      parts.push(data.subarray(cursor - base, open.start - base))
      open.start = certain
    } else parts.push(data.subarray(cursor - base, certain - base))
    this.#held = Buffer.from(data.subarray(certain - base))
    this.#base = certain
    return Buffer.concat(parts)
  }
}

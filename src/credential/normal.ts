const lineFeed = 0x0a
const carriageReturn = 0x0d
const escape = 0x1b
const bell = 0x07
/** A control string that has not ended by now is no control string. */
const longestControl = 256

/** The bytes at which the normalised view of a stream may differ from the stream. */
export const specialBytes: ReadonlySet<number> = new Set([lineFeed, carriageReturn, escape, 0xc2, 0xe2, 0xef])

type Mode = 'text' | 'escape' | 'designation' | 'sequence' | 'string' | 'string_escape'

/**
 * Tells, byte by byte, what of a text a reader sees as text: without ANSI escape sequences, line ends, soft hyphens and
 * zero-width or direction marks. `keep` and `drop` are called with the number of raw bytes, in the order of the stream.
 */
export class Normaliser {
  #mode: Mode = 'text'
  #control = 0
  readonly #partial = new Uint8Array(2)
  #partials = 0
  readonly #keep: (byte: number) => void
  readonly #drop: (count: number) => void

  constructor(keep: (byte: number) => void, drop: (count: number) => void) {
    this.#keep = keep
    this.#drop = drop
  }

  /** True between characters and control sequences. */
  get idle(): boolean {
    return this.#mode === 'text' && this.#partials === 0
  }

  reset(): void {
    this.#mode = 'text'
    this.#partials = 0
  }

  take(byte: number): void {
    if (this.#mode === 'text') {
      if (this.#partials > 0) this.#character(byte)
      else this.#fresh(byte)
      return
    }
    this.#control += 1
    if (this.#control > longestControl) this.#mode = 'text'
    switch (this.#mode) {
      case 'text':
        this.#fresh(byte)
        return
      case 'escape':
        // ECMA-48: CSI; the string openers DCS, SOS, OSC, PM, APC; intermediates. After any other the character is kept:
        // a bare escape in front of a secret must not hide its first letter.
        if (byte === 0x5b) this.#mode = 'sequence'
        else if (byte === 0x50 || byte === 0x58 || (byte >= 0x5d && byte <= 0x5f)) this.#mode = 'string'
        else if (byte >= 0x20 && byte <= 0x2f) this.#mode = 'designation'
        else {
          this.#mode = 'text'
          this.#fresh(byte)
          return
        }
        break
      case 'designation':
        if (byte < 0x20 || byte > 0x7e) {
          this.#mode = 'text'
          this.#fresh(byte)
          return
        }
        if (byte > 0x2f) this.#mode = 'text'
        break
      case 'sequence':
        if (byte < 0x20 || byte > 0x7e) {
          this.#mode = 'text'
          this.#fresh(byte)
          return
        }
        if (byte >= 0x40) this.#mode = 'text'
        break
      case 'string':
        if (byte === escape) this.#mode = 'string_escape'
        else if (byte === bell || byte === lineFeed || byte === carriageReturn) this.#mode = 'text'
        break
      case 'string_escape':
        this.#mode = byte === 0x5c ? 'text' : 'string'
        break
    }
    this.#drop(1)
  }

  #fresh(byte: number): void {
    if (byte === lineFeed || byte === carriageReturn) this.#drop(1)
    else if (byte === escape) {
      this.#mode = 'escape'
      this.#control = 0
      this.#drop(1)
    } else if (byte === 0xc2 || byte === 0xe2 || byte === 0xef) {
      this.#partial[0] = byte
      this.#partials = 1
    } else this.#keep(byte)
  }

  /** Goes on with a UTF-8 character that may turn out to be invisible. */
  #character(byte: number): void {
    const [one = 0, two = 0] = this.#partial
    if (
      this.#partials === 1 &&
      ((one === 0xe2 && (byte === 0x80 || byte === 0x81)) || (one === 0xef && byte === 0xbb))
    ) {
      this.#partial[1] = byte
      this.#partials = 2
      return
    }
    const count = this.#partials
    this.#partials = 0
    if (count === 1 ? one === 0xc2 && byte === 0xad : invisible(two, byte)) {
      this.#drop(count + 1)
      return
    }
    this.#keep(one)
    if (count === 2) this.#keep(two)
    this.#fresh(byte)
  }
}

/** U+200B–200F, U+202A–202E, U+2060–2064, U+FEFF by their last two bytes. */
function invisible(two: number, three: number): boolean {
  if (two === 0x80) return (three >= 0x8b && three <= 0x8f) || (three >= 0xaa && three <= 0xae)
  if (two === 0x81) return three >= 0xa0 && three <= 0xa4
  return three === 0xbf
}

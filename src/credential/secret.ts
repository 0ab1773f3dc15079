import { inspect } from 'node:util'
import { WritError } from '../error.ts'

/**
 * A value that prints its name, whatever prints it. `reveal` is the word to search for: the only way to the bytes.
 * Validated where it enters, so that a trailing newline cannot make `fetch` quote it in an error.
 */
export class Secret {
  readonly name: string
  readonly #bytes: Buffer

  private constructor(name: string, bytes: Buffer) {
    this.name = name
    this.#bytes = bytes
  }

  /** One trailing line end is dropped. Rejects fewer than 8 bytes, control characters, and more than 64 KiB. */
  static ingest(name: string, value: Uint8Array | string): Secret {
    const text = Buffer.from(value)
      .toString('utf8')
      .replace(/\r?\n$/, '')
    const bytes = Buffer.from(text, 'utf8')
    if (bytes.length < 8)
      throw new WritError('invalid_secret', `the value of credential "${name}" is shorter than 8 bytes`)
    if (bytes.length > 65_536)
      throw new WritError('invalid_secret', `the value of credential "${name}" is longer than 64 KiB`)
    // eslint-disable-next-line no-control-regex -- control characters are exactly what must be refused
    if (/[\u0000-\u001f\u007f]/.test(text) || text.includes('\ufffd'))
      throw new WritError(
        'invalid_secret',
        `the value of credential "${name}" holds a control character or is not UTF-8`,
      )
    return new Secret(name, bytes)
  }

  reveal(): Buffer {
    return Buffer.from(this.#bytes)
  }

  toString(): string {
    return `[secret:${this.name}]`
  }

  toJSON(): string {
    return this.toString()
  }

  [inspect.custom](): string {
    return this.toString()
  }
}

/**
 * What must not reach a model, a terminal or a reader as it is: controls but tab and line feed, formats (bidi,
 * zero-width, tags, soft hyphen), what renderers ignore (fillers, variation selectors that carry hidden bytes), line and
 * paragraph separators, private use. U+FE0F stays: it is part of ordinary emoji and carries nothing.
 */
const harmful = /(?!\n|\t|\ufe0f)[\p{Cc}\p{Cf}\p{Default_Ignorable_Code_Point}\p{Zl}\p{Zp}\p{Co}\p{Cs}]/gu

/** Colours and the like of a terminal (SGR): pure decoration, so they go without a trace. */
const colour = new RegExp(`${String.fromCharCode(27)}\\[[0-9;:]*m`, 'g')

/** Nearly every text: printable ASCII, in which there is nothing to make harmless. */
const plain = /^[\n\t -~]*$/

/** Shows harmful characters as `\u{…}`; line ends become line feeds, colours go. Idempotent. */
export function neutral(text: string): string {
  if (plain.test(text)) return text
  return text
    .toWellFormed()
    .replace(colour, '')
    .replace(/\r\n?/g, '\n')
    .replace(harmful, (character) => `\\u{${(character.codePointAt(0) ?? 0).toString(16)}}`)
}

/** One harmless line of at most `max` characters. */
export function plainLine(text: string, max: number): string {
  const line = neutral(text).replace(/[\n\t]/g, ' ')
  return line.length <= max ? line : `${line.slice(0, max - 1).toWellFormed()}…`
}

/**
 * Output of a workload as it stands in a result's text: every line marked at its start, so that no line of the output
 * can pass for one of Writ's, whatever it says.
 */
export function fenced(text: string): string {
  const body = neutral(text)
  return (body.endsWith('\n') ? body.slice(0, -1) : body)
    .split('\n')
    .map((line) => `| ${line}`)
    .join('\n')
}

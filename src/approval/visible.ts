/**
 * Text that cannot show one thing and mean another: control, escape, bidirectional, zero-width, tag and other invisible
 * characters are written as `\u{…}`, and so is what renders as nothing. Line feeds and tabs stay. Idempotent, and what
 * `neutral` of the MCP edge leaves as it is: one text, one digest, on every channel.
 */
export function visible(text: string): string {
  return text.replace(unseen, escaped)
}

/** The same for one line: line ends and tabs are written out as well. */
export function visibleLine(text: string): string {
  return visible(text).replaceAll('\n', '\\n').replaceAll('\t', '\\t')
}

/** How many characters of `text` `visible` writes out: where there are any, a reader is told. */
export function unseenCount(text: string): number {
  return text.match(unseen)?.length ?? 0
}

/** Whether a character, alone, is one that `visible` writes out. */
export function isUnseen(code: number): boolean {
  if (code >= 0x20 && code < 0x7f) return false
  return visible(String.fromCodePoint(code)) !== String.fromCodePoint(code)
}

/** A character as `visible` writes it out. */
export function escaped(character: string): string {
  return `\\u{${(character.codePointAt(0) ?? 0).toString(16)}}`
}

// Cc without \n and \t; Cf (bidi, zero-width, soft hyphen, tags); whatever a renderer may ignore (fillers, selectors);
// line and paragraph separators, private use, unassigned, lone surrogates; the blank Braille pattern. U+FE0F stays after
// a pictograph, where it is half of an ordinary emoji; elsewhere it makes two names that look the same.
const unseen =
  /(?!\n|\t)(?:[\p{Cc}\p{Cf}\p{Default_Ignorable_Code_Point}\p{Zl}\p{Zp}\p{Co}\p{Cs}\p{Cn}\u2800](?<!\p{Extended_Pictographic}\ufe0f))/gu

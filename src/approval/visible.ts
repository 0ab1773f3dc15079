/**
 * Text that cannot show one thing and mean another: control, escape, bidirectional, zero-width, tag and other invisible
 * characters are written as `\u{…}`. Line feeds and tabs stay.
 */
export function visible(text: string): string {
  return text.replace(invisible, (character) => `\\u{${(character.codePointAt(0) ?? 0).toString(16)}}`)
}

/** The same for one line: line ends and tabs are written out as well. */
export function visibleLine(text: string): string {
  return visible(text).replaceAll('\n', '\\n').replaceAll('\t', '\\t')
}

// Cc without \n and \t, Cf (bidi, zero-width, soft hyphen, tags), line and paragraph separators, private use, unassigned,
// lone surrogates, and the blank letters and fillers that look like nothing (UTS #39).
const invisible =
  // eslint-disable-next-line no-control-regex -- control characters are exactly what must be shown
  /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\uffa0\ufe00-\ufe0f\u{e0100}-\u{e01ef}]|[\p{Cf}\p{Zl}\p{Zp}\p{Co}\p{Cs}\p{Cn}]/gu

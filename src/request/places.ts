/** Up to this length the engine's own search costs at most this many looks a character. */
const shortest = 32

/**
 * Where `part` (not empty) stands in `text`: the first place, or -1, and how many there are, counted to `most`; overlapping
 * ones count. Linear in both (Knuth, Morris, Pratt): a caller chooses both, and the engine's search takes hours where
 * somebody wants it to.
 */
export function placesOf(text: string, part: string, most: number): { readonly first: number; readonly count: number } {
  const found: number[] = []
  if (part.length <= shortest) {
    for (let at = text.indexOf(part); at >= 0 && found.length < most; at = text.indexOf(part, at + 1)) found.push(at)
    return { first: found[0] ?? -1, count: found.length }
  }
  /** Of each beginning of `part`, how long its longest proper beginning is that it also ends with. */
  const border = new Int32Array(part.length)
  for (let at = 1, length = 0; at < part.length; at++) {
    while (length > 0 && part.charCodeAt(at) !== part.charCodeAt(length)) length = border[length - 1] ?? 0
    if (part.charCodeAt(at) === part.charCodeAt(length)) length++
    border[at] = length
  }
  for (let at = 0, length = 0; at < text.length && found.length < most; at++) {
    while (length > 0 && text.charCodeAt(at) !== part.charCodeAt(length)) length = border[length - 1] ?? 0
    if (text.charCodeAt(at) === part.charCodeAt(length)) length++
    if (length < part.length) continue
    found.push(at + 1 - length)
    length = border[length - 1] ?? 0
  }
  return { first: found[0] ?? -1, count: found.length }
}

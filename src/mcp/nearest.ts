/** The candidate nearest to `name` by edit distance, or null where none is near enough to be meant. */
export function nearest(name: string, candidates: readonly string[]): string | null {
  const wanted = fold(name)
  let best: string | null = null
  let least = Infinity
  for (const candidate of candidates) {
    const other = fold(candidate)
    const contained = wanted.length >= 3 && (other.includes(wanted) || wanted.includes(other))
    const distance = contained ? 1 : editDistance(wanted, other)
    if (distance < least) {
      least = distance
      best = candidate
    }
  }
  return least <= Math.max(1, Math.floor(wanted.length / 3)) ? best : null
}

function fold(name: string): string {
  return name
    .slice(0, 64)
    .toLowerCase()
    .replace(/[^a-z0-9]/g, '')
}

function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++) {
      const replaced = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1)
      next.push(Math.min(replaced, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1))
    }
    row = next
  }
  return row[b.length] ?? Infinity
}

/** One figure of a bench: what was seen, what is to be reached, and how it was had. */
export interface Figure {
  readonly name: string
  readonly figure: string
  readonly goal: string
  readonly reached: boolean
  readonly detail: string
}

/** The value below which this share of the values lies; not a number where there are none. */
export function quantile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN
}

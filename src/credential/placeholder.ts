import { randomBytes } from 'node:crypto'

/** What every placeholder looks like: a fixed length, so that none is part of another. */
export const placeholderPattern = /writ_ph_[0-9a-f]{32}/g
/** The beginning that betrays anything made to look like one. */
export const placeholderPrefix = 'writ_ph_'

/** Stands for a credential inside of one run: `writ_ph_` and 128 random bits in hex. Worth nothing anywhere else. */
export function newPlaceholder(): string {
  return placeholderPrefix + randomBytes(16).toString('hex')
}

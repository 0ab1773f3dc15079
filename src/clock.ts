/** Wall time for records and expiries, monotonic time for deadlines; both in milliseconds. */
export interface Clock {
  now(): number
  monotonic(): number
}

export const systemClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
}
